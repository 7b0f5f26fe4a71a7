"""What a call still owes its client when nobody is left to end it, without a socket and without a bus.

The gateway sees every event of a call pass on its way to the client. What of them has begun and not ended, and when,
is enough to end the call in the order of protocol section 4 in its owner's place.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from dialbus.contracts.events import Event, HangupEvent, TrackEnd, attendee

_NOTED = frozenset({"trackStart", "trackEnd", "ringing", "answer", "reject", "hangup"})


@dataclass(slots=True)
class _Leg:
    """A leg as far as its events told; times are Unix epoch milliseconds."""

    track_id: str
    first_seen: int
    rang: int | None = None
    answered: int | None = None


class Ending:
    """Notes a call's events, and composes its last ones. `started_at`: when the session began, RFC 3339."""

    def __init__(self, call_id: str, started_at: str) -> None:
        self._started_at = started_at
        self._main = _Leg(call_id, 0)
        self._refer: _Leg | None = None
        self._tracks: dict[tuple[str, str | None], int] = {}
        """Tracks that have begun and not ended, in the order of their beginning, and when that was."""

    def note(self, name: str, stored: bytes) -> None:
        """An event of the call, as stored."""
        if name not in _NOTED:
            return
        event = json.loads(stored)
        at_ms, track = event["timestamp"], (event["trackId"], event.get("playId"))
        if name == "trackStart":
            self._tracks[track] = at_ms
        elif name == "trackEnd":
            self._tracks.pop(track, None)
        elif name == "hangup":
            self._refer = None if event.get("refer") is True else self._refer
        else:
            leg = self._leg(event["trackId"], at_ms, refer=event.get("refer") is True)
            if name == "ringing" and leg.rang is None:
                leg.rang = at_ms
            elif name == "answer" and leg.answered is None:
                leg.answered = at_ms

    def events(
        self, now_ms: int, *, reason: str, initiator: str, caller: str | None = None, callee: str | None = None
    ) -> list[Event]:
        """The call's last events in the order of O26: other tracks, the second leg, the main track, `hangup`."""
        main = self._main
        begun = list(reversed(self._tracks.items()))
        begun.sort(key=lambda track: track[0][0] == main.track_id)
        ends: list[Event] = [
            TrackEnd(
                timestamp=now_ms,
                track_id=track_id,
                play_id=play_id,
                duration=_since(main.answered if track_id == main.track_id else began, now_ms),
                ssrc=0,
            )
            for (track_id, play_id), began in begun
        ]
        if self._refer is not None:
            second = self._hangup(self._refer, _rfc3339(self._refer.first_seen), now_ms, reason, initiator)
            place = next((n for n, (track, _) in enumerate(begun) if track[0] == main.track_id), len(ends))
            ends.insert(place, second.model_copy(update={"refer": True}))
        hangup = self._hangup(main, self._started_at, now_ms, reason, initiator)
        parties = {"from_": attendee(caller), "to": attendee(callee)}
        return [*ends, hangup.model_copy(update=parties)]

    def _leg(self, track_id: str, at_ms: int, *, refer: bool) -> _Leg:
        if not refer:
            return self._main
        if self._refer is None:
            self._refer = _Leg(track_id, at_ms)
        return self._refer

    @staticmethod
    def _hangup(leg: _Leg, started_at: str, now_ms: int, reason: str, initiator: str) -> HangupEvent:
        return HangupEvent(
            timestamp=now_ms,
            track_id=leg.track_id,
            start_time=started_at,
            hangup_time=_rfc3339(now_ms),
            ringing_time=None if leg.rang is None else _rfc3339(leg.rang),
            answer_time=None if leg.answered is None else _rfc3339(leg.answered),
            reason=reason,
            initiator=initiator,
        )


def _since(began_ms: int | None, now_ms: int) -> int:
    """Two machines' clocks may differ, and a duration is never negative."""
    return 0 if began_ms is None else max(0, now_ms - began_ms)


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
