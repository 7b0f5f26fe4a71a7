"""Who is there and who fell silent, as heartbeats on a bus tell it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from dialbus.bus import Bus
from dialbus.contracts.session import Heartbeat
from dialbus.neighbours import Neighbours


class BeatingBus:
    """Delivers the heartbeats that the test makes up."""

    def __init__(self) -> None:
        self.connected = True
        self.handlers: dict[str, Callable[[Heartbeat], Awaitable[None]]] = {}

    async def subscribe(self, contract: type[Heartbeat], handler: Any, *, service: str) -> "BeatingBus":
        self.handlers[service] = handler
        return self

    async def drop(self) -> None:
        self.handlers.clear()

    async def beat(self, service: str, instance: str) -> None:
        await self.handlers[service](
            Heartbeat(service=service, instance=instance, version="1", capacity=2, started_at="now")
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return [100.0]


async def _heard(bus: BeatingBus, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Neighbours:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    neighbours = Neighbours(cast(Bus, bus), "asr", "sip-ua")
    await neighbours.listen()
    return neighbours


async def test_those_who_fall_silent_are_told_once_with_what_they_were(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = BeatingBus()
    neighbours = await _heard(bus, clock, monkeypatch)
    await bus.beat("asr", "asr-1")
    await bus.beat("sip-ua", "ua-1")
    clock[0] += 3
    await bus.beat("sip-ua", "ua-1")
    clock[0] += 1.5

    assert [(beat.service, beat.instance) for beat in neighbours.lost()] == [("asr", "asr-1")]
    assert neighbours.lost() == []
    assert [beat.instance for beat in neighbours.alive("sip-ua")] == ["ua-1"]
    assert neighbours.alive("asr") == []
    assert neighbours.is_gone("asr-1")
    assert not neighbours.is_gone("ua-1")


async def test_while_the_bus_is_away_nobody_is_lost_and_nobody_alive(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = BeatingBus()
    neighbours = await _heard(bus, clock, monkeypatch)
    await bus.beat("asr", "asr-1")
    bus.connected = False
    clock[0] += 60

    assert neighbours.lost() == []
    assert neighbours.alive("asr") == []
    assert not neighbours.is_gone("asr-1")

    bus.connected = True
    clock[0] += 3
    assert neighbours.lost() == []
    clock[0] += 1.5
    assert [beat.instance for beat in neighbours.lost()] == ["asr-1"]


async def test_who_was_closed_hears_nothing(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    bus = BeatingBus()
    neighbours = await _heard(bus, clock, monkeypatch)
    await neighbours.close()
    assert bus.handlers == {}
