"""A worker dies with a call in its hands: who is left is told within seconds, nothing leaks, the next call works."""

import asyncio
import json
import os
import signal
import urllib.request
from typing import Any

import pytest

from tests.ensemble import Exchange, StartPhone
from tests.harness import eventually

OPTION: dict[str, Any] = {"vad": {}, "asr": {}, "tts": {}}
NOTICED_S = 15.0
"""Four heartbeats, and a machine that does other things too."""


def health(url: str) -> dict[str, Any]:
    """A service's own report; empty while it is down."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return dict(json.loads(answer.read()))
    except OSError:
        return {}


async def idle(exchange: Exchange) -> bool:
    """Whether every service is back, and none holds anything of a call."""
    reports = [await asyncio.to_thread(health, fact["health"]) for fact in exchange.announced().values()]
    held = [report.get(name, 0) for report in reports for name in ("calls", "legs", "sessions", "sockets")]
    return len(reports) == 6 and all(report.get("ready") for report in reports) and not any(held)


@pytest.mark.parametrize("victim", ["gateway", "media", "sip-ua", "asr", "tts", "webhook-dispatcher"])
async def test_a_worker_is_killed_during_a_call(exchange: Exchange, phone: StartPhone, victim: str) -> None:
    number = exchange.number()
    caller = await phone(exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option=OPTION)
        await client.send("tts", text="One, two, three, four, five, six, seven, eight, nine.", playId="p")
        await client.expect("trackStart", playId="p")

        os.kill(int(exchange.announced()[victim]["pid"]), signal.SIGKILL)

        if victim == "gateway":
            await client.until_closed()
            await caller.told("hung up by the other side", NOTICED_S)
        elif victim in ("media", "sip-ua"):
            hangup = await client.expect("hangup", timeout_s=NOTICED_S)
            assert (hangup["reason"], hangup["initiator"]) == ("failed", "system")
            assert await client.until_closed() == 1000
            starts = sum(name == "trackStart" for name in client.names)
            assert client.names.count("trackEnd") == starts, client.names
        else:
            await client.send("hangup")
            await client.expect("hangup", timeout_s=NOTICED_S)
    await caller.stop()
    await eventually(lambda: idle(exchange), 40.0, what="all services back and idle")

    # The next call works.
    number = exchange.number()
    caller = await phone(exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option=OPTION)
        await client.send("tts", text="Here again.", playId="q", endOfStream=True, autoHangup=True)
        await client.expect("hangup", timeout_s=20, reason="autohangup")
    assert await caller.over() == 0
