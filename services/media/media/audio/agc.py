"""Automatic gain control of a remote party's audio. After WebRTC's adaptive digital controller (AGC 2).

The gain brings the party's speech level up to `headroom_db` below full scale, no faster than a given slope, and no
further than what would make its background noise louder than a given level. Whether a frame is speech is told by the
leg's own detector, which WebRTC's controller (as pywebrtc-audio has it) can't be given, as it can't an initial gain.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialbus.audio import Pcm

_FULL_SCALE = 32768.0
_SILENT_DBFS = -90.0
_SPEECH_MEMORY_S = 1.0  # of the speech level's average
_NOISE_RISE_DB_PER_S = 3.0  # a floor that rises slowly and falls at once
_LIMIT = 0.97 * 32767
_LIMITER_RELEASE_DB_PER_S = 20.0
_WEBRTC_FRAME_S = 0.01  # in which `adjacentSpeechFramesThreshold` counts


@dataclass(frozen=True, slots=True)
class GainOptions:
    """AGCOption."""

    headroom_db: float = 5.0
    """How far below full scale speech is to be."""
    max_gain_db: float = 50.0
    initial_gain_db: float = 15.0
    """Until the party has spoken for long enough."""
    max_gain_change_db_per_second: float = 6.0
    max_output_noise_level_dbfs: float = -50.0
    adjacent_speech_frames: int = 12
    """So many times 10 ms of speech in a row before its level counts."""
    limiter: bool = True
    """Turn the gain down for a peak that would overshoot, instead of clipping it."""


class GainControl:
    """One party."""

    def __init__(self, rate_hz: int, options: GainOptions) -> None:
        self._rate_hz = rate_hz
        self.options = options
        self._speech_dbfs: float | None = None
        self._noise_dbfs: float | None = None
        self._speech_s = 0.0
        self._limited_db = 0.0
        self._last = min(options.initial_gain_db, options.max_gain_db)
        self.gain_db = self._last
        """Now, without what the limiter takes off."""

    def process(self, pcm: Pcm, *, speech: bool) -> Pcm:
        """The frame at its gain, int16[n]."""
        if not len(pcm):
            return pcm
        seconds = len(pcm) / self._rate_hz
        samples = pcm.astype(np.float32)
        self._measure(samples, seconds, speech)
        self._move(seconds)
        limited_before = self._limited_db
        applied_db = self.gain_db - self._limit(samples, seconds)
        # Straight in amplitude from the last frame's gain to this one's, so that nothing clicks.
        gains = np.linspace(_factor(self._last), _factor(applied_db), len(pcm), dtype=np.float32)
        if self._limited_db > limited_before:
            gains[:] = _factor(applied_db)  # a peak must not get through before the gain is down
        self._last = applied_db
        return np.asarray(np.clip(np.rint(samples * gains), -32768, 32767), np.int16)

    def _measure(self, samples: NDArray[np.float32], seconds: float, speech: bool) -> None:
        level = _dbfs(float(np.sqrt(np.mean(samples * samples))))
        if not speech:
            self._speech_s = 0.0
            if level > _SILENT_DBFS:
                floor = level if self._noise_dbfs is None else self._noise_dbfs + _NOISE_RISE_DB_PER_S * seconds
                self._noise_dbfs = min(level, floor)
            return
        self._speech_s += seconds
        if self._speech_s < self.options.adjacent_speech_frames * _WEBRTC_FRAME_S:
            return
        if self._speech_dbfs is None:
            self._speech_dbfs = level
        else:
            self._speech_dbfs += (level - self._speech_dbfs) * min(1.0, seconds / _SPEECH_MEMORY_S)

    def _move(self, seconds: float) -> None:
        options = self.options
        wanted = options.initial_gain_db
        if self._speech_dbfs is not None:
            wanted = -options.headroom_db - self._speech_dbfs
        if self._noise_dbfs is not None:
            wanted = min(wanted, options.max_output_noise_level_dbfs - self._noise_dbfs)
        wanted = min(max(wanted, 0.0), options.max_gain_db)
        step = options.max_gain_change_db_per_second * seconds
        self.gain_db += min(max(wanted - self.gain_db, -step), step)

    def _limit(self, samples: NDArray[np.float32], seconds: float) -> float:
        """What has to be taken off the gain for this frame's peak, dB."""
        if not self.options.limiter:
            return 0.0
        peak = float(np.max(np.abs(samples))) * _factor(self.gain_db)
        needed = 20 * math.log10(peak / _LIMIT) if peak > _LIMIT else 0.0
        self._limited_db = max(needed, self._limited_db - _LIMITER_RELEASE_DB_PER_S * seconds)
        return self._limited_db


def _dbfs(rms: float) -> float:
    return 20 * math.log10(max(rms, 1.0) / _FULL_SCALE)


def _factor(db: float) -> float:
    return float(10 ** (db / 20))
