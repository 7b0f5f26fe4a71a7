"""The session we are asked for: ringing, answering, refusing; and what is answered outside of sessions.

Sources: RFC 3261 §8.2, §9.2, §13.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from dialbus.machine import Move, Table
from sip_ua.sip.agent import ALLOW, Agent, LocalProtocolError, SendResponse
from sip_ua.sip.dialog import dialog_of_uas
from sip_ua.sip.established import ENDED, ESTABLISHED, on_other_request
from sip_ua.sip.extensions import SUPPORTED, HeaderItems, custom, reason_text, reason_value, unsupported
from sip_ua.sip.identity import Key, server_key
from sip_ua.sip.invite_session import InviteSession, State
from sip_ua.sip.message import SDP, Request, Response, message_from_state, message_to_state, response_to
from sip_ua.sip.reoffer import await_ack, on_early_reinvite, on_early_update
from sip_ua.sip.session_effects import Cancelled, Offered, SessionEffect
from sip_ua.sip.session_inputs import (
    Answer,
    Bye,
    Cancel,
    HangUp,
    OtherRequest,
    Reinvite,
    Reject,
    Ring,
    Start,
    Timer,
    Update,
)
from sip_ua.sip.session_timer import SessionTimer
from sip_ua.sip.uri import NameAddr

PROVISIONAL_REFRESH_S: Final = 60.0
"""How often an unanswered INVITE gets its provisional response again (RFC 3261 §13.3.1.1)."""


class UasSession(InviteSession):
    """A call we got: `Offered`, then `ring`, `answer` or `reject`, unless `Cancelled` comes first."""

    def __init__(
        self,
        agent: Agent,
        invite: Request,
        local_tag: str,
        *,
        contact: NameAddr | None = None,
        hangup_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            agent,
            contact or agent.contact(invite.to.uri.user if invite.to.uri.scheme != "tel" else None),
            local_tag=local_tag,
            hangup_headers=hangup_headers,
        )
        self.invite = invite
        self.call_id = invite.call_id
        self.provisional: Response | None = None
        """The one to be sent again."""
        dialog = dialog_of_uas(invite, local_tag)
        self.dialogs.put(dialog)
        self.dialogs.choose(dialog.remote_tag)

    @property
    def invite_key(self) -> Key:
        """The INVITE's server transaction, by which the shell finds the call of a CANCEL."""
        return server_key(self.invite)

    def ring(self, now: float, sdp: bytes | None = None, headers: HeaderItems = ()) -> list[SessionEffect]:
        """Send 180, or 183 with an SDP answer for early media. May be repeated. Nothing once answered or over."""
        return self._wish(Ring(sdp, tuple(headers)), now)

    def answer(self, sdp: bytes, now: float, headers: HeaderItems = ()) -> list[SessionEffect]:
        """Send 200 with our answer (our offer, if the INVITE had none), repeated until the ACK.

        The call counts as up from here; `Acknowledged` or `AckMissing` follows. Raises LocalProtocolError when
        the call is not pending.
        """
        return self._wish(Answer(sdp, tuple(headers)), now, "only a pending call can be answered")

    def reject(
        self, now: float, status: int = 603, reason: str | None = None, headers: HeaderItems = ()
    ) -> list[SessionEffect]:
        """Refuse the call, with a Reason header when `reason` is given. Nothing once answered or over.

        Raises LocalProtocolError for a status that is no 300–699.
        """
        if not 300 <= status <= 699:
            raise LocalProtocolError(f"{status} does not refuse a call")
        told = [] if reason is None else [("Reason", reason_value(status, reason))]
        return self._wish(Reject(status, (*told, *headers)), now)

    def refuse(self, status: int, headers: HeaderItems = (), effect: SessionEffect | None = None) -> None:
        """Answer the INVITE finally, by 300–699."""
        self.reply(self.invite, status, headers=headers)
        self.close(State.ENDED, effect)

    def to_state(self, now: float) -> dict[str, Any]:
        provisional = None if self.provisional is None else message_to_state(self.provisional)
        invite = message_to_state(self.invite)
        return super().to_state(now) | {"role": "UAS", "invite": invite, "provisional": provisional}

    @classmethod
    def from_state(cls, state: dict[str, Any], agent: Agent, now: float) -> UasSession:
        """The session that `to_state` told; `now` is this moment, on the clock of this process."""
        session = cls.__new__(cls)
        session._load(state, agent, now)
        invite = message_from_state(state["invite"])
        assert isinstance(invite, Request)
        session.invite, session.call_id, session.provisional = invite, invite.call_id, None
        if state["provisional"] is not None:
            provisional = message_from_state(state["provisional"])
            assert isinstance(provisional, Response)
            session.provisional = provisional
        return session


