"""The call's audio to and from a WebSocket server of the client's (protocol 10.3).

To the peer: the remote party, int16 little-endian at `outputSampleRate`, in messages of exactly `packetSize` bytes.
From the peer: int16 little-endian at `inputSampleRate` in messages of any length, made even by `audio.paced` and mixed
into what the remote party hears. A peer that is far ahead is read no further; one that is slow loses the oldest audio.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from dialbus import telemetry
from dialbus.audio import FRAME_S, Pcm, frame_samples
from dialbus.contracts.options import MediaPassOption
from dialbus.tasks import TaskSet
from media.audio.paced import PacedPcm
from media.audio.resample import LiveResampler, live_resampler
from media.files.fetch import Fetcher, FetchError, masked

log = telemetry.get_logger()

MAX_AHEAD_S = 30.0
"""Audio of the peer that waits to be heard; no more is read meanwhile."""
_MAX_KEPT_S = 120.0  # beyond any one message on top of that
_MAX_BEHIND_S = 2.0
_GOODBYE_S = 0.5
_SAMPLE_BYTES = 2


class MediaPass:
    """One leg's pass; a source of what its remote party hears. Opened with `open`."""

    def __init__(
        self,
        fetcher: Fetcher,
        option: MediaPassOption,
        track: str,
        *,
        started: Callable[[], None],
        ended: Callable[[int], None],
        failed: Callable[[int, str], None],
    ) -> None:
        """`started` when the peer is there, then `ended(duration_ms)`, once; or else `failed(code, reason)`."""
        self.track = track
        self._fetcher = fetcher
        self._option = option
        self._started = started
        self._ended = ended
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()
        self._started_at: float | None = None
        self._over = False
        self._tasks = TaskSet(self._break_off)
        self._connection: ClientConnection | None = None
        self._input: PacedPcm | None = None  # from the first tick on, which knows the rate
        self._can_read = asyncio.Event()
        self._drained = asyncio.Event()
        self._output: Packets | None = None
        self._has_more = asyncio.Event()

    def open(self) -> None:
        """Begin to connect."""
        self._tasks.start(self._run(), name=f"media pass {masked(self._option.url)}")

    async def settled(self, limit_s: float) -> None:
        """Wait until it is connected or has failed, at most for so long."""
        try:
            async with asyncio.timeout(limit_s):
                await self._settled.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """End it; `ended` has been called when the first await is reached."""
        self._end()
        await self._tasks.close()
        if self._connection is not None:
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    await self._connection.close()
            except TimeoutError:
                self._connection.transport.abort()

    # -- the tick ---------------------------------------------------------------------------------

    def put(self, rate_hz: int, pcm: Pcm) -> None:
        """The next 20 ms of the remote party, for the peer."""
        if self._started_at is None or self._over:
            return
        if self._output is None:
            self._output = Packets(rate_hz, self._option.output_sample_rate, self._option.packet_size, _MAX_BEHIND_S)
        self._output.put(pcm)
        if self._output.ready:
            self._has_more.set()

    def next_frame(self, rate_hz: int) -> Pcm | None:
        """The next 20 ms of the peer; None when there is nothing to hear. See `mixing.Source`."""
        if self._input is None:
            self._input = PacedPcm(self._option.input_sample_rate, rate_hz, _MAX_KEPT_S)
        if self._input.seconds < MAX_AHEAD_S:
            self._can_read.set()
        if self._input.seconds < FRAME_S:
            self._drained.set()
        return self._input.take(frame_samples(rate_hz))

    # -- the connection ---------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            self._connection = connection = await self._fetcher.websocket(pass_url(self._option))
        except FetchError as error:
            log.warning("media_pass.failed", url=masked(self._option.url), reason=str(error))
            self._failed(error.code, str(error))
            self._settled.set()
            return
        log.info("media_pass.started", url=masked(self._option.url))
        self._started_at = self._loop.time()
        self._started()
        self._settled.set()
        sender = self._tasks.start(self._send(connection), name="media pass sender")
        with suppress(ConnectionClosed):
            await self._read(connection)
        sender.cancel()
        if self._input is not None:
            await self._drained.wait()  # what the peer sent last is still heard
        self._end()

    async def _read(self, connection: ClientConnection) -> None:
        gone = self._tasks.start(connection.wait_closed(), name="media pass goodbye")
        able = self._tasks.start(_wait(self._can_read), name="media pass begin")
        await asyncio.wait([gone, able], return_when=asyncio.FIRST_COMPLETED)
        if self._input is None:
            return  # it left before there was any audio
        async for message in connection:
            if isinstance(message, str):
                continue
            self._input.put(message)
            self._drained.clear()
            if self._input.seconds >= MAX_AHEAD_S:
                self._can_read.clear()
                await self._can_read.wait()

    async def _send(self, connection: ClientConnection) -> None:
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            assert self._output is not None
            while self._output.ready:
                try:
                    await connection.send(self._output.ready.popleft())
                except ConnectionClosed:
                    return

    def _break_off(self, _task: str, error: Exception) -> None:
        """A task failed unforeseen, which is logged already: the pass can't go on."""
        if self._started_at is None and not self._settled.is_set():
            self._failed(500, f"{type(error).__name__} while it was opened")
        self._settled.set()
        self._end()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        if self._started_at is not None:
            dropped = self._output.dropped if self._output is not None else 0
            log.info("media_pass.ended", url=masked(self._option.url), dropped_packets=dropped)
            self._ended(round((self._loop.time() - self._started_at) * 1000))


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


class Packets:
    """20 ms frames to packets of one size, in bytes, at another rate; the oldest are dropped when too many wait."""

    def __init__(self, source_rate_hz: int, target_rate_hz: int, packet_bytes: int, max_s: float) -> None:
        self._resampler: LiveResampler = live_resampler(source_rate_hz, target_rate_hz)
        self._size = packet_bytes
        self._max = max(2, int(max_s * target_rate_hz * _SAMPLE_BYTES / packet_bytes))
        self._begun = bytearray()
        self.ready: deque[bytes] = deque()
        """Whole packets, the oldest first."""
        self.dropped = 0

    def put(self, pcm: Pcm) -> None:
        """Append a frame."""
        self._begun += self._resampler.process(pcm).astype("<i2", copy=False).tobytes()
        while len(self._begun) >= self._size:
            self.ready.append(bytes(self._begun[: self._size]))
            del self._begun[: self._size]
        while len(self.ready) > self._max:
            self.ready.popleft()
            self.dropped += 1


def pass_url(option: MediaPassOption) -> str:
    """The URL with what the peer has to know appended to its query, which is left as it is otherwise."""
    url, _, _ = option.url.partition("#")
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}sample_rate={option.output_sample_rate}&packet_size={option.packet_size}"
