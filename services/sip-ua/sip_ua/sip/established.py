"""A session from its answer to its end: what either party may do, how it ends, what is answered late.

Sources: RFC 3261 §12.2, §13.3.1.4, §15; RFC 4028 §10.
"""

from __future__ import annotations

from dialbus.machine import Move, Table, in_states
from sip_ua.sip import reoffer
from sip_ua.sip.extensions import reason_text
from sip_ua.sip.in_dialog import reply_in_dialog
from sip_ua.sip.invite_session import OVER, UP, InviteSession, State
from sip_ua.sip.session_effects import AckMissing, RemoteHangUp, ReofferWithdrawn, RequestAnswered, SessionExpired
from sip_ua.sip.session_inputs import (
    Ack,
    AnswerReoffer,
    Bye,
    Cancel,
    HangUp,
    OtherRequest,
    Outcome,
    RefuseReoffer,
    Reinvite,
    Reoffer,
    SendInDialog,
    Timer,
    Update,
)
from sip_ua.sip.session_timer import SessionDue


def on_bye(session: InviteSession, bye: Bye) -> None:
    session.reply(bye.request, 200)
    session.close(State.ENDED, RemoteHangUp(reason_text(bye.request)))


def on_other_request(session: InviteSession, other: OtherRequest) -> None:
    reply = reply_in_dialog(other.request, session.contact)
    session.reply(other.request, reply.status, reply.reason, reply.headers)
    if reply.effect is not None:
        session.emit(reply.effect)


def on_reinvite_cancelled(session: InviteSession, cancel: Cancel) -> None:
    """A CANCEL for a re-INVITE; once that is answered it changes nothing (RFC 3261 §9.2)."""
    session.reply(cancel.request, 200)
    offer = session.offers.remote
    if offer is not None and cancel.cancels is not None and offer.cseq == cancel.cancels.cseq:
        session.offers.remote = None
        session.reply(offer, 487)
        session.emit(ReofferWithdrawn())


def on_outcome(session: InviteSession, outcome: Outcome) -> None:
    method = outcome.sent.request.method
    if retried(session, outcome):
        return
    if method == "INVITE":
        reoffer.on_reinvite_outcome(session, outcome)
    elif method == "UPDATE" and outcome.status < 300 and outcome.response is not None:
        session.dialogs.refresh(outcome.response, outcome.sent.remote_tag)
        session.session_timer.answered(outcome.response, session.now)
    elif method not in ("UPDATE", "BYE") and not outcome.ends_the_dialog:
        session.emit(RequestAnswered(method, outcome.status, outcome.reason))
    if outcome.ends_the_dialog:
        session.lose(RemoteHangUp(outcome.reason))


def retried(session: InviteSession, outcome: Outcome) -> bool:
    """Send a challenged request once more, with credentials; False when that is not possible."""
    again = session.dialogs.retry(outcome.sent, outcome.response, session.policy)
    if again is not None:
        session.emit(again)
    return again is not None


def send_in_dialog(session: InviteSession, wish: SendInDialog) -> None:
    session.emit(session.dialogs.request(wish.method, wish.body, wish.content_type, headers=wish.headers))


def refresh_session(session: InviteSession, _: SessionDue) -> None:
    session.emit(session.dialogs.request("UPDATE", session_timer=session.session_timer.request_headers()))


def on_session_expired(session: InviteSession, _: SessionDue) -> None:
    session.lose(SessionExpired())


def leave(session: InviteSession, hang_up: HangUp) -> None:
    session.bye(hang_up.headers)
    session.close(State.ENDED, hang_up.effect)


def leave_after_ack(session: InviteSession, hang_up: HangUp) -> None:
    session.bye_headers = hang_up.headers
    session.close(State.LEAVING, hang_up.effect)


def on_ack_missing(session: InviteSession, _: Timer) -> None:
    session.bye(session.hangup_headers.items())
    session.close(State.ENDED, AckMissing())


