"""The softphone's call: its SIP as a table from (state, input) to a handler, for the caller and for the called.

Resent with doubling gaps until answered (RFC 3261 §17); dialog, ACK and BYE by RFC 3261 §12.2.1.1, §13.2.2.4 and
§17.1.1.3. Sockets, clock and voice are `dialbus_cli.phone`'s.
"""

from argparse import Namespace
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dialbus.machine import Move, Table, dispatch, in_states
from dialbus_cli.phone_dialog import REASONS, Dialog, Writer, like_invite
from dialbus_cli.phone_message import Address, Line, Message
from dialbus_cli.voice import PCMU, Peer

T1_S, T2_S = 0.5, 4.0
GIVE_UP_S = 32.0
"""Timers B, F and H: 64 × T1."""
FAREWELL_S = 3.0
"""How long a BYE or CANCEL may take: the user wants to go."""


class State(Enum):
    """How far the phone's one call has come."""

    IDLE = "idle"
    CALLING = "calling"
    PROCEEDING = "proceeding"
    """The callee rings."""
    CALLED = "called"
    """We ring."""
    TALKING = "talking"
    CANCELLING = "cancelling"
    LEAVING = "leaving"
    """BYE waits for its answer."""
    REFUSED = "refused"
    """Our refusal waits for its ACK."""
    OVER = "over"


class Timer(Enum):
    """What a call waits for."""

    ANSWER = "answer due"
    NO_REPLY = "resent for too long"


