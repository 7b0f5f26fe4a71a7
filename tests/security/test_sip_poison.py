"""Cheap poison: datagrams that are dear to read, and what they leave in the log. A stranger is 127.0.0.66."""

import asyncio
import contextlib
import random
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import pytest_asyncio

from dialbus.bus import Bus
from tests.harness import ServiceProcess, eventually, run_service
from tests.peers.exchange import Exchange
from tests.peers.phone import Phone

STRANGER = "127.0.0.66"
PER_S = 60
FOR_S = 3


@pytest_asyncio.fixture
async def ua(nats_url: str) -> AsyncIterator[ServiceProcess]:
    """A running sip-ua."""
    env = {
        "DIALBUS_NATS_URL": nats_url,
        "DIALBUS_HEALTH_ADDR": "127.0.0.1:0",
        "DIALBUS_UA_ADDR": "127.0.0.1",
        "DIALBUS_UA_UDP_PORT": "0",
        "DIALBUS_UA_GRACEFUL_SHUTDOWN": "false",
    }
    async with run_service("sip_ua", env) as service:
        yield service


@pytest_asyncio.fixture
async def exchange(bus: Bus, ua: ServiceProcess) -> AsyncIterator[Exchange]:
    """Its neighbours."""
    async with Exchange.open(bus, ua) as played:
        yield played


@pytest_asyncio.fixture
async def phone() -> AsyncIterator[Phone]:
    """An honest peer."""
    async with Phone.open() as one:
        yield one


@contextmanager
def stranger() -> Iterator[socket.socket]:
    """A socket at an address that nobody knows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((STRANGER, 0))
        one.setblocking(False)
        yield one


def poison(vias: list[int], method: str = "OPTIONS") -> bytes:
    """A request with so many parameters in each Via."""
    lines = [f"{method} sip:a@127.0.0.1 SIP/2.0"]
    for count in vias:
        params = "".join(f";a{i:x}=b" for i in range(count))
        lines.append(f"Via: SIP/2.0/UDP {STRANGER};branch=z9hG4bK{secrets.token_hex(8)}{params}")
    lines += [f"From: <sip:x@{STRANGER}>;tag=one", "To: <sip:a@127.0.0.1>", f"Call-ID: {secrets.token_hex(8)}"]
    return "\r\n".join([*lines, f"CSeq: 1 {method}", "", ""]).encode()


@pytest.mark.parametrize(
    "vias", [[7000], [100] * 70, [0, 7000], [63] * 16], ids=["one Via", "70 Vias", "below the top Via", "within bounds"]
)
async def test_all_honest_requests_are_answered_while_dear_datagrams_come(
    exchange: Exchange, phone: Phone, vias: list[int]
) -> None:
    data, answered = poison(vias), 0

    async def attack(source: socket.socket) -> None:
        begun = asyncio.get_running_loop().time()
        for sent in range(PER_S * FOR_S):
            await asyncio.sleep(begun + sent / PER_S - asyncio.get_running_loop().time())
            source.sendto(data, exchange.address)

    with stranger() as source:
        async with asyncio.TaskGroup() as tasks:
            attacker = tasks.create_task(attack(source), name="attack")
            while not attacker.done() or not answered:
                await phone.ask("OPTIONS", exchange.uri).expect_response(200)
                dialog = phone.call(exchange.uri)
                call = await exchange.taken(dialog)
                await call.send("reject")
                await dialog.expect_response(603)
                await call.expect_end("rejected", "callee")
                answered += 1


def refused(method: str, *lines: str) -> bytes:
    """A request that is SIP and yet will not be granted."""
    return poison([0], method).removesuffix(b"\r\n") + "\r\n".join([*lines, "", ""]).encode()


def noise() -> list[bytes]:
    """5,000 datagrams of all kinds; every one is another."""
    chance = random.Random(5060)
    kinds = [
        lambda: chance.randbytes(chance.randint(20, 1400)),
        lambda: f"INVITE sip:{chance.random()} SIP/2.0\r\n\r\n".encode(),
        lambda: refused("INVITE", "CSeq: 1 INVITE"),  # twice
        lambda: refused("INVITE", "Require: nonsense"),
        lambda: refused("SUBSCRIBE"),
        lambda: refused("OPTIONS").replace(b"OPTIONS sip:a@127.0.0.1 SIP/2.0", b"SIP/2.0 200 OK"),
        lambda: refused("OPTIONS").replace(b"OPTIONS sip:a@127.0.0.1 SIP/2.0", b"SIP/2.0 99 Bad"),
        lambda: refused("OPTIONS").replace(b"127.0.0.66;branch", b"nobody.invalid:1;branch"),
    ]
    return [kinds[i % len(kinds)]() for i in range(5000)]


async def test_5000_datagrams_of_garbage_are_a_few_lines_of_log(
    ua: ServiceProcess, exchange: Exchange, phone: Phone
) -> None:
    garbage = noise()
    with stranger() as source:
        for first in range(0, len(garbage), 50):
            for data in garbage[first : first + 50]:
                source.sendto(data, exchange.address)
            await phone.ask("OPTIONS", exchange.uri).expect_response(200)  # what came before it was read
        assert len(ua.log.splitlines()) < 100, ua.log[:8000]

        def counted() -> bool:
            source.sendto(b"garbage", exchange.address)
            return "suppressed=" in ua.log

        await eventually(counted, what="a line that says how many it stands for")
    assert len(ua.log) < 32_768
    assert "Traceback" not in ua.log


async def test_a_host_in_whose_name_is_asked_gets_little_more_than_was_sent(exchange: Exchange, phone: Phone) -> None:
    """OPTIONS, methods we do not know, and copies of them, which their transactions answer."""

    def asked(method: str) -> bytes:
        return poison([0], method).replace(b";branch", b";rport;branch")

    with stranger() as source:
        copied, sent, heard = asked("OPTIONS"), 0, 0
        begun = asyncio.get_running_loop().time()
        for count in range(2000):
            sent += source.sendto((copied, asked("OPTIONS"), asked("PUBLISH"))[count % 3], exchange.address)
            if count % 20 == 0:  # an honest caller gets every answer, and what came before was read
                dialog = phone.call(exchange.uri)
                call = await exchange.taken(dialog)
                await call.send("reject")
                await dialog.expect_response(603)
                await phone.ask("OPTIONS", exchange.uri).expect_response(200)
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard += len(source.recv(65_536))
        allowed = 32_768 + 2_048 * (asyncio.get_running_loop().time() - begun)
    assert 0 < heard <= sent + allowed, (heard, sent, allowed)
