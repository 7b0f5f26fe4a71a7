"""Mixing: sums that saturate, gain ramps."""

import numpy as np
from numpy.typing import NDArray

from dialbus.audio import Pcm


def mix(frames: NDArray[np.int16]) -> Pcm:
    """The sum of int16[N, n] as int16[n], saturated; silence of n samples where N is 0."""
    return _narrow(frames.sum(axis=0, dtype=np.int32))


class Gain:
    """A gain that changes along straight ramps, so that nothing clicks. 1.0 is unchanged."""

    def __init__(self, level: float = 1.0) -> None:
        self._level = level
        self._target = level
        self._samples_left = 0

    @property
    def level(self) -> float:
        """At the next sample."""
        return self._level

    @property
    def is_settled(self) -> bool:
        """Whether no ramp is under way."""
        return self._samples_left == 0

    def fade(self, target: float, samples: int) -> None:
        """Go to `target` over that many samples from here; 0 goes there at once."""
        self._target = target
        self._samples_left = max(samples, 0)
        if not self._samples_left:
            self._level = target

    def apply(self, pcm: Pcm) -> Pcm:
        """The frame at its gain, saturated; the very same array where the gain is 1."""
        if self.is_settled:
            if self._level == 1.0:
                return pcm
            return np.zeros_like(pcm) if self._level == 0.0 else _saturate(pcm * self._level)
        ramp = min(self._samples_left, len(pcm))
        step = (self._target - self._level) / self._samples_left
        levels = np.full(len(pcm), self._target)
        levels[:ramp] = self._level + step * np.arange(ramp)
        self._samples_left -= ramp
        self._level = self._level + step * ramp if self._samples_left else self._target
        return _saturate(pcm * levels)


def _narrow(samples: NDArray[np.signedinteger]) -> NDArray[np.int16]:
    return np.asarray(np.clip(samples, -32768, 32767), np.int16)


def _saturate(samples: NDArray[np.floating]) -> Pcm:
    return np.asarray(np.clip(np.rint(samples), -32768, 32767), np.int16)