@dataclass(frozen=True, slots=True)
class Dial:
    """Call this user there."""

    user: str
    host: str
    to: Address


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call; `who` wants that."""

    who: str


@dataclass(frozen=True, slots=True)
class Invited:
    """The INVITE of a new call."""

    request: Message
    source: Address


@dataclass(frozen=True, slots=True)
class InvitedAgain:
    """An INVITE inside our call: a copy or a re-INVITE."""

    request: Message
    source: Address


@dataclass(frozen=True, slots=True)
class Ack:
    """The ACK to our final answer."""


@dataclass(frozen=True, slots=True)
class Bye:
    """BYE inside our call, which is answered already."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """CANCEL inside our call."""

    request: Message
    source: Address


@dataclass(frozen=True, slots=True)
class Provisional:
    """1xx to our INVITE."""

    response: Message


@dataclass(frozen=True, slots=True)
class Accepted:
    """2xx to our INVITE, which is acknowledged already."""

    response: Message


@dataclass(frozen=True, slots=True)
class Refusal:
    """300 to 699 to our INVITE, which is acknowledged already."""

    response: Message


@dataclass(frozen=True, slots=True)
class ByeAnswered:
    """Our BYE has its final answer."""


@dataclass(frozen=True, slots=True)
class CancelAnswered:
    """Our CANCEL has an answer."""

    status: int


@dataclass(slots=True)
class Resend:
    """A message sent again with doubling gaps until it is answered (RFC 3261 section 17)."""

    data: bytes
    to: Address
    at: float
    interval_s: float
    give_up_at: float


class Shell(Protocol):
    """What a call needs of the phone around it."""

    def bind(self, peer: Address) -> tuple[Address, int]:
        """Open the ports towards a peer: our SIP address, our RTP port."""

    def send(self, data: bytes, to: Address) -> None: ...

    def tell(self, text: str) -> None:
        """A line for the user."""

    def connect(self, peer: Peer, now: float) -> None:
        """Let the voice go there."""

    @property
    def connected(self) -> Peer | None:
        """Where it goes."""


class PhoneCall:
    """One call, ours or theirs; `exit_code` is set when it is over."""

    def __init__(self, arguments: Namespace, shell: Shell) -> None:
        self.state = State.IDLE
        self.exit_code: int | None = None
        self.answered_at: float | None = None
        self._arguments = arguments
        self._shell = shell
        self._rtp_port = 0
        self._line: Line | None = None
        self._dialog: Dialog | None = None
        self._invite: Message | None = None
        """The INVITE of this call, ours or theirs."""
        self._invited_at: Address = ("", 0)
        self._resend: Resend | None = None
        self._last_response = b""
        self._answer_at: float | None = None
        self._writer = Writer(arguments.user)
        self._now = 0.0

    def __repr__(self) -> str:
        return f"<call {'' if self._dialog is None else self._dialog.call_id} {self.state.value}>"

    @property
    def deadline(self) -> float | None:
        """When to `tick`."""
        times = [self._resend.at] if self._resend else []
        return min(times + ([self._answer_at] if self._answer_at is not None else []), default=None)

    def dial(self, user: str, host: str, to: Address, now: float) -> None:
        """Call `user` at `to`, whose name is `host`."""
        self._happen(Dial(user, host, to), now)

    def hang_up(self, now: float, who: str) -> None:
        """End the call in whatever state it is."""
        self._happen(HangUp(who), now)

    def tick(self, now: float) -> None:
        """Answer, or send again, when that is due."""
        if self._answer_at is not None and now >= self._answer_at:
            self._answer_at = None
            self._happen(Timer.ANSWER, now)
        if (resend := self._resend) is not None and now >= resend.at:
            if now >= resend.give_up_at:
                self._resend = None
                self._happen(Timer.NO_REPLY, now)
                return
            self._shell.send(resend.data, resend.to)
            resend.interval_s = min(resend.interval_s * 2, T2_S)
            resend.at = now + resend.interval_s

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """Take a datagram; what is no SIP is ignored."""
        try:
            message = Message.parse(data)
        except ValueError:
            return
        if message.method == "INVITE":
            self._receive_invite(message, source, now)
        elif message.method:
            self._receive_request(message, source, now)
        elif self._is_ours(message):
            self._receive_response(message, now)

    def _is_ours(self, message: Message) -> bool:
        return self._dialog is not None and message.header("Call-ID") == self._dialog.call_id

    def _receive_invite(self, request: Message, source: Address, now: float) -> None:
        if self._is_ours(request):
            self._happen(InvitedAgain(request, source), now)
        elif not self._happen(Invited(request, source), now):
            self._respond(request, 486, source)

    def _receive_request(self, request: Message, source: Address, now: float) -> None:
        ours = self._is_ours(request)
        match request.method:
            case "ACK":
                if ours:
                    self._happen(Ack(), now)
            case "BYE" if ours:
                self._respond(request, 200, source)
                self._happen(Bye(), now)
            case "CANCEL" if ours and self._happen(Cancel(request, source), now):
                pass
            case "OPTIONS" | "INFO":
                self._respond(request, 200, source)
            case "BYE" | "CANCEL":
                self._respond(request, 481, source)
            case _:
                self._respond(request, 405, source)

    def _receive_response(self, response: Message, now: float) -> None:
        if response.answers == "BYE" and response.status >= 200:
            self._happen(ByeAnswered(), now)
        elif response.answers == "CANCEL":
            self._happen(CancelAnswered(response.status), now)
        elif response.answers == "INVITE" and not self._arguments.listen:
            if response.status < 200:
                self._happen(Provisional(response), now)
            elif response.status < 300:
                self._acknowledge(response)
                self._happen(Accepted(response), now)
            else:
                self._shell.send(like_invite(self._the_invite, "ACK", response), self._invited_at)
                self._happen(Refusal(response), now)

    def _happen(self, arrived: object, now: float) -> bool:
        self._now = now
        return dispatch(TABLE, self, arrived)

    # Handlers of the table below: calling.

    def _call(self, dial: Dial) -> None:
        self._writer.own, self._rtp_port = self._shell.bind(dial.to)
        self._invited_at = dial.to
        server = dial.host if dial.to[1] == 5060 else f"{dial.host}:{dial.to[1]}"
        self._line = Line(server, self._arguments.user, self._writer.own)
        data = self._line.offer(dial.user, self._rtp_port, self._arguments.codec)
        self._invite = invite = Message.parse(data)
        target = data.split(b" ", 2)[1].decode()
        self._dialog = Dialog.of_ours(invite, target, dial.to)
        self.state = State.CALLING
        self._shell.tell(f"calling {target}")
        self._send_until_answered(data, dial.to, GIVE_UP_S)

    def _on_provisional(self, provisional: Provisional) -> None:
        response = provisional.response
        self._resend = None
        self.state = State.PROCEEDING
        if response.status > 100:
            self._shell.tell("ringing" if response.status == 180 else f"progress: {response.status} {response.reason}")
            if (peer := response.description()) is not None:
                self._shell.connect(peer, self._now)

    def _on_accepted(self, accepted: Accepted) -> None:
        self._resend = None
        self.answered_at = self._now
        self.state = State.TALKING
        peer = accepted.response.description() or self._shell.connected
        if peer is None:
            self._bye(HangUp("this phone: the answer has no audio that it can speak"))
            return
        self._talk_to(peer)

    def _on_refusal(self, refusal: Refusal) -> None:
        self._shell.tell(f"refused: {refusal.response.status} {refusal.response.reason}")
        self._end(1)

    def _give_up(self, hang_up: HangUp) -> None:
        """RFC 3261 section 9.1: no CANCEL before a provisional response."""
        self._shell.tell(f"given up by {hang_up.who}")
        self._end(1)

    def _cancel(self, hang_up: HangUp) -> None:
        self._shell.tell(f"given up by {hang_up.who}")
        self.state = State.CANCELLING
        self._send_until_answered(like_invite(self._the_invite, "CANCEL"), self._invited_at, FAREWELL_S)

    def _on_cancel_answered(self, answered: CancelAnswered) -> None:
        if answered.status >= 300:
            self._end(1)
        else:  # the INVITE's own 487 is still to come
            self._resend = Resend(b"", self._invited_at, self._now + FAREWELL_S, FAREWELL_S, self._now)

    def _on_answer_after_cancel(self, _: Accepted) -> None:
        """It crossed our CANCEL (RFC 3261 section 9.1)."""
        self.answered_at = self._now
        self._send_bye()

    def _on_no_answer(self, _: Timer) -> None:
        self._shell.tell("no answer")
        self._end(1)

    # Handlers: being called.

    def _ring(self, invited: Invited) -> None:
        request, source = invited.request, invited.source
        self._writer.own, self._rtp_port = self._shell.bind(source)
        self._line = Line(self._writer.own[0], self._arguments.user, self._writer.own)
        self._invite, self._invited_at = request, source
        self._dialog = Dialog.of_theirs(request, self._writer.local_tag, source)
        self.state = State.CALLED
        self._shell.tell(f"called by {request.header('From').partition(';tag=')[0]}")
        self._last_response = self._respond(request, 180, source)
        self._answer_at = self._now + self._arguments.ring

    def _answer(self, _: Timer) -> None:
        peer = self._the_invite.description()
        if self._arguments.refuse is not None or peer is None:
            self._refuse(self._arguments.refuse or 488)
            return
        data = self._last_response = self._respond(self._the_invite, 200, self._invited_at, self._answer_body(peer))
        self._resend = Resend(data, self._invited_at, self._now + T1_S, T1_S, self._now + GIVE_UP_S)
        self.answered_at = self._now
        self.state = State.TALKING
        self._talk_to(peer)

    def _refuse(self, status: int) -> None:
        if status != 487:
            self._shell.tell(f"refusing: {status} {REASONS[status]}")
        data = self._last_response = self._respond(self._the_invite, status, self._invited_at)
        self.state = State.REFUSED
        self._answer_at = None
        self._resend = Resend(data, self._invited_at, self._now + T1_S, T1_S, self._now + FAREWELL_S)

    def _decline(self, _: HangUp) -> None:
        self._refuse(480)

    def _on_cancel(self, cancel: Cancel) -> None:
        self._respond(cancel.request, 200, cancel.source)
        self._shell.tell("the caller gave up")
        self._refuse(487)

    def _on_copy(self, again: InvitedAgain) -> None:
        """Our INVITE's answer once more; any other INVITE comes too early or too late."""
        if self._is_copy(again.request):
            self._shell.send(self._last_response, again.source)

    def _is_copy(self, request: Message) -> bool:
        return bool(self._arguments.listen) and self._invite is not None and request.number == self._invite.number

    # Handlers: both.

    def _on_reinvite(self, again: InvitedAgain) -> None:
        if self._is_copy(again.request):
            self._shell.send(self._last_response, again.source)
            return
        peer = again.request.description()
        if peer is None:
            self._respond(again.request, 488, again.source)
            return
        self._respond(again.request, 200, again.source, self._answer_body(peer))
        self._shell.tell(f"media moves to {peer.host}:{peer.port}")
        self._shell.connect(peer, self._now)

    def _on_ack(self, _: Ack) -> None:
        self._resend = None

    def _on_bye(self, _: Bye) -> None:
        assert self.answered_at is not None
        self._shell.tell(f"hung up by the other side, {self._now - self.answered_at:.1f} s after the answer")
        self._end(0)

    def _bye(self, hang_up: HangUp) -> None:
        self._shell.tell(f"hung up by {hang_up.who}")
        self._send_bye()

    def _leave(self, _: object) -> None:
        self._end(0)

    def _fail(self, _: object) -> None:
        self._end(1)

    # For handlers.

    @property
    def _the_invite(self) -> Message:
        assert self._invite is not None
        return self._invite

    def _respond(self, request: Message, status: int, to: Address, body: str = "") -> bytes:
        data = self._writer.response(request, status, to, body)
        self._shell.send(data, to)
        return data

    def _answer_body(self, peer: Peer) -> str:
        assert self._line is not None
        return self._line.answer_body(self._the_invite.header("Call-ID"), self._rtp_port, peer)

    def _acknowledge(self, response: Message) -> None:
        """2xx: acknowledged each time it comes (RFC 3261 section 13.2.2.4)."""
        assert self._dialog is not None
        self._dialog.confirm(response, self._invited_at)
        self._shell.send(self._dialog.request("ACK", response.number, self._writer.own), self._dialog.to)

    def _talk_to(self, peer: Peer) -> None:
        self._shell.tell(f"answered: {'PCMU' if peer.payload_type == PCMU else 'PCMA'} to {peer.host}:{peer.port}")
        self._shell.connect(peer, self._now)

    def _end(self, code: int) -> None:
        self.state = State.OVER
        self._resend = None
        self.exit_code = code

    def _send_bye(self) -> None:
        assert self._dialog is not None
        self._dialog.number += 1
        self.state = State.LEAVING
        self._send_until_answered(
            self._dialog.request("BYE", self._dialog.number, self._writer.own), self._dialog.to, FAREWELL_S
        )

    def _send_until_answered(self, data: bytes, to: Address, give_up_s: float) -> None:
        self._shell.send(data, to)
        self._resend = Resend(data, to, self._now + T1_S, T1_S, self._now + give_up_s)


