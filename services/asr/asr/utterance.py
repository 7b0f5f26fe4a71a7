"""Frames of a track to segments that a recogniser can hear, and their texts back to one text per utterance.

An utterance may be longer than the 30 s that are decoded at once: then it has several segments, whose texts
are joined. Segments are numbered through the whole session. Sans-IO: `now` is monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asr.stabiliser import Stabiliser
from asr.window import MAX_S, SAMPLE_RATE_HZ, UtteranceWindow
from dialbus.audio import Pcm

_SLICE = 320  # samples of a window's frame, 20 ms


@dataclass(slots=True, eq=False)
class Utterance:
    """What is known of one utterance; `shown` is the text of its newest delta."""

    number: int
    shown: str = ""
    parts: list[str] = field(default_factory=list)
    confidence: float | None = None
    failure: str | None = None

    def text(self, end: str = "") -> str:
        """The segments decoded so far, then `end`."""
        return " ".join(part for part in (*self.parts, end) if part)

    def changed(self, end: str = "") -> str | None:
        """The text for a delta; None when a client would see nothing new."""
        text = self.text(end)
        if text == self.shown:
            return None
        self.shown = text
        return text

    def add(self, text: str, confidence: float) -> None:
        """The final text of the next segment; the utterance is as certain as its least certain segment."""
        if text:
            self.parts.append(text)
            self.confidence = confidence if self.confidence is None else min(self.confidence, confidence)


@dataclass(slots=True, eq=False)
class Segment:
    """At most 30 s of an utterance. When `last`, its final completes the utterance."""

    number: int
    utterance: Utterance
    window: UtteranceWindow
    heard_at: float
    """When the newest audio in the window arrived."""
    last: bool = False
    interim_at: float = 0.0
    """When the next interim decode is due, never before `window` holds a word."""
    stabiliser: Stabiliser = field(default_factory=Stabiliser)


class Track:
    """One track's frames, int16 mono at 16 kHz, of any length.

    A gap in the frames' numbers becomes silence of as many frames as long as the one before the gap. An
    utterance ends with its last frame, with the first frame of a later utterance, or by `end`; frames that
    come after that, or again, are counted in `late`.
    """

    def __init__(self) -> None:
        self.current: Segment | None = None
        """The segment that still grows."""
        self.late = 0
        self._segments = 0
        self._newest = -1
        self._expected: int | None = None
        self._frame_samples = 0
        self._carry: Pcm = np.zeros(0, np.int16)
        self._slices = 0

    def frame(self, utterance: int, sequence: int, pcm: Pcm, now: float, *, last: bool = False) -> list[Segment]:
        """Take a frame; gives the segments that it completes, in order: each wants its final."""
        ended: list[Segment] = []
        if self.current is None or utterance != self.current.utterance.number:
            if utterance <= self._newest:
                self.late += 1
                return []
            ended += self.end()
            self._begin(utterance, now)
        if self._expected is not None and sequence < self._expected:
            self.late += 1
        else:
            ended += self._fill_gap(sequence, now)
            ended += self._append(pcm, now)
            self._expected = sequence + 1
            self._frame_samples = pcm.size or self._frame_samples
        return ended + (self.end() if last else [])

    def fail(self, utterance: int, reason: str, now: float, *, last: bool) -> list[Segment]:
        """A frame that can't be used: the utterance has no text because of it."""
        ended = self.frame(utterance, 0, np.zeros(0, np.int16), now, last=False)
        if self.current is not None and self.current.utterance.number == utterance:
            self.current.utterance.failure = reason
            ended += self.end() if last else []
        return ended

    def end(self) -> list[Segment]:
        """End the utterance, if there is one: its last segment wants the final."""
        segment = self.current
        if segment is None:
            return []
        if self._carry.size:
            segment.window.add(self._slices, self._carry)  # a full window was split, so there is room
        segment.last = True
        self.current = None
        return [segment]

    def _begin(self, number: int, now: float) -> None:
        self._newest = number
        self._expected = None
        self._frame_samples = 0
        self._slices = 0
        self._carry = np.zeros(0, np.int16)
        self._next_segment(Utterance(number), UtteranceWindow(_SLICE), now)

    def _next_segment(self, utterance: Utterance, window: UtteranceWindow, now: float) -> None:
        self.current = Segment(self._segments, utterance, window, heard_at=now, interim_at=now)
        self._segments += 1

    def _fill_gap(self, sequence: int, now: float) -> list[Segment]:
        lost = 0 if self._expected is None else (sequence - self._expected) * self._frame_samples
        # A number that jumps by hours is a fault of the sender, no reason to decode hours of silence.
        lost = min(lost, int(MAX_S) * SAMPLE_RATE_HZ)
        return self._append(np.zeros(lost, np.int16), now) if lost else []

    def _append(self, pcm: Pcm, now: float) -> list[Segment]:
        """Cut into a window's frames, which have numbers of their own; the rest waits for the next audio."""
        ended = []
        audio = np.concatenate([self._carry, pcm]) if self._carry.size else pcm
        whole = audio.size - audio.size % _SLICE
        for start in range(0, whole, _SLICE):
            segment = self.current
            assert segment is not None, "audio belongs to an utterance"
            segment.window.add(self._slices, audio[start : start + _SLICE])
            segment.heard_at = now
            self._slices += 1
            if segment.window.full:
                rest = segment.window.split()
                self._next_segment(segment.utterance, rest, now)
                ended.append(segment)
        self._carry = audio[whole:].copy()
        return ended
