"""One call's recording: gathered in the tick, written in a thread."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dialbus import telemetry
from dialbus.audio import Pcm
from media.audio.recorder import StereoRecorder, WavWriter

log = telemetry.get_logger()

_MAX_BLOCKS = 256  # a disk that hangs for longer than this many write intervals ends the recording


class Recording:
    """Left the remote party, right what the server sends, from `start` until `close`."""

    def __init__(
        self,
        call_id: str,
        path: Path,
        rate_hz: int,
        interval_ms: int,
        failed: Callable[[str], None],
        below: Path | None = None,
    ) -> None:
        """`rate_hz` is the file's; `failed` is called once, with the reason, when it can't be written.

        `below`: the folder that no link may lead out of.
        """
        self._log = log.bind(call_id=call_id)
        self._path = path
        self._below = below
        self._rate_hz = rate_hz
        self._interval_ms = interval_ms
        self._failed = failed
        self._recorder: StereoRecorder | None = None
        self._blocks: asyncio.Queue[npt.NDArray[np.int16] | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._writer: WavWriter | None = None

    @property
    def path(self) -> Path:
        """Of the file; as wanted until it is made, when another may have that name already."""
        return self._writer.path if self._writer is not None else self._path

    @property
    def size_bytes(self) -> int | None:
        """Of the file on disk; None when there is none."""
        return self._writer.size_bytes if self._writer is not None else None

    def start(self, input_rate_hz: int) -> None:
        """The rate of the leg's audio is known: the timeline begins."""
        if self._task is None:
            self._recorder = StereoRecorder(input_rate_hz, self._interval_ms)
            self._task = asyncio.create_task(self._write(input_rate_hz), name=f"recording {self.path.name}")

    def write(self, left: Pcm | None, right: Pcm | None) -> None:
        """Take one tick of both channels."""
        if self._recorder is None:
            return
        block = self._recorder.write(left, right)
        if block is not None:
            self._blocks.put_nowait(block)
            if self._blocks.qsize() > _MAX_BLOCKS:
                self._fail("the disk is too slow")

    async def close(self) -> None:
        """Write the rest; the file is complete when this returns."""
        if self._task is None:
            return
        rest = self._recorder.close() if self._recorder is not None else None
        self._recorder = None
        if rest is not None:
            self._blocks.put_nowait(rest)
        self._blocks.put_nowait(None)
        await self._task

    async def _write(self, input_rate_hz: int) -> None:
        try:
            writer = await asyncio.to_thread(WavWriter, self._path, self._rate_hz, input_rate_hz, self._below)
        except (OSError, ValueError) as error:
            self._fail(str(error))
            return
        self._writer = writer
        self._log = self._log.bind(path=str(writer.path))
        self._log.info("recording.started")
        try:
            while (block := await self._blocks.get()) is not None:
                await asyncio.to_thread(writer.append, block)
        except OSError as error:
            self._fail(str(error))
        finally:
            try:
                await asyncio.to_thread(writer.close)
            except OSError as error:
                self._fail(str(error))
        self._log.info("recording.closed", seconds=round(writer.duration_seconds, 2))

    def _fail(self, reason: str) -> None:
        failed, self._failed = self._failed, _nothing
        self._recorder = None
        self._log.error("recording.failed", path=str(self.path), reason=reason)
        failed(reason)


def _nothing(_: str) -> None:
    """The fault has been told."""
