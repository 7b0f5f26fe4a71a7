"""The second leg of a transfer (protocol section 6): from `refer` to its own `hangup`, orders O23 to O26.

It never touches the main leg but for its playback: whether the main call ends with it is for `sip_ua.call.ending` to
say. Until the callee answers, the first party hears music on hold or the callee's early media. A track of the second
leg begins with the first audio of it that anybody hears, and ends before the leg's `hangup`.
"""

from dialbus.contracts.cause import Cause
from dialbus.contracts.commands import Hangup, Play, Refer
from dialbus.contracts.media import REFER_LEG, JoinLegs, Playback, StopPlayback
from dialbus.contracts.options import ReferOption
from sip_ua.call import configure, conversation
from sip_ua.call.effects import Ask, CloseMedia, Dial, Effect, FindCallee, SendBye, SendCancel, SendInvite
from sip_ua.call.inputs import (
    CalleeFound,
    LegAnswered,
    LegDigit,
    LegFailed,
    LegImpossible,
    LegMessage,
    LegProgressed,
    LegRefused,
    LegTransferAsked,
    MediaChanged,
    MediaLost,
    MediaReady,
    MediaRefused,
    MessageRefused,
    Tick,
)
from sip_ua.call.leg import CallLeg, Phase
from sip_ua.call.state import Call, Transfer

TIMEOUT_TEXT = "Timeout when refer"
_MARGIN_S = 60.0


# -- the way up ---------------------------------------------------------------------------------------


def refer(call: Call, command: Refer, now: float) -> list[Effect]:
    """`refer`: see first whether the callee can be called at all; until then nothing is disturbed."""
    if call.second is not None:
        return [call.error("refer: a transfer is active already", now, code=409)]
    transfer = _begun(call, command, now)
    call.last_transfer, call.transfer = call.transfer, transfer
    options, leg = transfer.options, transfer.leg
    limit_s = options.timeout + _MARGIN_S  # the only limit is `timeout` (protocol 6.6), and that is our deadline's
    dial = Dial(leg.caller, leg.callee, options.sip, options.call_id, transfer.headers, limit_s)
    return [FindCallee(dial, REFER_LEG, leg.generation)]


def _begun(call: Call, command: Refer, now: float) -> Transfer:
    option, before = call.option, call.transfer
    first = call.offer.caller if call.offer is not None else option.caller
    usable = first if first and not first.lower().startswith(("tel:", "sips:")) else None
    headers = {"X-Referred-To": option.callee, "X-Referred-From": option.caller, "X-Referred-Id": call.call_id}
    leg = CallLeg(
        call_id=call.call_id,
        id=REFER_LEG,
        track=call.server_track,
        clock=call.clock,
        phase=Phase.FINDING,
        started_at=now,
        caller=command.caller or usable,
        callee=command.callee,
        generation=0 if before is None else before.leg.generation + 1,
    )
    given = {name: value for name, value in headers.items() if value}
    return Transfer(leg, command.options or ReferOption(), given)


def callee_found(call: Call, _: CalleeFound, __: float) -> list[Effect]:
    """Next the leg needs a place; it waits while the worker still owes one to a leg before it."""
    transfer = _present(call)
    if call.owes_media:
        transfer.leg.phase = Phase.PLACING
        return []
    return transfer.leg.allocate(Phase.PLACING)


def impossible(call: Call, why: LegImpossible | MediaRefused, now: float) -> list[Effect]:
    """Nobody to call, or no place: as if nobody had asked."""
    leg = _present(call).leg
    leg.awaits_media = False
    leg.phase = Phase.ENDED
    call.transfer = call.last_transfer
    return [call.error(f"refer: {why.reason}", now, code=why.code)]


