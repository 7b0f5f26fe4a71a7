"""The events as a strictly typed client binds them (protocol sections 0.2, 1.3 and 3).

Written from the protocol's tables and from nothing of the product: a field that is absent from its table, null, or of
the wrong type makes a Go client throw the whole event away, or leave a pointer nil.
"""

import re
from datetime import datetime
from typing import Any

_U32 = 2**32 - 1
_U64 = 2**64 - 1

# u: u32, U: u64, s: text, b: bool, f: number, o: object, t: RFC 3339, m: object of texts, *: anything. A `?` after the
# letter: optional. `refer?`: present only when true.
_TRANSCRIPT = "trackId:s timestamp:U index:u text:s startTime:U endTime:U isFiller:b? confidence:f? taskId:s? refer:b?"
_EVENTS = {
    "incoming": "trackId:s timestamp:U caller:s callee:s sdp:s headers:m?",
    "trackStart": "trackId:s timestamp:U playId:s?",
    "ringing": "trackId:s timestamp:U earlyMedia:b refer:b",
    "answer": "trackId:s timestamp:U sdp:s refer:b",
    "reject": "trackId:s timestamp:U reason:s code:u? refer:b",
    "hangup": "trackId:s timestamp:U startTime:t hangupTime:t ringingTime:t? answerTime:t? reason:s initiator:s "
    "from:a? to:a? extra:o? refer:b",
    "trackEnd": "trackId:s timestamp:U duration:U ssrc:u playId:s?",
    "interruption": "trackId:s timestamp:U playId:s? subtitle:s? position:u? totalDuration:u current:u",
    "asrFinal": _TRANSCRIPT,
    "asrDelta": _TRANSCRIPT,
    "speaking": "trackId:s timestamp:U startTime:U isFiller:b? confidence:f? refer:b?",
    "silence": "trackId:s timestamp:U startTime:U duration:U refer:b?",
    "dtmf": "trackId:s timestamp:U digit:s refer:b",
    "error": "trackId:s timestamp:U sender:s error:s code:u?",
    "metrics": "timestamp:U key:s duration:u data:o",
    "addHistory": "timestamp:U speaker:s text:s sender:s?",
    "ping": "timestamp:U payload:s?",
    "mediaReady": "trackId:s timestamp:U",
    "hold": "trackId:s timestamp:U onHold:b refer:b",
    "inactivity": "trackId:s timestamp:U",
    "transferRequest": "trackId:s timestamp:U referTo:s referredBy:s? refer:b",
    "message": "trackId:s timestamp:U body:s contentType:s? refer:b",
    "custom": "timestamp:U data:* sender:s?",
}


def assert_strict(event: dict[str, Any]) -> None:
    """Every member has a place in the table and its type; nothing that is required is missing; nothing is null."""
    name = event["event"]
    assert name in _EVENTS, f"no such event: {event}"
    fields = dict(field.split(":") for field in _EVENTS[name].split())
    members = {key: value for key, value in event.items() if key not in ("event", "seq")}
    missing = [key for key, kind in fields.items() if not kind.endswith("?") and key not in members]
    assert not missing, f"{name} without {missing}: {event}"
    for key, value in members.items():
        assert key in fields, f"{name} has a stray {key}: {event}"
        assert _is(value, fields[key][0]), f"{name}.{key} is {value!r}: {event}"
    assert not _has_null(event), event
    if name in ("speaking", "silence", "asrDelta", "asrFinal"):
        assert event.get("refer", True) is True, event
    if name in ("asrDelta", "asrFinal"):
        assert event["endTime"] >= event["startTime"] > 1_700_000_000_000, event
    if name == "dtmf":
        assert re.fullmatch("[0-9*#A-D]", event["digit"]), event


def _is(value: Any, kind: str) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "u":
            return whole and 0 <= value <= _U32
        case "U":
            return whole and 0 <= value <= _U64
        case "s":
            return isinstance(value, str)
        case "b":
            return isinstance(value, bool)
        case "f":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "o":
            return isinstance(value, dict)
        case "m":
            return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        case "t":
            return is_rfc3339(value)
        case "a":
            return isinstance(value, dict) and set(value) == {"username", "realm", "source"}
        case _:
            return True


def is_rfc3339(value: Any) -> bool:
    """A time with a numeric offset, as protocol section 0.2 has it."""
    return (
        isinstance(value, str)
        and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d", value) is not None
        and datetime.fromisoformat(value).tzinfo is not None
    )


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_null(item) for item in value)
    return value is None
