"""Live audio on its way to the bus."""

import asyncio
from typing import cast

import numpy as np

from dialbus.bus import Bus, BusError
from dialbus.contracts.audio import TO_CLIENT, AudioFrame
from media.mix.live import BridgeFeed, LiveSender, Subscriber
from tests.harness import eventually


class FakeBus:
    """Keeps what is sent, once it is not `away`; loses the message `bad`."""

    def __init__(self) -> None:
        self.frames: list[AudioFrame] = []
        self.raw: list[tuple[str, str, bytes]] = []
        self.away = asyncio.Event()
        self.away.set()
        self.bad = -1

    async def publish_audio(self, frame: AudioFrame) -> None:
        await self.away.wait()
        if frame.sequence == self.bad:
            raise BusError("lost")
        self.frames.append(frame)

    async def publish_raw(self, call_id: str, track: str, data: bytes) -> None:
        self.raw.append((call_id, track, data))


async def test_frames_leave_in_order_and_one_that_is_lost_stops_nothing() -> None:
    bus, sender = FakeBus(), LiveSender("leg")
    bus.bad = 1
    feed = BridgeFeed(cast(Bus, bus), "c", sender)
    for level in range(3):
        feed.put(8000, np.full(160, level, np.int16))
    await eventually(lambda: len(bus.frames) == 2)
    await sender.close()

    assert [(frame.sequence, frame.rate_hz, frame.pcm[:2]) for frame in bus.frames] == [
        (0, 8000, b"\x00\x00"), (2, 8000, b"\x02\x00"),
    ]  # fmt: skip


async def test_what_is_too_old_is_dropped_while_the_bus_is_away() -> None:
    bus, sender = FakeBus(), LiveSender("leg")
    feed = BridgeFeed(cast(Bus, bus), "c", sender)
    bus.away.clear()
    feed.put(8000, np.zeros(160, np.int16))
    await asyncio.sleep(0)
    for _ in range(200):
        feed.put(8000, np.zeros(160, np.int16))
    bus.away.set()
    await eventually(lambda: bus.frames and bus.frames[-1].sequence == 200)
    await sender.close()

    assert len(bus.frames) < 30, "half a second of audio"


async def test_a_subscriber_tells_the_tracks_apart_by_the_first_byte() -> None:
    bus, sender = FakeBus(), LiveSender("leg")
    subscriber = Subscriber(cast(Bus, bus), "c", sender, 16000)
    subscriber.main(np.full(320, 1, np.int16))
    subscriber.server(np.full(320, 2, np.int16))
    await eventually(lambda: len(bus.raw) == 2)
    await sender.close()

    assert bus.raw == [("c", TO_CLIENT, b"\x01" + b"\x01\x00" * 320), ("c", TO_CLIENT, b"\x00" + b"\x02\x00" * 320)]
