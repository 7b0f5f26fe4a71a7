"""The call machine: one call's states, which commands are valid in them, and the order of its events.

Sans-IO: commands, leg reports and the passing of time go in; effects come out (`sip_ua.call.effects`). It holds the
validity table of protocol section 2 and the orders of section 4 for everything but playback, whose own machine runs
beside the audio. Whoever owns a call runs it, whatever its type: sip-ua.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dialbus.contracts.base import ClientJson
from dialbus.contracts.cause import reason_word
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
    CustomEvent,
    Dtmf,
    ErrorEvent,
    HangupEvent,
    Hold,
    Inactivity,
    Incoming,
    MessageEvent,
    RejectEvent,
    RingingEvent,
    TrackEnd,
    TrackStart,
    TransferRequest,
    attendee,
)
from dialbus.contracts.media import MAIN_LEG, REFER_LEG, LegKind, PlaybackCommand, RecordedFile
from dialbus.contracts.options import AmbianceOption, CallOption, RecorderOption, masked
from dialbus.contracts.records import CallRecord, HangupMessage, RecordedMedia
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.bridges import Bridges
from sip_ua.call.effects import (
    AddCandidate,
    AllocateMedia,
    CloseMedia,
    ConfigureMedia,
    ConnectMedia,
    ControlPlayback,
    Dial,
    Effect,
    Emit,
    EndLostTracks,
    FindCallee,
    Finish,
    NoteInput,
    SendAnswer,
    SendBye,
    SendCancel,
    SendInvite,
    SendMessage,
    SendReject,
    SendRinging,
    StopPlayback,
)
from sip_ua.call.facts import Clock
from sip_ua.call.transfer import Phase, Transfer

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
    Refer: frozenset({UP}),
    Message: frozenset({UP}),
    Bridge: frozenset({UP}),
    Unbridge: frozenset({UP}),
    AddIceCandidate: frozenset({IDLE, PENDING, DIALING, UP}),
}
"""Protocol section 2. `tts` and `play` are held while dialing, and in pending need early media."""

MOST_HELD = 200
MOST_HELD_SIZE = 1 << 20
"""Commands, and characters of JSON, that may wait for an answer (protocol Q-22)."""

MOST_CANDIDATES = 64
"""ICE candidates that may wait for the leg."""

_PLAIN_TEXT = "text/plain;charset=utf-8"


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
        recorder: RecorderOption | None = None,
        ambiance: AmbianceOption | None = None,
    ) -> None:
        """What a call has whose client does not say otherwise.

        `recorder` records it; `ambiance` plays behind it.
        """
        self.call_id = call_id
        self.call_type = call_type
        self.state = IDLE
        self.inbound = False
        self.server_track = server_track
        self.option = CallOption()
        self._clock = Clock(started, epoch)
        self._accept_timeout_s = accept_timeout_s
        self._accept_by: float | None = None
        self._recorder = recorder
        self._ambiance = ambiance
        self._offer: InboundOffer | None = None
        self._accepting = False
        self._early = False
        """The caller has our SDP before the answer."""
        self._ringtone: str | None = None
        """What `ringing` last began to play."""
        self._ringing_recorder: RecorderOption | None = None
        self._ringing: Ringing | None = None
        self._has_media = False
        self._is_configured = False
        """Whether the leg was told anything that it may complain of."""
        self._ssrc = 0
        self._local_sdp = ""
        self._remote_sdp = ""
        self._track_started_at: float | None = None
        self._ringing_at: float | None = None
        self._answered_at: float | None = None
        self._held: list[PlaybackCommand] = []
        self._held_size = 0
        self._candidates: list[AddCandidate] = []
        self._bridges = Bridges(call_id, self._clock)
        self._transfer: Transfer | None = None
        self._last_transfer: Transfer | None = None
        """The one before, in case that nothing comes of the present one."""
        # For the record.
        self._ended_at: float | None = None
        self._status = 0
        self._end_reason: str | None = None
        self._messages: list[HangupMessage] = []

    # -- what may be asked ------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When to `tick`."""
        transfer = self._transfer.deadline if self._transfer is not None else None
        return min((due for due in (self._accept_by, transfer) if due is not None), default=None)

    @property
    def ringing_time(self) -> str | None:
        """When it first rang, RFC 3339."""
        return self._clock.wall_or_none(self._ringing_at)

    @property
    def answer_time(self) -> str | None:
        """When it was answered, RFC 3339."""
        return self._clock.wall_or_none(self._answered_at)

    def record(self, recordings: Sequence[RecordedFile], dump_file: str | None) -> CallRecord:
        """What is kept of the call that is over (protocol 9.4)."""
        option = self.option.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"offer"})
        inbound = self._offer is not None
        return CallRecord(
            call_type=self.call_type.value,
            call_id=self.call_id,
            caller=self.option.caller or "",
            callee=self.option.callee or "",
            start_time=self._clock.wall(self._clock.started),
            ring_time=self.ringing_time,
            answer_time=self.answer_time,
            end_time=self._clock.wall(self._clock.started if self._ended_at is None else self._ended_at),
            status_code=self._status,
            hangup_reason=self._end_reason,
            hangup_messages=self._messages,
            recorder=[RecordedMedia(track_id=r.track_id, path=r.path, size=r.size_bytes) for r in recordings],
            dump_event_file=dump_file,
            extras=self._extra(),
            option=masked(option),
            offer=(self._offer.sdp if self._offer else self.option.offer or self._local_sdp) or None,
            answer=(self._local_sdp if inbound or self.option.offer else self._remote_sdp) or None,
            refer_callrecord=self._transfer.record() if self._transfer is not None else None,
        )

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
                return self._ring(command, now)
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
                    timestamp=self._clock.ms(now), speaker=command.speaker, text=command.text, sender=self.call_id
                )
                return [Emit(added)]
            case Custom():
                return [Emit(CustomEvent(timestamp=self._clock.ms(now), data=command.data, sender=command.sender))]
            case Refer():
                return self._refer(command, now)
            case Message():
                return self._message(command, now)
            case Bridge():
                return self._bridge(command.target_session_id, now)
            case Unbridge():
                return self._bridges.leave(command.target_session_id, self._ssrc, now)
            case AddIceCandidate():
                return self._candidate(command)

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
        self._accept_by = now + self._accept_timeout_s
        incoming = Incoming(
            track_id=self.call_id,
            timestamp=self._clock.ms(now),
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
        self._note(503, reason)
        return self._end("failed", "system", now, SendReject(503, reason))

    def leg_progress(self, now: float, *, early_media: bool, leg: str = MAIN_LEG) -> list[Effect]:
        """An 18x arrived for an outbound leg."""
        if leg == REFER_LEG:
            return self._transfer.progress(now, early_media=early_media) if self._transfer else []
        if self.state is not DIALING:
            return []
        self._ringing_at = self._ringing_at or now
        ringing = RingingEvent(track_id=self.call_id, timestamp=self._clock.ms(now), early_media=early_media)
        return [Emit(ringing), *([ConnectMedia()] if early_media else [])]

    def leg_answered(self, sdp: str, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """An outbound leg was answered; `sdp` is the remote one and usable."""
        if leg == REFER_LEG:
            return self._transfer.answered(sdp, now) if self._transfer else []
        if self.state is not DIALING:
            return []
        self._remote_sdp = sdp
        return [*self._up(sdp, now), ConnectMedia(), *self._configure_answered(), *self._release_held()]

    def leg_refused(
        self, status: int, reason: str, now: float, *, timed_out: bool = False, leg: str = MAIN_LEG
    ) -> list[Effect]:
        """3xx–6xx for an outbound leg, or no answer in time (presented as 408)."""
        if leg == REFER_LEG:
            return self._transfer.refused(status, reason, now, timed_out=timed_out) if self._transfer else []
        if self.state is not DIALING:
            return []
        self._note(status, reason)
        reject = RejectEvent(track_id=self.call_id, timestamp=self._clock.ms(now), code=status, reason=reason)
        cause = ("noAnswer", "system") if timed_out else ("rejected", "callee")
        return [Emit(reject), *self._end(*cause, now)]

    def leg_failed(self, reason: str, now: float, *, status: int = 500, leg: str = MAIN_LEG) -> list[Effect]:
        """A local fault: a bad URI, a transport that fails, our 200 that is never acknowledged."""
        if leg == REFER_LEG:
            return self._transfer.failed(reason, now) if self._transfer else []
        if self.state is ENDED:
            return []
        sender = "invite" if not self.inbound else "accept"
        return [self._error(reason, now, sender=sender), *self._end_by_us("failed", "system", now, status=status)]

    def leg_hung_up(self, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """BYE from a remote party; a transferred one may take the main call along (O25)."""
        if leg == REFER_LEG:
            return self._transferee_hung_up(now)
        if self.state is ENDED:
            return []
        return self._end(*self._hung_up_by, now)

    @property
    def _hung_up_by(self) -> tuple[str, str]:
        """Reason and initiator when the remote party hangs up (protocol 3.1)."""
        return ("byCaller", "caller") if self.inbound else ("byCallee", "callee")

    def leg_cancelled(self, now: float) -> list[Effect]:
        """CANCEL from the caller before an answer."""
        if self.state is ENDED:
            return []
        self._note(487, "Request Terminated")
        return self._end("canceled", "caller", now)

    def leg_held(self, now: float, *, on_hold: bool, leg: str = MAIN_LEG) -> list[Effect]:
        """A re-INVITE or UPDATE changed whether we are on hold."""
        if not self._is_up(leg):
            return []
        track, refer = self._track_of(leg)
        return [Emit(Hold(track_id=track, timestamp=self._clock.ms(now), on_hold=on_hold, refer=refer))]

    def leg_digit(self, digit: str, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """A key by SIP INFO."""
        if not self._is_there(leg):
            return []
        track, refer = self._track_of(leg)
        key = Dtmf(track_id=track, timestamp=self._clock.ms(now), digit=digit, refer=refer)
        return [Emit(key), *([NoteInput()] if self._has_media and not refer else [])]

    def leg_message(self, body: str, content_type: str | None, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """An in-dialog MESSAGE."""
        if not self._is_there(leg):
            return []
        track, refer = self._track_of(leg)
        at = self._clock.ms(now)
        return [Emit(MessageEvent(track_id=track, timestamp=at, body=body, content_type=content_type, refer=refer))]

    def leg_transfer(self, refer_to: str, referred_by: str | None, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """An in-dialog REFER; the client decides."""
        if not self._is_there(leg):
            return []
        track, refer = self._track_of(leg)
        wish = TransferRequest(
            track_id=track, timestamp=self._clock.ms(now), refer_to=refer_to, referred_by=referred_by, refer=refer
        )
        return [Emit(wish)]

    def message_refused(self, status: int, reason: str, now: float) -> list[Effect]:
        """A MESSAGE of ours got no 2xx."""
        if self.state is ENDED:
            return []
        return [self._error(f"message: the peer answers {status} {reason}", now, code=502)]

    # -- what goes in: other calls ----------------------------------------------------------------

    def bridge_objection(self, other: str) -> str | None:
        """Why another call's owner can't have our half; None when it can."""
        if self.state is not UP:
            return "the session is not up"
        return None if self._bridges.has_room_for(other) else "the session has too many bridges"

    def bridge_wanted(self, other: str, now: float) -> list[Effect]:
        """Another call's owner asks for our half; it gets it exactly when there is no objection."""
        return self._bridges.switch_on(other, self._ssrc, now) if self.bridge_objection(other) is None else []

    def bridge_agreed(self, other: str, now: float) -> list[Effect]:
        """The call that we asked has switched its half on."""
        return self._bridges.agreed(other, self._ssrc, now)

    def bridge_refused(self, other: str, code: int, reason: str, now: float) -> list[Effect]:
        """The call that we asked is not there, or not up."""
        if not self._bridges.refused(other) or self.state is ENDED:
            return []
        return [self._error(f"bridge: {reason}", now, code=code)]

    def bridge_left(self, other: str, now: float) -> list[Effect]:
        """The other call has ended the bridge, or itself."""
        return self._bridges.left(other, self._ssrc, now)

    # -- what goes in: media and time -------------------------------------------------------------

    def callee_found(self, leg: str = MAIN_LEG) -> list[Effect]:
        """There is a way to the callee of an outbound SIP leg."""
        if leg == REFER_LEG:
            return self._transfer.callee_found() if self._transfer else []
        return [AllocateMedia()] if self.state is DIALING else []

    def media_ready(self, ssrc: int, sdp: str, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """A media worker has the leg; `sdp` is ours (an offer when we dial, else an answer, empty for `/call`)."""
        if leg == REFER_LEG:
            return self._transfer.media_ready(ssrc, now) if self._transfer else []
        self._has_media = True
        self._ssrc = ssrc
        self._local_sdp = sdp
        self._track_started_at = now
        effects: list[Effect] = [Emit(TrackStart(track_id=self.call_id, timestamp=self._clock.ms(now)))]
        effects += self._candidates
        self._candidates.clear()
        if self._accepting:
            return [*effects, *self._answer_inbound(now)]
        if self._ringing is not None and self.state is PENDING:
            return [*effects, *self._early_media(self._ringing)]
        effects += self._configure()
        if self.call_type is CallType.SIP:
            return [*effects, SendInvite()]
        return [*effects, *self._up(sdp, now), *self._configure_answered(), *self._release_held()]

    def media_refused(self, code: int, reason: str, now: float, leg: str = MAIN_LEG) -> list[Effect]:
        """No media worker, no common codec (488), nobody to call: the leg cannot be."""
        if leg == REFER_LEG:
            if self._transfer is None or self._transfer.phase is not Phase.WANTED:
                return []
            self._transfer = self._last_transfer
            return [self._error(f"refer: {reason}", now, code=code)]
        if self.state is ENDED:
            return []
        sender = "accept" if self._accepting else "invite" if not self.inbound else "ringing"
        error = self._error(reason, now, sender=sender, code=code)
        self._note(code, reason)
        return [error, *self._end("failed", "system", now, *([SendReject(code, reason)] if self.inbound else []))]

    def auto_hangup(self, now: float) -> list[Effect]:
        """A playback with autoHangup ended by itself; its trackEnd is in the stream (O18)."""
        return self._end_by_us("autohangup", "system", now)

    def inactive(self, now: float) -> list[Effect]:
        """Nothing was heard of the remote party for the inactivity timeout (O27)."""
        if self.state is not UP:
            return []
        inactivity = Inactivity(track_id=self.call_id, timestamp=self._clock.ms(now))
        return [Emit(inactivity), *self._end_by_us("inactivityTimeout", "system", now)]

    def media_lost(self, reason: str, now: float, *, leg: str = MAIN_LEG, gone: bool = True) -> list[Effect]:
        """A media worker cannot go on with a leg; `gone`: it can't even end what it has begun."""
        if self.state is ENDED or not self._has_media:
            return []
        error = self._error(reason, now, sender="media")
        if leg == REFER_LEG:
            transfer = self._transfer
            return [error, *transfer.failed(reason, now)] if transfer and transfer.is_active else []
        if not gone:
            return [error, *self._end_by_us("failed", "system", now)]
        self._has_media = False
        transferred = (self._transfer.track,) if self._transfer and self._transfer.track_is_open else ()
        lost = EndLostTracks((*self._bridges.tracks, *transferred))
        return [error, lost, *self._end_by_us("failed", "system", now)]

    def media_left(self, now: float) -> list[Effect]:
        """The remote party closed the main leg's media, as a browser does to hang up; SIP may not have told yet."""
        if self.state is ENDED or not self._has_media:
            return []
        return self._end_by_us(*self._hung_up_by, now)

    def media_not_closed(self) -> list[Effect]:
        """The worker that should have closed the main leg is gone: its tracks end here."""
        return [EndLostTracks()]

    def playback_refused(self, sender: str, code: int, reason: str, now: float) -> list[Effect]:
        """The leg refused a command."""
        if self.state is ENDED:
            return []
        return [self._error(reason, now, sender=sender, code=code)]

    def tick(self, now: float) -> list[Effect]:
        """The passing of time: the accept timeout, the end of a transfer's ringing."""
        transfer = self._transfer
        if transfer is not None and transfer.deadline is not None and now >= transfer.deadline:
            return transfer.expired(now)
        if self._accept_by is None or now < self._accept_by or self.state is not PENDING:
            return []
        self._note(408, "accept timeout")
        return self._end("noAnswer", "system", now, SendReject(408, "accept timeout"))

    # -- commands ---------------------------------------------------------------------------------

    def _invalid(self, command: ClientCommand, now: float) -> list[Effect]:
        if isinstance(command, Accept) and self.state is IDLE:
            text = "no pending call"
            reject = RejectEvent(track_id=self.call_id, timestamp=self._clock.ms(now), code=486, reason=text)
            self._note(486, text)
            return [Emit(reject), self._error(text, now, sender="accept"), *self._end("failed", "system", now)]
        if isinstance(command, Invite) and self.state is PENDING:
            return [self._error("invite: this is a pending inbound call, use accept", now)]
        if isinstance(command, Reject) and self.state is DIALING:
            return [self._error("reject: the call is outbound, use hangup", now)]
        return [self._error(f"{command.command}: not valid while the call is {self.state.value}", now)]

    def _invite(self, option: CallOption, now: float) -> list[Effect]:
        self.state = DIALING
        self.option = option
        match self.call_type:
            case CallType.SIP if not option.callee:
                return self.leg_failed("invite: option.callee is missing", now, status=400)
            case CallType.SIP:
                return [FindCallee(Dial(option.caller, option.callee, option.sip))]
            case CallType.WEBRTC if not option.offer:
                return self.leg_failed("invite: option.offer is missing", now, status=400)
            case CallType.WEBRTC:
                return [AllocateMedia(kind="webrtc")]
            case CallType.WEBSOCKET:
                return [AllocateMedia(kind="socket")]

    def _accept(self, option: CallOption, now: float) -> list[Effect]:
        offer = self._offer
        self.option = option.model_copy(
            update={
                "recorder": self._ringing_recorder or option.recorder,
                "caller": option.caller or (offer.caller if offer else None),
                "callee": option.callee or (offer.callee if offer else None),
            }
        )
        self._accepting = True
        if not self._has_media:
            return [AllocateMedia(kind=self._inbound_kind)]
        stop: list[Effect] = [StopPlayback(play_id=self._ringtone)] if self._ringtone is not None else []
        return [*stop, *self._answer_inbound(now)]

    @property
    def _inbound_kind(self) -> LegKind:
        """A browser's offer may come by SIP, and is then answered as WebRTC (protocol 5.7)."""
        sdp = self._offer.sdp if self._offer else ""
        return "webrtc" if "a=ice-ufrag:" in sdp and "a=fingerprint:" in sdp else "rtp"

    def _answer_inbound(self, now: float) -> list[Effect]:
        """The `answer` event goes first, so that nothing the caller's first packet causes can overtake it (O10)."""
        configured = self._configure()
        answered = self._up(self._local_sdp, now)
        after = [*self._configure_answered(), *self._release_held()]
        return [*configured, *answered, SendAnswer(), ConnectMedia(), *after]

    def _reject(self, command: Reject, now: float) -> list[Effect]:
        code = 603 if command.code is None else command.code
        if not 400 <= code <= 699:
            return [self._error(f"reject: {code} is not a final refusal (400-699)", now, code=400)]
        self._note(code, command.reason)
        reason = reason_word(command.reason or "rejected")
        return self._end(reason, "callee", now, SendReject(code, command.reason))

    def _ring(self, command: Ringing, now: float) -> list[Effect]:
        self._ringing = command
        self._ringing_at = self._ringing_at or now
        self._ringing_recorder = self._ringing_recorder or command.recorder
        if not command.early_media and command.ringtone is None and not self._early:
            return [SendRinging(early_media=False)]
        return self._early_media(command) if self._has_media else [AllocateMedia(kind=self._inbound_kind)]

    def _early_media(self, ringing: Ringing) -> list[Effect]:
        self._early = True
        effects: list[Effect] = []
        if ringing.recorder is not None:
            effects += self._before_answer(ConfigureMedia(recorder=ringing.recorder))
        effects += [SendRinging(early_media=True), ConnectMedia()]
        if ringing.ringtone is not None:
            self._ringtone = ringing.ringtone
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
        reason = reason_word(command.reason or "bySystem")
        if command.refer:
            if self._transfer is None or not self._transfer.is_active:
                return [self._error("hangup: there is no transferred leg", now, code=409)]
            return self._transfer.hang_up(command, reason, now)
        headers = {**((self.option.sip and self.option.sip.hangup_headers) or {}), **(command.headers or {})}
        initiator = command.initiator or "system"
        effects = self._end_by_us(reason, initiator, now, headers=headers, pending_reason="handler disconnected")
        if not command.reason and command.initiator in ("caller", "callee"):
            self._end_reason = reason_word(command.initiator)  # it selects the reason of the record (protocol 2.9)
        return effects

    def _refer(self, command: Refer, now: float) -> list[Effect]:
        if self._transfer is not None and self._transfer.is_active:
            return [self._error("refer: a transfer is active already", now, code=409)]
        option = self.option
        first = self._offer.caller if self._offer is not None else option.caller
        usable = first if first and not first.lower().startswith(("tel:", "sips:")) else None
        headers = {"X-Referred-To": option.callee, "X-Referred-From": option.caller, "X-Referred-Id": self.call_id}
        self._last_transfer = self._transfer
        self._transfer = Transfer(
            command,
            caller=command.caller or usable,
            headers={name: value for name, value in headers.items() if value},
            call_id=self.call_id,
            track=self.server_track,
            clock=self._clock,
            now=now,
        )
        return self._transfer.begin()

    def _transferee_hung_up(self, now: float) -> list[Effect]:
        transfer = self._transfer
        effects = transfer.hung_up(now) if transfer is not None else []
        if effects and transfer is not None and transfer.options.auto_hangup:
            effects += self._end_by_us("byRefer", "system", now)
        return effects

    def _message(self, command: Message, now: float) -> list[Effect]:
        leg = REFER_LEG if command.refer else MAIN_LEG
        if not self._is_up(leg):
            return [self._error("message: there is no transferred leg that is up", now, code=409)]
        if leg == MAIN_LEG and self.call_type is not CallType.SIP:
            return [self._error("message: the call is not a SIP call", now, code=409)]
        return [SendMessage(command.body, command.content_type or _PLAIN_TEXT, command.headers or {}, leg)]

    def _bridge(self, other: str, now: float) -> list[Effect]:
        if other == self.call_id:
            return [self._error("bridge: a call can't be bridged to itself", now, code=409)]
        if not self._bridges.has_room_for(other):
            return [self._error("bridge: too many bridges", now, code=409)]
        return self._bridges.ask(other)

    def _candidate(self, command: AddIceCandidate) -> list[Effect]:
        """A trickled candidate; without a leg it waits, and on calls without ICE it means nothing (protocol 2.14)."""
        if self.call_type is not CallType.WEBRTC:
            return []
        candidate = AddCandidate(command.candidate, command.sdp_mid, command.sdp_m_line_index)
        if self._has_media:
            return [candidate]
        self._candidates = [*self._candidates, candidate][-MOST_CANDIDATES:]
        return []

    # -- parts ------------------------------------------------------------------------------------

    def _up(self, sdp: str, now: float) -> list[Effect]:
        self.state = UP
        self._accept_by = None
        self._answered_at = now
        self._status = 200
        return [Emit(AnswerEvent(track_id=self.call_id, timestamp=self._clock.ms(now), sdp=sdp))]

    def _configure(self) -> list[Effect]:
        """The option's processing, before the answer; recognition alone can be put off (startWhenAnswer)."""
        option = self.option
        waits = option.asr is not None and option.asr.start_when_answer
        recorder = option.recorder or self._recorder
        return self._before_answer(
            ConfigureMedia(
                denoise=True if option.denoise else None,
                vad=option.vad,
                asr=None if waits else option.asr,
                tts=option.tts,
                recorder=recorder,
                agc=option.agc,
                ambiance=_over(self._ambiance, option.ambiance),
                media_pass=option.media_pass,
                subscribe=True if option.subscribe and self.call_type is not CallType.WEBSOCKET else None,
            )
        )

    def _before_answer(self, wanted: ConfigureMedia) -> list[Effect]:
        """No `error` event may come before the outcome of an `invite` (G2)."""
        if wanted.says_nothing:
            return []
        self._is_configured = True
        return [replace(wanted, answered=False)]

    def _configure_answered(self) -> list[Effect]:
        """What begins with the answer, and what nobody provides: told after it (G2)."""
        option = self.option
        detection = option.ringback_detection
        asked = {
            "eou": option.eou is not None,
            "ringbackDetection": detection is not None and detection.get("enabled") is not False,
            "realtime": option.realtime is not None,
            "enableSrtp": option.sip is not None and bool(option.sip.enable_srtp),
        }
        waits = option.asr is not None and option.asr.start_when_answer
        return _unless_empty(
            ConfigureMedia(
                answered=True if self._is_configured else None,
                asr=option.asr if waits else None,
                inactivity_timeout_s=option.inactivity_timeout or None,
                unsupported=tuple(name for name, is_asked in asked.items() if is_asked) or None,
            )
        )

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
        status: int = 487,
    ) -> list[Effect]:
        match self.state:
            case CallState.ENDED:
                return []
            case CallState.UP:
                return self._end(reason, initiator, now, SendBye(headers or {}))
            case CallState.DIALING:
                self._note(status, None)
                return self._end(reason, initiator, now, SendCancel())
            case CallState.PENDING:
                told = pending_reason or reason
                self._note(603, told)
                return self._end(reason, initiator, now, SendReject(603, told))
            case _:
                self._status = status
                return self._end(reason, initiator, now)

    def _end(self, reason: str, initiator: str, now: float, *signal: Effect) -> list[Effect]:
        """Signalling first, then the legs' media with their own last events, then E(main), hangup (O2–O18, O26)."""
        self.state = ENDED
        self._accept_by = None
        self._ended_at = now
        self._end_reason = reason
        self._held.clear()
        signals, second_leg = (
            self._transfer.dropped(now, media_gone=not self._has_media) if self._transfer is not None else ([], [])
        )
        told, bridge_ends = self._bridges.end(self._ssrc, now)
        effects: list[Effect] = [*signal, *signals, *told, *second_leg, *bridge_ends]
        if self._has_media:
            effects.append(CloseMedia())
        if self._track_started_at is not None:
            duration = 0 if self._answered_at is None else round((now - self._answered_at) * 1000)
            end = TrackEnd(track_id=self.call_id, timestamp=self._clock.ms(now), duration=duration, ssrc=self._ssrc)
            effects.append(Emit(end))
        return [*effects, Emit(self._hangup_event(reason, initiator, now)), Finish()]

    def _hangup_event(self, reason: str, initiator: str, now: float) -> HangupEvent:
        return HangupEvent(
            track_id=self.call_id,
            timestamp=self._clock.ms(now),
            start_time=self._clock.wall(self._clock.started),
            hangup_time=self._clock.wall(now),
            ringing_time=self.ringing_time,
            answer_time=self.answer_time,
            reason=reason,
            initiator=initiator,
            from_=attendee(self.option.caller),
            to=attendee(self.option.callee),
            extra=self._extra(),
        )

    def _extra(self) -> dict[str, str]:
        extra = {key: value for key, value in (self.option.extra or {}).items() if not key.startswith("_")}
        started = self._clock.wall(self._clock.started)
        return extra | {"session_id": self.call_id, "call_type": self.call_type.value, "start_time": started}

    def _note(self, status: int, reason: str | None) -> None:
        """A final status, for the record."""
        self._status = status
        self._messages.append(HangupMessage(code=status, reason=reason, target=self.option.callee))

    def _is_up(self, leg: str) -> bool:
        if self.state is not UP or leg == MAIN_LEG:
            return self.state is UP
        return self._transfer is not None and self._transfer.phase is Phase.UP

    def _is_there(self, leg: str) -> bool:
        if self.state is ENDED or leg == MAIN_LEG:
            return self.state is not ENDED
        return self._transfer is not None and self._transfer.is_active

    def _track_of(self, leg: str) -> tuple[str, bool]:
        """The `trackId` and `refer` of what a leg tells."""
        return (self.server_track, True) if leg == REFER_LEG else (self.call_id, False)

    def _error(self, text: str, now: float, *, sender: str = "command", code: int | None = None) -> Emit:
        at = self._clock.ms(now)
        return Emit(ErrorEvent(track_id=self.call_id, timestamp=at, sender=sender, error=text, code=code))


def _over(ours: AmbianceOption | None, chosen: AmbianceOption | None) -> AmbianceOption | None:
    """What the client sent, over the settings'."""
    if ours is None or chosen is None:
        return chosen or ours
    return ours.model_copy(update={name: getattr(chosen, name) for name in chosen.model_fields_set})


def _unless_empty(configure: ConfigureMedia) -> list[Effect]:
    return [] if configure.says_nothing else [configure]
