"""The second leg of a transfer (protocol section 6): from `refer` to its own `hangup`, orders O23 to O26.

It never touches the main leg but for its playback: whether the main call ends with it is the call machine's to say.
Until the callee answers, the first party hears music on hold or the callee's early media. A track of the second leg
begins with the first audio of it that anybody hears, and ends before the leg's `hangup`.
"""

from enum import Enum

from dialbus.contracts.commands import Hangup, Play, Refer
from dialbus.contracts.events import AnswerEvent, HangupEvent, RejectEvent, RingingEvent, TrackEnd, TrackStart, attendee
from dialbus.contracts.media import REFER_LEG
from dialbus.contracts.options import ReferOption, masked
from dialbus.contracts.records import CallRecord, HangupMessage
from sip_ua.call.effects import (
    AllocateMedia,
    CloseMedia,
    ConfigureMedia,
    ConnectMedia,
    ControlPlayback,
    Dial,
    Effect,
    Emit,
    FindCallee,
    JoinLegs,
    SendBye,
    SendCancel,
    SendInvite,
    StopPlayback,
)
from sip_ua.call.facts import Clock

TIMEOUT_TEXT = "Timeout when refer"
_MARGIN_S = 60.0


class Phase(Enum):
    """How far the second leg has come."""

    WANTED = "wanted"
    DIALING = "dialing"
    UP = "up"
    OVER = "over"


