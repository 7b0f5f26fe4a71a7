"""Sample rate conversion: short FIR filters for live frames, soxr for whole recordings."""

import math
from functools import lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

from dialbus.audio import Pcm

# 31 taps hold audio back by 15 samples at 16 kHz, 0.94 ms, where soxr's streams hold back 47 ms; Kaiser's beta 3.4
# puts the stop band (from 4.6 kHz, mirrored: 3.4 kHz) 40 dB down. Every other tap of a half-band filter is zero, so
# one phase is these 16 taps and the other a plain delay.
_TAPS = 31
_BETA = 3.4
_HISTORY = 15
_DELAY = 7


def _half_band() -> NDArray[np.float32]:
    """The taps of even index of a half-band low-pass with gain 1, which meet the samples that are not a delay."""
    offsets = np.arange(_TAPS) - _TAPS // 2
    even = (0.5 * np.sinc(offsets / 2) * np.kaiser(_TAPS, _BETA))[::2]
    taps = even / (2 * even.sum())
    return np.asarray(taps, np.float32)


_EVEN_TAPS = _half_band()


# 48 taps at 48 kHz hold audio back by 0.5 ms. What lies above 8 kHz folds down; from 9 kHz on it is 50 dB lower, and
# speech has little between.
_THIRDS_TAPS = 48
_THIRDS_CUTOFF_HZ = 7600
_THIRDS_BETA = 4.5


def _third_band() -> list[NDArray[np.float32]]:
    """A low-pass with gain 1, as the three phases that meet every third sample, from the oldest on."""
    offsets = np.arange(_THIRDS_TAPS) - (_THIRDS_TAPS - 1) / 2
    taps = np.sinc(2 * _THIRDS_CUTOFF_HZ / 48000 * offsets) * np.kaiser(_THIRDS_TAPS, _THIRDS_BETA)
    taps /= taps.sum()
    # np.convolve turns the taps round; the filter is symmetric as a whole, its phases are not.
    return [np.asarray(taps[phase::3][::-1], np.float32) for phase in range(3)]


_THIRDS_PHASES = _third_band()


class Upsampler:
    """8 kHz to 16 kHz for one live stream, frame by frame."""

    def __init__(self) -> None:
        self._past = np.zeros(_HISTORY, np.int16)

    def process(self, pcm: Pcm) -> Pcm:
        """int16[2n] of int16[n]."""
        joined = np.concatenate((self._past, pcm))
        self._past = joined[-_HISTORY:]
        out = np.empty(2 * len(pcm), np.int16)
        out[0::2] = _saturate(np.convolve(joined, 2 * _EVEN_TAPS, "valid"))
        out[1::2] = joined[_HISTORY - _DELAY : _HISTORY - _DELAY + len(pcm)]
        return out


