"""Offers inside an established session, in both directions; the 2xx that wait for their ACK.

The handlers of the tables in `sip.established`. Sources: RFC 3261 §13.3.1.4, §14; RFC 3311 (UPDATE); RFC 4028.
"""

from __future__ import annotations

from typing import Final

from sip_ua.sip.agent import LocalProtocolError, SendResponse
from sip_ua.sip.invite_session import InviteSession, State
from sip_ua.sip.message import SDP, Request, Response, response_to
from sip_ua.sip.open_offers import Unacknowledged
from sip_ua.sip.session_effects import Acknowledged, ReofferAnswered, Reoffered, ReofferRefused
from sip_ua.sip.session_inputs import Ack, AnswerReoffer, Outcome, RefuseReoffer, Reinvite, Reoffer, Timer, Update
from sip_ua.sip.session_timer import SessionTimer

OFFER_RECHECK_S: Final = 1.0
"""How long a postponed offer waits once more while the peer's is open."""


def on_reinvite(session: InviteSession, reinvite: Reinvite) -> None:
    request = reinvite.request
    if not refused(session, request, session.offers.clash_of_invite()):
        session.dialogs.refresh(request)
        session.offers.remote = request
        session.emit(SendResponse(response_to(request, 100)))
        session.emit(Reoffered(request.sdp, "INVITE"))


def on_update(session: InviteSession, update: Update) -> None:
    request = update.request
    if refused(session, request, session.offers.clash_of_update(request)):
        return
    session.dialogs.refresh(request)
    if request.sdp is None:
        headers = [*session.dialog_headers(), *session.session_timer.accept(request, session.now)]
        session.reply(request, 200, headers=headers)
    else:
        session.offers.remote = request
        session.emit(Reoffered(request.sdp, "UPDATE"))


def on_early_reinvite(session: InviteSession, reinvite: Reinvite) -> None:
    refused(session, reinvite.request, 500)


def on_early_update(session: InviteSession, update: Update) -> None:
    """Before the answer an UPDATE may refresh the target, but not offer: we send no reliable provisionals."""
    if update.request.sdp is None:
        on_update(session, update)
    else:
        refused(session, update.request, 500)


def refused(session: InviteSession, request: Request, status: int | None) -> bool:
    """Refuse a re-INVITE or UPDATE with this status, or for its session interval; whether that was done."""
    if status == 500:
        session.reply(request, 500, headers=[("Retry-After", str(int(session.agent.random() * 11)))])
    elif status is not None:
        session.reply(request, status)
    elif (headers := SessionTimer.refused(request)) is not None:
        session.reply(request, 422, headers=headers)
    else:
        return False
    return True


def on_first_ack(session: InviteSession, ack: Ack) -> None:
    """The ACK to our 2xx to the INVITE, which brings the answer when the 2xx carried our offer."""
    if (waiting := acknowledged(session, ack)) is not None:
        session.state = State.CONFIRMED
        session.emit(Acknowledged(ack.request.sdp if waiting.carries_offer else None))


def on_ack(session: InviteSession, ack: Ack) -> None:
    """The ACK to our 2xx to a re-INVITE; nobody waits for one that brings no answer."""
    if (waiting := acknowledged(session, ack)) is not None and waiting.carries_offer:
        session.emit(ReofferAnswered(ack.request.sdp))


def acknowledged(session: InviteSession, ack: Ack) -> Unacknowledged | None:
    """The 2xx of ours that this ACK is for, which waits no longer."""
    waiting = session.offers.unacknowledged
    if waiting is None or ack.request.cseq.number != waiting.cseq:
        return None
    session.offers.unacknowledged = None
    session.disarm(Timer.RESEND_2XX, Timer.ACK_WAIT)
    return waiting


def on_reinvite_outcome(session: InviteSession, outcome: Outcome) -> None:
    offer, session.offers.own = session.offers.own, None
    if outcome.status < 300 and outcome.response is not None:
        acknowledge_reinvite(session, outcome.sent.request, outcome.response, outcome.sent.remote_tag)
        session.session_timer.answered(outcome.response, session.now)
        session.emit(ReofferAnswered(outcome.response.sdp))
    elif outcome.status == 491:
        # RFC 3261 §14.1: whoever made the Call-ID waits 2.1 to 4 s, the other up to 2 s.
        ours = session.dialogs[outcome.sent.remote_tag].role == "UAC"
        session.offers.postponed = offer
        session.arm(Timer.REOFFER_AGAIN, session.agent.random() * (1.9 if ours else 2.0) + (2.1 if ours else 0.0))
    elif not outcome.ends_the_dialog:
        session.emit(ReofferRefused(outcome.status, outcome.reason))


def acknowledge_reinvite(session: InviteSession, request: Request, response: Response, remote_tag: str) -> None:
    session.dialogs.refresh(response, remote_tag)
    session.emit(session.dialogs.acknowledge(request, remote_tag, session.policy))


def send_reoffer(session: InviteSession, reoffer: Reoffer) -> None:
    session.offers.own = reoffer.sdp
    send_offer(session, reoffer.sdp)


def offer_again(session: InviteSession, _: Timer) -> None:
    """After a 491: our offer once more, as soon as the peer's own is through."""
    if session.offers.is_open:
        session.arm(Timer.REOFFER_AGAIN, OFFER_RECHECK_S)
    elif (offer := session.offers.take_postponed()) is not None:
        send_offer(session, offer)


def send_offer(session: InviteSession, sdp: bytes) -> None:
    headers = session.session_timer.request_headers()
    session.emit(session.dialogs.request("INVITE", sdp, SDP, session_timer=headers))


def answer_reoffer(session: InviteSession, answer: AnswerReoffer) -> None:
    request = take_remote_offer(session)
    headers = [*session.dialog_headers(), *session.session_timer.accept(request, session.now), ("Content-Type", SDP)]
    response = response_to(request, 200, headers=headers, body=answer.sdp)
    session.emit(SendResponse(response))
    if request.method == "INVITE":
        await_ack(session, response, carries_offer=request.sdp is None)


def refuse_reoffer(session: InviteSession, refusal: RefuseReoffer) -> None:
    session.reply(take_remote_offer(session), refusal.status, refusal.reason)


def take_remote_offer(session: InviteSession) -> Request:
    request = session.offers.take_remote()
    if request is None:
        raise LocalProtocolError("the peer has no offer open")
    return request


def await_ack(session: InviteSession, response: Response, *, carries_offer: bool) -> None:
    t1 = session.agent.timers.t1
    session.offers.unacknowledged = Unacknowledged(response, t1, carries_offer)
    session.arm(Timer.RESEND_2XX, t1)
    session.arm(Timer.ACK_WAIT, session.agent.timers.t1_x64)


def resend_2xx(session: InviteSession, _: Timer) -> None:
    if (waiting := session.offers.unacknowledged) is not None:
        waiting.retransmit_interval = min(2 * waiting.retransmit_interval, session.agent.timers.t2)
        session.emit(SendResponse(waiting.response))
        session.arm(Timer.RESEND_2XX, waiting.retransmit_interval)
