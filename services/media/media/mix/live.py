"""Live audio from the tick to the bus: to the other side of a bridge, and to a client that subscribed."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Bus, BusError
from dialbus.contracts.audio import BRIDGE, TO_CLIENT, AudioFrame
from dialbus.tasks import cancel_all
from media.audio.resample import live_resampler

log = telemetry.get_logger()

SERVER_INDEX, MAIN_INDEX = b"\x00", b"\x01"
"""First byte of a subscriber's frame (protocol 10.2)."""
_SUBSCRIBER_RATE_HZ = 16000
_MAX_WAITING = 25


class LiveSender:
    """Sends one leg's audio in order; `put` never waits. While the bus is slow the oldest is dropped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[Callable[[], Awaitable[None]]] = deque(maxlen=_MAX_WAITING)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send this behind what waits."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"live audio {self._name}")
        self._waiting.append(send)
        self._wake.set()

    async def close(self) -> None:
        """Drop what waits."""
        if self._task is not None:
            await cancel_all([self._task])

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    await self._waiting.popleft()()
                except BusError as error:
                    log.debug("live.not_sent", audio=self._name, error=str(error))
                except Exception:  # the boundary: one bad frame never ends those behind it
                    log.exception("live.failed", audio=self._name)


class BridgeFeed:
    """The remote party of a leg on `call.<call>.audio.bridge`, for whoever bridges it."""

    def __init__(self, bus: Bus, call_id: str, sender: LiveSender) -> None:
        self._bus = bus
        self._call_id = call_id
        self._sender = sender
        self._sequence = 0

    def put(self, rate_hz: int, pcm: Pcm) -> None:
        """The next 20 ms."""
        frame = AudioFrame(
            self._call_id, BRIDGE, BRIDGE, self._sequence, rate_hz, pcm.astype("<i2", copy=False).tobytes()
        )
        self._sequence += 1
        self._sender.put(lambda: self._bus.publish_audio(frame))


class Subscriber:
    """Both tracks of a call as binary frames for its client's socket (protocol 10.2)."""

    def __init__(self, bus: Bus, call_id: str, sender: LiveSender, rate_hz: int) -> None:
        """`rate_hz` is the leg's."""
        self._bus = bus
        self._call_id = call_id
        self._sender = sender
        self._main = live_resampler(rate_hz, _SUBSCRIBER_RATE_HZ)
        self._server = live_resampler(rate_hz, _SUBSCRIBER_RATE_HZ)

    def main(self, pcm: Pcm) -> None:
        """The next 20 ms of the remote party."""
        self._put(MAIN_INDEX, self._main.process(pcm))

    def server(self, pcm: Pcm) -> None:
        """The next 20 ms of what it hears."""
        self._put(SERVER_INDEX, self._server.process(pcm))

    def _put(self, index: bytes, pcm: Pcm) -> None:
        data = index + pcm.astype("<i2", copy=False).tobytes()
        self._sender.put(lambda: self._bus.publish_raw(self._call_id, TO_CLIENT, data))
