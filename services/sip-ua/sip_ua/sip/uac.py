"""The session we ask for: INVITE, CANCEL, and the forks that answer. Sources: RFC 3261 §9.1, §13.2, §22."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dialbus.machine import Move, Table, in_states
from sip_ua.sip.agent import ALLOW, MAX_FORWARDS, Agent, SendRequest
from sip_ua.sip.authentication import with_credentials
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.dialog import dialog_of_uac
from sip_ua.sip.established import ENDED, ESTABLISHED, on_late_cancel, on_other_request
from sip_ua.sip.extensions import custom
from sip_ua.sip.headers import Headers
from sip_ua.sip.invite_session import OVER, PENDING, InviteSession, State
from sip_ua.sip.message import REASON_PHRASES, SDP, Request, Response, message_from_state, message_to_state
from sip_ua.sip.reoffer import on_early_reinvite, on_early_update
from sip_ua.sip.session_effects import Answered, Cancelled, Progress, Refused, SessionEffect
from sip_ua.sip.session_inputs import (
    Bye,
    Cancel,
    Failure,
    HangUp,
    InviteFailed,
    OtherRequest,
    Provisional,
    Reinvite,
    Start,
    Success,
    Update,
)
from sip_ua.sip.uri import NameAddr


class UacSession(InviteSession):
    """A call we place: INVITE with an offer, `Progress`, then `Answered`, `Refused` or `Cancelled`."""

    invite: Request
    """The INVITE that was sent last."""

    def __init__(
        self,
        agent: Agent,
        caller: NameAddr,
        callee: NameAddr,
        *,
        call_id: str,
        sdp: bytes,
        contact: NameAddr | None = None,
        policy: CredentialPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        hangup_headers: Mapping[str, str] | None = None,
        ringing_limit_s: float | None = None,
    ) -> None:
        """`ringing_limit_s` is how long it may ring, when that is not what the agent's timers say."""
        super().__init__(
            agent,
            contact or agent.contact(caller.uri.user),
            local_tag=agent.new_token(),
            hangup_headers=hangup_headers,
        )
        self.policy = policy
        self.call_id = call_id
        self.invite = self._first_invite(caller, callee, sdp, headers or {})
        self.ringing_limit_s = ringing_limit_s
        self.tries = 0
        """How often the INVITE was sent with credentials."""

    def failed(self, request: Request, status: Literal[408, 503], now: float) -> list[SessionEffect]:
        """The layer gave up on a request of ours; on the INVITE that is `Refused` with this status."""
        if request.via.branch != self.invite.via.branch or request.method != "INVITE":
            return super().failed(request, status, now)
        return self._wish(InviteFailed(status), now)

    def send_invite(self) -> None:
        self.emit(SendRequest(self.invite, self.invite.uri, self.ringing_limit_s))

    def send_cancel(self) -> None:
        """CANCEL: the INVITE's target, top Via and Routes (RFC 3261 §9.1); never with custom headers."""
        invite = self.invite
        items = [("Via", str(invite.via)), *(("Route", route) for route in invite.headers.get_all("Route"))]
        items.append(("Max-Forwards", MAX_FORWARDS))
        items += [line for line in invite.headers.lines() if line[0] in ("From", "To", "Call-ID")]
        items.append(("CSeq", f"{invite.cseq.number} CANCEL"))
        self.emit(SendRequest(Request("CANCEL", invite.uri, Headers(items)), invite.uri))
        self.linger()

    def acknowledge(self, success: Success) -> str:
        """Acknowledge a 2xx to the INVITE in the dialog it makes or confirms; the remote tag of that."""
        response = success.response
        tag = response.to_tag or ""
        early = self.dialogs.get(tag)
        self.dialogs.put(dialog_of_uac(self.invite, response) if early is None else early.confirmed(response))
        self.emit(self.dialogs.acknowledge(self.invite, tag, self.policy))
        return tag

    def _first_invite(self, caller: NameAddr, callee: NameAddr, sdp: bytes, headers: Mapping[str, str]) -> Request:
        items = [
            ("Via", self.agent.new_via()),
            ("Max-Forwards", MAX_FORWARDS),
            ("From", str(caller.without_params().with_tag(self.local_tag))),
            ("To", str(callee.without_params())),
            ("Call-ID", self.call_id),
            ("CSeq", "1 INVITE"),
            ("Contact", str(self.contact)),
            ("Allow", ALLOW),
            ("User-Agent", self.agent.user_agent),
            *custom(headers.items()),
            ("Content-Type", SDP),
        ]
        return Request("INVITE", callee.uri.without_headers(), Headers(items), sdp)

    def _receive_response(self, response: Response) -> None:
        if response.cseq != self.invite.cseq or response.via.branch != self.invite.via.branch:
            super()._receive_response(response)
        elif response.status < 200:
            self.happen(Provisional(response))
        elif response.status >= 300:
            self.happen(Failure(response))
        elif ack := self.dialogs.ack_again(response):
            self.emit(ack)
        else:
            self.happen(Success(response))

    def to_state(self, now: float) -> dict[str, Any]:
        state = super().to_state(now)
        invite = message_to_state(self.invite)
        return state | {
            "role": "UAC",
            "invite": invite,
            "ringing_limit_s": self.ringing_limit_s,
            "tries": self.tries,
            "proofs": None if self.policy is None else self.policy.to_state(),
        }

    @classmethod
    def from_state(
        cls, state: dict[str, Any], agent: Agent, now: float, policy: CredentialPolicy | None = None
    ) -> UacSession:
        """The session that `to_state` told; `now` is this moment, on the clock of this process."""
        session = cls.__new__(cls)
        session._load(state, agent, now)
        invite = message_from_state(state["invite"])
        assert isinstance(invite, Request)
        session.invite, session.call_id = invite, invite.call_id
        session.ringing_limit_s, session.tries = state["ringing_limit_s"], state["tries"]
        session.policy = policy
        if policy is not None:
            policy.load(state["proofs"])
        return session


