"""One call's events in order."""

import asyncio
from typing import Any, cast

from dialbus.bus import Bus, BusError
from dialbus.contracts.events import Event, MediaReady
from media.leg.outbox import Outbox


class SlowBus:
    """Stores events, each after a turn of the event loop; refuses those of track `bad`."""

    def __init__(self) -> None:
        self.stored: list[Any] = []
        self.away = asyncio.Event()
        self.away.set()

    async def emit(self, call_id: str, event: Event) -> int:
        await self.away.wait()
        await asyncio.sleep(0)
        if cast(MediaReady, event).track_id == "bad":
            raise BusError("not stored")
        self.stored.append(cast(MediaReady, event).track_id)
        return len(self.stored)


def _event(name: str) -> Event:
    return MediaReady(track_id=name, timestamp=1)


async def test_events_and_actions_happen_one_after_another_in_the_order_put() -> None:
    bus = SlowBus()
    outbox = Outbox(cast(Bus, bus), "c")

    async def act() -> None:
        await asyncio.sleep(0)
        bus.stored.append("acted")

    outbox.put(_event("a"))
    outbox.put(_event("b"))
    outbox.then(act)
    outbox.put(_event("c"))
    await outbox.flush()

    assert bus.stored == ["a", "b", "acted", "c"]
    await outbox.close(1.0)


async def test_what_fails_does_not_stop_what_is_behind_it() -> None:
    bus = SlowBus()
    outbox = Outbox(cast(Bus, bus), "c")

    async def fail() -> None:
        raise RuntimeError("no")

    outbox.put(_event("bad"))
    outbox.then(fail)
    outbox.put(_event("good"))
    await outbox.close(1.0)

    assert bus.stored == ["good"]


async def test_close_gives_up_when_nothing_can_be_stored() -> None:
    bus = SlowBus()
    bus.away.clear()
    outbox = Outbox(cast(Bus, bus), "c")
    outbox.put(_event("a"))

    async with asyncio.timeout(1.0):
        await outbox.close(0.01)

    assert bus.stored == []


async def _never() -> None:
    await asyncio.Event().wait()


async def test_flush_waits_for_what_was_put_before_and_for_nothing_else() -> None:
    bus = SlowBus()
    outbox = Outbox(cast(Bus, bus), "c")
    bus.away.clear()
    outbox.put(_event("a"))
    flushing = asyncio.ensure_future(outbox.flush())
    await asyncio.sleep(0)
    outbox.then(_never)
    assert not flushing.done()

    bus.away.set()
    await flushing

    assert bus.stored == ["a"]
    await outbox.close(0.01)
    await outbox.flush()
