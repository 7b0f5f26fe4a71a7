"""The call machine: one call's states, which commands are valid in them, and the order of its events.

Sans-IO: commands, leg reports and the passing of time go in; effects come out, to be performed one after another in
the order given. It holds the validity table of protocol section 2 and the orders of section 4 for everything but
playback, whose own machine runs beside the audio. Whoever owns the primary leg runs it: sip-ua for SIP calls.

What follows a performed effect is fed back at once: `AllocateMedia` is answered by `media_ready` or `media_refused`,
`ControlPlayback` by `playback_refused` when the worker says no. `AllocateMedia` is always the last effect of its list.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dialbus.contracts.base import ClientJson
from dialbus.contracts.commands import (
    Accept,
    AddIceCandidate,
    Bridge,
    ClientCommand,
    Custom,
    Hangup,
    History,
    Interrupt,
    Invite,
    Message,
    Mute,
    Pause,
    Play,
    Refer,
    Reject,
    Resume,
    Ringing,
    Tts,
    Unbridge,
    Unmute,
)
from dialbus.contracts.events import (
    AddHistory,
    AnswerEvent,
    Attendee,
    CustomEvent,
    Dtmf,
    ErrorEvent,
    Event,
    HangupEvent,
    Hold,
    Incoming,
    MessageEvent,
    RejectEvent,
    RingingEvent,
    TrackEnd,
    TrackStart,
    TransferRequest,
)
from dialbus.contracts.options import CallOption, RecorderOption
from dialbus.contracts.session import CallState, CallType

IDLE, PENDING, DIALING, UP, ENDED = CallState

VALID: Mapping[type[ClientJson], frozenset[CallState]] = {
    Invite: frozenset({IDLE}),
    Accept: frozenset({PENDING}),
    Reject: frozenset({PENDING}),
    Ringing: frozenset({PENDING}),
    Tts: frozenset({UP, DIALING, PENDING}),
    Play: frozenset({UP, DIALING, PENDING}),
    Interrupt: frozenset({IDLE, PENDING, DIALING, UP}),
    Pause: frozenset({PENDING, DIALING, UP}),
    Resume: frozenset({PENDING, DIALING, UP}),
    Hangup: frozenset({IDLE, PENDING, DIALING, UP}),
    Mute: frozenset({IDLE, PENDING, DIALING, UP}),
    Unmute: frozenset({IDLE, PENDING, DIALING, UP}),
    History: frozenset({IDLE, PENDING, DIALING, UP}),
    Custom: frozenset({IDLE, PENDING, DIALING, UP}),
    Refer: frozenset(),
    Message: frozenset(),
    Bridge: frozenset(),
    Unbridge: frozenset(),
    AddIceCandidate: frozenset(),
}
"""Protocol section 2. `tts` and `play` are held while dialing, and in pending need early media."""

MOST_HELD = 200
MOST_HELD_SIZE = 1 << 20
"""Commands, and characters of JSON, that may wait for an answer (protocol Q-22)."""

_URI = re.compile(r"^(?:sips?:)?(?:([^@]*)@)?(\[[^\]]*\]|[^:;?>]*)", re.IGNORECASE)


# -- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Emit:
    """Append an event to the call's stream."""

    event: Event


@dataclass(frozen=True, slots=True)
class AllocateMedia:
    """Find a media worker for the leg and agree on SDP."""


@dataclass(frozen=True, slots=True)
class ConfigureMedia:
    """Say what is done with the leg's audio; only the parts named."""

    denoise: bool | None = None
    vad: dict[str, Any] | None = None
    asr: dict[str, Any] | None = None
    tts: dict[str, Any] | None = None
    recorder: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ConnectMedia:
    """Let the leg send to, and hear, what the SDP agreed on."""


@dataclass(frozen=True, slots=True)
class SendInvite:
    """Place the call of `option`."""

    option: CallOption


@dataclass(frozen=True, slots=True)
class SendRinging:
    """180, or 183 with our SDP."""

    early_media: bool


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """200 with our SDP."""


@dataclass(frozen=True, slots=True)
class SendReject:
    """A final non-2xx response."""

    code: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class SendBye:
    """End the established leg."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Give up the outbound leg that has no final response yet."""


@dataclass(frozen=True, slots=True)
class ControlPlayback:
    """Hand a client's playback command to the leg."""

    command: ClientJson


@dataclass(frozen=True, slots=True)
class NoteInput:
    """Tell the leg that the remote party gave a sign."""


@dataclass(frozen=True, slots=True)
class CloseMedia:
    """End the leg's media and wait until its last event is in the stream."""


