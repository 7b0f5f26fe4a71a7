"""From a model's float samples to telephone PCM: rate, volume, limiting."""

import numpy as np
import soxr
from numpy.typing import NDArray

from dialbus.audio import Pcm

# Above the knee the limiter bends instead of cutting; below it nothing changes.
KNEE = 0.8
UNITY_VOLUME = 5.0


def gain_of(volume: float) -> float:
    """Volume 0 to 10 as an amplitude factor: 0 is silence, 5 is 1.0, 10 is 2.0 (+6 dB). Outside: clamped."""
    return min(max(volume, 0.0), 10.0) / UNITY_VOLUME


def to_pcm16(samples: NDArray[np.float32], gain: float = 1.0) -> Pcm:
    """Samples in [-1, 1] times `gain` as int16, limited above `KNEE` by a curve without a corner.

    A hard clip of loud vowels is heard as crackle on G.711; tanh joins at the knee with slope 1.
    """
    scaled = samples * np.float32(gain)
    size = np.abs(scaled)
    if size.size and float(size.max()) > KNEE:
        room = 1.0 - KNEE
        bent = KNEE + room * np.tanh((size - KNEE) / room)
        scaled = np.where(size > KNEE, np.copysign(bent, scaled), scaled)
    pcm: Pcm = np.rint(scaled * 32767.0).astype(np.int16)
    return pcm


def with_volume(pcm: Pcm, volume: float) -> Pcm:
    """Finished PCM of unity volume at another volume; the same array when nothing changes."""
    gain = gain_of(volume)
    if gain == 1.0:
        return pcm
    return to_pcm16(pcm.astype(np.float32) / np.float32(32767.0), gain)


def resample(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """A whole utterance at another rate; the same array when the rates are equal."""
    if from_hz == to_hz or not pcm.size:
        return pcm
    converter = StreamResampler(from_hz, to_hz)
    samples = pcm.astype(np.float32) / np.float32(32767.0)
    return to_pcm16(np.concatenate([converter.feed(samples), converter.flush()]))


class StreamResampler:
    """One utterance from `from_hz` to `to_hz`, piece by piece, with no seam between the pieces.

    The filter holds back some tens of milliseconds, which `flush` gives; feed plus flush have
    round(n × to_hz / from_hz) samples, ± 1. Use one per utterance; not thread-safe.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = None
        if from_hz != to_hz:
            self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="MQ")

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is ready after `samples`, which may be nothing."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples), dtype=np.float32)

    def flush(self) -> NDArray[np.float32]:
        """What was held back; call once, at the end."""
        empty = np.zeros(0, dtype=np.float32)
        if self._stream is None:
            return empty
        return np.asarray(self._stream.resample_chunk(empty, last=True), dtype=np.float32)
