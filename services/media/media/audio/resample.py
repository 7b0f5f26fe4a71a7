"""Sample rate conversion: a short half-band FIR for live frames, soxr for whole recordings."""

import numpy as np
import soxr
from numpy.typing import NDArray

Pcm = NDArray[np.int16]

# 31 taps hold audio back by 15 samples at 16 kHz, 0.94 ms, where soxr's streams hold back 47 ms; Kaiser's beta 3.4
# puts the stop band (from 4.6 kHz, mirrored: 3.4 kHz) 40 dB down. Every other tap of a half-band filter is zero, so
# one phase is these 16 taps and the other a plain delay.
_TAPS = 31
_BETA = 3.4
_HISTORY = 15
_DELAY = 7

DELAY_SECONDS = 15 / 16000


def _half_band() -> NDArray[np.float32]:
    """The taps of even index of a half-band low-pass with gain 1, which meet the samples that are not a delay."""
    offsets = np.arange(_TAPS) - _TAPS // 2
    even = (0.5 * np.sinc(offsets / 2) * np.kaiser(_TAPS, _BETA))[::2]
    taps = even / (2 * even.sum())
    return np.asarray(taps, np.float32)


_EVEN_TAPS = _half_band()


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


class Unchanged:
    """No conversion, where the two rates are the same."""

    def process(self, pcm: Pcm) -> Pcm:
        """The same samples."""
        return pcm


LiveResampler = Upsampler | Downsampler | Unchanged


def live_resampler(source_rate_hz: int, target_rate_hz: int) -> LiveResampler:
    """The converter of one live stream between 8 and 16 kHz. Raises ValueError for other rates."""
    match source_rate_hz, target_rate_hz:
        case (8000, 16000):
            return Upsampler()
        case (16000, 8000):
            return Downsampler()
        case (8000, 8000) | (16000, 16000):
            return Unchanged()
    raise ValueError(f"live audio runs at 8 or 16 kHz, not {source_rate_hz} to {target_rate_hz} Hz")


def resample(pcm: Pcm, source_rate_hz: int, target_rate_hz: int) -> Pcm:
    """A whole recording at another rate: int16[n] or int16[n, channels], any rates, high quality, no delay."""
    if source_rate_hz == target_rate_hz or not len(pcm):
        return pcm
    # In floating point, as soxr dithers what it rounds itself, and silence is to stay silent.
    return _saturate(soxr.resample(pcm.astype(np.float32), source_rate_hz, target_rate_hz, quality="HQ"))


def _saturate(samples: NDArray[np.floating]) -> Pcm:
    return np.asarray(np.clip(np.rint(samples), -32768, 32767), np.int16)
