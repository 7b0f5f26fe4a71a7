"""Endpointing: speech probabilities in, speech started and stopped out (protocol 3.4, VADOption in 8a).

Times are seconds on the track's clock; the machine is driven by windows alone, so a track that has no
packets is fed the probabilities of silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_S = 0.032
"""Length of audio that one probability speaks about."""

_HYSTERESIS = 0.15  # speech goes on until the probability is this far below the level that began it
_LOWEST_RELEASE = 0.05
_ROUNDING = 1e-6  # sums of 32 ms are not exact in binary


@dataclass(frozen=True, slots=True)
class EndpointingOptions:
    """VADOption in seconds, with its defaults."""

    speech_padding_s: float = 0.25
    """Speech must have lasted this long before it is reported."""
    silence_padding_s: float = 0.1
    """Silence must have lasted this long before speech counts as over."""
    ratio: float = 0.5
    """Share of windows since the onset that must be voiced for speech to be reported."""
    voice_threshold: float = 0.5
    """Probability from which a window is voiced."""
    max_speech_s: float = 50.0
    """Speech longer than this is reported in parts (`maxBufferDurationSecs`)."""
    silence_timeout_s: float | None = None
    """Report every stretch of silence of this length; None or 0 is off."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller speaks; reported `speech_padding_s` after the onset."""

    at: float
    """True onset: begin of the first voiced window."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """A run of speech is over; follows its `SpeechStarted`, exactly once."""

    started_at: float
    ended_at: float
    """End of the last voiced window."""
    silence_s: float
    """Silence so far; 0 when the run was split."""
    forced: bool = False
    """True when the caller still speaks and the run was only split at `max_speech_s`."""


@dataclass(frozen=True, slots=True)
class SilenceTimeout:
    """Another `silence_timeout_s` without speech. Stretches follow one another without overlap."""

    started_at: float
    duration_s: float


EndpointingEvent = SpeechStarted | SpeechStopped | SilenceTimeout


class Endpointing:
    """One track's speech runs.

    A voiced window opens a candidate; it becomes speech when it has lasted `speech_padding_s` with a share
    of at least `ratio` voiced windows, and is forgotten after `silence_padding_s` without a voiced one.
    """

    def __init__(self, options: EndpointingOptions, window_s: float = WINDOW_S) -> None:
        self._options = options
        self._window_s = window_s
        self._release = max(options.voice_threshold - _HYSTERESIS, _LOWEST_RELEASE)
        self._release = min(self._release, options.voice_threshold)
        self._onset: float | None = None
        self._windows = 0
        self._voiced = 0
        self._silent_since: float | None = None
        self.speaking = False
        """A run is reported and not over."""
        self.voiced_until = -math.inf
        """End of the last voiced window."""

    def receive(self, probability: float, ended_at: float) -> list[EndpointingEvent]:
        """Judge the window that ended at `ended_at`; windows come in order."""
        began_at = ended_at - self._window_s
        voiced = probability >= (self._release if self.speaking else self._options.voice_threshold)
        if self._silent_since is None:
            self._silent_since = began_at
        if voiced:
            self.voiced_until = ended_at
            if self._onset is None:
                self._onset, self._windows, self._voiced = began_at, 0, 0
        if self._onset is None:
            return self._silence(ended_at)
        self._windows += 1
        self._voiced += voiced
        if self.speaking:
            return self._speech(self._onset, voiced, ended_at)
        return self._candidate(self._onset, ended_at)

    def _candidate(self, onset: float, now: float) -> list[EndpointingEvent]:
        options = self._options
        if now - self.voiced_until >= max(options.silence_padding_s, self._window_s) - _ROUNDING:
            self._onset = None
            return self._silence(now)
        if (
            self.voiced_until - onset < options.speech_padding_s - _ROUNDING
            or self._voiced < options.ratio * self._windows
        ):
            return []
        self.speaking = True
        return [SpeechStarted(onset)]

    def _speech(self, onset: float, voiced: bool, now: float) -> list[EndpointingEvent]:
        silence_s = now - self.voiced_until
        if not voiced and silence_s >= self._options.silence_padding_s - _ROUNDING:
            self.speaking = False
            self._onset = None
            self._silent_since = self.voiced_until
            return [SpeechStopped(onset, self.voiced_until, silence_s), *self._silence(now)]
        if now - onset >= self._options.max_speech_s - _ROUNDING:
            self._onset = now
            return [SpeechStopped(onset, now, 0.0, forced=True), SpeechStarted(now)]
        return []

    def _silence(self, now: float) -> list[EndpointingEvent]:
        timeout_s = self._options.silence_timeout_s
        events: list[EndpointingEvent] = []
        while timeout_s and self._silent_since is not None and now - self._silent_since >= timeout_s - _ROUNDING:
            events.append(SilenceTimeout(self._silent_since, timeout_s))
            self._silent_since += timeout_s
        return events
