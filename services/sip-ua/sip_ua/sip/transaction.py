"""The four transaction machines of SIP.

Sources: RFC 3261 §17 and RFC 6026, which adds the state ACCEPTED and the timers L and M. Each machine is a table
from (state, event) to (state, actions); a pair that is absent is ignored on purpose. Time goes in as `now`,
effects come out; nothing here waits or sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeAlias

from sip_ua.sip.agent import MAX_FORWARDS
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import Message, Request, Response, response_to
from sip_ua.sip.timers import Timers


class State(Enum):
    """States of the four machines; each machine uses some of them."""

    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


class Event(Enum):
    """What can happen to a transaction: a message in either direction, a timer, a fault."""

    REQUEST = "request"
    ACK = "ACK"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    CANCELLED = "cancelled by the user"
    TRANSPORT_ERROR = "transport error"
    TRYING_DUE = "200 ms without answer"
    PROCEEDING_LIMIT = "proceeding limit"
    TIMER_A = "timer A"
    TIMER_B = "timer B"
    TIMER_D = "timer D"
    TIMER_E = "timer E"
    TIMER_F = "timer F"
    TIMER_G = "timer G"
    TIMER_H = "timer H"
    TIMER_I = "timer I"
    TIMER_J = "timer J"
    TIMER_K = "timer K"
    TIMER_L = "timer L"
    TIMER_M = "timer M"


@dataclass(frozen=True, slots=True)
class Send:
    """Put this message on the wire, to the transaction's peer."""

    message: Message


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand this message to the transaction user."""

    message: Message


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The peer stayed silent for too long; `timer` says on what."""

    timer: Event


@dataclass(frozen=True, slots=True)
class TransportFailed:
    """The message could not be sent at all."""


@dataclass(frozen=True, slots=True)
class Terminated:
    """The transaction is over and may be forgotten; always its last effect."""


Effect: TypeAlias = Send | Deliver | TimedOut | TransportFailed | Terminated
Action: TypeAlias = "Callable[[Transaction], None]"
Table: TypeAlias = "dict[tuple[State, Event], tuple[State, tuple[Action, ...]]]"


class Transaction(ABC):
    """What the four machines share: a state, armed timers, and the table that moves them.

    Inputs are `start`, `receive` (from the wire), `tick`, `transport_failed`, and for servers `send` (from the
    transaction user); each returns the effects, in order. `deadline` is the moment of the next `tick`.
    """

    TABLE: ClassVar[Table]
    INITIAL: ClassVar[State]

    def __init__(self, request: Request, timers: Timers | None = None, *, reliable: bool) -> None:
        self.request = request
        self.timers = timers or Timers()
        self.reliable = reliable
        self.state = self.INITIAL
        self.message: Message = request
        """The message of the current event."""
        self.last_sent: Message | None = None
        """What a retransmission repeats."""
        self.retransmit_interval = self.timers.t1
        """Seconds until the next retransmission."""
        self._armed: dict[Event, float] = {}
        self._at_once: list[Event] = []
        self._effects: list[Effect] = []
        self._now = 0.0

    @property
    def finished(self) -> bool:
        return self.state is State.TERMINATED

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, or None when only a message can change anything."""
        return min(self._armed.values(), default=None)

    @abstractmethod
    def receive(self, message: Message, now: float) -> list[Effect]:
        """Take a message that belongs to this transaction from the wire."""

    @abstractmethod
    def _arm_first_timers(self) -> None:
        """Arm what runs from the first moment."""

    def tick(self, now: float) -> list[Effect]:
        """Fire every timer that is due, oldest first."""
        while self._armed:
            timer = min(self._armed, key=self._armed.__getitem__)
            if self._armed[timer] > now:
                break
            del self._armed[timer]
            self._happen(timer, now)
        return self._drain()

    def transport_failed(self, now: float) -> list[Effect]:
        """The last message could not be sent."""
        self._happen(Event.TRANSPORT_ERROR, now)
        return self._drain()

    def arm(self, timer: Event, after: float) -> None:
        """Let `timer` happen `after` seconds from this event, 0 meaning right after it; for use by actions."""
        if after > 0:
            self._armed[timer] = self._now + after
        else:
            self._at_once.append(timer)

    def disarm(self, *timers: Event) -> None:
        for timer in timers:
            self._armed.pop(timer, None)

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _happen(self, event: Event, now: float) -> None:
        """Look the event up and do what the table says; then what has to happen at once."""
        self._now = now
        entry = self.TABLE.get((self.state, event))
        if entry is None:
            return
        self.state, actions = entry
        for action in actions:
            action(self)
        while self._at_once:
            self._happen(self._at_once.pop(), now)
        if self.finished and (not self._effects or self._effects[-1] != Terminated()):
            self._armed.clear()
            self.emit(Terminated())

    def _drain(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects


def _class_of(response: Response) -> Event:
    if response.status < 200:
        return Event.PROVISIONAL
    return Event.SUCCESS if response.status < 300 else Event.FAILURE


class ClientTransaction(Transaction):
    """The UAC's side: sends one request, collects its responses."""

    def start(self, now: float) -> list[Effect]:
        """Send the request for the first time."""
        self._now = now
        self.last_sent = self.request
        self.emit(Send(self.request))
        self._arm_first_timers()
        return self._drain()

    def receive(self, message: Message, now: float) -> list[Effect]:
        """Take a response from the wire; requests are not for a client transaction and are ignored."""
        if isinstance(message, Response):
            self.message = message
            self._happen(_class_of(message), now)
        return self._drain()


