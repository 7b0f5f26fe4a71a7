"""The ways a call ends, and the order in which it does (O15 to O18, O26, O27)."""

from collections.abc import Mapping

from dialbus.contracts.cause import Cause, reason_word
from dialbus.contracts.commands import Hangup
from dialbus.contracts.events import Inactivity
from dialbus.contracts.session import CallState
from sip_ua.call import transfer
from sip_ua.call.effects import CloseMedia, Effect, Emit, EndLostTracks, Finish, SendBye, SendCancel, SendReject
from sip_ua.call.inputs import (
    AutoHangup,
    Detached,
    Inactive,
    LegFailed,
    LegHungUp,
    MediaLeft,
    MediaLost,
    MediaNotClosed,
    MediaReady,
    MediaRefused,
)
from sip_ua.call.state import Call

ABANDONED = "handler disconnected"
"""What the caller is told when the client of its pending call goes (protocol 5.6)."""


def end(call: Call, cause: Cause, now: float, *signal: Effect) -> list[Effect]:
    """The call is over: signalling first, which waits for nobody, then what was begun last ends first."""
    main = call.main
    call.accept_by = call.webhook_by = None
    call.held.clear()
    call.waiting.clear()
    signals, second_leg = transfer.dropped(call, now, media_gone=not main.has_media)
    told, bridge_ends = call.bridges.end(main.ssrc, now)
    ended = main.end(cause, now, call.extra())
    return [*signal, *signals, *told, *second_leg, *bridge_ends, *ended, Finish()]


def end_by_us(
    call: Call,
    reason: str,
    initiator: str,
    now: float,
    *,
    headers: Mapping[str, str] | None = None,
    pending_reason: str | None = None,
    status: int = 487,
) -> list[Effect]:
    """End the call, whatever its state; the leg gets the message that fits."""
    match call.state:
        case CallState.ENDED:
            return []
        case CallState.UP:
            return end(call, Cause(reason, initiator), now, SendBye(headers or {}))
        case CallState.DIALING:
            return end(call, Cause(reason, initiator, status), now, SendCancel())
        case CallState.PENDING:
            told = pending_reason or reason
            return end(call, Cause(reason, initiator, 603, told), now, SendReject(603, told))
        case CallState.IDLE:
            call.main.status = status
            return end(call, Cause(reason, initiator), now)


# -- the client ---------------------------------------------------------------------------------------


def hang_up(call: Call, command: Hangup, now: float) -> list[Effect]:
    """`hangup`, of the call or of the second leg only."""
    reason = reason_word(command.reason or "bySystem")
    if command.refer:
        if call.second is None:
            return [call.error("hangup: there is no transferred leg", now, code=409)]
        return transfer.hang_up(call, command, reason, now)
    given = (call.option.sip and call.option.sip.hangup_headers) or {}
    headers = {**given, **(command.headers or {})}
    initiator = command.initiator or "system"
    effects = end_by_us(call, reason, initiator, now, headers=headers, pending_reason=ABANDONED)
    if not command.reason and command.initiator in ("caller", "callee"):
        call.main.end_reason = reason_word(command.initiator)  # it selects the record's reason (protocol 2.9)
    return effects


def detached(call: Call, gone: Detached, now: float) -> list[Effect]:
    """Nobody is left who could steer the call."""
    if gone.gateway is not None and gone.gateway != call.gateway:
        return []
    return end_by_us(call, "bySystem", "system", now, pending_reason=ABANDONED)


# -- the legs -----------------------------------------------------------------------------------------


def failed(call: Call, failure: LegFailed, now: float) -> list[Effect]:
    """A local fault, before or after the answer (O7)."""
    sender = "accept" if call.inbound else "invite"
    ended = end_by_us(call, "failed", "system", now, status=failure.status)
    return [call.error(failure.reason, now, sender=sender), *ended]


def hung_up(call: Call, _: LegHungUp, now: float) -> list[Effect]:
    """BYE from the remote party (O15)."""
    return end(call, Cause(*_remote_hangup(call)), now)


def _remote_hangup(call: Call) -> tuple[str, str]:
    """Reason and initiator when the remote party hangs up (protocol 3.1)."""
    return ("byCaller", "caller") if call.inbound else ("byCallee", "callee")


def transferee_hung_up(call: Call, _: LegHungUp, now: float) -> list[Effect]:
    """BYE from the target of a transfer; it may take the main call along (O25)."""
    assert call.transfer is not None
    effects = transfer.hung_up(call, now)
    if call.transfer.options.auto_hangup:
        effects += end_by_us(call, "byRefer", "system", now)
    return effects


# -- media --------------------------------------------------------------------------------------------


def auto_hangup(call: Call, _: AutoHangup, now: float) -> list[Effect]:
    """The last playback is over (O18)."""
    return end_by_us(call, "autohangup", "system", now)


def inactive(call: Call, _: Inactive, now: float) -> list[Effect]:
    """Nobody is heard (O27)."""
    inactivity = Inactivity(track_id=call.call_id, timestamp=call.clock.ms(now))
    return [Emit(inactivity), *end_by_us(call, "inactivityTimeout", "system", now)]


def media_lost(call: Call, lost: MediaLost, now: float) -> list[Effect]:
    """The main leg's media is gone, or about to be."""
    if not call.main.has_media:
        return []
    error = call.error(lost.reason, now, sender="media")
    if not lost.gone:
        return [error, *end_by_us(call, "failed", "system", now)]
    call.main.has_media = False
    second = call.second
    transferred = (second.leg.track,) if second is not None and second.leg.has_open_track else ()
    tracks = EndLostTracks((*call.bridges.tracks, *transferred))
    return [error, tracks, *end_by_us(call, "failed", "system", now)]


def media_left(call: Call, _: MediaLeft, now: float) -> list[Effect]:
    """The remote party closed its media, which is its way to hang up."""
    return end_by_us(call, *_remote_hangup(call), now) if call.main.has_media else []


def media_not_closed(_: Call, __: MediaNotClosed, ___: float) -> list[Effect]:
    """Nobody else ends the tracks of a worker that is gone."""
    return [EndLostTracks()]


def media_too_late(call: Call, _: MediaReady, __: float) -> list[Effect]:
    """The call ended while a worker was looked for: the leg is given back."""
    call.main.awaits_media = False
    return [CloseMedia(call.main.id)]


def refused_too_late(call: Call, _: MediaRefused, __: float) -> list[Effect]:
    """The call ended while a worker was looked for, and none was found."""
    call.main.awaits_media = False
    return []
