"""Caller audio cut into utterances for the recogniser.

Begins a little before detected speech, so that soft first sounds are kept, and ends after a silence that is
long enough for the words to belong together. This is independent of the padding a client asks for in
VADOption, which only shapes its events.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from dialbus.audio import Pcm
from media.turn.endpointing import WINDOW_S, Endpointing, EndpointingOptions, SpeechStarted, SpeechStopped


@dataclass(frozen=True, slots=True)
class UtteranceOptions:
    """How audio is cut. Seconds."""

    pre_roll_s: float = 0.3
    """Audio kept from before the onset."""
    post_roll_s: float = 0.2
    """Audio kept from after the last voiced window."""
    confirm_s: float = 0.09
    """Speech must last this long to begin an utterance: three windows, shorter than any word."""
    trailing_silence_s: float = 0.5
    """Silence that ends an utterance; shorter gaps stay inside."""
    voice_threshold: float = 0.5
    max_length_s: float = 28.0
    """Longest utterance: Whisper's window is 30 s."""
    split_search_s: float = 6.0
    """How far back from `max_length_s` the weakest point is looked for."""


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    """An utterance begins."""

    index: int
    """Counts the track's utterances from 0."""
    started_at: float
    """Onset of speech, seconds on the track's clock."""


@dataclass(frozen=True, slots=True)
class UtteranceAudio:
    """The next audio of an utterance, int16[n], contiguous with what came before."""

    index: int
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """An utterance is complete; follows its `UtteranceStarted`, exactly once."""

    index: int
    ended_at: float
    """End of speech, seconds on the track's clock."""
    forced: bool
    """True when it was cut at its longest length or by the end of the track, not by silence."""
    samples: int
    """How many of the samples sent belong to it.

    Fewer than were sent when the weakest point for a split lay behind; the rest is sent again with the next
    utterance.
    """


UtteranceEffect = UtteranceStarted | UtteranceAudio | UtteranceEnded


