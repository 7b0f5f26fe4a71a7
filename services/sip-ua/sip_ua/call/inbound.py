"""A call from outside, until its answer: offered, rung, accepted or rejected, given up (O10 to O14)."""

from dialbus.contracts.cause import Cause, reason_word
from dialbus.contracts.commands import Accept, Play, Reject, Ringing
from dialbus.contracts.events import Incoming
from dialbus.contracts.media import LegKind, Playback, StopPlayback
from dialbus.contracts.options import CallOption
from sip_ua.call import configure
from sip_ua.call.conversation import answered, media_here, release_held
from sip_ua.call.effects import Announce, Ask, Effect, Emit, SendAnswer, SendReject, SendRinging
from sip_ua.call.ending import end
from sip_ua.call.inputs import Attached, LegCancelled, MediaReady, MediaRefused, Offered, Tick, WebhookOutcome
from sip_ua.call.leg import Phase
from sip_ua.call.state import Call


def offered(call: Call, offer: Offered, now: float) -> list[Effect]:
    """Tell of it; the waits for a client and for the webhook's outcome begin before anybody is asked (G7)."""
    main, settings = call.main, call.settings
    main.phase = Phase.PENDING
    main.caller, main.callee = offer.caller, offer.callee
    call.offer = offer
    call.option = CallOption(caller=offer.caller, callee=offer.callee)
    call.accept_by = now + settings.accept_timeout_s
    call.webhook_by = None if settings.webhook_timeout_s is None else now + settings.webhook_timeout_s
    incoming = Incoming(
        track_id=call.call_id,
        timestamp=call.clock.ms(now),
        caller=offer.caller,
        callee=offer.callee,
        sdp=offer.sdp,
        headers=dict(offer.headers) or None,
    )
    return [Emit(incoming), Announce()]


def webhook_outcome(call: Call, outcome: WebhookOutcome, now: float) -> list[Effect]:
    """Nobody can be told of the inbound call: 503."""
    call.webhook_by = None
    return [] if outcome.delivered else _refused(call, "failed", 503, outcome.reason, now)


def attached(call: Call, taken: Attached, _: float) -> list[Effect]:
    """A client has the call and names its server-side track."""
    call.gateway, call.dump, call.server_track = taken.gateway, taken.dump, taken.server_track
    return []


def tick(call: Call, _: Tick, now: float) -> list[Effect]:
    """Nobody accepted in time (O14), or webhook-dispatcher said nothing."""
    if call.webhook_by is not None and now >= call.webhook_by:
        return _refused(call, "failed", 503, "webhook-dispatcher does not answer", now)
    if call.accept_by is not None and now >= call.accept_by:
        return _refused(call, "noAnswer", 408, "accept timeout", now)
    return []


def cancelled(call: Call, _: LegCancelled, now: float) -> list[Effect]:
    """The caller gave up (O13)."""
    return end(call, Cause("canceled", "caller", 487, "Request Terminated"), now)


def _refused(call: Call, reason: str, code: int, phrase: str, now: float) -> list[Effect]:
    return end(call, Cause(reason, "system", code, phrase), now, SendReject(code, phrase))


# -- the client's commands ----------------------------------------------------------------------------


def reject(call: Call, command: Reject, now: float) -> list[Effect]:
    """`reject` (O12)."""
    code = 603 if command.code is None else command.code
    if not 400 <= code <= 699:
        return [call.error(f"reject: {code} is not a final refusal (400-699)", now, code=400)]
    reason = reason_word(command.reason or "rejected")
    return end(call, Cause(reason, "callee", code, command.reason), now, SendReject(code, command.reason))


def ring(call: Call, command: Ringing, now: float) -> list[Effect]:
    """`ringing`: 180, or something to hear."""
    call.ringing = command
    call.main.ringing_at = call.main.ringing_at or now
    call.ringing_recorder = call.ringing_recorder or command.recorder
    if not command.early_media and command.ringtone is None and not call.early:
        return [SendRinging(early_media=False)]
    if call.main.has_media:
        return _early_media(call, command)
    return call.main.allocate(Phase.RINGING, _kind(call))


def accept(call: Call, command: Accept, now: float) -> list[Effect]:
    """`accept`; the clocks of the pending call stop."""
    option, offer = command.option, call.offer
    call.option = option.model_copy(
        update={
            "recorder": call.ringing_recorder or option.recorder,
            "caller": option.caller or (offer.caller if offer else None),
            "callee": option.callee or (offer.callee if offer else None),
        }
    )
    call.main.caller, call.main.callee = call.option.caller, call.option.callee
    call.accept_by = call.webhook_by = None
    if not call.main.has_media:
        return call.main.allocate(Phase.ACCEPTING, _kind(call))
    stop = [Ask(StopPlayback(call_id=call.call_id, play_id=call.ringtone))] if call.ringtone is not None else []
    return [*stop, *_answer(call, now)]


def _kind(call: Call) -> LegKind:
    """A browser's offer may come by SIP, and is then answered as WebRTC (protocol 5.7)."""
    sdp = call.offer.sdp if call.offer else ""
    return "webrtc" if "a=ice-ufrag:" in sdp and "a=fingerprint:" in sdp else "rtp"


# -- media --------------------------------------------------------------------------------------------


def media_ready_to_ring(call: Call, ready: MediaReady, now: float) -> list[Effect]:
    """Let the caller hear what the latest `ringing` wants."""
    assert call.ringing is not None
    call.main.phase = Phase.PENDING
    return [*media_here(call, ready, now), *_early_media(call, call.ringing)]


def media_ready_to_answer(call: Call, ready: MediaReady, now: float) -> list[Effect]:
    """Answer."""
    return [*media_here(call, ready, now), *_answer(call, now)]


def media_refused(call: Call, refused: MediaRefused, now: float) -> list[Effect]:
    """The leg cannot be: no worker, no common codec (488)."""
    sender = "accept" if call.main.phase is Phase.ACCEPTING else "ringing"
    call.main.awaits_media = False
    error = call.error(refused.reason, now, sender=sender, code=refused.code)
    return [error, *_refused(call, "failed", refused.code, refused.reason, now)]


def _answer(call: Call, now: float) -> list[Effect]:
    """The `answer` event goes first, so that nothing the caller's first packet causes can overtake it (O10)."""
    configured = configure.before_answer(call)
    up = answered(call, call.main.local_sdp, now)
    after = [*configure.with_answer(call), *release_held(call)]
    return [*configured, *up, SendAnswer(call.option.sip), *call.main.connect(), *after]


def _early_media(call: Call, ringing: Ringing) -> list[Effect]:
    call.early = True
    effects = [] if ringing.recorder is None else configure.early_recorder(call, ringing.recorder)
    effects += [SendRinging(early_media=True), *call.main.connect()]
    if ringing.ringtone is not None:
        call.ringtone = ringing.ringtone
        effects.append(Ask(Playback(call_id=call.call_id, command=Play(url=ringing.ringtone))))
    return [*effects, *release_held(call)]