class Downsampler:
    """16 kHz to 8 kHz for one live stream, frame by frame."""

    def __init__(self) -> None:
        self._past_odd = np.zeros(_HISTORY, np.int16)
        self._past_even = np.zeros(_DELAY, np.int16)

    def process(self, pcm: Pcm) -> Pcm:
        """int16[n] of int16[2n]. Raises ValueError for an odd number of samples."""
        if len(pcm) % 2:
            raise ValueError("halving the rate takes pairs of samples")
        even = np.concatenate((self._past_even, pcm[0::2]))
        odd = np.concatenate((self._past_odd, pcm[1::2]))
        self._past_even, self._past_odd = even[-_DELAY:], odd[-_HISTORY:]
        return _saturate(np.convolve(odd, _EVEN_TAPS, "valid") + 0.5 * even[: len(pcm) // 2])


class DecimatorBy3:
    """48 kHz to 16 kHz for one live stream, frame by frame."""

    def __init__(self) -> None:
        self._past = np.zeros(_THIRDS_TAPS - 1, np.int16)

    def process(self, pcm: Pcm) -> Pcm:
        """int16[n] of int16[3n]. Raises ValueError for another number of samples."""
        if len(pcm) % 3:
            raise ValueError("a third of the rate takes samples by threes")
        joined = np.concatenate((self._past, pcm))
        self._past = joined[len(pcm) :]
        count = len(pcm) // 3
        total = np.zeros(count, np.float32)
        for phase, taps in enumerate(_THIRDS_PHASES):
            total += np.convolve(joined[phase::3][: count + len(taps) - 1], taps, "valid")
        return _saturate(total)


# For other pairs of rates: windowed sinc, 10 zero crossings of the lower rate to each side (0.6 ms at 16 kHz, 1.25 ms
# at 8 kHz), one set of taps for each phase between two input samples.
_CROSSINGS = 10
_SINC_BETA = 6.0
_PASS_BAND = 0.92  # of the lower half rate


@lru_cache(maxsize=32)
def _phases(source_rate_hz: int, target_rate_hz: int) -> NDArray[np.float32]:
    """float32[phases, taps]: what the input samples around an output sample weigh; each row has gain 1."""
    steps = target_rate_hz // math.gcd(source_rate_hz, target_rate_hz)
    cutoff = _PASS_BAND * min(1.0, target_rate_hz / source_rate_hz)  # of half the source rate
    half = math.ceil(_CROSSINGS * max(1.0, source_rate_hz / target_rate_hz))
    offsets = np.arange(-half + 1, half + 1)[None, :] - np.arange(steps)[:, None] / steps
    window = np.i0(_SINC_BETA * np.sqrt(np.clip(1 - (offsets / half) ** 2, 0, 1))) / np.i0(_SINC_BETA)
    taps = np.sinc(cutoff * offsets) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)


class RateConverter:
    """Any rate to any other for one live stream, in pieces of any length."""

    def __init__(self, source_rate_hz: int, target_rate_hz: int) -> None:
        common = math.gcd(source_rate_hz, target_rate_hz)
        self._phases = _phases(source_rate_hz, target_rate_hz)
        self._up, self._down = target_rate_hz // common, source_rate_hz // common
        self._past = np.zeros(self._phases.shape[1] - 1, np.int16)
        self._next = 0  # where the next output sample lies: input samples times `up` from the begin of the piece

    def process(self, pcm: Pcm) -> Pcm:
        """The samples due up to the end of `pcm`: over all, exactly `target / source` of them."""
        joined = np.concatenate((self._past, pcm))
        at = np.arange(self._next, len(pcm) * self._up, self._down)
        self._next += len(at) * self._down - len(pcm) * self._up
        self._past = joined[len(joined) - len(self._past) :]
        windows = np.lib.stride_tricks.sliding_window_view(joined, self._phases.shape[1])
        return _saturate(np.einsum("ij,ij->i", windows[at // self._up], self._phases[at % self._up]))


class Unchanged:
    """No conversion, where the two rates are the same."""

    def process(self, pcm: Pcm) -> Pcm:
        """The same samples."""
        return pcm


LiveResampler = Upsampler | Downsampler | DecimatorBy3 | RateConverter | Unchanged


def live_resampler(source_rate_hz: int, target_rate_hz: int) -> LiveResampler:
    """The converter of one live stream. Raises ValueError outside 8–48 kHz.

    Cheap ones between 8 and 16 kHz and from 48 to 16 kHz; those that lower the rate want whole frames.
    """
    for rate_hz in (source_rate_hz, target_rate_hz):
        if not 8000 <= rate_hz <= 48000:
            raise ValueError(f"live audio runs at 8 to 48 kHz, not {rate_hz} Hz")
    match source_rate_hz, target_rate_hz:
        case (8000, 16000):
            return Upsampler()
        case (16000, 8000):
            return Downsampler()
        case (48000, 16000):
            return DecimatorBy3()
    return Unchanged() if source_rate_hz == target_rate_hz else RateConverter(source_rate_hz, target_rate_hz)


def resample(pcm: Pcm, source_rate_hz: int, target_rate_hz: int) -> Pcm:
    """A whole recording at another rate: int16[n] or int16[n, channels], any rates, high quality, no delay."""
    if source_rate_hz == target_rate_hz or not len(pcm):
        return pcm
    # In floating point, as soxr dithers what it rounds itself, and silence is to stay silent.
    return _saturate(soxr.resample(pcm.astype(np.float32), source_rate_hz, target_rate_hz, quality="HQ"))


def _saturate(samples: NDArray[np.floating]) -> Pcm:
    return np.asarray(np.clip(np.rint(samples), -32768, 32767), np.int16)