class ServerTransaction(Transaction):
    """The UAS's side: takes one request, repeats its response as often as the request comes again."""

    def start(self, now: float) -> list[Effect]:
        """Hand the request up for the first time."""
        self._now = now
        self.emit(Deliver(self.request))
        self._arm_first_timers()
        return self._drain()

    def receive(self, message: Message, now: float) -> list[Effect]:
        """Take a copy of the request, or its ACK, from the wire."""
        if isinstance(message, Request):
            self.message = message
            self._happen(Event.ACK if message.method == "ACK" else Event.REQUEST, now)
        return self._drain()

    def send(self, response: Response, now: float) -> list[Effect]:
        """Answer the request; what the state forbids (a second final response) is ignored."""
        self.message = response
        self._happen(_class_of(response), now)
        return self._drain()


# Actions: what the tables name. Each reads the current event from the transaction and adds effects or timers.


def pass_up(transaction: Transaction) -> None:
    transaction.emit(Deliver(transaction.message))


def send_it(transaction: Transaction) -> None:
    transaction.last_sent = transaction.message
    transaction.emit(Send(transaction.message))


def resend(transaction: Transaction) -> None:
    if transaction.last_sent is not None:
        transaction.emit(Send(transaction.last_sent))


def double_timer_a(transaction: Transaction) -> None:
    transaction.retransmit_interval *= 2
    transaction.arm(Event.TIMER_A, transaction.retransmit_interval)


def double_timer_e(transaction: Transaction) -> None:
    transaction.retransmit_interval = min(2 * transaction.retransmit_interval, transaction.timers.t2)
    transaction.arm(Event.TIMER_E, transaction.retransmit_interval)


def timer_e_every_t2(transaction: Transaction) -> None:
    transaction.retransmit_interval = transaction.timers.t2
    transaction.arm(Event.TIMER_E, transaction.retransmit_interval)


def double_timer_g(transaction: Transaction) -> None:
    transaction.retransmit_interval = min(2 * transaction.retransmit_interval, transaction.timers.t2)
    transaction.arm(Event.TIMER_G, transaction.retransmit_interval)


def start_timer_b(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_B, transaction.timers.t1_x64)


def start_timer_d(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_D, transaction.timers.timer_d(transaction.reliable))


def start_timers_g_and_h(transaction: Transaction) -> None:
    transaction.retransmit_interval = transaction.timers.t1
    if not transaction.reliable:
        transaction.arm(Event.TIMER_G, transaction.retransmit_interval)
    transaction.arm(Event.TIMER_H, transaction.timers.t1_x64)


def start_timer_i(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_I, transaction.timers.timer_i(transaction.reliable))


def start_timer_j(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_J, transaction.timers.timer_j(transaction.reliable))


def start_timer_k(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_K, transaction.timers.timer_k(transaction.reliable))


def start_timer_l(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_L, transaction.timers.t1_x64)


def start_timer_m(transaction: Transaction) -> None:
    transaction.arm(Event.TIMER_M, transaction.timers.t1_x64)