class Transfer:
    """One `refer`, from the command on. Every method returns what is to be done; after the end, nothing."""

    def __init__(
        self, command: Refer, *, caller: str | None, headers: dict[str, str], call_id: str, track: str, clock: Clock,
        now: float,
    ) -> None:  # fmt: skip
        self.options = command.options or ReferOption()
        self.phase = Phase.WANTED
        self.deadline: float | None = None
        """The end of ringing."""
        self.track = track
        self.has_media = False
        self._call_id = call_id
        self._caller = caller
        self._callee = command.callee
        self._headers = headers
        self._clock = clock
        self._started_at = now
        self._ringing_at: float | None = None
        self._answered_at: float | None = None
        self._ended_at: float | None = None
        self._ssrc = 0
        self._moh: str | None = None
        """The playId of the music while it may still play."""
        self._track_started_at: float | None = None
        self._status = 0
        self._reason: str | None = None
        self._messages: list[HangupMessage] = []

    @property
    def is_active(self) -> bool:
        """Whether the second leg is not over."""
        return self.phase is not Phase.OVER

    @property
    def track_is_open(self) -> bool:
        """Whether its track has begun and not ended."""
        return self._track_started_at is not None and self.is_active

    # -- the way up -------------------------------------------------------------------------------

    def begin(self) -> list[Effect]:
        """First of all, see whether the callee can be called at all; until then nothing is disturbed."""
        options = self.options  # the only limit is `timeout` (protocol 6.6), and that is for `deadline` to say
        limit_s = options.timeout + _MARGIN_S
        dial = Dial(self._caller, self._callee, options.sip, options.call_id, self._headers, limit_s)
        return [FindCallee(dial, REFER_LEG)]

    def callee_found(self) -> list[Effect]:
        """There is a way to the callee."""
        return [AllocateMedia(REFER_LEG)] if self.phase is Phase.WANTED else []

    def media_ready(self, ssrc: int, now: float) -> list[Effect]:
        """The leg has a place: what plays is interrupted, the music begins, the INVITE goes out."""
        self._ssrc = ssrc
        self.has_media = True
        self.phase = Phase.DIALING
        self.deadline = now + self.options.timeout
        effects: list[Effect] = [StopPlayback(interruption=True)]
        if self.options.moh:
            self._moh = self.options.moh
            effects.append(ControlPlayback(Play(url=self.options.moh), loop=True))
        return [*effects, *self._configure(before_answer=True), SendInvite(REFER_LEG)]

    def progress(self, now: float, *, early_media: bool) -> list[Effect]:
        """An 18x; from early media on, the first party hears the callee instead of the music."""
        if self.phase is not Phase.DIALING:
            return []
        self._ringing_at = self._ringing_at or now
        ringing = RingingEvent(track_id=self.track, timestamp=self._clock.ms(now), early_media=early_media, refer=True)
        if not early_media:
            return [Emit(ringing)]
        return [Emit(ringing), *self._start_track(now), ConnectMedia(REFER_LEG), self._join(one_way=True)]

    def answered(self, sdp: str, now: float) -> list[Effect]:
        """200; the music ends and the track begins before `answer` (O23)."""
        if self.phase is not Phase.DIALING:
            return []
        before = self._start_track(now)
        self.phase = Phase.UP
        self.deadline = None
        self._answered_at = now
        self._status = 200
        answer = AnswerEvent(track_id=self.track, timestamp=self._clock.ms(now), sdp=sdp, refer=True)
        connected = [ConnectMedia(REFER_LEG), self._join(one_way=False), *self._configure(before_answer=False)]
        return [*before, Emit(answer), *connected]

    # -- the ways down ----------------------------------------------------------------------------

    def refused(self, status: int, reason: str, now: float, *, timed_out: bool = False) -> list[Effect]:
        """The callee says no, or nothing (O24)."""
        if self.phase is not Phase.DIALING:
            return []
        self._note(status, reason)
        reject = RejectEvent(track_id=self.track, timestamp=self._clock.ms(now), code=status, reason=reason, refer=True)
        cause = ("noAnswer", "system") if timed_out else ("rejected", "callee")
        return [*self._stop_music(), Emit(reject), *self._end(*cause, now)]

    def expired(self, now: float) -> list[Effect]:
        """It has rung for too long."""
        if self.phase is not Phase.DIALING:
            return []
        return [SendCancel(REFER_LEG), *self.refused(408, TIMEOUT_TEXT, now, timed_out=True)]

    def failed(self, reason: str, now: float) -> list[Effect]:
        """A fault on our side after the INVITE; before the answer it is told like a refusal."""
        if self.phase is Phase.DIALING:
            self._note(503, reason)
            reject = RejectEvent(
                track_id=self.track, timestamp=self._clock.ms(now), code=503, reason=reason, refer=True
            )
            ended = self._end("failed", "system", now)
            return [SendCancel(REFER_LEG), *self._stop_music(), Emit(reject), *ended]
        return self._end_by_us("failed", "system", now, {})

    def hung_up(self, now: float) -> list[Effect]:
        """BYE from the callee."""
        return self._end("byCallee", "callee", now) if self.phase is Phase.UP else []

    def hang_up(self, command: Hangup, reason: str, now: float) -> list[Effect]:
        """The client ends the second leg, and only that."""
        return self._end_by_us(reason, command.initiator or "system", now, command.headers or {})

    def dropped(self, now: float, *, media_gone: bool) -> tuple[list[Effect], list[Effect]]:
        """The main call ends (O26): the signalling, and what follows once that is out."""
        if not self.is_active:
            return [], []
        if media_gone:
            self.has_media = False
            self._moh = None
        effects = self._end_by_us("bySystem", "system", now, {})
        signals: list[Effect] = [effect for effect in effects if isinstance(effect, SendBye | SendCancel)]
        return signals, [effect for effect in effects if effect not in signals]

    def _end_by_us(self, reason: str, initiator: str, now: float, headers: dict[str, str]) -> list[Effect]:
        signal: list[Effect] = []
        if self.phase is Phase.DIALING:
            self._note(487, "Request Terminated")
            signal = [SendCancel(REFER_LEG)]
        elif self.phase is Phase.UP:
            given = (self.options.sip and self.options.sip.hangup_headers) or {}
            signal = [SendBye({**given, **headers}, REFER_LEG)]
        elif self.phase is Phase.OVER:
            return []
        return [*signal, *self._stop_music(), *self._end(reason, initiator, now)]

    def _end(self, reason: str, initiator: str, now: float) -> list[Effect]:
        effects: list[Effect] = [CloseMedia(REFER_LEG)] if self.has_media else []
        if self._track_started_at is not None:
            duration = round((now - self._track_started_at) * 1000)
            end = TrackEnd(track_id=self.track, timestamp=self._clock.ms(now), duration=duration, ssrc=self._ssrc)
            effects.append(Emit(end))
        self.phase = Phase.OVER
        self.deadline = None
        self._ended_at = now
        self._reason = reason
        hangup = HangupEvent(
            track_id=self.track,
            timestamp=self._clock.ms(now),
            start_time=self._clock.wall(self._started_at),
            hangup_time=self._clock.wall(now),
            ringing_time=self._clock.wall_or_none(self._ringing_at),
            answer_time=self._clock.wall_or_none(self._answered_at),
            reason=reason,
            initiator=initiator,
            from_=attendee(self._caller),
            to=attendee(self._callee),
            refer=True,
        )
        return [*effects, Emit(hangup)]

    # -- the record -------------------------------------------------------------------------------

    def record(self) -> CallRecord:
        """What is kept of the second leg."""
        options = self.options.to_fields()
        return CallRecord(
            call_type="b2bua",
            call_id=self._call_id,
            caller=self._caller or "",
            callee=self._callee,
            start_time=self._clock.wall(self._started_at),
            ring_time=self._clock.wall_or_none(self._ringing_at),
            answer_time=self._clock.wall_or_none(self._answered_at),
            end_time=self._clock.wall(self._started_at if self._ended_at is None else self._ended_at),
            status_code=self._status,
            hangup_reason=self._reason,
            hangup_messages=self._messages,
            option=masked(options),
        )

    # -- parts ------------------------------------------------------------------------------------

    def _note(self, status: int, reason: str) -> None:
        self._status = status
        self._messages.append(HangupMessage(code=status, reason=reason, target=self._callee))

    def _stop_music(self) -> list[Effect]:
        """A `tts` of the client's may have replaced the music meanwhile; that goes on."""
        if self._moh is None:
            return []
        play_id, self._moh = self._moh, None
        return [StopPlayback(play_id=play_id)]

    def _start_track(self, now: float) -> list[Effect]:
        if self._track_started_at is not None:
            return []
        self._track_started_at = now
        return [*self._stop_music(), Emit(TrackStart(track_id=self.track, timestamp=self._clock.ms(now)))]

    def _join(self, *, one_way: bool) -> JoinLegs:
        return JoinLegs(one_way, self.options.forward_dtmf, self.options.pause_parent_asr)

    def _configure(self, *, before_answer: bool) -> list[Effect]:
        options = self.options
        waits = options.asr is not None and options.asr.start_when_answer
        if not before_answer:
            return [ConfigureMedia(REFER_LEG, asr=options.asr)] if waits else []
        wanted = ConfigureMedia(
            REFER_LEG,
            denoise=True if options.denoise else None,
            vad=options.vad,
            asr=None if waits else options.asr,
            agc=options.agc,
        )
        return [] if wanted.says_nothing else [wanted]