# Handlers of the table below.


def start(session: UasSession, _: Start) -> None:
    session.state = State.PROCEEDING
    invite = session.invite
    if required := unsupported(invite):
        session.refuse(420, [("Unsupported", ", ".join(required))])
    elif invite.body and invite.content_type != SDP:
        session.refuse(415, [("Accept", SDP)])
    elif (headers := SessionTimer.refused(invite)) is not None:
        session.refuse(422, headers)
    else:
        session.emit(SendResponse(response_to(invite, 100)))
        session.emit(Offered(invite.sdp))


def ring(session: UasSession, ring: Ring) -> None:
    items = [*session.dialog_headers(), *custom(ring.headers)]
    if ring.sdp is not None:
        items.append(("Content-Type", SDP))
    status = 180 if ring.sdp is None else 183
    session.provisional = response_to(session.invite, status, None, session.local_tag, items, ring.sdp or b"")
    send_provisional(session)


def send_provisional(session: UasSession, _: Timer | None = None) -> None:
    if session.provisional is not None:
        session.emit(SendResponse(session.provisional))
        session.arm(Timer.PROVISIONAL_AGAIN, PROVISIONAL_REFRESH_S)


def answer(session: UasSession, answer: Answer) -> None:
    dialog = session.dialogs.current
    assert dialog is not None
    session.state = State.ANSWERED
    session.disarm(*Timer)
    items = [*session.dialog_headers(), ("User-Agent", session.agent.user_agent)]
    items += [*session.session_timer.accept(session.invite, session.now), *custom(answer.headers)]
    items.append(("Content-Type", SDP))
    response = response_to(session.invite, 200, None, session.local_tag, items, answer.sdp)
    session.dialogs.put(replace(dialog, state="confirmed"))
    session.emit(SendResponse(response))
    await_ack(session, response, carries_offer=session.invite.sdp is None)


def reject(session: UasSession, rejection: Reject) -> None:
    session.refuse(rejection.status, custom(rejection.headers))


def decline(session: UasSession, _: HangUp) -> None:
    session.refuse(603)


def on_cancel(session: UasSession, cancel: Cancel) -> None:
    session.reply(cancel.request, 200)
    session.refuse(487, effect=Cancelled(reason_text(cancel.request)))


def on_early_bye(session: UasSession, bye: Bye) -> None:
    """A caller may also end its early dialog; the INVITE is then answered 487 (RFC 3261 §15.1.2)."""
    session.reply(bye.request, 200)
    session.refuse(487, effect=Cancelled(reason_text(bye.request)))


# RFC 3261 §13.3 (INVITE), §9.2 (CANCEL), §15.1.2 (BYE).
UAS: Table[State, Any] = {
    (State.NEW, Start): Move(start, State.PROCEEDING, State.ENDED),
    (State.PROCEEDING, Ring): Move(ring),
    (State.PROCEEDING, Timer.PROVISIONAL_AGAIN): Move(send_provisional),
    (State.PROCEEDING, Answer): Move(answer, State.ANSWERED),
    (State.PROCEEDING, Reject): Move(reject, State.ENDED),
    (State.PROCEEDING, HangUp): Move(decline, State.ENDED),
    (State.PROCEEDING, Cancel): Move(on_cancel, State.ENDED),
    (State.PROCEEDING, Bye): Move(on_early_bye, State.ENDED),
    (State.PROCEEDING, Reinvite): Move(on_early_reinvite),
    (State.PROCEEDING, Update): Move(on_early_update),
    (State.PROCEEDING, OtherRequest): Move(on_other_request),
    **ESTABLISHED,
    **ENDED,
}
UasSession.TABLE = UAS


def answer_outside_dialog(request: Request, agent: Agent) -> Response | None:
    """The response to a request that belongs to no call and starts none; None for an ACK.

    481 when it names a dialog we do not know, 200 to OPTIONS, 400 to REFER, 405 to the rest. A new INVITE is not
    for this function but for `UasSession`.
    """
    if request.method == "ACK":
        return None
    tag = agent.new_token()
    if request.to_tag is not None:
        return response_to(request, 481)
    if required := unsupported(request):
        return response_to(request, 420, None, tag, [("Unsupported", ", ".join(required))])
    if request.method == "OPTIONS":
        headers = [("Contact", str(agent.contact(None))), ("Allow", ALLOW), ("Accept", SDP)]
        return response_to(request, 200, None, tag, [*headers, ("Supported", SUPPORTED)])
    if request.method == "CANCEL":
        return response_to(request, 200, None, tag)
    if request.method == "REFER":
        return response_to(request, 400, "REFER outside a dialog", tag)
    return response_to(request, 405, None, tag, [("Allow", ALLOW)])
