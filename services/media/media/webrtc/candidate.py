"""ICE candidates as SDP and trickling clients write them. Source: RFC 8839 §5.1, RFC 8840."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

MAX_CHARACTERS: Final = 1024

_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{1,64}")
_DIGITS = re.compile(r"[0-9]{1,10}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


class CandidateError(ValueError):
    """Text that is no candidate."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One transport address that a peer may be reached at. `address` is an IP literal or a name (mDNS)."""

    foundation: str
    component: int
    transport: str
    priority: int
    address: str
    port: int
    kind: str
    related: tuple[str, int] | None = None

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.address

    @property
    def is_mdns(self) -> bool:
        """Whether it is a browser's name for an address that it hides."""
        return self.address.lower().rstrip(".").endswith(".local")

    @property
    def is_usable(self) -> bool:
        """Whether we could send to it: UDP, and the one component that rtcp-mux leaves."""
        return self.transport == "udp" and self.component == 1 and self.port > 0 and self.kind in _KINDS

    def __str__(self) -> str:
        """The value of an `a=candidate` line."""
        text = f"{self.foundation} {self.component} {self.transport} {self.priority} {self.address} {self.port}"
        text += f" typ {self.kind}"
        return text if self.related is None else f"{text} raddr {self.related[0]} rport {self.related[1]}"


_KINDS = ("host", "srflx", "prflx", "relay")


def parse(text: str) -> Candidate | None:
    """A candidate with or without `candidate:` or `a=candidate:` before it; None for the empty one, the last.

    Raises CandidateError.
    """
    line = text.strip().removeprefix("a=").removeprefix("candidate:").strip()
    if not line or line == "end-of-candidates":
        return None
    if len(line) > MAX_CHARACTERS:
        raise CandidateError("a candidate is too long")
    words = line.split()
    if len(words) < 8 or words[6].lower() != "typ":
        raise CandidateError(f"not a candidate: {line[:80]!r}")
    foundation, component, transport, priority, address, port, _, kind = words[:8]
    extras = dict(zip(words[8::2], words[9::2], strict=False))
    numbers = all(_DIGITS.fullmatch(word) for word in (component, priority, port))
    if not (numbers and _TOKEN.fullmatch(foundation) and _TOKEN.fullmatch(kind) and _TOKEN.fullmatch(transport)):
        raise CandidateError(f"not a candidate: {line[:80]!r}")
    if not (1 <= int(component) <= 256 and int(port) <= 65535 and int(priority) < 1 << 32):
        raise CandidateError(f"a number out of its range in the candidate {line[:80]!r}")
    return Candidate(
        foundation,
        int(component),
        transport.lower(),
        int(priority),
        _address(address),
        int(port),
        kind.lower(),
        _related(extras),
    )


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        # A last label of digits would be a malformed IPv4 address, not a name (RFC 1123 §2.1).
        if len(text) > 253 or not _NAME.fullmatch(text) or text.rstrip(".").rsplit(".", 1)[-1].isdigit():
            raise CandidateError(f"not an address: {text[:80]!r}") from None
        return text


def _related(extras: dict[str, str]) -> tuple[str, int] | None:
    address, port = extras.get("raddr"), extras.get("rport", "")
    if address is None or not _DIGITS.fullmatch(port) or int(port) > 65535:
        return None
    try:
        return str(ip_address(address)), int(port)
    except ValueError:
        return None