def on_last_ack(session: InviteSession, ack: Ack) -> None:
    if reoffer.acknowledged(session, ack) is not None:
        send_late_bye(session)


def leave_without_ack(session: InviteSession, _: Timer) -> None:
    session.offers.unacknowledged = None
    session.disarm(Timer.RESEND_2XX)
    send_late_bye(session)


def send_late_bye(session: InviteSession) -> None:
    session.state = State.ENDED
    session.bye(session.bye_headers)
    session.linger()


def on_late_bye(session: InviteSession, bye: Bye) -> None:
    session.reply(bye.request, 200)


def on_late_request(session: InviteSession, late: Reinvite | Update | OtherRequest) -> None:
    session.reply(late.request, 481)


def on_late_cancel(session: InviteSession, cancel: Cancel) -> None:
    session.reply(cancel.request, 200)


def on_late_outcome(session: InviteSession, outcome: Outcome) -> None:
    """After the end only a challenged BYE is worth another try, and a 2xx to a re-INVITE its ACK."""
    sent = outcome.sent
    if sent.request.method == "BYE":
        retried(session, outcome)
    elif sent.request.method == "INVITE" and outcome.status < 300 and outcome.response is not None:
        reoffer.acknowledge_reinvite(session, sent.request, outcome.response, sent.remote_tag)


def finish(session: InviteSession, _: Timer) -> None:
    session.finish()


# A session that was answered, in either role.
ESTABLISHED: Table[State, InviteSession] = {
    **in_states(
        UP,
        {
            Bye: Move(on_bye, State.ENDED),
            Reinvite: Move(reoffer.on_reinvite),
            Update: Move(reoffer.on_update),
            OtherRequest: Move(on_other_request),
            Cancel: Move(on_reinvite_cancelled),
            AnswerReoffer: Move(reoffer.answer_reoffer),
            RefuseReoffer: Move(reoffer.refuse_reoffer),
            SendInDialog: Move(send_in_dialog),
            Timer.RESEND_2XX: Move(reoffer.resend_2xx),
            Timer.ACK_WAIT: Move(on_ack_missing, State.ENDED),
            SessionDue.REFRESH: Move(refresh_session),
        },
    ),
    (State.ANSWERED, Ack): Move(reoffer.on_first_ack, State.CONFIRMED),
    (State.ANSWERED, HangUp): Move(leave_after_ack, State.LEAVING),
    (State.ANSWERED, Outcome): Move(on_outcome, State.LEAVING),
    (State.ANSWERED, SessionDue.EXPIRED): Move(on_session_expired, State.LEAVING),
    (State.CONFIRMED, Ack): Move(reoffer.on_ack),
    (State.CONFIRMED, HangUp): Move(leave, State.ENDED),
    (State.CONFIRMED, Outcome): Move(on_outcome, State.ENDED),
    (State.CONFIRMED, SessionDue.EXPIRED): Move(on_session_expired, State.ENDED),
    (State.CONFIRMED, Reoffer): Move(reoffer.send_reoffer),
    (State.CONFIRMED, Timer.REOFFER_AGAIN): Move(reoffer.offer_again),
}

# A session that is over: copies and late messages.
ENDED: Table[State, InviteSession] = {
    (State.LEAVING, Ack): Move(on_last_ack, State.ENDED),
    (State.LEAVING, Timer.RESEND_2XX): Move(reoffer.resend_2xx),
    (State.LEAVING, Timer.ACK_WAIT): Move(leave_without_ack, State.ENDED),
    **in_states(
        OVER,
        {
            Bye: Move(on_late_bye),
            Reinvite: Move(on_late_request),
            Update: Move(on_late_request),
            OtherRequest: Move(on_late_request),
            Cancel: Move(on_late_cancel),
            Outcome: Move(on_late_outcome),
            Timer.LINGER: Move(finish, State.FINISHED),
        },
    ),
}