# Handlers of the table below.


def start(session: UacSession, _: Start) -> None:
    session.state = State.CALLING
    session.send_invite()


def on_provisional(session: UacSession, provisional: Provisional) -> None:
    response = provisional.response
    session.state = State.PROCEEDING
    if response.status == 100:
        return
    tag = response.to_tag or ""
    if tag and session.dialogs.get(tag) is None:
        session.dialogs.put(dialog_of_uac(session.invite, response))
    session.emit(Progress(response.status, response.reason, response.sdp, tag))


def on_answer(session: UacSession, success: Success) -> None:
    """The first 2xx is the answer."""
    tag = session.acknowledge(success)
    session.dialogs.choose(tag)
    session.state = State.CONFIRMED
    session.emit(Answered(success.response.sdp, tag))


def on_other_fork(session: UacSession, success: Success) -> None:
    """A 2xx of another fork is acknowledged and hung up (RFC 3261 §13.2.2.4)."""
    session.bye(session.hangup_headers.items(), session.acknowledge(success))


def on_late_answer(session: UacSession, success: Success) -> None:
    """So is one that crossed our CANCEL."""
    on_other_fork(session, success)
    session.linger()


def on_failure(session: UacSession, failure: Failure) -> None:
    """The peer's refusal, or a challenge, which is answered by a new INVITE: same Call-ID and From tag, higher CSeq
    (RFC 3261 §22.2)."""
    response, invite = failure.response, session.invite
    cseq = invite.cseq.number + 1
    again = with_credentials(invite, response, invite.uri, session.policy, session.agent, cseq, session.tries)
    if again is None:
        session.close(State.ENDED, Refused(response.status, response.reason))
        return
    session.tries += 1
    session.invite = again
    session.dialogs.clear()
    session.state = State.CALLING
    session.send_invite()


def give_up(session: UacSession, _: HangUp) -> None:
    session.close(State.GIVEN_UP, Cancelled())


def cancel(session: UacSession, _: HangUp) -> None:
    session.close(State.ENDED, Cancelled())
    session.send_cancel()


def on_no_response(session: UacSession, failed: InviteFailed) -> None:
    session.close(State.GIVEN_UP, Refused(failed.status, REASON_PHRASES[failed.status], local=True))


def on_no_answer(session: UacSession, failed: InviteFailed) -> None:
    session.close(State.ENDED, Refused(failed.status, REASON_PHRASES[failed.status], local=True))
    session.send_cancel()


def cancel_at_last(session: UacSession, _: Provisional) -> None:
    session.state = State.ENDED
    session.send_cancel()


def on_early_bye(session: UacSession, bye: Bye) -> None:
    """A callee may not hang up before its 2xx; if one does, only its own branch is forgotten."""
    session.reply(bye.request, 200)
    session.dialogs.forget(bye.request.from_tag or "")


# RFC 3261 §13.2 (INVITE), §9.1 (CANCEL), §13.2.2.4 (2xx of several forks).
UAC: Table[State, Any] = {
    (State.NEW, Start): Move(start, State.CALLING),
    **in_states(
        PENDING,
        {
            Provisional: Move(on_provisional, State.PROCEEDING),
            Success: Move(on_answer, State.CONFIRMED),
            Failure: Move(on_failure, State.CALLING, State.ENDED),
            Bye: Move(on_early_bye),
            Reinvite: Move(on_early_reinvite),
            Update: Move(on_early_update),
            OtherRequest: Move(on_other_request),
            Cancel: Move(on_late_cancel),
        },
    ),
    (State.CALLING, HangUp): Move(give_up, State.GIVEN_UP),
    (State.CALLING, InviteFailed): Move(on_no_response, State.GIVEN_UP),
    (State.PROCEEDING, HangUp): Move(cancel, State.ENDED),
    (State.PROCEEDING, InviteFailed): Move(on_no_answer, State.ENDED),
    (State.GIVEN_UP, Provisional): Move(cancel_at_last, State.ENDED),
    **ESTABLISHED,
    (State.CONFIRMED, Success): Move(on_other_fork),
    **ENDED,
    **in_states(OVER, {Success: Move(on_late_answer)}),
}
UacSession.TABLE = UAC
