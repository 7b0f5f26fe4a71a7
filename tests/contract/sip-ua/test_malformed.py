"""What is no SIP, or bad SIP: it is answered as RFC 3261 says, and the next call works all the same."""

import random
import secrets
from collections.abc import Iterator

import pytest

from tests.harness import ServiceProcess, next_message
from tests.peers.exchange import Exchange
from tests.peers.phone import Message, Phone


@pytest.fixture(autouse=True)
def _no_exception(ua: ServiceProcess) -> Iterator[None]:
    """Nothing that comes from outside surprises the service."""
    before = len(ua.log)
    yield
    after = ua.log[before:]
    assert "Traceback" not in after, after[after.index("Traceback") :][:3000]


def _invite(phone: Phone, exchange: Exchange, **changes: str | None) -> bytes:
    """An INVITE whose header lines are replaced (None: left out; `start` is the first line, `body` the body)."""
    call_id = f"{secrets.token_hex(8)}@{phone.host}"
    body = changes.pop("body", None) or phone.sdp()
    start = changes.pop("start", None) or f"INVITE {exchange.uri} SIP/2.0"
    lines: dict[str, str | None] = {
        "Via": f"SIP/2.0/UDP {phone.host}:{phone.port};branch=z9hG4bK{secrets.token_hex(8)};rport",
        "Max-Forwards": "70",
        "From": f"<{phone.uri}>;tag=one",
        "To": f"<{exchange.uri}>",
        "Call-ID": call_id,
        "CSeq": "1 INVITE",
        "Contact": f"<{phone.uri}>",
        "Content-Type": "application/sdp",
        "Content-Length": str(len(body)),
    }
    lines |= {name.replace("_", "-"): value for name, value in changes.items()}
    head = [start, *(f"{name}: {value}" for name, value in lines.items() if value is not None)]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body.encode()


async def _next_call_works(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("reject")
    await dialog.expect_response(603)
    await call.expect_end("rejected", "callee")


async def _answer(phone: Phone) -> Message:
    while (message := await next_message(phone.strays)).status == 100:
        pass
    return message


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"From": "<sip:phone@192.0.2.1>"}, 400),
        ({"From": "<sip:phone@192.0.2.1"}, 400),
        ({"CSeq": "one INVITE"}, 400),
        ({"CSeq": "1 OPTIONS"}, 400),
        ({"CSeq": "99999999999 INVITE"}, 400),
        ({"Content_Length": "many"}, 400),
        ({"Content_Length": "9999"}, 400),
        ({"Content_Length": "-1"}, 400),
        ({"Max_Forwards": "x"}, 400),
        ({"start": "INVITE sip:4000@192.0.2.1 SIP/3.0"}, 505),
    ],
    ids=str,
)
async def test_bad_invite_is_refused(
    exchange: Exchange, phone: Phone, changes: dict[str, str | None], status: int
) -> None:
    phone.send_raw(_invite(phone, exchange, **changes), exchange.address)
    assert (await _answer(phone)).status == status
    await _next_call_works(exchange, phone)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"INVITE",
        b"INVITE sip:4000@192.0.2.1 SIP/2.0\r\n",
        b"INVITE sip:4000@192.0.2.1 SIP/2.0\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"SIP/2.0 999 What\r\nVia: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(500),
        random.Random(64).randbytes(65_000),
        b"INVITE sip:4000@192.0.2.1 SIP/2.0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"INVITE sip:4000@192.0.2.1 SIP/2.0\r\nVia: " + b"SIP/2.0/UDP h;branch=z9hG4bK," * 2_000 + b"\r\n\r\n",
    ],
    ids=lambda data: f"{data[:24]!r}x{len(data)}",
)
async def test_noise_changes_nothing(exchange: Exchange, phone: Phone, data: bytes) -> None:
    phone.send_raw(data, exchange.address)
    await _next_call_works(exchange, phone)


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call_ID", "CSeq"])
async def test_invite_without_what_an_answer_needs_is_dropped(exchange: Exchange, phone: Phone, name: str) -> None:
    """RFC 3261 §8.2.6.2: a response copies these headers."""
    phone.send_raw(_invite(phone, exchange, **{name: None}), exchange.address)
    await _next_call_works(exchange, phone)
    assert phone.strays.empty()


async def test_every_truncation_of_an_invite_changes_nothing(exchange: Exchange, phone: Phone) -> None:
    whole = _invite(phone, exchange)
    for length in range(1, len(whole), 7):
        phone.send_raw(whole[:length], exchange.address)
    await _next_call_works(exchange, phone)


async def test_flipped_bits_change_nothing(exchange: Exchange, phone: Phone) -> None:
    """A phone's call ends in whatever way; what counts is the one after."""
    chance = random.Random(3261)
    for _ in range(150):
        spoilt = bytearray(_invite(phone, exchange))
        for _ in range(chance.randint(1, 8)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        phone.send_raw(bytes(spoilt), exchange.address)
    phone.unreadable.clear()  # spoilt Vias and Call-IDs come back as they were
    await _next_call_works(exchange, phone)
    phone.unreadable.clear()


async def test_header_that_is_not_utf_8_is_refused(exchange: Exchange, phone: Phone) -> None:
    """RFC 3261 §7.3.1."""
    phone.send_raw(_invite(phone, exchange, X_Name="MARK").replace(b"MARK", b"caf\xe9"), exchange.address)
    assert (await _answer(phone)).status == 400
    await _next_call_works(exchange, phone)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:70000", "127.0.0.1:0", "[2001:db8::1]", "[2001:db8::1]:5060", "host.invalid", "999.1.1.1", "x y"],
)
async def test_contact_that_nothing_can_be_sent_to(exchange: Exchange, phone: Phone, host: str) -> None:
    """The call ends for its client, whatever becomes of our BYE."""
    dialog = phone.dialog(exchange.uri)
    message = dialog.build("INVITE", phone.sdp(), cseq=1)
    headers = [(name, f"<sip:phone@{host}>" if name == "Contact" else value) for name, value in message.headers]
    dialog.invite, dialog.cseq = Message(message.start, tuple(headers), message.body), 1
    phone.send(dialog.invite, exchange.address)
    first = await dialog.expect_any_response()
    if first.status == 100:
        call = await exchange.accepted(dialog)
        await call.send("hangup")
        await call.expect("trackEnd")
        await call.expect_end("bySystem", "system")
    else:
        assert first.status == 400
    await _next_call_works(exchange, phone)


@pytest.mark.parametrize(
    "sent_by", ["127.0.0.1:70000", "127.0.0.1:0", "[2001:db8::1]:5060", "host.invalid", "127.0.0.1:x"]
)
async def test_via_that_nothing_can_be_sent_to(exchange: Exchange, phone: Phone, sent_by: str) -> None:
    via = f"SIP/2.0/UDP {sent_by};branch=z9hG4bK{secrets.token_hex(8)}"
    for start, cseq in (("INVITE", "1 INVITE"), ("OPTIONS", "1 OPTIONS"), ("BYE", "1 BYE")):
        data = _invite(phone, exchange, start=f"{start} {exchange.uri} SIP/2.0", Via=via, CSeq=cseq)
        phone.send_raw(data, exchange.address)
    await _next_call_works(exchange, phone)


async def test_response_to_nothing_is_dropped(exchange: Exchange, phone: Phone) -> None:
    invite = Message.parse(_invite(phone, exchange))
    for status in (100, 180, 200, 486):
        phone.send(Message(f"SIP/2.0 {status} Whatever", invite.headers), exchange.address)
    await _next_call_works(exchange, phone)
