"""Noise suppression behind a small protocol; the engine is WebRTC's, through pywebrtc-audio."""

from typing import Protocol

import pywebrtc_audio

from dialbus.audio import Pcm
from media.audio.resample import live_resampler

_ENGINE_RATE_HZ = 16000
_BLOCK = _ENGINE_RATE_HZ // 100  # the engine works on 10 ms


class Denoiser(Protocol):
    """Takes noise out of one live stream."""

    def process(self, pcm: Pcm) -> Pcm:
        """As many samples as were given, some milliseconds late."""


class NoiseSuppressor:
    """WebRTC's noise suppressor for one stream at 8 or 16 kHz; not to be shared between threads.

    Level 0..3 takes out up to 6, 12, 18 or 21 dB; 1 harms a voice in white noise least. Delay: 6 ms at 16 kHz, 8 ms at
    8 kHz, which is converted to and fro as the engine refuses it. Needs half a second of a stream to learn its noise.
    Raises ValueError from `process` for a frame that is no multiple of 10 ms.
    """

    def __init__(self, sample_rate_hz: int, level: int = 1) -> None:
        self._to_engine = live_resampler(sample_rate_hz, _ENGINE_RATE_HZ)
        self._from_engine = live_resampler(_ENGINE_RATE_HZ, sample_rate_hz)
        self._engine = pywebrtc_audio.NoiseSuppressor(_ENGINE_RATE_HZ, 1, level)

    def process(self, pcm: Pcm) -> Pcm:
        wide = self._to_engine.process(pcm)
        if len(wide) % _BLOCK:
            raise ValueError("noise is suppressed in blocks of 10 ms")
        return self._from_engine.process(self._engine.process(wide))
