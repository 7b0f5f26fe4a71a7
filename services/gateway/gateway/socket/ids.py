"""What a socket's URL asks for: session id and options, in every spelling that clients use (protocol section 1.1).

Pure functions of the raw query text. Nothing here fails: a value that makes no sense means the default.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

DEFAULT_PING_S = 20
MAX_PING_S = 86_400
MAX_ID_BYTES = 512
DEFAULT_SERVER_SIDE_TRACK = "server-side-track"
_MAX_TRACK_ID = 256

_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})
_DUMP = ("dump", "dump_events", "dumpEvents")
_PING = ("ping", "pingInterval", "ping_interval")
_SERVER_SIDE_TRACK = ("serverSideTrack", "server_side_track")


@dataclass(frozen=True, slots=True)
class SocketQuery:
    """The query of a socket's URL, understood."""

    readings: tuple[str, ...] = ()
    """Readings of `id` in the order they are looked up, without repeats; empty when a session id must be made."""
    dump: bool = True
    ping_s: int = DEFAULT_PING_S
    """Keep-alive period in seconds; 0 is off."""
    server_side_track: str = DEFAULT_SERVER_SIDE_TRACK

    @property
    def new_id(self) -> str | None:
        """The id of a session that does not exist yet: percent-decoded, since SIP ids may hold `+` but no blank."""
        return unquote(self.readings[0]) if self.readings else None


def parse_query(text: str) -> SocketQuery:
    """Understand a raw query. The first of repeated parameters counts, and of several spellings the canonical one."""
    raw = _parameters(text)
    return SocketQuery(
        readings=readings(raw.get("id", "")),
        dump=_boolean(_first(raw, _DUMP), default=True),
        ping_s=_ping(_first(raw, _PING)),
        server_side_track=_track(_first(raw, _SERVER_SIDE_TRACK)),
    )


def readings(raw: str) -> tuple[str, ...]:
    """The three readings of an id: as it stands, percent-decoded with `+` kept, form-decoded.

    The Go SDK pastes a SIP Call-ID into the URL unescaped, other clients escape it one way or the other.
    """
    return tuple(dict.fromkeys((raw, unquote(raw), unquote_plus(raw)))) if raw else ()


def is_possible(call_id: str) -> bool:
    """Whether subjects can carry the id (NATS bounds a line, an escaped byte takes three) and a log can show it."""
    return 0 < len(call_id.encode(errors="replace")) <= MAX_ID_BYTES and call_id.isprintable()


def generated(new_uuid: Callable[[], object]) -> str:
    """A session id for a client that named none: `s.` and a UUIDv4 (protocol section 0.3)."""
    return f"s.{new_uuid()}"


def _parameters(text: str) -> dict[str, str]:
    """Parameter names, decoded, with their raw values."""
    found: dict[str, str] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        found.setdefault(unquote_plus(name), value)
    return found


def _first(raw: dict[str, str], spellings: tuple[str, ...]) -> str:
    return next((unquote_plus(raw[name]).strip() for name in spellings if name in raw), "")


def _boolean(text: str, *, default: bool) -> bool:
    if text.lower() in _TRUE:
        return True
    return False if text.lower() in _FALSE else default


def _ping(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        return DEFAULT_PING_S
    return min(int(text), MAX_PING_S)


def _track(text: str) -> str:
    return text if 0 < len(text) <= _MAX_TRACK_ID else DEFAULT_SERVER_SIDE_TRACK
