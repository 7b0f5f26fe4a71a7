"""Packet loss concealment: the last pitch cycle goes on, and fades out. After the idea of ITU-T G.711 appendix I."""

import numpy as np
from numpy.typing import NDArray

from dialbus.audio import Pcm

_FADE_SECONDS = 0.06
_OVERLAP_SECONDS = 0.004
_HISTORY_SECONDS = 0.04
_SHORTEST_PITCH_SECONDS = 0.005
_LONGEST_PITCH_SECONDS = 0.015


class Concealer:
    """Stands in for lost frames of one leg, after the decoder.

    Give it every good frame through `good` and ask `lost` for each missing one. Adds no delay; the cost of a good
    frame is one copy, the search for a pitch is made at a loss only.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._history = np.zeros(round(_HISTORY_SECONDS * sample_rate_hz), np.int16)
        self._overlap = round(_OVERLAP_SECONDS * sample_rate_hz)
        self._cycle: NDArray[np.float32] | None = None
        self._played = 0

    def good(self, pcm: Pcm) -> Pcm:
        """The frame, faded in over the stand-in's end when frames were lost before it."""
        if self._cycle is not None:
            overlap = min(self._overlap, len(pcm))
            ramp = np.linspace(0, 1, overlap, dtype=np.float32)
            pcm = pcm.copy()
            pcm[:overlap] = pcm[:overlap] * ramp + self._stand_in(overlap) * (1 - ramp)
            self._cycle = None
        self._remember(pcm)
        return pcm

    def lost(self, samples: int) -> Pcm:
        """A stand-in of that many samples: silence once 60 ms in a row are lost."""
        if self._cycle is None:
            self._cycle = self._last_cycle()
            self._played = 0
        return self._stand_in(samples).astype(np.int16)

    def silence(self) -> None:
        """The remote party pauses: the next loss has nothing to repeat."""
        self._history[:] = 0
        self._cycle = None

    def _remember(self, pcm: Pcm) -> None:
        if len(pcm) >= len(self._history):
            self._history[:] = pcm[-len(self._history) :]
        elif len(pcm):
            self._history[: -len(pcm)] = self._history[len(pcm) :].copy()
            self._history[-len(pcm) :] = pcm

    def _last_cycle(self) -> NDArray[np.float32]:
        """The last period of the history, by its normalised autocorrelation; its ends are blended to meet."""
        history = self._history.astype(np.float32)
        shortest, longest = (
            round(seconds * self._rate) for seconds in (_SHORTEST_PITCH_SECONDS, _LONGEST_PITCH_SECONDS)
        )
        window = len(history) - longest
        recent = history[-window:]
        products = np.correlate(history[: len(history) - shortest], recent, "valid")[::-1]
        energy = np.concatenate(([0], np.cumsum(history**2)))
        starts = np.arange(longest, shortest - 1, -1)[::-1]
        before = len(history) - window - starts
        likeness = products / np.sqrt(energy[before + window] - energy[before] + 1)
        lag = int(starts[np.argmax(likeness)])
        cycle = history[-lag:].copy()
        blend = min(self._overlap, lag // 4)
        ramp = np.linspace(0, 1, blend, dtype=np.float32)
        # What came before the cycle leads into its start: played after its end, it closes the loop.
        cycle[-blend:] = cycle[-blend:] * (1 - ramp) + history[-lag - blend : -lag] * ramp
        return cycle

    def _stand_in(self, samples: int) -> NDArray[np.float32]:
        assert self._cycle is not None
        places = np.arange(self._played, self._played + samples)
        self._played += samples
        gain = np.maximum(1 - places / (_FADE_SECONDS * self._rate), 0)
        return (self._cycle[places % len(self._cycle)] * gain).astype(np.float32)
