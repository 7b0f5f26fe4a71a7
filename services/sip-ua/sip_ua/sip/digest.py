"""Digest authentication of our requests (RFC 7616, RFC 8760; RFC 2617 without qop).

Nonces, cnonces and nonce counts are kept by the caller: nothing here draws random numbers or remembers.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from sip_ua.sip.grammar import QUOTED, SWS, TOKEN, quote, split_list, unquote
from sip_ua.sip.headers import Headers

# Strongest first. SHA-512 is in no RFC for SIP, but servers that offer it exist.
_HASHES: Final = MappingProxyType({"SHA-512": "sha512", "SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"})
_STRENGTH: Final = tuple(_HASHES)
_QOPS: Final = ("auth", "auth-int")  # in our preference: auth-int breaks when a proxy touches the body

# challenge = ("Digest" LWS digest-cln *(COMMA digest-cln)) / other-challenge; unquoted values are taken loosely
_PARAM: Final = re.compile(rf'(?:({TOKEN})[ \t]+)?({TOKEN}){SWS}={SWS}({QUOTED}|[^\s,"]*)')


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and its password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One Digest challenge we can answer. `realm`, `nonce` and `opaque` are as written between their quotes.

    `algorithm` is None when the challenge named none, which means MD5; `qop` is empty for RFC 2069 servers.
    """

    realm: str
    nonce: str
    algorithm: str | None = None
    qop: tuple[str, ...] = ()
    opaque: str | None = None
    stale: bool = False
    proxy: bool = False
    """Whether it came in Proxy-Authenticate, so that the answer goes into Proxy-Authorization."""

    @property
    def answer_header(self) -> str:
        """The header the answer goes into."""
        return "Proxy-Authorization" if self.proxy else "Authorization"

    @property
    def is_md5(self) -> bool:
        """Whether its hash is MD5, named or by default."""
        return _hash_of(self.algorithm) == "MD5"


def parse_challenges(headers: Headers) -> tuple[Challenge, ...]:
    """The challenges of a 401 or 407 that we can answer, in order.

    Other schemes, unknown algorithms, and challenges without realm, nonce or a qop we know are left out.
    """
    challenges: list[Challenge] = []
    for name, proxy in (("WWW-Authenticate", False), ("Proxy-Authenticate", True)):
        for value in headers.get_all(name):
            for params in _schemes(value):
                challenge = _challenge(params, proxy)
                if challenge is not None:
                    challenges.append(challenge)
    return tuple(challenges)


def strongest(challenges: Iterable[Challenge]) -> Challenge | None:
    """The challenge with the strongest hash, the first of equals; None when there is none (RFC 8760 §2.3)."""
    return min(challenges, key=lambda challenge: _STRENGTH.index(_hash_of(challenge.algorithm)), default=None)


def _schemes(value: str) -> list[dict[str, str]]:
    """The parameters of every Digest challenge of one header value, raw; names in lower case."""
    found: list[dict[str, str]] = []
    digest = False
    for element in split_list(value):
        match = _PARAM.fullmatch(element)
        if match is None:
            digest = False  # token68 or nonsense: what follows belongs to nothing we know
            continue
        if match[1] is not None:
            digest = match[1].lower() == "digest"
            if digest:
                found.append({})
        if digest:
            found[-1].setdefault(match[2].lower(), match[3])
    return found


def _challenge(params: dict[str, str], proxy: bool) -> Challenge | None:
    realm, nonce = params.get("realm"), params.get("nonce")
    algorithm = params.get("algorithm")
    algorithm = None if algorithm is None else unquote(algorithm)
    if realm is None or nonce is None or _hash_of(algorithm) not in _HASHES:
        return None
    qop = tuple(word.strip().lower() for word in unquote(params.get("qop", "")).split(",") if word.strip())
    if qop and not set(qop) & set(_QOPS):
        return None
    opaque = params.get("opaque")
    stale = unquote(params.get("stale", "")).lower() == "true"
    return Challenge(
        _inner(realm), _inner(nonce), algorithm, qop, None if opaque is None else _inner(opaque), stale, proxy
    )


def _inner(value: str) -> str:
    """Between the quotes, escapes kept: the hash and the echo both want the text as the server wrote it."""
    return value[1:-1] if value.startswith('"') else value


def _hash_of(algorithm: str | None) -> str:
    return (algorithm or "MD5").upper().removesuffix("-SESS")


def _is_sess(algorithm: str | None) -> bool:
    return (algorithm or "").upper().endswith("-SESS")


@dataclass(frozen=True, slots=True)
class Authorization:
    """An Authorization or Proxy-Authorization value; texts as written between their quotes."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str | None = None
    qop: str | None = None
    cnonce: str | None = None
    nc: int | None = None
    opaque: str | None = None

    def __str__(self) -> str:
        parts = [f'username="{self.username}"', f'realm="{self.realm}"', f'nonce="{self.nonce}"']
        parts += [f'uri="{self.uri}"', f'response="{self.response}"']
        if self.algorithm is not None:
            parts.append(f"algorithm={self.algorithm}")
        if self.cnonce is not None:
            parts.append(f'cnonce="{self.cnonce}"')
        if self.opaque is not None:
            parts.append(f'opaque="{self.opaque}"')
        if self.qop is not None:
            parts.append(f"qop={self.qop}")
        if self.nc is not None:
            parts.append(f"nc={self.nc:08x}")
        return "Digest " + ", ".join(parts)


def authorize(
    challenge: Challenge,
    credentials: Credentials,
    method: str,
    uri: str,
    body: bytes = b"",
    cnonce: str = "",
    nc: int = 1,
) -> str:
    """The value for `challenge.answer_header`.

    `uri` is the Request-URI as it is written. `cnonce` is fresh random text and `nc` counts the requests sent
    with this nonce, from 1; both go unused when the challenge has no qop and no -sess.
    """
    qop = next((known for known in _QOPS if known in challenge.qop), None)
    needs_cnonce = qop is not None or _is_sess(challenge.algorithm)
    answer = Authorization(
        quote(credentials.username)[1:-1],
        challenge.realm,
        challenge.nonce,
        uri,
        "",
        challenge.algorithm,
        qop,
        cnonce if needs_cnonce else None,
        nc if qop is not None else None,
        challenge.opaque,
    )
    return str(replace(answer, response=_response(answer, credentials, method, body)))


def _response(answer: Authorization, credentials: Credentials, method: str, body: bytes) -> str:
    """request-digest: RFC 7616 §3.4.1 to §3.4.3."""
    name = _HASHES[_hash_of(answer.algorithm)]
    a1 = _digest(name, f"{credentials.username}:{answer.realm}:{credentials.password}".encode())
    if _is_sess(answer.algorithm):
        a1 = _digest(name, f"{a1}:{answer.nonce}:{answer.cnonce or ''}".encode())
    a2_text = f"{method}:{answer.uri}"
    if answer.qop == "auth-int":
        a2_text += f":{_digest(name, body)}"
    a2 = _digest(name, a2_text.encode())
    middle = ""
    if answer.qop is not None:
        middle = f"{answer.nc or 0:08x}:{answer.cnonce or ''}:{answer.qop}:"
    return _digest(name, f"{a1}:{answer.nonce}:{middle}{a2}".encode())


def _digest(name: str, data: bytes) -> str:
    return hashlib.new(name, data, usedforsecurity=False).hexdigest()