def media_ready(call: Call, ready: MediaReady, now: float) -> list[Effect]:
    """The leg has a place: what plays is interrupted, the music begins, the INVITE goes out."""
    transfer = _present(call)
    leg, options = transfer.leg, transfer.options
    leg.awaits_media, leg.has_media = False, True
    leg.ssrc, leg.local_sdp = ready.ssrc, ready.sdp
    leg.phase = Phase.DIALING
    transfer.deadline = now + options.timeout
    effects: list[Effect] = [Ask(StopPlayback(call_id=call.call_id, interruption=True))]
    if options.moh:
        transfer.music = options.moh
        effects.append(Ask(Playback(call_id=call.call_id, command=Play(url=options.moh), loop=True)))
    return [*effects, *configure.second_before_answer(call.call_id, options), SendInvite(REFER_LEG)]


def progressed(call: Call, progress: LegProgressed, now: float) -> list[Effect]:
    """An 18x; from early media on, the first party hears the callee instead of the music."""
    transfer = _present(call)
    early = progress.remote is not None
    ringing = transfer.leg.ring(now, early_media=early)
    if not early:
        return [ringing]
    transfer.leg.remote = progress.remote
    return [ringing, *_start_track(transfer, now), *transfer.leg.connect(), _join(transfer, one_way=True)]


def answered(call: Call, answer: LegAnswered, now: float) -> list[Effect]:
    """200; the music ends and the track begins before `answer` (O23)."""
    transfer = _present(call)
    before = _start_track(transfer, now)
    transfer.deadline = None
    transfer.leg.remote_sdp, transfer.leg.remote = answer.sdp, answer.remote
    up = transfer.leg.answer(answer.sdp, now)
    connected = [*transfer.leg.connect(), _join(transfer, one_way=False)]
    return [*before, up, *connected, *configure.second_with_answer(call.call_id, transfer.options)]


# -- the ways down ------------------------------------------------------------------------------------


def refused(call: Call, refusal: LegRefused, now: float) -> list[Effect]:
    """The callee says no, or nothing (O24)."""
    transfer = _present(call)
    music = _stop_music(transfer)
    reject = transfer.leg.reject(refusal.status, refusal.reason, now)
    reason, initiator = ("noAnswer", "system") if refusal.timed_out else ("rejected", "callee")
    return [*music, reject, *_end(call, Cause(reason, initiator, refusal.status, refusal.reason), now)]


def expired(call: Call, _: Tick, now: float) -> list[Effect]:
    """It has rung for too long."""
    deadline = _present(call).deadline
    if deadline is None or now < deadline:
        return []
    return [SendCancel(REFER_LEG), *refused(call, LegRefused(408, TIMEOUT_TEXT, timed_out=True), now)]


def failed_before_answer(call: Call, failure: LegFailed, now: float) -> list[Effect]:
    """A fault on our side after the INVITE is told like a refusal."""
    transfer = _present(call)
    music = _stop_music(transfer)
    reject = transfer.leg.reject(503, failure.reason, now)
    ended = _end(call, Cause("failed", "system", 503, failure.reason), now)
    return [SendCancel(REFER_LEG), *music, reject, *ended]


def failed(call: Call, _: LegFailed, now: float) -> list[Effect]:
    """A fault on our side, before the INVITE or after the answer."""
    return _end_by_us(call, "failed", "system", now, {})


def media_lost(call: Call, lost: MediaLost, now: float) -> list[Effect]:
    """The worker can't go on with the second leg; the main one stays."""
    if not call.main.has_media:
        return []
    error = call.error(lost.reason, now, sender="media")
    fail = failed_before_answer if _present(call).leg.phase is Phase.DIALING else failed
    return [error, *fail(call, LegFailed(lost.reason), now)]


def hung_up(call: Call, now: float) -> list[Effect]:
    """BYE from the callee."""
    return _end(call, Cause("byCallee", "callee"), now)


def hang_up(call: Call, command: Hangup, reason: str, now: float) -> list[Effect]:
    """The client ends the second leg, and only that."""
    return _end_by_us(call, reason, command.initiator or "system", now, command.headers or {})


def dropped(call: Call, now: float, *, media_gone: bool) -> tuple[list[Effect], list[Effect]]:
    """The main call ends (O26): the signalling, and what follows once that is out."""
    transfer = call.second
    if transfer is None:
        return [], []
    if media_gone:
        transfer.leg.has_media = False
        transfer.music = None
    effects = _end_by_us(call, "bySystem", "system", now, {})
    signals: list[Effect] = [effect for effect in effects if isinstance(effect, SendBye | SendCancel)]
    return signals, [effect for effect in effects if effect not in signals]


