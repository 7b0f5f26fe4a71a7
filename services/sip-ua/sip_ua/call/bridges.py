"""The bridges of a call to other calls (protocol 2.13): who asked, which are on, and their tracks.

Both ends have a machine of their own. The one whose client said `bridge` asks the other, which switches its half on
before it agrees; then the asking one does. Neither waits for the other with anything else in hand, so that two calls
may bridge to each other at the same time: the second one to switch on replaces its track by a new one.
"""

from dataclasses import dataclass, field

from dialbus.contracts.events import TrackEnd, TrackStart
from dialbus.contracts.media import MAX_BRIDGES, BridgeLeg, UnbridgeLeg
from sip_ua.call.clock import Clock, Moment
from sip_ua.call.effects import Ask, AskBridge, Effect, Emit, LeaveBridge


@dataclass(slots=True)
class Bridges:
    """Every bridge of one call. `ssrc` is always that of the call's main leg."""

    call_id: str
    clock: Clock
    asked: dict[str, int] = field(default_factory=dict)
    """Questions that are open, by the call asked; a dict keeps their order."""
    on: dict[str, Moment] = field(default_factory=dict)
    """Since when, by the other call."""

    def has_room_for(self, other: str) -> bool:
        """Whether a bridge to this call would not be one too many."""
        return other in self or len(self.asked.keys() | self.on.keys()) < MAX_BRIDGES

    @property
    def tracks(self) -> tuple[str, ...]:
        """The tracks that have begun and not ended."""
        return tuple(self._track(other) for other in self.on)

    def __contains__(self, other: str) -> bool:
        return other in self.on or other in self.asked

    def ask(self, other: str) -> list[Effect]:
        """Our client wants it."""
        self.asked[other] = self.asked.get(other, 0) + 1
        return [AskBridge(other)]

    def agreed(self, other: str, ssrc: int, now: float) -> list[Effect]:
        """The other side has switched on; if nobody wants it any more, it is told so."""
        if not self._answered(other):
            return [] if other in self.on else [LeaveBridge(other)]
        return self.switch_on(other, ssrc, now)

    def refused(self, other: str) -> bool:
        """The other side has said no; whether our client still wanted it."""
        return self._answered(other)

    def switch_on(self, other: str, ssrc: int, now: float) -> list[Effect]:
        """Begin, or replace what is there already."""
        effects = self._switch_off(other, ssrc, now)
        self.on[other] = now
        start = TrackStart(track_id=self._track(other), timestamp=self.clock.ms(now))
        return [*effects, Ask(BridgeLeg(call_id=self.call_id, other=other)), Emit(start)]

    def leave(self, other: str, ssrc: int, now: float) -> list[Effect]:
        """Our client wants it no more; the other side is told even when nothing is on here."""
        self.asked.pop(other, None)
        return [*self._switch_off(other, ssrc, now), LeaveBridge(other)]

    def left(self, other: str, ssrc: int, now: float) -> list[Effect]:
        """The other side has ended it."""
        return self._switch_off(other, ssrc, now)

    def end(self, ssrc: int, now: float) -> tuple[list[Effect], list[Effect]]:
        """The call ends: whom to tell, and the last events of the tracks.

        Who was asked is told too: its agreement would come to nobody, and its half would stay on.
        """
        told: list[Effect] = [LeaveBridge(other) for other in self.on | self.asked]
        ends: list[Effect] = [self._end_of(other, since, ssrc, now) for other, since in self.on.items()]
        self.on.clear()
        self.asked.clear()
        return told, ends

    def _answered(self, other: str) -> bool:
        open_questions = self.asked.pop(other, 0)
        if open_questions > 1:
            self.asked[other] = open_questions - 1
        return open_questions > 0

    def _switch_off(self, other: str, ssrc: int, now: float) -> list[Effect]:
        since = self.on.pop(other, None)
        if since is None:
            return []
        return [Ask(UnbridgeLeg(call_id=self.call_id, other=other)), self._end_of(other, since, ssrc, now)]

    def _end_of(self, other: str, since: float, ssrc: int, now: float) -> Emit:
        duration = round((now - since) * 1000)
        return Emit(TrackEnd(track_id=self._track(other), timestamp=self.clock.ms(now), duration=duration, ssrc=ssrc))

    def _track(self, other: str) -> str:
        return f"bridge:{self.call_id}:to:{other}"
