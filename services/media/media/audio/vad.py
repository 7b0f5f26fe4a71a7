"""Voice activity detection: how likely each 32 ms of a caller's audio is speech.

One Silero model serves every live stream of the process: streams that have a full window are stacked into
one batch, so that the cost of a call into the runtime is shared. Rows are independent; a batch gives
exactly what single runs give.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import onnxruntime

from dialbus.audio import Pcm

_STATE_SIZE = 128
_BUFFERED_WINDOWS = 4
# The model is trained on windows preceded by the last samples of the window before (Silero VAD 5 and later).
_WINDOW = {8000: 256, 16000: 512}
_CONTEXT = {8000: 32, 16000: 64}


@dataclass(frozen=True, slots=True)
class SpeechWindow:
    """The verdict on one window of one stream."""

    row: int
    probability: float
    """0 … 1, that the window holds speech."""
    end_sample: int
    """Samples of the stream up to the window's end, counted from `open`."""


class SpeechDetector(Protocol):
    """Speech probabilities of many streams at once."""

    def open(self, rate_hz: int) -> int:
        """The row of a new stream. Raises ValueError for a rate the model does not know."""

    def close(self, row: int) -> None:
        """Forget a stream; its row is never given again. Unknown rows are ignored."""

    def feed(self, row: int, frame: Pcm) -> None:
        """Append audio, int16[n] of any n, to a stream. Raises KeyError after `close`."""

    def process(self) -> list[SpeechWindow]:
        """Judge every complete window of every stream, each stream's windows in order."""


class _Session(Protocol):
    """The one method of onnxruntime's InferenceSession that is used."""

    def run(self, outputs: list[str] | None, inputs: dict[str, object], /) -> list[npt.NDArray[np.float32]]: ...


class SileroDetector:
    """Silero VAD on one onnxruntime session, batched over all streams.

    At most four windows of a stream wait for `process`; a caller that does not come for longer loses the
    oldest audio, which `dropped_samples` counts. Times stay right: `end_sample` counts what was dropped
    too.
    """

    def __init__(self, session: _Session) -> None:
        self._pools = {rate_hz: _Pool(session, rate_hz) for rate_hz in _WINDOW}
        self._slots: dict[int, tuple[_Pool, int]] = {}
        self._next_row = 0

    @classmethod
    def load(cls, model: Path | None = None) -> SileroDetector:
        """The detector with the given ONNX file, else with the one shipped in this package."""
        options = onnxruntime.SessionOptions()  # type: ignore[attr-defined]  # not in the package's __all__
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # A spinning worker thread would take the core that the 20 ms clock runs on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        source = files("media").joinpath("models/silero_vad.onnx") if model is None else model
        session = onnxruntime.InferenceSession(  # type: ignore[attr-defined]  # not in the package's __all__
            source.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        return cls(cast(_Session, session))

    @property
    def streams(self) -> int:
        """Streams open now."""
        return len(self._slots)

    @property
    def dropped_samples(self) -> int:
        """Samples that were never judged because `process` came too late, since the start."""
        return sum(pool.dropped_samples for pool in self._pools.values())

    def open(self, rate_hz: int) -> int:
        """The row of a new stream at 8000 or 16000 Hz. Raises ValueError for another rate."""
        if rate_hz not in self._pools:
            raise ValueError(f"no speech detection at {rate_hz} Hz, only at 8000 and 16000")
        pool = self._pools[rate_hz]
        row, self._next_row = self._next_row, self._next_row + 1
        self._slots[row] = (pool, pool.open(row))
        return row

    def close(self, row: int) -> None:
        """Forget a stream; its row is never given again. Unknown rows are ignored."""
        if row in self._slots:
            pool, slot = self._slots.pop(row)
            pool.close(slot)

    def feed(self, row: int, frame: Pcm) -> None:
        """Append audio, int16[n] of any n, to a stream. Raises KeyError after `close`."""
        pool, slot = self._slots[row]
        pool.feed(slot, frame)

    def process(self) -> list[SpeechWindow]:
        """Judge every complete window of every stream, each stream's windows in order."""
        return [window for pool in self._pools.values() for window in pool.process()]


class _Pool:
    """The streams of one rate: arrays of slots × samples, doubled when they are full."""

    def __init__(self, session: _Session, rate_hz: int) -> None:
        self._session = session
        self._rate = np.array(rate_hz, dtype=np.int64)
        self._window = _WINDOW[rate_hz]
        self._context = _CONTEXT[rate_hz]
        width = self._context + _BUFFERED_WINDOWS * self._window
        self._audio = np.zeros((0, width), dtype=np.float32)
        self._state = np.zeros((2, 0, _STATE_SIZE), dtype=np.float32)
        self._fill = np.zeros(0, dtype=np.int64)  # samples waiting, behind the context
        self._judged = np.zeros(0, dtype=np.int64)
        self._rows: list[int] = []
        self._free: list[int] = []
        self.dropped_samples = 0

    def open(self, row: int) -> int:
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._audio[slot] = 0
        self._state[:, slot] = 0
        self._fill[slot] = self._judged[slot] = 0
        self._rows[slot] = row
        return slot

    def close(self, slot: int) -> None:
        self._fill[slot] = 0
        self._free.append(slot)

    def _grow(self) -> None:
        before, more = len(self._rows), max(8, len(self._rows))
        self._audio = np.pad(self._audio, ((0, more), (0, 0)))
        self._state = np.pad(self._state, ((0, 0), (0, more), (0, 0)))
        self._fill = np.pad(self._fill, (0, more))
        self._judged = np.pad(self._judged, (0, more))
        self._rows.extend([-1] * more)
        self._free.extend(range(before + more - 1, before - 1, -1))

    def feed(self, slot: int, frame: Pcm) -> None:
        room = self._audio.shape[1] - self._context
        if len(frame) > room:
            self._drop(slot, len(frame) - room)
            frame = frame[-room:]
        overflow = int(self._fill[slot]) + len(frame) - room
        if overflow > 0:
            kept = int(self._fill[slot]) - overflow
            start = self._context + overflow
            self._audio[slot, self._context : self._context + kept] = self._audio[slot, start : start + kept]
            self._fill[slot] = kept
            self._drop(slot, overflow)
        begin = self._context + int(self._fill[slot])
        np.multiply(frame, np.float32(1 / 32768), out=self._audio[slot, begin : begin + len(frame)], casting="unsafe")
        self._fill[slot] += len(frame)

    def _drop(self, slot: int, samples: int) -> None:
        self._judged[slot] += samples
        self.dropped_samples += samples

    def process(self) -> list[SpeechWindow]:
        windows: list[SpeechWindow] = []
        while (ready := np.flatnonzero(self._fill >= self._window)).size:
            batch = self._audio[ready]
            probabilities, state = self._session.run(
                None,
                {
                    "input": batch[:, : self._context + self._window],
                    "state": self._state[:, ready],
                    "sr": self._rate,
                },
            )
            self._state[:, ready] = state
            # The last samples of this window move to the front: they are the next window's context.
            self._audio[ready, : -self._window] = batch[:, self._window :]
            self._fill[ready] -= self._window
            self._judged[ready] += self._window
            windows.extend(
                SpeechWindow(self._rows[slot], float(probability), int(self._judged[slot]))
                for slot, probability in zip(ready, probabilities[:, 0], strict=True)
            )
        return windows
