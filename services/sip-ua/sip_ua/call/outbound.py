"""A call that a client places, until its answer (O1 to O9)."""

from dialbus.contracts.cause import Cause
from dialbus.contracts.commands import Accept, Invite
from dialbus.contracts.session import CallType
from sip_ua.call import configure
from sip_ua.call.conversation import answered, media_here, release_held
from sip_ua.call.effects import Dial, Effect, FindCallee, SendInvite
from sip_ua.call.ending import end, failed
from sip_ua.call.inputs import (
    CalleeFound,
    LegAnswered,
    LegFailed,
    LegImpossible,
    LegProgressed,
    LegRefused,
    MediaReady,
    MediaRefused,
)
from sip_ua.call.leg import Phase
from sip_ua.call.state import Call


def invite(call: Call, command: Invite, now: float) -> list[Effect]:
    """`invite`, of a call of any type."""
    option, main = command.option, call.main
    call.option = option
    main.caller, main.callee = option.caller, option.callee
    main.phase = Phase.FINDING
    match call.call_type:
        case CallType.SIP if not option.callee:
            return failed(call, LegFailed("invite: option.callee is missing", 400), now)
        case CallType.SIP:
            return [FindCallee(Dial(option.caller, option.callee, option.sip))]
        case CallType.WEBRTC if not option.offer:
            return failed(call, LegFailed("invite: option.offer is missing", 400), now)
        case CallType.WEBRTC:
            return main.allocate(Phase.PLACING, "webrtc")
        case CallType.WEBSOCKET:
            return main.allocate(Phase.PLACING, "socket")


def accept_without_call(call: Call, _: Accept, now: float) -> list[Effect]:
    """`accept` on a socket that no call waits for."""
    text = "no pending call"
    reject = call.main.reject(486, text, now)
    ended = end(call, Cause("failed", "system", 486, text), now)
    return [reject, call.error(text, now, sender="accept"), *ended]


def callee_found(call: Call, _: CalleeFound, __: float) -> list[Effect]:
    """Next the call needs a place in media."""
    return call.main.allocate(Phase.PLACING)


def impossible(call: Call, why: LegImpossible | MediaRefused, now: float) -> list[Effect]:
    """The leg cannot be: nobody to call, or no media worker."""
    call.main.awaits_media = False
    error = call.error(why.reason, now, sender="invite", code=why.code)
    return [error, *end(call, Cause("failed", "system", why.code, why.reason), now)]


def media_ready(call: Call, ready: MediaReady, now: float) -> list[Effect]:
    """Place the call; without SIP it is up already (O8, O9)."""
    effects = [*media_here(call, ready, now), *configure.before_answer(call)]
    if call.call_type is CallType.SIP:
        call.main.phase = Phase.DIALING
        return [*effects, SendInvite()]
    up = answered(call, ready.sdp, now)
    return [*effects, *up, *configure.with_answer(call), *release_held(call)]


def progressed(call: Call, progress: LegProgressed, now: float) -> list[Effect]:
    """An 18x: it rings, or there is something to hear."""
    early = progress.remote is not None
    effects: list[Effect] = [call.main.ring(now, early_media=early)]
    if early:
        call.main.remote = progress.remote
        effects += call.main.connect()
    return effects


def leg_answered(call: Call, answer: LegAnswered, now: float) -> list[Effect]:
    """The callee took the call; `answer` is stored before media can report the first packet (O1)."""
    call.main.remote_sdp, call.main.remote = answer.sdp, answer.remote
    up = answered(call, answer.sdp, now)
    return [*up, *call.main.connect(), *configure.with_answer(call), *release_held(call)]


def refused(call: Call, refusal: LegRefused, now: float) -> list[Effect]:
    """The callee says no (O2), or nothing (O3)."""
    reject = call.main.reject(refusal.status, refusal.reason, now)
    reason, initiator = ("noAnswer", "system") if refusal.timed_out else ("rejected", "callee")
    return [reject, *end(call, Cause(reason, initiator, refusal.status, refusal.reason), now)]
