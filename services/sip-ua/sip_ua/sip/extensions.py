"""Extensions and additions: what may be required of us, what a client may add, Reason (RFC 3326)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from sip_ua.sip.grammar import GrammarError, get_param, is_token, parse_params, quote
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import Request

SUPPORTED: Final = "timer"
"""The option tags we have, as Supported names them."""

HeaderItems: TypeAlias = Iterable[tuple[str, str]]

_OWN_HEADERS: Final = frozenset(
    {
        "via",
        "route",
        "record-route",
        "max-forwards",
        "from",
        "to",
        "call-id",
        "cseq",
        "contact",
        "content-length",
        "content-type",
        "content-encoding",
        "allow",
        "supported",
        "require",
        "proxy-require",
        "user-agent",
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "proxy-authenticate",
        "session-expires",
        "min-se",
        "rack",
        "rseq",
        "expires",
        "event",
        "timestamp",
    }
)


def custom(headers: HeaderItems) -> list[tuple[str, str]]:
    """The headers a client may add: those that are not the protocol's own and cannot break a message."""
    return [
        (name, value)
        for name, value in headers
        if is_token(name)
        and Headers([(name, "")]).lines()[0][0].lower() not in _OWN_HEADERS
        and not any(ord(character) < 32 and character != "\t" for character in value)
    ]


def reason_value(status: int, text: str) -> str:
    """A Reason header (RFC 3326); line ends and other controls in the text become blanks."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    return f"SIP;cause={status};text={quote(clean)}"


def reason_text(request: Request) -> str | None:
    """What the Reason header says for people: its text, else its cause, else None."""
    for value in request.headers.get_all("Reason"):
        protocol, semicolon, params = value.partition(";")
        try:
            pairs = parse_params(semicolon + params)
        except GrammarError:
            continue
        if text := get_param(pairs, "text") or get_param(pairs, "cause"):
            return text if get_param(pairs, "text") else f"{protocol.strip()} {text}"
    return None


def option_tags(request: Request, *names: str) -> set[str]:
    return {tag.strip().lower() for name in names for tag in request.headers.get_all(name)} - {""}


def unsupported(request: Request) -> list[str]:
    """The extensions a request requires and we do not have (RFC 3261 §8.2.2.3); none for CANCEL and ACK."""
    return [] if request.method in ("CANCEL", "ACK") else sorted(option_tags(request, "Require") - {SUPPORTED})
