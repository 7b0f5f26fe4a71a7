"""One party's leg as its call knows it: how far it is, its media and track, when it rang, answered and ended.

The main leg is one, and so is the second one of a transfer. Here is what both have in common: their events, and their
books for the record. All of it is plain data (`sip_ua.call.state`).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from dialbus.contracts.cause import Cause
from dialbus.contracts.events import (
    AnswerEvent,
    Dtmf,
    HangupEvent,
    Hold,
    MessageEvent,
    RejectEvent,
    RingingEvent,
    TrackEnd,
    TrackStart,
    TransferRequest,
    attendee,
)
from dialbus.contracts.media import REFER_LEG, ConnectLeg, LegKind, RemoteMedia
from dialbus.contracts.records import HangupMessage
from sip_ua.call.clock import Clock, Moment
from sip_ua.call.effects import AllocateMedia, Ask, CloseMedia, Effect, Emit
from sip_ua.call.inputs import LegDigit, LegMessage, LegTransferAsked


class Phase(StrEnum):
    """How far a leg has come. The second leg of a transfer begins at `finding`."""

    IDLE = "idle"
    PENDING = "pending"
    """Offered to a client."""
    RINGING = "ringing"
    """Pending, and a media worker is looked for: the caller is to hear something before the answer."""
    ACCEPTING = "accepting"
    """Pending, and a media worker is looked for: the client has accepted."""
    FINDING = "finding"
    """Dialing: the way to the callee is looked up."""
    PLACING = "placing"
    """Dialing: a media worker is looked for."""
    DIALING = "dialing"
    """The INVITE is out."""
    UP = "up"
    ENDED = "ended"


@dataclass(slots=True)
class CallLeg:
    """One party. Methods that return an `Emit` or effects note what they tell."""

    call_id: str
    id: str
    track: str
    """The `trackId` of what is told of it."""
    clock: Clock
    phase: Phase
    started_at: Moment
    caller: str | None = None
    callee: str | None = None
    generation: int = 0
    awaits_media: bool = False
    """A media worker was asked for and has not answered."""
    has_media: bool = False
    ssrc: int = 0
    local_sdp: str = ""
    remote_sdp: str = ""
    remote: RemoteMedia | None = None
    """What offer and answer agreed on; None on a leg that media negotiates."""
    track_started_at: Moment | None = None
    ringing_at: Moment | None = None
    answered_at: Moment | None = None
    ended_at: Moment | None = None
    status: int = 0
    """The last SIP status, for the record."""
    end_reason: str | None = None
    messages: list[HangupMessage] = field(default_factory=list)

    @property
    def refer(self) -> bool:
        """Whether it is the second leg of a transfer; its events say so."""
        return self.id == REFER_LEG

    @property
    def is_active(self) -> bool:
        """Whether it is not over."""
        return self.phase is not Phase.ENDED

    @property
    def has_open_track(self) -> bool:
        """Whether its track has begun and not ended."""
        return self.track_started_at is not None and self.is_active

    # -- media ------------------------------------------------------------------------------------

    def allocate(self, phase: Phase, kind: LegKind = "rtp") -> list[Effect]:
        """Look for a media worker, and be in this phase until it is found."""
        self.phase = phase
        self.awaits_media = True
        return [AllocateMedia(self.id, kind)]

    def connect(self) -> list[Effect]:
        """Let the leg send to, and hear, what was agreed on; nothing before that."""
        if self.remote is None:
            return []
        return [Ask(ConnectLeg(call_id=self.call_id, leg_id=self.id, remote=self.remote))]

    # -- its events -------------------------------------------------------------------------------

    def ring(self, now: float, *, early_media: bool) -> Emit:
        """An 18x came."""
        self.ringing_at = self.ringing_at or now
        at = self.clock.ms(now)
        return Emit(RingingEvent(track_id=self.track, timestamp=at, early_media=early_media, refer=self.refer))

    def answer(self, sdp: str, now: float) -> Emit:
        """It is up from now on; `sdp` is the remote one, or ours."""
        self.phase = Phase.UP
        self.answered_at = now
        self.status = 200
        return Emit(AnswerEvent(track_id=self.track, timestamp=self.clock.ms(now), sdp=sdp, refer=self.refer))

    def reject(self, code: int, reason: str, now: float) -> Emit:
        """Somebody said no."""
        at = self.clock.ms(now)
        return Emit(RejectEvent(track_id=self.track, timestamp=at, code=code, reason=reason, refer=self.refer))

    def hold(self, now: float, *, on_hold: bool) -> Emit:
        """The remote party held or resumed the call."""
        return Emit(Hold(track_id=self.track, timestamp=self.clock.ms(now), on_hold=on_hold, refer=self.refer))

    def digit(self, pressed: LegDigit, now: float) -> Emit:
        """A key by SIP INFO."""
        at = self.clock.ms(now)
        return Emit(Dtmf(track_id=self.track, timestamp=at, digit=pressed.digit, refer=self.refer))

    def message(self, came: LegMessage, now: float) -> Emit:
        """A MESSAGE in the dialog."""
        return Emit(
            MessageEvent(
                track_id=self.track,
                timestamp=self.clock.ms(now),
                body=came.body,
                content_type=came.content_type,
                refer=self.refer,
            )
        )

    def transfer_asked(self, asked: LegTransferAsked, now: float) -> Emit:
        """A REFER in the dialog; the client decides."""
        return Emit(
            TransferRequest(
                track_id=self.track,
                timestamp=self.clock.ms(now),
                refer_to=asked.refer_to,
                referred_by=asked.referred_by,
                refer=self.refer,
            )
        )

    def start_track(self, now: float) -> Emit:
        """Its track begins."""
        self.track_started_at = now
        return Emit(TrackStart(track_id=self.track, timestamp=self.clock.ms(now)))

    # -- its end ----------------------------------------------------------------------------------

    def end(self, cause: Cause, now: float, extra: dict[str, str] | None = None) -> list[Effect]:
        """It is over: media, track, `hangup`, in this order (O2, O24)."""
        effects: list[Effect] = [CloseMedia(self.id)] if self.has_media else []
        if self.track_started_at is not None:
            effects.append(self._end_of_track(self.track_started_at, now))
        self.phase = Phase.ENDED
        self.ended_at = now
        self.end_reason = cause.reason
        if cause.code is not None:
            self.note(cause.code, cause.phrase)
        return [*effects, self._hangup(cause, now, extra)]

    def note(self, status: int, reason: str | None) -> None:
        """A final status, for the record."""
        self.status = status
        self.messages.append(HangupMessage(code=status, reason=reason, target=self.callee))

    def _end_of_track(self, started_at: float, now: float) -> Emit:
        """The main track begins with its media but lasts from the answer; another one is heard from its start on."""
        since = started_at if self.refer else self.answered_at
        duration = 0 if since is None else round((now - since) * 1000)
        at = self.clock.ms(now)
        return Emit(TrackEnd(track_id=self.track, timestamp=at, duration=duration, ssrc=self.ssrc))

    def _hangup(self, cause: Cause, now: float, extra: dict[str, str] | None) -> Emit:
        return Emit(
            HangupEvent(
                track_id=self.track,
                timestamp=self.clock.ms(now),
                start_time=self.clock.wall(self.started_at),
                hangup_time=self.clock.wall(now),
                ringing_time=self.clock.wall_or_none(self.ringing_at),
                answer_time=self.clock.wall_or_none(self.answered_at),
                reason=cause.reason,
                initiator=cause.initiator,
                from_=attendee(self.caller),
                to=attendee(self.callee),
                extra=extra,
                refer=self.refer,
            )
        )