# RFC 3261 §9.1, §13.2 and §15; what only the called may do has CALLED in it.
TABLE: Table[State, PhoneCall] = {
    (State.IDLE, Dial): Move(PhoneCall._call, State.CALLING),
    (State.IDLE, Invited): Move(PhoneCall._ring, State.CALLED),
    (State.IDLE, HangUp): Move(PhoneCall._leave, State.OVER),
    **in_states(
        (State.CALLING, State.PROCEEDING),
        {
            Provisional: Move(PhoneCall._on_provisional, State.PROCEEDING),
            Accepted: Move(PhoneCall._on_accepted, State.TALKING, State.LEAVING),
            Refusal: Move(PhoneCall._on_refusal, State.OVER),
        },
    ),
    (State.CALLING, HangUp): Move(PhoneCall._give_up, State.OVER),
    (State.CALLING, Timer.NO_REPLY): Move(PhoneCall._on_no_answer, State.OVER),
    (State.PROCEEDING, HangUp): Move(PhoneCall._cancel, State.CANCELLING),
    (State.CALLED, Timer.ANSWER): Move(PhoneCall._answer, State.TALKING, State.REFUSED),
    (State.CALLED, InvitedAgain): Move(PhoneCall._on_copy),
    (State.CALLED, Cancel): Move(PhoneCall._on_cancel, State.REFUSED),
    (State.CALLED, HangUp): Move(PhoneCall._decline, State.REFUSED),
    (State.TALKING, Ack): Move(PhoneCall._on_ack),
    (State.TALKING, InvitedAgain): Move(PhoneCall._on_reinvite),
    (State.TALKING, Bye): Move(PhoneCall._on_bye, State.OVER),
    (State.TALKING, HangUp): Move(PhoneCall._bye, State.LEAVING),
    (State.TALKING, Timer.NO_REPLY): Move(PhoneCall._on_no_answer, State.OVER),
    (State.CANCELLING, CancelAnswered): Move(PhoneCall._on_cancel_answered, State.OVER),
    (State.CANCELLING, Accepted): Move(PhoneCall._on_answer_after_cancel, State.LEAVING),
    (State.CANCELLING, Refusal): Move(PhoneCall._fail, State.OVER),
    (State.CANCELLING, Timer.NO_REPLY): Move(PhoneCall._fail, State.OVER),
    (State.CANCELLING, HangUp): Move(PhoneCall._leave, State.OVER),
    (State.LEAVING, Bye): Move(PhoneCall._leave, State.OVER),
    (State.LEAVING, ByeAnswered): Move(PhoneCall._leave, State.OVER),
    (State.LEAVING, Timer.NO_REPLY): Move(PhoneCall._leave, State.OVER),
    (State.LEAVING, HangUp): Move(PhoneCall._leave, State.OVER),
    (State.LEAVING, InvitedAgain): Move(PhoneCall._on_copy),
    (State.REFUSED, Ack): Move(PhoneCall._leave, State.OVER),
    (State.REFUSED, InvitedAgain): Move(PhoneCall._on_copy),
    (State.REFUSED, Timer.NO_REPLY): Move(PhoneCall._leave, State.OVER),
}