def start_proceeding_limit(transaction: Transaction) -> None:
    transaction.arm(Event.PROCEEDING_LIMIT, transaction.timers.proceeding_limit)


def stop_timers(transaction: Transaction) -> None:
    transaction.disarm(*Event)


def send_trying(transaction: Transaction) -> None:
    transaction.last_sent = response_to(transaction.request, 100)
    transaction.emit(Send(transaction.last_sent))


def acknowledge(transaction: Transaction) -> None:
    assert isinstance(transaction.message, Response)
    transaction.emit(Send(ack_to_failure(transaction.request, transaction.message)))


def report_limit(transaction: Transaction) -> None:
    transaction.emit(TimedOut(Event.PROCEEDING_LIMIT))


def report_timer_b(transaction: Transaction) -> None:
    transaction.emit(TimedOut(Event.TIMER_B))


def report_timer_f(transaction: Transaction) -> None:
    transaction.emit(TimedOut(Event.TIMER_F))


def report_timer_h(transaction: Transaction) -> None:
    transaction.emit(TimedOut(Event.TIMER_H))


def report_transport(transaction: Transaction) -> None:
    transaction.emit(TransportFailed())


def ack_to_failure(invite: Request, response: Response) -> Request:
    """The ACK to a 300–699, which belongs to the INVITE's own transaction. Source: RFC 3261 §17.1.1.3.

    One Via, equal to the INVITE's top one; Route set copied; To from the response, since it carries the tag.
    """
    items = [("Via", str(invite.via))]
    items += [("Route", route) for route in invite.headers.get_all("Route")]
    items += [
        ("Max-Forwards", MAX_FORWARDS),
        ("From", invite.headers.get("From") or ""),
        ("To", response.headers.get("To") or ""),
        ("Call-ID", invite.call_id),
        ("CSeq", f"{invite.cseq.number} ACK"),
    ]
    return Request("ACK", invite.uri, Headers(items))


# INVITE client transaction: RFC 3261 §17.1.1.2 figure 5, with ACCEPTED and timer M from RFC 6026 §7.2. The limit of
# PROCEEDING leaves the state alone: the user sends CANCEL, and the 487 it brings still has to be acknowledged.
# Timer B runs again from there, since RFC 3261 §9.1 gives up 64·T1 after a CANCEL.
INVITE_CLIENT: Table = {
    (State.CALLING, Event.TIMER_A): (State.CALLING, (resend, double_timer_a)),
    (State.CALLING, Event.TIMER_B): (State.TERMINATED, (report_timer_b,)),
    (State.CALLING, Event.PROVISIONAL): (State.PROCEEDING, (stop_timers, start_proceeding_limit, pass_up)),
    (State.CALLING, Event.SUCCESS): (State.ACCEPTED, (stop_timers, pass_up, start_timer_m)),
    (State.CALLING, Event.FAILURE): (State.COMPLETED, (stop_timers, acknowledge, pass_up, start_timer_d)),
    (State.CALLING, Event.TRANSPORT_ERROR): (State.TERMINATED, (report_transport,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (pass_up,)),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, (stop_timers, pass_up, start_timer_m)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (stop_timers, acknowledge, pass_up, start_timer_d)),
    (State.PROCEEDING, Event.CANCELLED): (State.PROCEEDING, (stop_timers, start_timer_b)),
    (State.PROCEEDING, Event.PROCEEDING_LIMIT): (State.PROCEEDING, (report_limit, start_timer_b)),
    (State.PROCEEDING, Event.TIMER_B): (State.TERMINATED, (report_timer_b,)),
    (State.COMPLETED, Event.FAILURE): (State.COMPLETED, (acknowledge,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.TERMINATED, (report_transport,)),
    (State.COMPLETED, Event.TIMER_D): (State.TERMINATED, ()),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, (pass_up,)),
    (State.ACCEPTED, Event.TIMER_M): (State.TERMINATED, ()),
}