@dataclass(frozen=True, slots=True)
class EndLostTracks:
    """Emit the trackEnd of every track but the main one that a lost media worker began and can't end."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more comes; forget the call."""


Effect = (
    Emit | AllocateMedia | ConfigureMedia | ConnectMedia | SendInvite | SendRinging | SendAnswer | SendReject
    | SendBye | SendCancel | ControlPlayback | NoteInput | CloseMedia | EndLostTracks | Finish
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InboundOffer:
    """What an INVITE from outside says."""

    caller: str
    """URI of From, without display name, brackets and tag."""
    callee: str
    sdp: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """The INVITE's non-standard headers."""


class CallMachine:
    """One call. `started` and every `now` are seconds of one monotonic clock; `epoch` is the wall time at `started`."""

    def __init__(
        self,
        call_id: str,
        call_type: CallType,
        *,
        started: float,
        epoch: datetime,
        server_track: str = "server-side-track",
        accept_timeout_s: float = 60.0,
        record_always: bool = False,
    ) -> None:
        self.call_id = call_id
        self.call_type = call_type
        self.state = IDLE
        self.inbound = False
        self.server_track = server_track
        self.option = CallOption()
        self.deadline: float | None = None
        self._started = started
        self._epoch = epoch
        self._accept_timeout_s = accept_timeout_s
        self._record_always = record_always
        self._offer: InboundOffer | None = None
        self._accepting = False
        self._ringing: Ringing | None = None
        self._has_media = False
        self._ssrc = 0
        self._local_sdp = ""
        self._track_started_at: float | None = None
        self._ringing_at: float | None = None
        self._answered_at: float | None = None
        self._held: list[ClientJson] = []
        self._held_size = 0

    # -- what goes in: the client -----------------------------------------------------------------

    def command(self, command: ClientCommand, now: float) -> list[Effect]:
        """A client's command, in the order of arrival. After the end everything is ignored."""
        if self.state is ENDED:
            return []
        if self.state not in VALID[type(command)]:
            return self._invalid(command, now)
        match command:
            case Invite():
                return self._invite(command.option, now)
            case Accept():
                return self._accept(command.option, now)
            case Reject():
                return self._reject(command, now)
            case Ringing():
                return self._ring(command)
            case Tts() | Play():
                return self._playback(command, now)
            case Pause() | Resume():
                if not self._has_media:
                    return [self._error(f"track not found: {self.server_track}", now)]
                return [ControlPlayback(command)]
            case Interrupt():
                return [ControlPlayback(command)] if self._has_media else []
            case Mute() | Unmute():
                if self._has_media:
                    return [ControlPlayback(command)]
                self._held = [*self._held, command][-MOST_HELD:]
                return []
            case Hangup():
                return self._hang_up(command, now)
            case History():
                added = AddHistory(
                    timestamp=self._ms(now), speaker=command.speaker, text=command.text, sender=self.call_id
                )
                return [Emit(added)]
            case Custom():
                return [Emit(CustomEvent(timestamp=self._ms(now), data=command.data, sender=command.sender))]
            case Refer() | Message() | Bridge() | Unbridge() | AddIceCandidate():
                return self._invalid(command, now)

    def attached(self, server_track: str) -> None:
        """A client's socket took the pending call and names its server-side track."""
        self.server_track = server_track

    def detached(self, now: float) -> list[Effect]:
        """The client's socket is gone, or the service stops: the call ends."""
        return self._end_by_us("bySystem", "system", now, pending_reason="handler disconnected")

    # -- what goes in: the leg --------------------------------------------------------------------

    def offered(self, offer: InboundOffer, now: float) -> list[Effect]:
        """An INVITE arrived and waits for a client; the accept timeout starts."""
        self.state = PENDING
        self.inbound = True
        self._offer = offer
        self.option = CallOption(caller=offer.caller, callee=offer.callee)
        self.deadline = now + self._accept_timeout_s
        incoming = Incoming(
            track_id=self.call_id,
            timestamp=self._ms(now),
            caller=offer.caller,
            callee=offer.callee,
            sdp=offer.sdp,
            headers=dict(offer.headers) or None,
        )
        return [Emit(incoming)]

    def webhook_failed(self, reason: str, now: float) -> list[Effect]:
        """Nobody can be told of the inbound call: 503."""
        if self.state is not PENDING:
            return []
        return self._end("failed", "system", now, SendReject(503, reason))

    def media_ready(self, ssrc: int, sdp: str, now: float) -> list[Effect]:
        """A media worker has the leg; `sdp` is ours (an offer when dialing, an answer when inbound)."""
        self._has_media = True
        self._ssrc = ssrc
        self._local_sdp = sdp
        self._track_started_at = now
        effects: list[Effect] = [Emit(TrackStart(track_id=self.call_id, timestamp=self._ms(now)))]
        if self._accepting:
            return [*effects, *self._answer_inbound(now)]
        if self._ringing is not None and self.state is PENDING:
            return [*effects, *self._early_media(self._ringing)]
        effects += self._configure(before_answer=True)
        return [*effects, SendInvite(self.option)]

    def media_refused(self, code: int, reason: str, now: float) -> list[Effect]:
        """No media worker, or no common codec (488): the call cannot be."""
        sender = "accept" if self._accepting else "invite" if not self.inbound else "ringing"
        error = self._error(reason, now, sender=sender)
        return [error, *self._end("failed", "system", now, *([SendReject(code, reason)] if self.inbound else []))]

    def leg_progress(self, now: float, *, early_media: bool) -> list[Effect]:
        """An 18x arrived for the outbound leg."""
        if self.state is not DIALING:
            return []
        self._ringing_at = self._ringing_at or now
        ringing = RingingEvent(track_id=self.call_id, timestamp=self._ms(now), early_media=early_media)
        return [Emit(ringing), *([ConnectMedia()] if early_media else [])]

    def leg_answered(self, sdp: str, now: float) -> list[Effect]:
        """The outbound leg was answered; `sdp` is the remote one and usable."""
        if self.state is not DIALING:
            return []
        return [*self._up(sdp, now), ConnectMedia(), *self._configure(before_answer=False), *self._release_held()]

    def leg_refused(self, status: int, reason: str, now: float, *, timed_out: bool = False) -> list[Effect]:
        """3xx–6xx for the outbound leg, or no answer in time (presented as 408)."""
        if self.state is not DIALING:
            return []
        reject = RejectEvent(track_id=self.call_id, timestamp=self._ms(now), code=status, reason=reason)
        cause = ("noAnswer", "system") if timed_out else ("rejected", "callee")
        return [Emit(reject), *self._end(*cause, now)]

    def leg_failed(self, reason: str, now: float) -> list[Effect]:
        """A local fault: a bad URI, a transport that fails, our 200 that is never acknowledged."""
        if self.state is ENDED:
            return []
        sender = "invite" if not self.inbound else "accept"
        return [self._error(reason, now, sender=sender), *self._end_by_us("failed", "system", now)]

    def leg_hung_up(self, now: float) -> list[Effect]:
        """BYE from the remote party."""
        if self.state is ENDED:
            return []
        cause = ("byCaller", "caller") if self.inbound else ("byCallee", "callee")
        return self._end(*cause, now)

    def leg_cancelled(self, now: float) -> list[Effect]:
        """CANCEL from the caller before an answer."""
        if self.state is ENDED:
            return []
        return self._end("canceled", "caller", now)

    def leg_held(self, now: float, *, on_hold: bool) -> list[Effect]:
        """A re-INVITE or UPDATE changed whether we are on hold."""
        if self.state is not UP:
            return []
        return [Emit(Hold(track_id=self.call_id, timestamp=self._ms(now), on_hold=on_hold))]

    def leg_digit(self, digit: str, now: float) -> list[Effect]:
        """A key by SIP INFO."""
        if self.state is ENDED:
            return []
        key = Dtmf(track_id=self.call_id, timestamp=self._ms(now), digit=digit)
        return [Emit(key), *([NoteInput()] if self._has_media else [])]

    def leg_message(self, body: str, content_type: str | None, now: float) -> list[Effect]:
        """An in-dialog MESSAGE."""
        if self.state is ENDED:
            return []
        message = MessageEvent(track_id=self.call_id, timestamp=self._ms(now), body=body, content_type=content_type)
        return [Emit(message)]

    def leg_transfer(self, refer_to: str, referred_by: str | None, now: float) -> list[Effect]:
        """An in-dialog REFER; the client decides."""
        if self.state is ENDED:
            return []
        wish = TransferRequest(
            track_id=self.call_id, timestamp=self._ms(now), refer_to=refer_to, referred_by=referred_by
        )
        return [Emit(wish)]

    # -- what goes in: media and time -------------------------------------------------------------

    def auto_hangup(self, now: float) -> list[Effect]:
        """A playback with autoHangup ended by itself; its trackEnd is in the stream (O18)."""
        return self._end_by_us("autohangup", "system", now)

    def media_lost(self, reason: str, now: float) -> list[Effect]:
        """The media worker cannot go on with the leg."""
        if self.state is ENDED or not self._has_media:
            return []
        self._has_media = False
        error = self._error(reason, now, sender="media")
        return [error, EndLostTracks(), *self._end_by_us("failed", "system", now)]

    def playback_refused(self, sender: str, code: int, reason: str, now: float) -> list[Effect]:
        """The leg refused a playback command."""
        if self.state is ENDED:
            return []
        return [self._error(reason, now, sender=sender, code=code)]

    def tick(self, now: float) -> list[Effect]:
        """The passing of time: the accept timeout."""
        if self.deadline is None or now < self.deadline or self.state is not PENDING:
            return []
        return self._end("noAnswer", "system", now, SendReject(408, "accept timeout"))

    # -- commands ---------------------------------------------------------------------------------

    def _invalid(self, command: ClientCommand, now: float) -> list[Effect]:
        if isinstance(command, Accept) and self.state is IDLE:
            text = "no pending call"
            reject = RejectEvent(track_id=self.call_id, timestamp=self._ms(now), code=486, reason=text)
            return [Emit(reject), self._error(text, now, sender="accept"), *self._end("failed", "system", now)]
        if isinstance(command, Invite) and self.state is PENDING:
            return [self._error("invite: this is a pending inbound call, use accept", now)]
        if isinstance(command, Reject) and self.state is DIALING:
            return [self._error("reject: the call is outbound, use hangup", now)]
        return [self._error(f"{command.command}: not valid while the call is {self.state.value}", now)]

    def _invite(self, option: CallOption, now: float) -> list[Effect]:
        self.state = DIALING
        self.option = option
        if self.call_type is CallType.SIP and not option.callee:
            return self.leg_failed("invite: option.callee is missing", now)
        return [AllocateMedia()]

    def _accept(self, option: CallOption, now: float) -> list[Effect]:
        ringing_recorder = self._ringing.recorder if self._ringing else None
        offer = self._offer
        self.option = option.model_copy(
            update={
                "recorder": ringing_recorder or option.recorder,
                "caller": option.caller or (offer.caller if offer else None),
                "callee": option.callee or (offer.callee if offer else None),
            }
        )
        self._accepting = True
        if not self._has_media:
            return [AllocateMedia()]
        stop: list[Effect] = [ControlPlayback(Interrupt())] if self._ringing and self._ringing.ringtone else []
        return [*stop, *self._answer_inbound(now)]

    def _answer_inbound(self, now: float) -> list[Effect]:
        """The `answer` event goes first, so that nothing the caller's first packet causes can overtake it (O10)."""
        before = self._configure(before_answer=True)
        after = self._configure(before_answer=False)
        return [*before, *self._up(self._local_sdp, now), SendAnswer(), ConnectMedia(), *after, *self._release_held()]

    def _reject(self, command: Reject, now: float) -> list[Effect]:
        code = 603 if command.code is None else command.code
        if not 400 <= code <= 699:
            return [self._error(f"reject: {code} is not a final refusal (400-699)", now)]
        return self._end(command.reason or "rejected", "callee", now, SendReject(code, command.reason))

    def _ring(self, command: Ringing) -> list[Effect]:
        early = command.early_media or command.ringtone is not None
        self._ringing = command
        if not early:
            return [SendRinging(early_media=False)]
        return self._early_media(command) if self._has_media else [AllocateMedia()]

    def _early_media(self, ringing: Ringing) -> list[Effect]:
        effects: list[Effect] = []
        if ringing.recorder is not None:
            effects.append(ConfigureMedia(recorder=_json(ringing.recorder)))
        effects += [SendRinging(early_media=True), ConnectMedia()]
        if ringing.ringtone is not None:
            effects.append(ControlPlayback(Play(url=ringing.ringtone)))
        return [*effects, *self._release_held()]

    def _playback(self, command: Tts | Play, now: float) -> list[Effect]:
        if self.state is DIALING:
            size = len(command.to_json())
            if len(self._held) >= MOST_HELD or self._held_size + size > MOST_HELD_SIZE:
                return [self._error(f"{command.command}: too much waits for the answer already", now)]
            self._held.append(command)
            self._held_size += size
            return []
        if self.state is PENDING and not self._has_media:
            return [self._error(f"{command.command}: the call has no early media yet", now)]
        return [ControlPlayback(command)]

    def _hang_up(self, command: Hangup, now: float) -> list[Effect]:
        if command.refer:
            return [self._error("hangup: there is no transferred leg", now)]
        headers = {**((self.option.sip and self.option.sip.hangup_headers) or {}), **(command.headers or {})}
        return self._end_by_us(command.reason or "bySystem", command.initiator or "system", now, headers=headers)

    # -- parts ------------------------------------------------------------------------------------

    def _up(self, sdp: str, now: float) -> list[Effect]:
        self.state = UP
        self.deadline = None
        self._answered_at = now
        return [Emit(AnswerEvent(track_id=self.call_id, timestamp=self._ms(now), sdp=sdp))]

    def _configure(self, *, before_answer: bool) -> list[Effect]:
        """The option's processing; recognition alone can be put off until the answer (startWhenAnswer)."""
        option = self.option
        waits = option.asr is not None and option.asr.start_when_answer
        if not before_answer:
            return [ConfigureMedia(asr=_json(option.asr))] if waits and option.asr else []
        recorder = option.recorder or (RecorderOption() if self._record_always else None)
        configure = ConfigureMedia(
            denoise=True if option.denoise else None,
            vad=_json(option.vad) if option.vad else None,
            asr=_json(option.asr) if option.asr and not waits else None,
            tts=_json(option.tts) if option.tts else None,
            recorder=_json(recorder) if recorder else None,
        )
        return [] if configure == ConfigureMedia() else [configure]

    def _release_held(self) -> list[Effect]:
        held, self._held, self._held_size = self._held, [], 0
        return [ControlPlayback(command) for command in held]

    def _end_by_us(
        self,
        reason: str,
        initiator: str,
        now: float,
        *,
        headers: Mapping[str, str] | None = None,
        pending_reason: str | None = None,
    ) -> list[Effect]:
        match self.state:
            case CallState.ENDED:
                return []
            case CallState.UP:
                return self._end(reason, initiator, now, SendBye(headers or {}))
            case CallState.DIALING:
                return self._end(reason, initiator, now, SendCancel())
            case CallState.PENDING:
                return self._end(reason, initiator, now, SendReject(603, pending_reason or reason))
            case _:
                return self._end(reason, initiator, now)

    def _end(self, reason: str, initiator: str, now: float, *leg: Effect) -> list[Effect]:
        """Signalling first, then the leg's media with its own last events, then E(main), hangup (O2–O18)."""
        self.state = ENDED
        self.deadline = None
        self._held.clear()
        effects: list[Effect] = list(leg)
        if self._has_media:
            effects.append(CloseMedia())
        if self._track_started_at is not None:
            duration = 0 if self._answered_at is None else round((now - self._answered_at) * 1000)
            end = TrackEnd(track_id=self.call_id, timestamp=self._ms(now), duration=duration, ssrc=self._ssrc)
            effects.append(Emit(end))
        return [*effects, Emit(self._hangup_event(reason, initiator, now)), Finish()]

    def _hangup_event(self, reason: str, initiator: str, now: float) -> HangupEvent:
        extra = {key: value for key, value in (self.option.extra or {}).items() if not key.startswith("_")}
        started = self._wall(self._started)
        extra |= {"session_id": self.call_id, "call_type": self.call_type.value, "start_time": started}
        return HangupEvent(
            track_id=self.call_id,
            timestamp=self._ms(now),
            start_time=started,
            hangup_time=self._wall(now),
            ringing_time=self._wall(self._ringing_at) if self._ringing_at is not None else None,
            answer_time=self._wall(self._answered_at) if self._answered_at is not None else None,
            reason=reason,
            initiator=initiator,
            from_=_attendee(self.option.caller),
            to=_attendee(self.option.callee),
            extra=extra,
        )

    def _error(self, text: str, now: float, *, sender: str = "command", code: int | None = None) -> Emit:
        return Emit(ErrorEvent(track_id=self.call_id, timestamp=self._ms(now), sender=sender, error=text, code=code))

    def _at(self, now: float) -> datetime:
        return self._epoch + timedelta(seconds=now - self._started)

    def _ms(self, now: float) -> int:
        return int(self._at(now).timestamp() * 1000)

    def _wall(self, now: float) -> str:
        return self._at(now).isoformat()


def _json(option: ClientJson) -> dict[str, Any]:
    return option.model_dump(mode="json", by_alias=True, exclude_none=True)


def _attendee(uri: str | None) -> Attendee | None:
    """The parts of an address, `realm` without its port, as the anchors' CDR has them (protocol 3.1)."""
    if not uri:
        return None
    match = _URI.match(uri)
    user, host = (match[1] or "", match[2] or "") if match else ("", "")
    return Attendee(username=user.partition(":")[0].partition(";")[0], realm=host, source=uri)
