"""Playout queue: PCM of several segments, played in order, in frames of any length (protocol 2.5, 2.7).

Positions count samples that were handed out. Frames are views of what was enqueued where possible: do not
write to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dialbus.audio import Pcm


@dataclass(slots=True)
class _Segment:
    key: str
    loop: Pcm | None = None
    chunks: deque[Pcm] = field(default_factory=deque)
    waiting: int = 0  # samples in `chunks`
    played: int = 0
    finished: bool = False

    def append(self, pcm: Pcm) -> None:
        if len(pcm):
            self.chunks.append(pcm)
            self.waiting += len(pcm)

    def take(self, samples: int) -> list[Pcm]:
        """Up to `samples` samples, removed from the front."""
        parts: list[Pcm] = []
        while samples and self.waiting:
            head = self.chunks.popleft()
            if len(head) > samples:
                self.chunks.appendleft(head[samples:])
                head = head[:samples]
            parts.append(head)
            samples -= len(head)
            self.waiting -= len(head)
            self.played += len(head)
            if not self.waiting and self.loop is not None:
                self.append(self.loop)
        return parts

    def to_state(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "loop": None if self.loop is None else len(self.loop),
            "waiting": self.waiting,
            "played": self.played,
            "finished": self.finished,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> _Segment:
        loop = None if state["loop"] is None else np.zeros(state["loop"], np.int16)
        segment = cls(state["key"], loop, played=state["played"], finished=state["finished"])
        segment.append(np.zeros(state["waiting"], np.int16))
        return segment


@dataclass(frozen=True, slots=True)
class Position:
    """Where playout stands in a segment. Samples."""

    key: str
    received: int
    """Audio that arrived for the segment so far; of a loop, played and still to come."""
    played: int


class Playout:
    """Segments in playing order; the head is sounding once its first sample was handed out."""

    def __init__(self) -> None:
        self._segments: deque[_Segment] = deque()
        self._by_key: dict[str, _Segment] = {}
        self._passed: list[str] = []
        self._fade_length = 0
        self._fade_left = 0
        self.underruns = 0
        """Frames of silence inserted inside a segment because its audio was late."""

    @property
    def empty(self) -> bool:
        """Nothing is queued and nothing is expected."""
        return not self._segments

    @property
    def waiting_samples(self) -> int:
        """Audio received and not yet played."""
        return sum(segment.waiting for segment in self._segments)

    @property
    def head(self) -> Position | None:
        """The segment that is sounding or comes next."""
        if not self._segments:
            return None
        head = self._segments[0]
        return Position(head.key, head.played + head.waiting, head.played)

    @property
    def sounding(self) -> Position | None:
        """The segment whose first sample was handed out and whose last was not."""
        head = self.head
        return head if head is not None and head.played else None

    def open(self, key: str, loop: Pcm | None = None) -> None:
        """Append a segment; with `loop`, that audio is repeated behind its own until it is flushed."""
        segment = _Segment(key, loop if loop is not None and len(loop) else None)
        self._segments.append(segment)
        self._by_key[key] = segment

    def enqueue(self, key: str, pcm: Pcm) -> None:
        """Append audio, int16[n], to a segment. Segments that are gone are ignored."""
        segment = self._by_key.get(key)
        if segment is not None and not segment.finished:
            segment.append(pcm)

    def finish(self, key: str) -> None:
        """No more audio will come for a segment; what has come is played."""
        segment = self._by_key.get(key)
        if segment is not None:
            segment.finished = True
            self._pass_finished()

    def passed(self) -> list[str]:
        """Marks: the segments played to their end, or dropped, since the last call."""
        passed, self._passed = self._passed, []
        return passed

    def flush(self) -> None:
        """Drop everything at once."""
        while self._segments:
            self._drop(self._segments.popleft())
        self._fade_length = self._fade_left = 0

    def flush_behind(self) -> None:
        """Drop everything behind the sounding segment, which plays to its end."""
        while len(self._segments) > 1:
            self._drop(self._segments.pop())

    def fade_out(self, samples: int) -> None:
        """Play at most `samples` more, falling linearly to nothing, then drop everything."""
        self._fade_length = self._fade_left = samples
        for segment in self._segments:
            segment.finished = True
        self._pass_finished()
        if samples <= 0 or self.empty:
            self.flush()

    def next_frame(self, samples: int) -> Pcm | None:
        """The next frame, int16[samples], or None when no segment has audio.

        Audio that is late inside a segment becomes a frame of silence and does not move the position. The
        end of a segment is joined to the next one's audio, and filled with silence when there is none yet.
        """
        if not self._ready(samples):
            return None if self.sounding is None else self._silence(samples)
        parts: list[Pcm] = []
        missing = samples
        while missing and self._segments:
            head = self._segments[0]
            taken = head.take(missing)
            parts += taken
            missing -= sum(map(len, taken))
            self._pass_finished()
            if self._segments and self._segments[0] is head:
                break
        frame = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if missing:
            frame = np.concatenate((frame, np.zeros(missing, dtype=np.int16)))
        return self._faded(frame) if self._fade_length else frame

    def to_state(self) -> dict[str, Any]:
        """As plain data; audio as its length only."""
        return {
            "segments": [segment.to_state() for segment in self._segments],
            "passed": list(self._passed),
            "fade": [self._fade_length, self._fade_left],
            "underruns": self.underruns,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Playout:
        """What `to_state` wrote, with silence where audio was waiting."""
        playout = cls()
        for item in state["segments"]:
            segment = _Segment.from_state(item)
            playout._segments.append(segment)
            playout._by_key[segment.key] = segment
        playout._passed = list(state["passed"])
        playout._fade_length, playout._fade_left = state["fade"]
        playout.underruns = state["underruns"]
        return playout

    def _ready(self, samples: int) -> bool:
        """The head can give a whole frame, or ends within it."""
        if not self._segments:
            return False
        head = self._segments[0]
        return head.waiting >= samples or (head.waiting > 0 and (head.finished or head.loop is not None))

    def _silence(self, samples: int) -> Pcm:
        self.underruns += 1
        return np.zeros(samples, dtype=np.int16)

    def _faded(self, frame: Pcm) -> Pcm:
        left = np.arange(self._fade_left, self._fade_left - len(frame), -1, dtype=np.float32)
        gain = np.clip(left / self._fade_length, 0.0, 1.0)
        self._fade_left -= len(frame)
        if self._fade_left <= 0 or not self._segments:
            self.flush()
        return np.rint(frame * gain).astype(np.int16)

    def _pass_finished(self) -> None:
        while self._segments and self._segments[0].finished and not self._segments[0].waiting:
            self._drop(self._segments.popleft())

    def _drop(self, segment: _Segment) -> None:
        self._by_key.pop(segment.key, None)
        self._passed.append(segment.key)
