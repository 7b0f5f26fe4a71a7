"""Who floods us with INVITEs: 127.0.0.2 does, 127.0.0.3 calls honestly. Neither is a trusted source here."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest_asyncio

from dialbus.bus import Bus
from tests.harness import ServiceProcess, eventually, run_service
from tests.peers.exchange import Call, Exchange
from tests.peers.phone import Dialog, Message, Phone

FLOODER, HONEST = "127.0.0.2", "127.0.0.3"


@pytest_asyncio.fixture
async def settings(nats_url: str) -> dict[str, str]:
    """40 calls: a source may have 10 pending, 20 in all, 3 not acknowledged."""
    return {
        "DIALBUS_NATS_URL": nats_url,
        "DIALBUS_HEALTH_ADDR": "127.0.0.1:0",
        "DIALBUS_UA_ADDR": "127.0.0.1",
        "DIALBUS_UA_UDP_PORT": "0",
        "DIALBUS_UA_GRACEFUL_SHUTDOWN": "false",
        "DIALBUS_UA_TRUSTED_SOURCES": "192.0.2.0/24",
        "DIALBUS_UA_MAX_CALLS": "40",
        "DIALBUS_UA_SOURCE_UNACKNOWLEDGED": "3",
    }


@asynccontextmanager
async def _running(bus: Bus, env: dict[str, str], **more: str) -> AsyncIterator[tuple[ServiceProcess, Exchange]]:
    async with run_service("sip_ua", env | more) as ua, Exchange.open(bus, ua) as exchange:
        yield ua, exchange


@pytest_asyncio.fixture
async def flooder() -> AsyncIterator[Phone]:
    """Who wants all of it."""
    async with Phone.open(FLOODER) as one:
        yield one


@pytest_asyncio.fixture
async def honest() -> AsyncIterator[Phone]:
    """Who wants one call."""
    async with Phone.open(HONEST) as one:
        yield one


async def _refused(dialog: Dialog, why: str) -> Message:
    refusal = await dialog.expect_response(503)
    assert refusal.header("Reason") == f'SIP;cause=503;text="{why}"'
    assert int(refusal.header("Retry-After")) > 0
    return refusal


async def _admitted_again(exchange: Exchange, phone: Phone) -> Call:
    """Ask until the end of a call has been noticed."""

    async def admitted() -> Dialog | None:
        dialog = phone.call(exchange.uri)
        return dialog if (await dialog.expect_any_response()).status == 100 else None

    return await exchange.taken(await eventually(admitted, what="room"))


async def _answered(exchange: Exchange, phone: Phone) -> None:
    """An honest call, from the INVITE to its end."""
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    await call.send("hangup")
    await dialog.expect_bye()


async def test_a_flood_of_pending_calls_is_refused_and_keeps_nobody_out(
    bus: Bus, settings: dict[str, str], flooder: Phone, honest: Phone
) -> None:
    async with _running(bus, settings) as (ua, exchange):
        pending = [flooder.call(exchange.uri) for _ in range(10)]
        calls = [await exchange.taken(dialog) for dialog in pending]
        flood = [flooder.call(exchange.uri) for _ in range(60)]
        for dialog in flood:
            await _refused(dialog, "too many pending calls")

        await _answered(exchange, honest)
        assert exchange.webhooks.empty(), "nobody is told of what is refused"
        assert ua.log.count("call.not_admitted") <= 12, "ten lines at once, and some a second"

        await calls[0].send("reject")
        await pending[0].expect_response(603)
        await calls[0].expect_end("rejected", "callee")
        await _admitted_again(exchange, flooder)


async def test_answers_that_are_never_acknowledged_are_few(
    bus: Bus, settings: dict[str, str], flooder: Phone, honest: Phone
) -> None:
    async with _running(bus, settings) as (_, exchange):
        calls = []
        for _ in range(3):
            dialog = flooder.call(exchange.uri)
            call = await exchange.taken(dialog)
            await call.send("accept", option={})
            await call.expect("trackStart", trackId=call.call_id)
            await call.expect("answer", trackId=call.call_id)
            await dialog.expect_response(200)
            calls.append((dialog, call))
        await _refused(flooder.call(exchange.uri), "answers are not acknowledged")
        await _answered(exchange, honest)

        calls[0][0].ack()  # it counts no longer among them
        await _admitted_again(exchange, flooder)


async def test_one_source_has_half_of_the_calls_at_most(
    bus: Bus, settings: dict[str, str], flooder: Phone, honest: Phone
) -> None:
    async with _running(bus, settings) as (_, exchange):
        for _ in range(20):
            await exchange.accepted(flooder.call(exchange.uri))
        await _refused(flooder.call(exchange.uri), "too many calls")
        await _answered(exchange, honest)


async def test_more_invites_than_the_rate_are_refused_even_if_each_is_over_at_once(
    bus: Bus, settings: dict[str, str], flooder: Phone, honest: Phone
) -> None:
    few = {"DIALBUS_UA_SOURCE_INVITES_PER_S": "0.01", "DIALBUS_UA_SOURCE_INVITE_BURST": "5"}
    async with _running(bus, settings, **few) as (_, exchange):
        for _ in range(5):
            dialog = flooder.call(exchange.uri)
            call = await exchange.taken(dialog)
            await call.send("reject")
            await dialog.expect_response(603)
        refusal = await _refused(flooder.call(exchange.uri), "too many INVITEs")
        assert 1 < int(refusal.header("Retry-After")) <= 100
        await _answered(exchange, honest)


async def test_a_refusal_leaves_no_transaction(bus: Bus, settings: dict[str, str], flooder: Phone) -> None:
    """500 INVITEs: each is answered once, and forgotten."""
    one = {"DIALBUS_UA_SOURCE_INVITES_PER_S": "0.01", "DIALBUS_UA_SOURCE_INVITE_BURST": "1"}
    async with _running(bus, settings, **one) as (ua, exchange):
        await exchange.taken(flooder.call(exchange.uri))
        for _ in range(500):
            await _refused(flooder.call(exchange.uri), "too many INVITEs")
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(ua.facts["health"].replace("/health", "/metrics"))).text
        transactions = re.search(r"^dialbus_sip_transactions (\S+)$", metrics, re.MULTILINE)
        assert transactions is not None
        assert float(transactions[1]) < 10
