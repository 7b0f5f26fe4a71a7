"""One utterance's frames, in order, as audio to decode.

Frames are numbered; a lost frame is silence of its length, so that times stay right. Nothing here grows
beyond the 30 s that a recogniser hears at once: a longer utterance is split where it is quietest.
"""

from __future__ import annotations

import numpy as np

from asr.errors import AudioNotAccepted
from dialbus.audio import Pcm

SAMPLE_RATE_HZ = 16_000
MAX_S = 30.0
SPLIT_WITHIN_S = 5.0
"""`split` looks for the quietest place in this much of the end."""

_FIRST_ALLOCATION_S = 4


class UtteranceWindow:
    """Audio of one utterance: int16 mono at `rate_hz`, frames of `frame_samples` samples each.

    The first frame added fixes sample 0; frames before it, of an earlier number, come too late and are
    counted in `late`. A frame that arrives twice is kept once. `missing` counts the frames that are silence
    for lack of audio.
    """

    def __init__(self, frame_samples: int = 320, rate_hz: int = SAMPLE_RATE_HZ, max_s: float = MAX_S) -> None:
        if not 0 < frame_samples <= max_s * rate_hz:
            raise AudioNotAccepted(f"a frame of {frame_samples} samples")
        self.frame_samples = frame_samples
        self.rate_hz = rate_hz
        self._max_frames = int(max_s * rate_hz) // frame_samples
        first_frames = min(self._max_frames, 1 + _FIRST_ALLOCATION_S * rate_hz // frame_samples)
        self._audio: Pcm = np.zeros(first_frames * frame_samples, np.int16)
        self._present: set[int] = set()
        self._first: int | None = None
        self._frames = 0
        self._shown_frames = 0
        self.late = 0

    def add(self, sequence: int, frame: Pcm) -> bool:
        """Put a frame in its place; False when it was not taken: too late, a repeat, or beyond the end (`full`).

        A frame shorter than `frame_samples` is completed with zeros. Raises AudioNotAccepted for any other
        shape or type.
        """
        if frame.dtype != np.int16 or frame.ndim != 1 or frame.size > self.frame_samples:
            raise AudioNotAccepted(f"a frame of {frame.dtype}{list(frame.shape)}, not int16[<={self.frame_samples}]")
        if self._first is None:
            self._first = sequence
        index = sequence - self._first
        if index < 0:
            self.late += 1
            return False
        if index in self._present or index >= self._max_frames:
            return False
        self._reserve(index + 1)
        start = index * self.frame_samples
        self._audio[start : start + frame.size] = frame
        self._present.add(index)
        self._frames = max(self._frames, index + 1)
        return True

    @property
    def duration_s(self) -> float:
        return self._frames * self.frame_samples / self.rate_hz

    @property
    def missing(self) -> int:
        return self._frames - len(self._present)

    @property
    def full(self) -> bool:
        """Whether the last frame that fits is taken: `split` now, or end the utterance."""
        return self._frames >= self._max_frames

    @property
    def next_sequence(self) -> int | None:
        """The number of the frame that would follow the last one; None before the first."""
        return None if self._first is None else self._first + self._frames

    @property
    def grown_s(self) -> float:
        """Seconds of audio that no `interim` has shown yet."""
        return (self._frames - self._shown_frames) * self.frame_samples / self.rate_hz

    def interim(self, at_least_s: float = 0.3) -> Pcm | None:
        """A copy of the audio so far; None when it has not grown or is too short to hold a word."""
        if self.grown_s == 0 or self.duration_s < at_least_s:
            return None
        self._shown_frames = self._frames
        return self.final()

    def final(self) -> Pcm:
        """A copy of all audio, int16[n], n <= `max_s`."""
        return self._audio[: self._frames * self.frame_samples].copy()

    def split(self) -> UtteranceWindow:
        """End this window at the quietest frame of its last seconds; what follows begins the returned one.

        The quietest frame itself goes to the returned window. Together the two hold the same audio as
        before, and the same frames as missing. With fewer than two frames nothing is moved.
        """
        rest = UtteranceWindow(self.frame_samples, self.rate_hz, self._max_frames * self.frame_samples / self.rate_hz)
        rest._first = self.next_sequence
        if self._frames < 2 or self._first is None:
            return rest
        cut = self._quietest_frame()
        rest._first = self._first + cut
        rest._frames = self._frames - cut
        rest._present = {index - cut for index in self._present if index >= cut}
        rest._reserve(rest._frames)
        kept = cut * self.frame_samples
        rest._audio[: rest._frames * self.frame_samples] = self._audio[kept : self._frames * self.frame_samples]
        self._audio[kept:] = 0
        self._present = {index for index in self._present if index < cut}
        self._frames = cut
        self._max_frames = cut  # closed: the numbers after the cut belong to the other window
        self._shown_frames = min(self._shown_frames, cut)
        return rest

    def _quietest_frame(self) -> int:
        """Index, at least 1, of the frame around which 100 ms have the least energy."""
        frames = self._audio[: self._frames * self.frame_samples].reshape(self._frames, self.frame_samples)
        start = max(1, self._frames - int(SPLIT_WITHIN_S * self.rate_hz) // self.frame_samples)
        energy = np.square(frames.astype(np.float64)).mean(axis=1)
        around = max(1, self.rate_hz // 10 // self.frame_samples)
        smooth = np.convolve(energy, np.ones(around), mode="same")[: self._frames]
        return start + int(np.argmin(smooth[start:]))

    def _reserve(self, frames: int) -> None:
        needed = frames * self.frame_samples
        if needed > self._audio.size:
            size = min(max(needed, 2 * self._audio.size), max(needed, self._max_frames * self.frame_samples))
            self._audio = np.concatenate([self._audio, np.zeros(size - self._audio.size, np.int16)])
