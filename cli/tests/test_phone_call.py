"""The softphone's call as a machine: what meets what on the wire, without sockets or a clock."""

from argparse import Namespace

import pytest

from dialbus_cli.phone_call import FAREWELL_S, PhoneCall, State
from dialbus_cli.phone_message import Address, Message
from dialbus_cli.voice import Peer

CALLEE = ("127.0.0.1", 5070)
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=x\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"
    "a=rtpmap:8 PCMA/8000\r\n"
)


class FakeShell:
    """Keeps what a call sends and tells."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.told: list[str] = []
        self.connected: Peer | None = None

    def bind(self, peer: Address) -> tuple[Address, int]:
        return ("127.0.0.1", 5080), 4002

    def send(self, data: bytes, to: Address) -> None:
        self.sent.append(Message.parse(data))

    def tell(self, text: str) -> None:
        self.told.append(text)

    def connect(self, peer: Peer, now: float) -> None:
        self.connected = peer

    @property
    def methods(self) -> list[str]:
        return [message.method or f"{message.status}" for message in self.sent]


class Dialled:
    """A call of ours whose INVITE has gone out at second 0."""

    def __init__(self) -> None:
        self.shell = FakeShell()
        self.call = PhoneCall(Namespace(user="me", listen=False, codec="pcma", ring=0.0, refuse=None), self.shell)
        self.call.dial("you", "localhost", CALLEE, 0.0)
        self.invite = self.shell.sent[0]

    def reply(self, status: int, to: Message, now: float, body: str = "") -> None:
        lines = [f"SIP/2.0 {status} Whatever", f"Via: {to.header('Via')}", f"From: {to.header('From')}"]
        lines += [f"To: {to.header('To').partition(';tag')[0]};tag=callee", f"Call-ID: {to.header('Call-ID')}"]
        lines += [f"CSeq: {to.header('CSeq')}", "Contact: <sip:you@127.0.0.1:5070>", f"Content-Length: {len(body)}"]
        self.call.receive("\r\n".join([*lines, "", body]).encode(), CALLEE, now)

    def ask(self, method: str, now: float) -> None:
        lines = [f"{method} sip:me@127.0.0.1:5080 SIP/2.0", f"Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK{method}"]
        lines += ["From: <sip:you@localhost>;tag=callee", f"To: {self.invite.header('From')}"]
        lines += [f"Call-ID: {self.invite.header('Call-ID')}", f"CSeq: 1 {method}", "Content-Length: 0", "", ""]
        self.call.receive("\r\n".join(lines).encode(), CALLEE, now)


def test_answered_call_is_acknowledged_and_hung_up() -> None:
    dialled = Dialled()
    dialled.reply(180, dialled.invite, 0.1)
    dialled.reply(200, dialled.invite, 1.0, SDP)
    dialled.call.hang_up(2.0, "me")
    assert dialled.shell.methods == ["INVITE", "ACK", "BYE"]
    dialled.reply(200, dialled.shell.sent[-1], 2.1)
    assert (dialled.call.state, dialled.call.exit_code) == (State.OVER, 0)
    assert dialled.shell.told[1:] == ["ringing", "answered: PCMA to 127.0.0.9:4000", "hung up by me"]


def test_answer_that_crosses_our_cancel_is_hung_up_whatever_the_cancel_is_answered() -> None:
    dialled = Dialled()
    dialled.reply(180, dialled.invite, 0.1)
    dialled.call.hang_up(1.0, "me")
    cancel = dialled.shell.sent[-1]
    dialled.reply(200, dialled.invite, 1.1, SDP)
    dialled.reply(481, cancel, 1.2)
    assert dialled.shell.methods == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert dialled.call.state is State.LEAVING
    dialled.reply(200, dialled.shell.sent[-1], 1.3)
    assert dialled.call.exit_code == 0


def test_callee_who_hangs_up_while_we_cancel_changes_nothing() -> None:
    dialled = Dialled()
    dialled.reply(180, dialled.invite, 0.1)
    dialled.call.hang_up(1.0, "me")
    dialled.ask("BYE", 1.1)
    assert dialled.shell.methods == ["INVITE", "CANCEL", "200"]
    dialled.reply(487, dialled.invite, 1.2)
    assert dialled.call.exit_code == 1


@pytest.mark.parametrize(("answered", "code"), [(True, 0), (False, 1)])
def test_farewell_that_nobody_answers_ends_in_three_seconds(answered: bool, code: int) -> None:
    dialled = Dialled()
    dialled.reply(180, dialled.invite, 0.1)
    if answered:
        dialled.reply(200, dialled.invite, 0.2, SDP)
    dialled.call.hang_up(1.0, "me")
    while dialled.call.exit_code is None and dialled.call.deadline is not None:
        now = dialled.call.deadline
        dialled.call.tick(now)
    assert dialled.call.exit_code == code
    assert now >= 1.0 + FAREWELL_S
