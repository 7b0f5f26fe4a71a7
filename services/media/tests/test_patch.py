"""Bridges of one leg whose end overtakes their beginning."""

import asyncio
from typing import Any, cast

import pytest

from dialbus.bus import Bus, Refused
from media.mix.live import BridgeFeed, LiveSender
from media.mix.mixing import Mix
from media.mix.patch import Patches


class SlowBus:
    """Subscribes when the test says so."""

    def __init__(self) -> None:
        self.may_subscribe = asyncio.Event()
        self.asked = asyncio.Event()
        self.open: set[str] = set()

    async def subscribe_audio(self, call_id: str, _track: str, _handler: Any) -> "Open":
        self.asked.set()
        await self.may_subscribe.wait()
        self.open.add(call_id)
        return Open(self, call_id)

    async def flush(self) -> None:
        """Nothing is buffered."""


class Open:
    def __init__(self, bus: SlowBus, call_id: str) -> None:
        self.bus = bus
        self.call_id = call_id

    async def drop(self) -> None:
        self.bus.open.discard(self.call_id)


async def test_a_leg_that_is_closed_while_it_is_bridged_keeps_no_bridge() -> None:
    bus, mix = SlowBus(), Mix("server")
    patches = Patches(cast(Bus, bus), "a", mix, BridgeFeed(cast(Bus, bus), "a", LiveSender("a")))
    begun, late = asyncio.create_task(patches.add("b")), asyncio.create_task(patches.add("c"))
    await bus.asked.wait()
    closed = asyncio.create_task(patches.close())
    await asyncio.sleep(0)
    bus.may_subscribe.set()

    async with asyncio.timeout(5):
        await closed
        await begun
        with pytest.raises(Refused, match="the leg is closed"):
            await late

    assert bus.open == set()
    assert mix.tracks == set()
