"""Audio that arrives in messages of any size, given out 20 ms at a time.

Over TCP nothing is lost and nothing is out of order, but messages are early and late. So what arrives after a pause is
held for a few ticks, or until that much is there; from then on each tick takes its 20 ms, until none is left. A pause
that was no pause, since more came soon, makes it hold more. What comes faster than it sounds waits, up to a bound.
"""

import math

import numpy as np

from dialbus.audio import Pcm
from media.audio.resample import live_resampler

HOLD_TICKS, MAX_HOLD_TICKS = 3, 10
TICKS_PER_SECOND = 50
_SOON_TICKS = 10
_SAMPLE_BYTES = 2


class PacedBytes:
    """Octets of one stream. `take` is called once each tick."""

    def __init__(self, bytes_per_second: int, max_s: float) -> None:
        self._hold = HOLD_TICKS
        self._rate = bytes_per_second
        self._max = int(max_s * bytes_per_second)
        self._waiting = bytearray()
        self._held_for: int | None = 0  # ticks; None while it sounds
        self._paused_for = _SOON_TICKS  # ticks since it sounded last
        self._unit = 1

    @classmethod
    def of_samples(cls, rate_hz: int, max_s: float) -> "PacedBytes":
        """For int16 samples: what is dropped are whole ones."""
        paced = cls(rate_hz * _SAMPLE_BYTES, max_s)
        paced._unit = _SAMPLE_BYTES
        return paced

    @property
    def seconds(self) -> float:
        """Audio that waits."""
        return len(self._waiting) / self._rate

    def put(self, data: bytes) -> int:
        """Append what arrived; how many of the oldest octets had to make room."""
        self._waiting += data
        excess = max(0, len(self._waiting) - self._max)
        excess += -excess % self._unit
        if excess:
            del self._waiting[:excess]
        return excess

    def take(self, count: int) -> bytes | None:
        """The next `count` octets, or None in a pause."""
        if self._held_for is not None:
            self._paused_for += 1
            if len(self._waiting) < count:
                return None
            if not self._held_for and self._paused_for < _SOON_TICKS:
                self._hold = min(self._hold + 2, MAX_HOLD_TICKS)
            self._held_for += 1
            if self.seconds * TICKS_PER_SECOND < self._hold and self._held_for <= self._hold:
                return None
            self._held_for = None
        if len(self._waiting) < count:
            self._held_for = self._paused_for = 0
            return None
        return self.pull(count)

    def pull(self, count: int) -> bytes | None:
        """A few more octets in the same tick, or None when there are too few."""
        if len(self._waiting) < count:
            return None
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken


class PacedPcm:
    """int16 little-endian samples of one stream, from one rate to another."""

    def __init__(self, source_rate_hz: int, target_rate_hz: int, max_s: float) -> None:
        self._source = PacedBytes.of_samples(source_rate_hz, max_s)
        self._converter = live_resampler(source_rate_hz, target_rate_hz)
        self._ratio = source_rate_hz / target_rate_hz
        # The cheap filters that halve a rate or take its third want pairs, or threes.
        self._step = source_rate_hz // target_rate_hz if source_rate_hz % target_rate_hz == 0 else 1
        self._ready = np.zeros(0, np.int16)

    @property
    def seconds(self) -> float:
        """Audio that waits."""
        return self._source.seconds

    def put(self, data: bytes) -> int:
        """Append what arrived, odd octets included; how many of the oldest octets had to make room."""
        return self._source.put(data)

    def take(self, samples: int) -> Pcm | None:
        """The next int16[samples] at the target rate, or None in a pause."""
        taken = self._source.take(self._needed(samples - len(self._ready)))
        while taken is not None:
            self._ready = np.concatenate((self._ready, self._converter.process(np.frombuffer(taken, "<i2"))))
            if len(self._ready) >= samples:
                frame, self._ready = self._ready[:samples], self._ready[samples:]
                return frame
            taken = self._source.pull(self._needed(samples - len(self._ready)))
        return None

    def _needed(self, samples: int) -> int:
        """Octets of the source for so many samples of the target."""
        count = max(1, math.ceil(samples * self._ratio))
        return _SAMPLE_BYTES * (count + -count % self._step)