# Non-INVITE client transaction: RFC 3261 §17.1.2.2 figure 6.
NON_INVITE_CLIENT: Table = {
    (State.TRYING, Event.TIMER_E): (State.TRYING, (resend, double_timer_e)),
    (State.TRYING, Event.TIMER_F): (State.TERMINATED, (report_timer_f,)),
    (State.TRYING, Event.TRANSPORT_ERROR): (State.TERMINATED, (report_transport,)),
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, (pass_up,)),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, (stop_timers, pass_up, start_timer_k)),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, (stop_timers, pass_up, start_timer_k)),
    (State.PROCEEDING, Event.TIMER_E): (State.PROCEEDING, (resend, timer_e_every_t2)),
    (State.PROCEEDING, Event.TIMER_F): (State.TERMINATED, (report_timer_f,)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.TERMINATED, (report_transport,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (pass_up,)),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, (stop_timers, pass_up, start_timer_k)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (stop_timers, pass_up, start_timer_k)),
    (State.COMPLETED, Event.TIMER_K): (State.TERMINATED, ()),
}

# INVITE server transaction: RFC 3261 §17.2.1 figure 7, with ACCEPTED and timer L from RFC 6026 §7.1, which also keeps
# the transaction after a transport error. In ACCEPTED copies of the INVITE are absorbed: the user repeats the 2xx.
INVITE_SERVER: Table = {
    (State.PROCEEDING, Event.TRYING_DUE): (State.PROCEEDING, (send_trying,)),
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (resend,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (stop_timers, send_it)),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, (stop_timers, send_it, start_timer_l)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (stop_timers, send_it, start_timers_g_and_h)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.PROCEEDING, (report_transport,)),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (resend,)),
    (State.COMPLETED, Event.TIMER_G): (State.COMPLETED, (resend, double_timer_g)),
    (State.COMPLETED, Event.TIMER_H): (State.TERMINATED, (report_timer_h,)),
    (State.COMPLETED, Event.ACK): (State.CONFIRMED, (stop_timers, start_timer_i)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.COMPLETED, (report_transport,)),
    (State.CONFIRMED, Event.TIMER_I): (State.TERMINATED, ()),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, (send_it,)),
    (State.ACCEPTED, Event.ACK): (State.ACCEPTED, (pass_up,)),
    (State.ACCEPTED, Event.TRANSPORT_ERROR): (State.ACCEPTED, (report_transport,)),
    (State.ACCEPTED, Event.TIMER_L): (State.TERMINATED, ()),
}

# Non-INVITE server transaction: RFC 3261 §17.2.2 figure 8.
NON_INVITE_SERVER: Table = {
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, (send_it,)),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, (send_it, start_timer_j)),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, (send_it, start_timer_j)),
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (resend,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (send_it,)),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, (send_it, start_timer_j)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (send_it, start_timer_j)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.TERMINATED, (report_transport,)),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (resend,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.TERMINATED, (report_transport,)),
    (State.COMPLETED, Event.TIMER_J): (State.TERMINATED, ()),
}


class InviteClientTransaction(ClientTransaction):
    """One INVITE sent: repeated with doubling gaps until a response, given up after 64·T1."""

    TABLE = INVITE_CLIENT
    INITIAL = State.CALLING

    def cancelled(self, now: float) -> list[Effect]:
        """A CANCEL was sent for this INVITE: wait no longer than 64·T1 for its end (RFC 3261 §9.1)."""
        self._happen(Event.CANCELLED, now)
        return self._drain()

    def _arm_first_timers(self) -> None:
        if not self.reliable:
            self.arm(Event.TIMER_A, self.timers.t1)
        self.arm(Event.TIMER_B, self.timers.t1_x64)


class NonInviteClientTransaction(ClientTransaction):
    """One request other than INVITE or ACK sent."""

    TABLE = NON_INVITE_CLIENT
    INITIAL = State.TRYING

    def _arm_first_timers(self) -> None:
        if not self.reliable:
            self.arm(Event.TIMER_E, self.timers.t1)
        self.arm(Event.TIMER_F, self.timers.t1_x64)


class InviteServerTransaction(ServerTransaction):
    """One INVITE received: answered 100 by itself after 200 ms, its failure repeated until the ACK."""

    TABLE = INVITE_SERVER
    INITIAL = State.PROCEEDING

    def _arm_first_timers(self) -> None:
        self.arm(Event.TRYING_DUE, self.timers.trying)


class NonInviteServerTransaction(ServerTransaction):
    """One request other than INVITE or ACK received."""

    TABLE = NON_INVITE_SERVER
    INITIAL = State.TRYING

    def _arm_first_timers(self) -> None:
        """Nothing runs until there is a final response to repeat."""
