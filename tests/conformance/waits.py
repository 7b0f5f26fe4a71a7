"""Scenarios that take longer than a test should: they run beside the other tests, and test_waits.py judges them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.conformance.parties import SOON_S, client, inbound, outbound
from tests.ensemble import Exchange

NO_ANSWER_S = 32
RINGING_S = 180
ACCEPT_S = 25


@dataclass
class Outcome:
    """What came of a scenario."""

    story: str
    close_code: int
    after_s: float
    events: list[dict[str, Any]]
    sip: list[str]
    """Start lines of what the phone got."""


Scenario = Callable[[], Coroutine[Any, Any, Any]]


def scenarios(exchange: Exchange) -> dict[str, Scenario]:
    """Every scenario, by name."""
    return {
        "nobody there": partial(nobody_there, exchange),
        "rings on": partial(rings_on, exchange),
        "nobody accepts": partial(nobody_accepts, exchange),
        "keeps quiet": partial(keeps_quiet, exchange),
    }


async def nobody_there(exchange: Exchange) -> Outcome:
    """A call to a phone that reads its INVITE and never says a word."""
    async with outbound(exchange) as call:
        began = asyncio.get_running_loop().time()
        dialog = await call.invite()
        code = await call.client.until_closed(NO_ANSWER_S + SOON_S)
        after_s = asyncio.get_running_loop().time() - began
        return Outcome(call.client.story, code, after_s, call.client.events, [m.start for m in dialog.seen])


async def rings_on(exchange: Exchange) -> Outcome:
    """A call to a phone that rings for ever."""
    async with outbound(exchange) as call:
        began = asyncio.get_running_loop().time()
        dialog = await call.invite()
        dialog.ringing()
        cancel = await dialog.expect_request("CANCEL", RINGING_S + SOON_S)
        dialog.reply(cancel, 200)
        dialog.reject(487)
        code = await call.client.until_closed(SOON_S)
        after_s = asyncio.get_running_loop().time() - began
        return Outcome(call.client.story, code, after_s, call.client.events, [m.start for m in dialog.seen])


async def nobody_accepts(exchange: Exchange) -> Outcome:
    """A pending call whose client only lets it ring."""
    async with inbound(exchange) as call:
        began = asyncio.get_running_loop().time()
        await call.client.send("ringing")
        await call.dialog.expect_response(180, SOON_S)
        await call.dialog.expect_response(408, ACCEPT_S + SOON_S)
        code = await call.client.until_closed(SOON_S)
        after_s = asyncio.get_running_loop().time() - began
        return Outcome(call.client.story, code, after_s, call.client.events, [m.start for m in call.dialog.seen])


async def keeps_quiet(exchange: Exchange) -> list[dict[str, Any]]:
    """An idle socket with default settings: its first ping comes after 20 s."""
    async with client(exchange) as socket:
        began = asyncio.get_running_loop().time()
        ping = await socket.expect("ping", 20 + SOON_S)
        return [{**ping, "after": asyncio.get_running_loop().time() - began}]
