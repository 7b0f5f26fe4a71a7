"""A session from INVITE to BYE, without I/O: what both roles share.

`UacSession` (`sip.uac`) sends the INVITE, `UasSession` (`sip.uas`) received it; from the answer on either party may
re-offer, send INFO or MESSAGE, and hang up. Messages and `now` (monotonic seconds) go in, effects come out:
transmissions for the transaction layer (`sip.agent`) and what the owner learns (`sip.session_effects`). Each role is a
table from (state, input) to a handler. Sources: RFC 3261 §9, §12 to §15; RFC 3311 (UPDATE), RFC 4028 (session timers).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Final, Literal

from dialbus.machine import Table, dispatch
from sip_ua.sip.agent import ALLOW, Agent, LocalProtocolError, SendResponse
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.dialog import Dialog
from sip_ua.sip.dialog_set import DialogSet
from sip_ua.sip.extensions import SUPPORTED, HeaderItems, unsupported
from sip_ua.sip.message import REASON_PHRASES, Message, Request, Response, response_to
from sip_ua.sip.open_offers import OpenOffers
from sip_ua.sip.session_effects import (
    SessionEffect,
)
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
    Start,
    Timer,
    Update,
)
from sip_ua.sip.session_timer import SessionDue, SessionTimer
from sip_ua.sip.uri import NameAddr, parse_name_addr


class State(Enum):
    """How far a session has come."""

    NEW = "new"
    CALLING = "calling"
    """Our INVITE has no response yet."""
    PROCEEDING = "proceeding"
    """The INVITE has a provisional response at most."""
    ANSWERED = "answered"
    """Our 2xx waits for its ACK."""
    CONFIRMED = "confirmed"
    GIVEN_UP = "given up"
    """Over before our INVITE had a response; CANCEL waits for one (RFC 3261 §9.1)."""
    LEAVING = "leaving"
    """Over before our 2xx was acknowledged; BYE waits for the ACK or its absence (RFC 3261 §15)."""
    ENDED = "ended"
    """Over; copies and late messages are still answered."""
    FINISHED = "finished"


PENDING: Final = (State.CALLING, State.PROCEEDING)
UP: Final = (State.ANSWERED, State.CONFIRMED)
OVER: Final = (State.GIVEN_UP, State.LEAVING, State.ENDED)

_KIND_OF_REQUEST: Final = {"BYE": Bye, "INVITE": Reinvite, "UPDATE": Update}


class InviteSession:
    """Dialog, offers, timers and end of a session, in either role.

    Every input returns the effects it has, in order. `deadline` says when to `tick`; once `finished` the session may
    be forgotten: it lingers 64·T1 after its end, to answer copies and late responses.
    """

    TABLE: ClassVar[Table[State, Any]]

    def __init__(
        self,
        agent: Agent,
        contact: NameAddr,
        *,
        local_tag: str,
        hangup_headers: Mapping[str, str] | None = None,
    ) -> None:
        self.agent = agent
        self.contact = contact
        self.local_tag = local_tag
        self.policy: CredentialPolicy | None = None
        """Who may have which proof; None: nobody any, as in every session that we did not begin."""
        self.hangup_headers = dict(hangup_headers or {})
        self.state = State.NEW
        self.dialogs = DialogSet(agent, contact)
        self.offers = OpenOffers()
        self.session_timer = SessionTimer()
        self.bye_headers: HeaderItems = ()
        """Of the BYE that waits for an ACK."""
        self.now = 0.0
        """The moment of the current input."""
        self._timers: dict[Timer, float] = {}
        self._effects: list[SessionEffect] = []

    # What the owner may ask.

    @property
    def is_pending(self) -> bool:
        """Whether the INVITE waits for its final answer."""
        return self.state in PENDING

    @property
    def is_acknowledged(self) -> bool:
        """Whether the peer has the 2xx, and we know: as UAS from its ACK on."""
        return self.state is State.CONFIRMED

    @property
    def is_over(self) -> bool:
        """Whether the session has ended; late messages may still be answered."""
        return self.state in OVER or self.finished

    @property
    def finished(self) -> bool:
        return self.state is State.FINISHED

    @property
    def deadline(self) -> float | None:
        """When to `tick`."""
        session_timer = self.session_timer.deadline
        times = self._timers.values() if session_timer is None else (*self._timers.values(), session_timer)
        return min(times, default=None)

    @property
    def dialog(self) -> Dialog | None:
        """The dialog of the session; None for ours without answer."""
        return self.dialogs.current

    def __repr__(self) -> str:
        due = "" if self.deadline is None else f" due in {self.deadline - self.now:.1f} s"
        offer = " offer open" if self.offers.is_open else ""
        return (
            f"<{type(self).__name__} {self.state.value}{offer}{due}, {self.dialog or f'{len(self.dialogs)} dialogs'}>"
        )

    # What the owner may do.

    def start(self, now: float) -> list[SessionEffect]:
        """Send the INVITE; or answer 100 and offer the call, or refuse at once what we cannot give."""
        return self._wish(Start(), now)

    def hang_up(self, now: float, headers: Mapping[str, str] | None = None) -> list[SessionEffect]:
        """End the session: BYE with its hang-up headers and these, which win; CANCEL or 603 before the answer.

        A UAS whose 200 is not acknowledged yet sends the BYE after the ACK or its absence (RFC 3261 §15). Before the
        answer to our INVITE `Cancelled` comes at once, and CANCEL goes out as soon as RFC 3261 §9.1 allows. Nothing
        when it is over.
        """
        return self._wish(HangUp(tuple({**self.hangup_headers, **(headers or {})}.items())), now)

    def reoffer(self, sdp: bytes, now: float) -> list[SessionEffect]:
        """Send a re-INVITE with this offer. Raises LocalProtocolError unless up with no other offer open."""
        if self.offers.postponed is not None or self.offers.is_open:
            raise LocalProtocolError("there is an open offer")
        return self._wish(Reoffer(sdp), now, "a new offer needs an established call")

    def answer_reoffer(self, sdp: bytes, now: float) -> list[SessionEffect]:
        """Accept the peer's re-INVITE or UPDATE with this answer, or offer when it sent none."""
        return self._wish(AnswerReoffer(sdp), now, "the peer has no offer open")

    def refuse_reoffer(self, now: float, status: int = 488, reason: str | None = None) -> list[SessionEffect]:
        """Refuse the peer's re-INVITE or UPDATE; the session stays as it was."""
        return self._wish(RefuseReoffer(status, reason), now, "the peer has no offer open")

    def send_message(
        self, body: bytes, now: float, content_type: str = "text/plain;charset=utf-8", headers: HeaderItems = ()
    ) -> list[SessionEffect]:
        """Send a MESSAGE inside the dialog; `RequestAnswered` follows. Raises LocalProtocolError unless up."""
        wish = SendInDialog("MESSAGE", body, content_type, tuple(headers))
        return self._wish(wish, now, "MESSAGE needs an established call")

    def send_info(self, body: bytes, now: float, content_type: str, headers: HeaderItems = ()) -> list[SessionEffect]:
        """Send an INFO inside the dialog; `RequestAnswered` follows. Raises LocalProtocolError unless up."""
        wish = SendInDialog("INFO", body, content_type, tuple(headers))
        return self._wish(wish, now, "INFO needs an established call")

    def _wish(self, wish: object, now: float, otherwise: str | None = None) -> list[SessionEffect]:
        """Do what the owner wants; in a state that has no place for it do nothing, or raise `otherwise`."""
        self.now = now
        if not self.happen(wish) and otherwise is not None:
            raise LocalProtocolError(otherwise)
        return self._drain()

    # What arrives.

    def receive(self, message: Message, now: float, cancels: Request | None = None) -> list[SessionEffect]:
        """Take a message from the transaction layer; with a CANCEL comes the request it is for."""
        self.now = now
        if isinstance(message, Response):
            self._receive_response(message)
        elif message.method == "ACK":
            self.happen(Ack(message))
        elif message.method == "CANCEL":
            self.happen(Cancel(message, cancels))
        elif self._is_in_order(message):
            self.happen(_KIND_OF_REQUEST.get(message.method, OtherRequest)(message))
        return self._drain()

    def failed(self, request: Request, status: Literal[408, 503], now: float) -> list[SessionEffect]:
        """The layer gave up on a request of ours: treated as that response (RFC 3261 §8.1.3.1)."""
        self.now = now
        sent = self.dialogs.take_sent(request.via.branch)
        if sent is not None:
            self.happen(Outcome(sent, status, REASON_PHRASES[status], None))
        return self._drain()

    def tick(self, now: float) -> list[SessionEffect]:
        """Let every timer that is due happen, oldest first."""
        self.now = now
        while (due := self.deadline) is not None and due <= now:
            self.happen(self._take_due(due))
        return self._drain()

    def _take_due(self, due: float) -> Timer | SessionDue:
        if self.session_timer.deadline == due:
            return self.session_timer.take_due(self.now)
        timer = min(self._timers, key=self._timers.__getitem__)
        del self._timers[timer]
        return timer

    def _is_in_order(self, request: Request) -> bool:
        """Whether a request fits a dialog of ours and asks for nothing we don't have; refused otherwise."""
        dialog = self.dialogs.get(request.from_tag)
        if dialog is None:
            self.reply(request, 481)
        elif not dialog.accepts(request):
            self.reply(request, 500, "CSeq out of order")
        elif required := unsupported(request):
            self.reply(request, 420, headers=[("Unsupported", ", ".join(required))])
        else:
            self.dialogs.put(dialog.received(request))
            return True
        return False

    def _receive_response(self, response: Response) -> None:
        if ack := self.dialogs.ack_again(response):
            self.emit(ack)
        elif response.status >= 200 and (sent := self.dialogs.take_sent(response.via.branch)):
            self.happen(Outcome(sent, response.status, response.reason, response))

    # For handlers.

    def happen(self, arrived: object) -> bool:
        """Look an input up and do what the table says; False when the state ignores it."""
        return dispatch(self.TABLE, self, arrived)

    def close(self, state: Literal[State.ENDED, State.LEAVING, State.GIVEN_UP], effect: SessionEffect | None) -> None:
        """The session is over; an open re-INVITE is answered (RFC 3261 §15.1.2), late messages still are."""
        self.state = state
        if (offer := self.offers.take_remote()) is not None:
            self.reply(offer, 487)
        kept = (Timer.RESEND_2XX, Timer.ACK_WAIT) if state is State.LEAVING else ()
        if not kept:
            self.offers.unacknowledged = None
        self.disarm(*(timer for timer in Timer if timer not in kept))
        self.session_timer.stop()
        self.linger()
        if effect is not None:
            self.emit(effect)

    def linger(self) -> None:
        """Answer late messages for 64·T1 from now."""
        self.arm(Timer.LINGER, self.agent.timers.t1_x64)

    def reply(self, request: Request, status: int, reason: str | None = None, headers: HeaderItems = ()) -> None:
        self.emit(SendResponse(response_to(request, status, reason, self.local_tag, headers)))

    def bye(self, headers: HeaderItems, remote_tag: str | None = None) -> None:
        """Send a BYE, by default in the session's dialog."""
        self.emit(self.dialogs.request("BYE", headers=headers, remote_tag=remote_tag))

    def lose(self, effect: SessionEffect) -> None:
        """Hang up because the peer is lost, and tell the owner."""
        self.happen(HangUp(tuple(self.hangup_headers.items()), effect))

    def dialog_headers(self) -> list[tuple[str, str]]:
        return [("Contact", str(self.contact)), ("Allow", ALLOW), ("Supported", SUPPORTED)]

    def finish(self) -> None:
        """Nothing is answered any more."""
        self.state = State.FINISHED
        self._timers.clear()

    def arm(self, timer: Timer, after: float) -> None:
        """Let `timer` happen `after` seconds from the current input."""
        self._timers[timer] = self.now + after

    def disarm(self, *timers: Timer) -> None:
        for timer in timers:
            self._timers.pop(timer, None)

    def emit(self, effect: SessionEffect) -> None:
        self._effects.append(effect)

    def _drain(self) -> list[SessionEffect]:
        effects, self._effects = self._effects, []
        return effects

    # The state as plain data.

    def to_state(self, now: float) -> dict[str, Any]:
        """All that another process needs to go on, but credentials; times are seconds from `now`."""
        return {
            "state": self.state.value,
            "contact": str(self.contact),
            "local_tag": self.local_tag,
            "hangup_headers": self.hangup_headers,
            "dialogs": self.dialogs.to_state(),
            "offers": self.offers.to_state(),
            "session_timer": self.session_timer.to_state(now),
            "bye_headers": [list(line) for line in self.bye_headers],
            "timers": {timer.value: due - now for timer, due in self._timers.items()},
        }

    def _load(self, state: dict[str, Any], agent: Agent, now: float) -> None:
        """Become what `to_state` told."""
        InviteSession.__init__(
            self,
            agent,
            parse_name_addr(state["contact"]),
            local_tag=state["local_tag"],
            hangup_headers=state["hangup_headers"],
        )
        self.state = State(state["state"])
        self.dialogs.load(state["dialogs"])
        self.offers = OpenOffers.from_state(state["offers"])
        self.session_timer = SessionTimer.from_state(state["session_timer"], now)
        self.bye_headers = [(name, value) for name, value in state["bye_headers"]]
        self._timers = {Timer(name): now + after for name, after in state["timers"].items()}
        self.now = now