class UtteranceCutter:
    """Cuts one track. Frames must be contiguous: what is missing on the wire is fed as silence.

    `hear` takes the audio, `judge` the detector's verdicts on the same audio, which may lag behind. Memory
    is bounded by `split_search_s` of audio.
    """

    def __init__(
        self, rate_hz: int, started_at: float = 0.0, options: UtteranceOptions | None = None, first_index: int = 0
    ) -> None:
        self._options = options or UtteranceOptions()
        self._rate_hz = rate_hz
        self._started_at = started_at
        self._endpointing = Endpointing(
            EndpointingOptions(
                speech_padding_s=self._options.confirm_s,
                silence_padding_s=self._options.trailing_silence_s,
                voice_threshold=self._options.voice_threshold,
                max_speech_s=float("inf"),
            )
        )
        self._frames: deque[Pcm] = deque()
        self._kept_from = 0  # sample number of the first kept sample
        self._heard = 0  # samples so far
        self._windows: deque[tuple[int, float]] = deque()  # (end sample, probability)
        self._next_index = first_index
        self._index: int | None = None  # of the utterance under way
        self._begin = 0  # its first sample
        self._sent = 0  # every sample before this was sent or belongs to no utterance
        self._keep_idle = self._samples(self._options.pre_roll_s + self._options.confirm_s + 0.5)
        self._search = self._samples(self._options.split_search_s)

    @property
    def next_index(self) -> int:
        """Of the utterance that would begin next."""
        return self._next_index

    def hear(self, frame: Pcm) -> list[UtteranceEffect]:
        """Take the next audio, int16[n]; the array is kept and must not change afterwards."""
        self._frames.append(frame)
        self._heard += len(frame)
        effects: list[UtteranceEffect] = []
        if self._index is not None:
            if self._heard - self._begin >= self._samples(self._options.max_length_s):
                effects += self._split()
            effects += self._release()
        self._trim()
        return effects

    def judge(self, probability: float, end_sample: int) -> list[UtteranceEffect]:
        """Take the probability of the window that ends at `end_sample`, counted as in `hear`."""
        self._windows.append((end_sample, probability))
        while self._windows[0][0] < end_sample - self._search:
            self._windows.popleft()
        effects: list[UtteranceEffect] = []
        for event in self._endpointing.receive(probability, end_sample / self._rate_hz):
            match event:
                case SpeechStarted(at):
                    effects += self._start(self._samples(at))
                case SpeechStopped(ended_at=ended_at):
                    effects += self._end(self._samples(ended_at), forced=False)
        if self._endpointing.speaking and self._index is None and self._voiced_until() > self._sent:
            # The run goes on after a split that fell into a pause.
            effects += self._start(self._voiced_until() - self._samples(WINDOW_S))
        return effects + self._release()

    def finish(self) -> list[UtteranceEffect]:
        """End of the track: an utterance under way ends with what was heard."""
        if self._index is None:
            return []
        return self._end(min(self._voiced_until(), self._heard), forced=True)

    def _start(self, onset: int) -> list[UtteranceEffect]:
        self._index, self._next_index = self._next_index, self._next_index + 1
        pre_roll = self._samples(self._options.pre_roll_s)
        self._begin = max(onset - pre_roll, self._sent, self._kept_from)
        self._sent = self._begin
        return [UtteranceStarted(self._index, self._time(max(onset, self._begin)))]

    def _end(self, ended: int, forced: bool) -> list[UtteranceEffect]:
        if self._index is None:
            return []
        effects = self._release()
        ended = max(ended, self._begin)
        index, self._index = self._index, None
        return [*effects, UtteranceEnded(index, self._time(ended), forced, self._sent - self._begin)]

    def _split(self) -> list[UtteranceEffect]:
        """End the utterance at its weakest point; go on with the next one if there is speech after that."""
        if self._index is None:
            return []
        at = self._weakest_point()
        effects: list[UtteranceEffect] = []
        if at > self._sent:
            effects.append(UtteranceAudio(self._index, self._slice(self._sent, at)))
        ended = max(self._begin, min(at, self._voiced_until()))
        effects.append(UtteranceEnded(self._index, self._time(ended), forced=True, samples=at - self._begin))
        self._sent, self._index = at, None
        if self._voiced_until() > at:
            effects += self._start(at)
        return effects

    def _weakest_point(self) -> int:
        """The middle of the three neighbouring windows that are least like speech; the latest of equals."""
        earliest = max(self._kept_from, self._heard - self._search, self._begin + 1)
        windows = [window for window in self._windows if earliest < window[0] <= self._heard]
        best, lowest = self._heard, float("inf")
        for before, here, after in zip(windows, windows[1:], windows[2:], strict=False):
            total = before[1] + here[1] + after[1]
            if total <= lowest:
                best, lowest = (before[0] + here[0]) // 2, total
        return max(best, earliest)

    def _release(self) -> list[UtteranceEffect]:
        """Send what is near speech; a longer pause is held back until speech goes on."""
        if self._index is None:
            return []
        until = min(self._heard, self._voiced_until() + self._samples(self._options.post_roll_s))
        if until <= self._sent:
            return []
        pcm = self._slice(self._sent, until)
        self._sent = until
        return [UtteranceAudio(self._index, pcm)]

    def _trim(self) -> None:
        keep = self._search if self._index is not None else self._keep_idle
        keep_from = self._heard - keep
        if self._index is not None:
            keep_from = min(keep_from, self._sent)
        while self._frames and self._kept_from + len(self._frames[0]) <= keep_from:
            self._kept_from += len(self._frames.popleft())

    def _slice(self, begin: int, end: int) -> Pcm:
        """Samples `begin` … `end` of the track, as a copy."""
        parts: list[Pcm] = []
        position = self._heard
        for frame in reversed(self._frames):  # what is asked for is nearly always the latest
            position -= len(frame)
            if position < end:
                parts.append(frame[max(0, begin - position) : end - position])
            if position <= begin:
                break
        return np.concatenate(parts[::-1]) if parts else np.zeros(0, dtype=np.int16)

    def _voiced_until(self) -> int:
        voiced_until = self._endpointing.voiced_until
        return self._samples(voiced_until) if voiced_until > 0 else 0

    def _samples(self, seconds: float) -> int:
        return round(seconds * self._rate_hz)

    def _time(self, sample: int) -> float:
        return self._started_at + sample / self._rate_hz
