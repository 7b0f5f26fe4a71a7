"""All that a remote party hears, added up: playback, joined and bridged parties, whatever else is put in.

Each source belongs to a track, so that `mute` of a track silences it here (protocol 2.10). Driven by the tick: nothing
waits.
"""

from collections import deque
from collections.abc import Container
from typing import Protocol

import numpy as np

from dialbus.audio import Pcm, frame_samples
from media.audio.mixer import Gain, mix
from media.audio.resample import LiveResampler, live_resampler

_SPEECH_PEAK = 800  # of 32768: live audio this loud (-32 dBFS) makes the ambiance step back, the hiss of a line doesn't


class Source(Protocol):
    """Something that a remote party hears."""

    track: str
    """Whose audio it is, for `mute`."""

    def next_frame(self, rate_hz: int) -> Pcm | None:
        """The next 20 ms at the party's rate; None when there is nothing to hear."""


class RemoteParty(Protocol):
    """A leg, as far as others hear its remote party."""

    @property
    def rate_hz(self) -> int:
        """0 until there is audio."""

    @property
    def remote_party(self) -> Pcm | None:
        """Its remote party in this tick; None when there is nothing to hear of it."""


class RemotePartySource:
    """The remote party of another leg on the same clock: heard in the tick in which it spoke."""

    def __init__(self, track: str, other: RemoteParty) -> None:
        self.track = track
        self._other = other
        self._resampler: LiveResampler | None = None
        self._tail = False  # the resampler holds back the end of what was heard

    def next_frame(self, rate_hz: int) -> Pcm | None:
        pcm = self._other.remote_party
        if self._other.rate_hz == rate_hz or (pcm is None and not self._tail):
            return pcm
        self._tail = pcm is not None
        if pcm is None:
            pcm = np.zeros(frame_samples(self._other.rate_hz), np.int16)
        if self._resampler is None:
            self._resampler = live_resampler(self._other.rate_hz, rate_hz)
        return self._resampler.process(pcm)


class BridgedPartySource:
    """A party on another clock, whose frames come over the bus: a small buffer that evens out their times.

    Playing begins when `START_FRAMES` are there. When more than `MAX_FRAMES` wait (the other clock is faster, or a
    burst came) the oldest are dropped, so that the delay stays below 100 ms.
    """

    START_FRAMES = 2
    KEPT_FRAMES = 3
    MAX_FRAMES = 5

    def __init__(self, track: str) -> None:
        self.track = track
        self.dropped = 0
        """Frames of 20 ms given up because they waited too long."""
        self._waiting: deque[tuple[int, Pcm]] = deque()
        self._playing = False
        self._resampler: LiveResampler | None = None
        self._rates = (0, 0)

    def put(self, rate_hz: int, pcm: Pcm) -> None:
        """What came, in pieces of any length; cut into frames of 20 ms, a piece too short for one is ignored."""
        size = frame_samples(rate_hz)
        for start in range(0, len(pcm) - size + 1, size):
            self._waiting.append((rate_hz, pcm[start : start + size]))
        if len(self._waiting) > self.MAX_FRAMES:
            while len(self._waiting) > self.KEPT_FRAMES:
                self._waiting.popleft()
                self.dropped += 1

    def next_frame(self, rate_hz: int) -> Pcm | None:
        if not self._playing and len(self._waiting) < self.START_FRAMES:
            return None
        self._playing = bool(self._waiting)
        if not self._waiting:
            return None
        source_hz, pcm = self._waiting.popleft()
        if self._resampler is None or self._rates != (source_hz, rate_hz):
            self._rates = (source_hz, rate_hz)
            self._resampler = live_resampler(source_hz, rate_hz)
        return self._resampler.process(pcm)


class Ambiance:
    """A looped background sound that steps back while somebody speaks (AmbianceOption)."""

    def __init__(self, pcm: Pcm, *, normal: float, ducked: float, transition: float) -> None:
        """`pcm` is at the party's rate and not empty; `transition` is the part of the way gone in each 20 ms."""
        self._pcm = pcm
        self._position = 0
        self._normal = normal
        self._ducked = ducked
        self._transition = transition
        self._gain = Gain(normal)

    def next_frame(self, samples: int, *, duck: bool) -> Pcm:
        """The next stretch at its present gain."""
        target = self._ducked if duck else self._normal
        self._gain.fade(self._gain.level + (target - self._gain.level) * self._transition, samples)
        places = np.arange(self._position, self._position + samples) % len(self._pcm)
        self._position = int(places[-1] + 1) % len(self._pcm)
        return self._gain.apply(self._pcm[places])


class Mix:
    """What one remote party hears besides its leg's playback."""

    def __init__(self, server_track: str) -> None:
        self._server_track = server_track
        self._sources: dict[str, Source] = {}
        self.ambiance: Ambiance | None = None
        """Belongs to the server-side track."""

    @property
    def tracks(self) -> set[str]:
        """Of the sources in it."""
        return {source.track for source in self._sources.values()}

    def put(self, name: str, source: Source) -> None:
        """Hear a source from now on, in the place of another one of that name."""
        self._sources[name] = source

    def drop(self, name: str) -> None:
        """Hear it no longer; harmless when there is none."""
        self._sources.pop(name, None)

    def next_frame(self, playback: Pcm | None, rate_hz: int, muted: Container[str]) -> Pcm | None:
        """The next 20 ms of everything; None when there is nothing to hear. `playback` is of the server-side track.

        Muted sources go on unheard. The frame is not to be written to.
        """
        if self._server_track in muted:
            playback = None
        if not self._sources and self.ambiance is None:
            return playback
        heard = [] if playback is None else [playback]
        for source in self._sources.values():
            frame = source.next_frame(rate_hz)
            if frame is not None and source.track not in muted:
                heard.append(frame)
        if self.ambiance is not None:
            duck = any(frame is playback or _is_loud(frame) for frame in heard)
            frame = self.ambiance.next_frame(frame_samples(rate_hz), duck=duck)
            if self._server_track not in muted:
                heard.append(frame)
        if len(heard) <= 1:
            return heard[0] if heard else None
        return mix(np.stack(heard))


def _is_loud(frame: Pcm) -> bool:
    return bool(frame.max(initial=0) > _SPEECH_PEAK or frame.min(initial=0) < -_SPEECH_PEAK)
