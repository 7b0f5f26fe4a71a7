"""Stereo recording of a call: an accumulator for the tick, a WAV writer for a thread, and safe file names.

Left is the remote party, right all that the server sends. Nothing here runs on a thread of its own: the tick calls
`StereoRecorder.write`, whose blocks go through a queue to wherever `WavWriter.append` may take its time.
"""

import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soxr
from numpy.typing import NDArray

from dialbus.audio import Pcm
from dialbus.filenames import component, file_safe
from dialbus.privatefiles import open_private

StereoPcm = NDArray[np.int16]
"""int16[n, 2], left then right."""

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 8000, 48000
DEFAULT_INTERVAL_MS = 200

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MAX_DATA_BYTES = 0xFFFFFFFF - _HEADER.size
_CHANNELS, _SAMPLE_BYTES = 2, 2
_MAX_COUNTED = 99
"""Recordings of one name with a number behind it; those beyond get a random one."""


class UnsafePathError(ValueError):
    """A recording's file name that would leave the recording directory."""


class StereoRecorder:
    """Gathers the frames of both channels into blocks of one write interval; no I/O, made for the tick."""

    def __init__(self, input_rate_hz: int, interval_ms: int = DEFAULT_INTERVAL_MS, frame_ms: int = 20) -> None:
        """`interval_ms` of 0 or less means 200; a tick for which both channels are None lasts `frame_ms`."""
        interval_ms = interval_ms if interval_ms > 0 else DEFAULT_INTERVAL_MS
        self._frame = input_rate_hz * frame_ms // 1000
        self._interval = max(input_rate_hz * interval_ms // 1000, self._frame)
        self._blocks: list[StereoPcm] = []
        self._samples = 0

    def write(self, left: Pcm | None, right: Pcm | None) -> StereoPcm | None:
        """Take one tick of each channel, at the input rate; a whole block when one is ready, else None.

        A channel that is None, or shorter than the other, is filled with zeros, so both stay on one timeline.
        """
        given = [len(channel) for channel in (left, right) if channel is not None]
        frame = np.zeros((max(given, default=self._frame), _CHANNELS), np.int16)
        for index, channel in enumerate((left, right)):
            if channel is not None:
                frame[: len(channel), index] = channel
        self._blocks.append(frame)
        self._samples += len(frame)
        return self.close() if self._samples >= self._interval else None

    def close(self) -> StereoPcm | None:
        """What has been gathered since the last block, or None."""
        if not self._samples:
            return None
        block = np.concatenate(self._blocks)
        self._blocks, self._samples = [], 0
        return block


class WavWriter:
    """A stereo 16-bit PCM WAV file that is valid after every append; blocking, so to be used from a thread.

    `path` is the file's: where something is there already, it stays, and the name gets a suffix. Makes missing
    directories, none through a link out of `below`. Raises OSError where the file cannot be made or written,
    ValueError for a rate outside 8000–48000 Hz. A file at the 4 GiB limit of its format (6 h at 48 kHz) takes no more
    audio.
    """

    def __init__(self, path: Path, sample_rate_hz: int, input_rate_hz: int, below: Path | None = None) -> None:
        if not LOWEST_RATE_HZ <= sample_rate_hz <= HIGHEST_RATE_HZ:
            raise ValueError(f"recordings have {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz, not {sample_rate_hz}")
        self._rate = sample_rate_hz
        self._resampler = (
            soxr.ResampleStream(input_rate_hz, sample_rate_hz, _CHANNELS, dtype="float32", quality="HQ")
            if input_rate_hz != sample_rate_hz
            else None
        )
        self._data_bytes = 0
        self.path, descriptor = _made(path, below)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._write_header()

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return _HEADER.size + self._data_bytes

    @property
    def duration_seconds(self) -> float:
        """Of the audio in the file."""
        return self._data_bytes / (_CHANNELS * _SAMPLE_BYTES * self._rate)

    def append(self, block: StereoPcm) -> None:
        """Add int16[n, 2] at the input rate."""
        self._append(block, last=False)

    def close(self) -> None:
        """Write what the resampler still holds back, and close the file. May be called again."""
        if self._file.closed:
            return
        try:
            self._append(np.zeros((0, _CHANNELS), np.int16), last=True)
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, block: StereoPcm, *, last: bool) -> None:
        if self._resampler is not None:
            # In floating point, as soxr dithers what it rounds itself, and a gap is to be zeros.
            resampled = self._resampler.resample_chunk(block.astype(np.float32), last)
            block = np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)
        data = block.astype("<i2", copy=False).tobytes()
        data = data[: _MAX_DATA_BYTES - self._data_bytes & ~3]
        if not data:
            return
        # Audio first: a process that dies between the two leaves a header that tells less than there is.
        _write_all(self._file.fileno(), data, _HEADER.size + self._data_bytes)
        self._data_bytes += len(data)
        self._write_header()

    def _write_header(self) -> None:
        frame_bytes = _CHANNELS * _SAMPLE_BYTES
        header = _HEADER.pack(
            b"RIFF",
            _HEADER.size - 8 + self._data_bytes,
            b"WAVE",
            b"fmt ",
            16,
            1,
            _CHANNELS,
            self._rate,
            self._rate * frame_bytes,
            frame_bytes,
            8 * _SAMPLE_BYTES,
            b"data",
            self._data_bytes,
        )
        _write_all(self._file.fileno(), header, 0)


def recording_path(
    root: Path, session_id: str, recorder_file: str | None = None, *, allow_absolute: bool = False
) -> Path:
    """Where a call's recording goes: `{root}/{session id}.wav`, or as `recorder_file` asks.

    `recorder_file` may hold `{id}`; relative, it is below `root`. `.wav` is appended where missing. Raises
    UnsafePathError for `..` in it, for a name that is empty, and for an absolute one unless `allow_absolute`.
    """
    template = recorder_file or "{id}"
    is_absolute = template.startswith("/")
    if is_absolute and not allow_absolute:
        raise UnsafePathError(f"absolute recorderFile is not allowed: {template!r}")
    # Windows' separator counts here too, so that no `..\\` means more to a client's copy than to us.
    if ".." in template.replace("\\", "/").split("/"):
        raise UnsafePathError(f"recorderFile must not contain '..': {template!r}")
    identifier = file_safe(session_id)
    parts = [component(part.replace("{id}", identifier)) for part in template.split("/") if part not in ("", ".")]
    if not parts or template.endswith("/"):
        raise UnsafePathError(f"recorderFile names no file: {template!r}")
    if not parts[-1].lower().endswith(".wav"):
        parts[-1] += ".wav"
    return (Path("/") if is_absolute else root).joinpath(*parts)


def _made(path: Path, below: Path | None) -> tuple[Path, int]:
    """A new file and its descriptor: at `path`, or beside it when something is there, whoever put it there."""
    for attempt in _names(path):
        try:
            return attempt, open_private(attempt, os.O_RDWR | os.O_CREAT | os.O_EXCL, below=below)
        except FileExistsError:
            continue
    raise FileExistsError(f"no name is free beside {path}")


def _names(path: Path) -> Iterator[Path]:
    """`a.wav`, `a-2.wav` to `a-99.wav`, at last one that nobody guesses."""
    yield path
    for number in range(2, _MAX_COUNTED + 1):
        yield path.with_stem(f"{path.stem}-{number}")
    yield path.with_stem(f"{path.stem}-{secrets.token_hex(8)}")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    """All of `data` at `offset`, however little the system takes at a time."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
