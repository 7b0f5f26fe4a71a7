"""The server's half of Digest authentication (RFC 7616), written apart from the client's that it judges."""

import hashlib
import re

_HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256", "SHA-512": "sha512"}
_PARAMETER = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))')


def answer(value: str) -> dict[str, str]:
    """The parameters of an Authorization value, as written between their quotes."""
    assert value.startswith("Digest "), value
    return {name: plain or quoted for name, quoted, plain in _PARAMETER.findall(value)}


def proves(value: str, username: str, password: str, method: str, body: bytes = b"") -> bool:
    """Whether an Authorization value proves that its sender knows the password. The nonce is the caller's to check."""
    given = answer(value)
    if re.sub(r"\\(.)", r"\1", given["username"]) != username:
        return False
    algorithm, sess, _ = given.get("algorithm", "MD5").upper().partition("-SESS")

    def digest(*parts: str | bytes) -> str:
        text = b":".join(part.encode() if isinstance(part, str) else part for part in parts)
        return hashlib.new(_HASHES[algorithm], text, usedforsecurity=False).hexdigest()

    secret = digest(username, given["realm"], password)
    if sess:
        secret = digest(secret, given["nonce"], given["cnonce"])
    what = (
        digest(method, given["uri"], digest(body)) if given.get("qop") == "auth-int" else digest(method, given["uri"])
    )
    counted = [given[name] for name in ("nc", "cnonce", "qop")] if "qop" in given else []
    return given["response"] == digest(secret, given["nonce"], *counted, what)
