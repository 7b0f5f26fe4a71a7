"""Which call a SIP message is noted for."""

import pytest
from structlog.testing import capture_logs

from dialbus.contracts.trace import TraceLine, TraceLines
from dialbus.trace import Tracer
from sip_ua.sip.headers import Headers
from sip_ua.sip.identity import server_key
from sip_ua.sip.message import Message, Response
from sip_ua.sip.parser import parse
from sip_ua.sip.transaction_layer import Address
from sip_ua.ua.traffic import LINGER_S, LegName, Traffic

PEER = Address("192.0.2.7", 5060)
INBOUND, OUTBOUND = LegName("call-in", "main"), LegName("call-out", "refer")


def message(
    start: str, cseq: str, *, caller: str = "", callee: str = "", call_id: str = "c", branch: str = "1"
) -> Message:
    """From has tag `caller`, To has tag `callee`, if any."""
    lines = [
        start,
        f"Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK{branch}",
        f"From: <sip:a:hush@x>{caller and f';tag={caller}'}",
        f"To: <sip:b@x>{callee and f';tag={callee}'}",
        f"Call-ID: {call_id}",
        f"CSeq: 1 {cseq}",
        "Max-Forwards: 70",
        "",
        "",
    ]
    return parse("\r\n".join(lines).encode())


INVITE = message("INVITE sip:b@x SIP/2.0", "INVITE", caller="theirs")
TRYING = message("SIP/2.0 100 Trying", "INVITE", caller="theirs")
BYE_IN = message("BYE sip:b@x SIP/2.0", "BYE", caller="theirs", callee="ours")
BYE_OUT = message("BYE sip:a@x SIP/2.0", "BYE", caller="ours", callee="theirs", branch="2")
OK_IN = message("SIP/2.0 200 OK", "BYE", caller="ours", callee="theirs", branch="2")
CANCEL = message("CANCEL sip:b@x SIP/2.0", "CANCEL", caller="theirs")


class Watched:
    """Traffic at a time of its own, and whose notes it took."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[TraceLines] = []
        self.tracer = Tracer("sip-ua", "sip-ua-1", self._keep)
        self.traffic = Traffic(self.tracer, lambda: self.now)

    async def _keep(self, lines: TraceLines) -> bool:
        self.sent.append(lines)
        return True

    async def noted(self) -> list[tuple[str, TraceLine]]:
        """Call and line, of everything since the last time."""
        await self.tracer.flush()
        found = [(message.call_id, line) for message in self.sent for line in message.lines]
        self.sent.clear()
        return found


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def test_the_invite_that_begins_a_call_is_noted_when_the_call_is_there(watched: Watched) -> None:
    with capture_logs() as logged:
        assert watched.traffic.received(INVITE, b"INVITE sip:b@x SIP/2.0\r\n", PEER) is None
        watched.traffic.add("c", "ours", INBOUND, server_key(INVITE))
        watched.traffic.sent(TRYING, b"SIP/2.0 100 Trying\r\n", PEER)
        watched.traffic.began(INVITE, b"INVITE sip:b:hush@x SIP/2.0\r\n\r\n", PEER, 5.0)
    assert [(line["event"], line["call_id"]) for line in logged] == [
        ("sip.sent", "call-in"),
        ("sip.received", "call-in"),
    ]
    (_, trying), (call_id, invite) = await watched.noted()
    assert (call_id, invite.at, invite.leg_id, invite.kind) == ("call-in", 5.0, "main", "sip-in")
    assert (invite.name, invite.text) == ("INVITE sip:b:***@x SIP/2.0", "INVITE sip:b:***@x SIP/2.0\r\n\r\n")
    assert invite.facts == {"remote": "192.0.2.7:5060"}
    assert (trying.kind, trying.name) == ("sip-out", "SIP/2.0 100 Trying")


@pytest.mark.parametrize(
    ("seen", "ours", "leg"),
    [
        (INVITE, False, INBOUND),  # a copy
        (CANCEL, False, INBOUND),
        (TRYING, True, INBOUND),
        (BYE_IN, False, INBOUND),
        (BYE_OUT, True, INBOUND),
        (OK_IN, False, INBOUND),
        (message("INVITE sip:b@x SIP/2.0", "INVITE", caller="other", branch="9"), False, None),  # another call
        (message("BYE sip:b@x SIP/2.0", "BYE", caller="x", callee="y", call_id="d"), False, None),
    ],
)
async def test_messages_of_a_dialog_are_of_its_leg(
    watched: Watched, seen: Message, ours: bool, leg: LegName | None
) -> None:
    watched.traffic.add("c", "ours", INBOUND, server_key(INVITE))
    watched.traffic.sent(seen, b"x", PEER) if ours else watched.traffic.received(seen, b"x", PEER)
    assert [call_id for call_id, _ in await watched.noted()] == ([leg.call_id] if leg else [])


async def test_a_call_to_ourselves_has_two_legs_with_one_call_id(watched: Watched) -> None:
    watched.traffic.add("c", "theirs", OUTBOUND)
    watched.traffic.add("c", "ours", INBOUND, server_key(INVITE))
    watched.traffic.sent(INVITE, b"1", PEER)
    watched.traffic.received(INVITE, b"2", PEER)
    watched.traffic.sent(TRYING, b"3", PEER)
    watched.traffic.received(TRYING, b"4", PEER)
    watched.traffic.sent(BYE_OUT, b"5", PEER)
    watched.traffic.received(BYE_OUT, b"6", PEER)
    watched.traffic.received(CANCEL, b"7", PEER)
    assert [(call_id, line.name) for call_id, line in await watched.noted()] == [
        ("call-out", "1"), ("call-out", "4"), ("call-out", "6"),
        ("call-in", "2"), ("call-in", "3"), ("call-in", "5"), ("call-in", "7"),
    ]  # fmt: skip


async def test_an_answer_to_garbage_is_of_no_call_and_harms_none(watched: Watched) -> None:
    watched.traffic.add("c", "theirs", OUTBOUND)
    watched.traffic.add("c", "ours", INBOUND)
    headers = (("Via", "?"), ("Call-ID", "c"), ("From", "<"), ("To", "<"), ("CSeq", "?"))
    watched.traffic.sent(Response(400, "Bad", Headers(headers), b""), b"x", PEER)
    watched.traffic.sent(Response(400, "Bad", Headers((("Call-ID", "\ufffd"),)), b""), b"x", PEER)
    assert await watched.noted() == []


async def test_copies_that_come_after_the_end_are_of_the_call_for_a_while(watched: Watched) -> None:
    watched.traffic.add("c", "ours", INBOUND, server_key(INVITE))
    watched.traffic.remove("c", "ours", server_key(INVITE))
    watched.now = LINGER_S - 0.1
    assert watched.traffic.received(BYE_IN, b"x", PEER) == INBOUND
    watched.now = LINGER_S
    watched.traffic.add("d", "ours", OUTBOUND)
    assert watched.traffic.received(BYE_IN, b"x", PEER) is None
    assert watched.traffic.received(INVITE, b"x", PEER) is None
