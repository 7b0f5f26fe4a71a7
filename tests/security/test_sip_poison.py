"""Cheap poison: datagrams that are dear to read, and what they leave in the log. A stranger is 127.0.0.66."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import pytest_asyncio

from dialbus.bus import Bus
from tests.harness import ServiceProcess, run_service
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