def owed_media(call: Call, settled: MediaReady | MediaRefused) -> list[Effect]:
    """The worker's answer for a leg that is over; the leg after it may ask now."""
    call.owes_media = False
    given_back: list[Effect] = [CloseMedia(REFER_LEG)] if isinstance(settled, MediaReady) else []
    second = call.second
    if second is None or second.leg.phase is not Phase.PLACING:
        return given_back
    return [*given_back, *second.leg.allocate(Phase.PLACING)]


def _end_by_us(call: Call, reason: str, initiator: str, now: float, headers: dict[str, str]) -> list[Effect]:
    transfer = _present(call)
    signal: list[Effect] = []
    cause = Cause(reason, initiator)
    if transfer.leg.phase is Phase.DIALING:
        cause = Cause(reason, initiator, 487, "Request Terminated")
        signal = [SendCancel(REFER_LEG)]
    elif transfer.leg.phase is Phase.UP:
        given = (transfer.options.sip and transfer.options.sip.hangup_headers) or {}
        signal = [SendBye({**given, **headers}, REFER_LEG)]
    return [*signal, *_stop_music(transfer), *_end(call, cause, now)]


def _end(call: Call, cause: Cause, now: float) -> list[Effect]:
    transfer = _present(call)
    transfer.deadline = None
    if transfer.leg.awaits_media:
        transfer.leg.awaits_media, call.owes_media = False, True
    return transfer.leg.end(cause, now)


# -- what the callee tells ----------------------------------------------------------------------------


def media_changed(call: Call, changed: MediaChanged, _: float) -> list[Effect]:
    """A re-INVITE or UPDATE: where media goes may be new."""
    leg = _present(call).leg
    leg.remote = changed.remote
    return leg.connect()


def media_changed_while_up(call: Call, changed: MediaChanged, now: float) -> list[Effect]:
    """The same of a leg that is up: it may be on hold, or no more."""
    effects, leg = media_changed(call, changed, now), _present(call).leg
    return effects if changed.on_hold is None else [*effects, leg.hold(now, on_hold=changed.on_hold)]


def digit(call: Call, pressed: LegDigit, now: float) -> list[Effect]:
    """A key by SIP INFO; no sign of the first party's."""
    return [_present(call).leg.digit(pressed, now)]


def message_in(call: Call, came: LegMessage, now: float) -> list[Effect]:
    """A MESSAGE from the callee."""
    return [_present(call).leg.message(came, now)]


def transfer_asked(call: Call, asked: LegTransferAsked, now: float) -> list[Effect]:
    """A REFER from the callee."""
    return [_present(call).leg.transfer_asked(asked, now)]


def message_refused(call: Call, refusal: MessageRefused, now: float) -> list[Effect]:
    """A MESSAGE of ours got no 2xx, which may be told after the leg's end."""
    return conversation.message_refused(call, refusal, now) if call.main.is_active else []


# -- parts --------------------------------------------------------------------------------------------


def _present(call: Call) -> Transfer:
    assert call.transfer is not None
    return call.transfer


def _stop_music(transfer: Transfer) -> list[Effect]:
    """A `tts` of the client's may have replaced the music meanwhile; that goes on."""
    if transfer.music is None:
        return []
    play_id, transfer.music = transfer.music, None
    return [Ask(StopPlayback(call_id=transfer.leg.call_id, play_id=play_id))]


def _start_track(transfer: Transfer, now: float) -> list[Effect]:
    if transfer.leg.track_started_at is not None:
        return []
    return [*_stop_music(transfer), transfer.leg.start_track(now)]


def _join(transfer: Transfer, *, one_way: bool) -> Effect:
    options = transfer.options
    return Ask(
        JoinLegs(
            call_id=transfer.leg.call_id,
            other_leg=REFER_LEG,
            one_way=one_way,
            forward_dtmf=options.forward_dtmf,
            pause_asr=options.pause_parent_asr,
        )
    )
