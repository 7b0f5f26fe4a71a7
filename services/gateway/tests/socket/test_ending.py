"""The last events of a call in its lost owner's place (protocol section 4, O7 and O26)."""

import json
from typing import Any

import pytest

from dialbus.contracts.events import Attendee, HangupEvent, TrackEnd
from gateway.socket.ending import Ending

STARTED = "2026-03-04T09:15:20.101733+00:00"
MAIN, SRV = "s.1", "srv"
NOW = 10_000

Seen = list[tuple[str, int, dict[str, Any]]]
"""Names of events, their timestamps and what else they hold; without `trackId` they are the main leg's."""

BEGAN: Seen = [("trackStart", 1_000, {})]
UP: Seen = [*BEGAN, ("ringing", 2_000, {}), ("answer", 4_000, {})]
PLAYING: Seen = [*UP, ("trackStart", 7_000, {"trackId": SRV, "playId": "p"})]
SECOND: dict[str, Any] = {"trackId": SRV, "refer": True}
JOINED: Seen = [
    *UP, ("ringing", 5_000, SECOND), ("trackStart", 6_000, {"trackId": SRV}), ("answer", 6_500, SECOND),
]  # fmt: skip


def ending(seen: Seen) -> Ending:
    noted = Ending(MAIN, STARTED)
    for name, at_ms, fields in seen:
        event = {"event": name, "timestamp": at_ms, "trackId": MAIN} | fields
        noted.note(name, json.dumps(event).encode())
    return noted


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], ["hangup s.1"]),
        (BEGAN, ["trackEnd s.1 0", "hangup s.1"]),
        (UP, ["trackEnd s.1 6000", "hangup s.1"]),
        (PLAYING, ["trackEnd srv p 3000", "trackEnd s.1 6000", "hangup s.1"]),
        ([*PLAYING, ("trackEnd", 8_000, {"trackId": SRV, "playId": "p"})], ["trackEnd s.1 6000", "hangup s.1"]),
        ([*BEGAN, ("answer", NOW + 5, {})], ["trackEnd s.1 0", "hangup s.1"]),
        (JOINED, ["trackEnd srv 4000", "hangup srv refer", "trackEnd s.1 6000", "hangup s.1"]),
        ([*UP, ("ringing", 5_000, SECOND)], ["hangup srv refer", "trackEnd s.1 6000", "hangup s.1"]),
        (
            [*JOINED, ("trackEnd", 8_000, {"trackId": SRV}), ("hangup", 8_000, SECOND)],
            ["trackEnd s.1 6000", "hangup s.1"],
        ),
    ],
    ids=["idle", "dialing", "up", "playing", "played", "clocks differ", "joined", "second rings", "second is over"],
)
def test_what_has_begun_is_ended_in_order(seen: Seen, expected: list[str]) -> None:
    told = []
    for event in ending(seen).events(NOW, reason="failed", initiator="system"):
        assert event.timestamp == NOW
        if isinstance(event, TrackEnd):
            parts = [event.event, event.track_id, event.play_id, str(event.duration)]
        else:
            assert isinstance(event, HangupEvent)
            assert (event.reason, event.initiator) == ("failed", "system")
            parts = [event.event, event.track_id, "refer" if event.refer else None]
        told.append(" ".join(part for part in parts if part))
    assert told == expected


def test_hangups_tell_when_their_legs_rang_and_were_answered_and_the_first_time_counts() -> None:
    again: Seen = [("ringing", 4_500, {}), ("ringing", 6_700, SECOND)]
    last = ending([*JOINED, *again]).events(
        NOW, reason="failed", initiator="system", caller="sip:a@b", callee="sip:c@d:5070"
    )
    second, main = (event for event in last if isinstance(event, HangupEvent))
    at = "1970-01-01T00:00:{}+00:00"
    assert (second.start_time, second.ringing_time, second.answer_time) == (
        at.format("05"), at.format("05"), at.format("06.500000"),
    )  # fmt: skip
    assert (main.start_time, main.ringing_time, main.answer_time) == (STARTED, at.format("02"), at.format("04"))
    assert main.hangup_time == at.format("10")
    assert (main.from_, main.to) == (
        Attendee(username="a", realm="b", source="sip:a@b"), Attendee(username="c", realm="d", source="sip:c@d:5070"),
    )  # fmt: skip
