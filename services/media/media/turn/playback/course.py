"""The course of playbacks: how one begins, goes on and ends by itself, and what is heard of it.

Source: protocol 2.5.2, 2.5.3, 2.5.5; orders O15, O17, O19.
"""

import math
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Any, Self

from dialbus.audio import Pcm
from dialbus.contracts.options import SynthesisOption
from media.turn.input_timeout import InputTimer
from media.turn.playback.effects import Ended, PlaybackEffect, Started
from media.turn.playback.feed import SpeechFeed
from media.turn.playback.speech import SpeechLine
from media.turn.playback.tracks import FileTrack, Limits, SpokenTrack, plain_option, track_from
from media.turn.playout import Playout

_EPSILON = 1e-9


class State(Enum):
    """Where the leg's playback stands."""

    IDLE = "idle"
    """Nothing plays; `waitInputTimeout` may run."""
    LOADING = "loading"
    """A file is on its way."""
    PLAYING = "playing"
    """Something sounds, or is being synthesised."""
    DRAINED = "drained"
    """All of it was heard; it ends at once, or waits for its next segment."""
    PAUSED = "paused"
    TAIL = "tail"
    """Interrupted: a fade, or the last segment of a graceful interruption, plays to its end."""
    PAUSED_TAIL = "paused tail"
    CLOSED = "closed"
    """The call has ended."""


FROZEN = (State.PAUSED, State.PAUSED_TAIL)
CUT = (State.TAIL, State.PAUSED_TAIL)
RUNNING = (State.LOADING, State.PLAYING, State.DRAINED, State.TAIL, *FROZEN)


class Course:
    """What runs, what waits behind it, and the wait for the caller after it."""

    def __init__(
        self,
        speech: SpeechLine,
        *,
        option: SynthesisOption | None = None,
        default_provider: str | None = "piper",
        track_id: str = "server-side-track",
        limits: Limits | None = None,
    ) -> None:
        """`option` is the call's, until `Configure` gives another one."""
        self.state = State.IDLE
        self._rate_hz = speech.rate_hz
        self._option = option or SynthesisOption()
        self._default_provider = default_provider
        self._track_id = track_id
        self._limits = limits or Limits()
        self._playout = Playout()
        self._track: FileTrack | SpokenTrack | None = None
        self._behind: deque[SpokenTrack] = deque()  # same playId as the running one, which is complete
        self._timer = InputTimer()
        self._feed = SpeechFeed(speech, self._playout)
        self._files = 0  # loaded so far; each has a token of its own
        self._now = 0.0
        self._effects: list[PlaybackEffect] = []

    def next_frame(self, samples: int) -> Pcm | None:
        """The next frame to send, int16[samples], not to be written to; None when nothing sounds."""
        if self._track is None or self.state in FROZEN:
            return None
        return self._playout.next_frame(samples)

    @property
    def playing(self) -> bool:
        """A playback had its `Started` and not yet its `Ended`."""
        return self._track is not None

    @property
    def play_id(self) -> str | None:
        """Of the running playback."""
        return self._track.play_id if self._track else None

    @property
    def underruns(self) -> int:
        """Frames of silence played because synthesised audio was late, since the start of the leg."""
        return self._playout.underruns

    @property
    def deadline(self) -> float:
        """When a tick has something to do though no audio is playing; infinity when nothing waits."""
        track = self._track
        if track is None:
            return self._timer.deadline
        if self.state in FROZEN:
            return math.inf
        flush_at = track.flush_at(self._limits) if isinstance(track, SpokenTrack) else math.inf
        return min(flush_at, self._ends_at(track))

    def __repr__(self) -> str:
        waiting_s = self._playout.waiting_samples / self._rate_hz
        behind = f", {len(self._behind)} behind" if self._behind else ""
        return f"<{type(self).__name__} {self.state.value} {self.play_id or '-'}, {waiting_s:.2f} s waiting{behind}>"

    def to_state(self, now: float) -> dict[str, Any]:
        """All of it as plain data, from which `from_state` goes on; audio as its length only (see `tracks`)."""
        return {
            "state": self.state.name,
            "option": plain_option(self._option),
            "playout": self._playout.to_state(),
            "track": self._track.to_state(now) if self._track else None,
            "behind": [track.to_state(now) for track in self._behind],
            "timer": self._timer.to_state(now),
            "utterances": self._feed.named,
            "files": self._files,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], now: float, speech: SpeechLine, **settings: Any) -> Self:
        """What `to_state` wrote; `settings` are those of the constructor."""
        playback = cls(speech, option=SynthesisOption.model_validate(state["option"]), **settings)
        playback.state = State[state["state"]]
        playback._playout = Playout.from_state(state["playout"])
        playback._track = track_from(state["track"], now) if state["track"] else None
        playback._behind = deque(SpokenTrack.from_state(item, now) for item in state["behind"])
        playback._timer = InputTimer.from_state(state["timer"], now)
        playback._feed = SpeechFeed(speech, playback._playout)
        playback._feed.named, playback._files = state["utterances"], state["files"]
        return playback

    # -- beginning and ending ---------------------------------------------------------------------

    def _replace(self, track: FileTrack | SpokenTrack) -> None:
        """Cut what runs and start something new (O19)."""
        self._behind.clear()
        if self._track is not None:
            if self.state not in CUT:
                self._tell_interruption()
            self._stop()
        self._start(track)

    def _start(self, track: FileTrack | SpokenTrack) -> None:
        self._timer.cancel()
        track.started_at = self._now
        self._track = track
        self.state = State.LOADING if isinstance(track, FileTrack) else State.PLAYING
        self._do(Started(track.play_id))

    def _stop(self) -> None:
        """End the running playback by force."""
        track = self._running
        self._do(*track.cancel())
        self._timer.cancel()
        self._leave(track, auto_hangup=False)

    def _finish(self, track: FileTrack | SpokenTrack) -> None:
        """The natural end, or the end of a tail."""
        was_cut = self.state in CUT
        self._leave(track, auto_hangup=track.auto_hangup)
        if track.auto_hangup:
            self._behind.clear()
            self._timer.cancel()
        elif self._behind:
            self._start(self._behind.popleft())
        elif not was_cut and not (isinstance(track, SpokenTrack) and track.has_grace):
            self._timer.arm(self._now, track.wait_ms)

    def _leave(self, track: FileTrack | SpokenTrack, *, auto_hangup: bool) -> None:
        self._playout.flush()
        self._playout.passed()
        self._track = None
        self.state = State.IDLE
        self._do(Ended(track.play_id, _ms(self._now - track.started_at), auto_hangup))

    def _tell_interruption(self) -> None:
        self._do(self._running.interruption(self._playout.head, self._rate_hz))

    # -- going on ---------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Everything that is due now, until nothing more is."""
        while (track := self._track) is not None:
            if isinstance(track, SpokenTrack):
                if self._now >= track.flush_at(self._limits) - _EPSILON:
                    track.flush()
                self._do(*self._feed.go_on(track, self._now))
            if self.state in FROZEN:
                return
            if not self._is_drained(track):
                if self.state is not State.TAIL:
                    self.state = State.LOADING if isinstance(track, FileTrack) and track.pending else State.PLAYING
                return
            self._drain(track)
            if self._now < self._ends_at(track) - _EPSILON:
                return
            self._finish(track)
        self._do(*self._timer.tick(self._now))

    def _drain(self, track: FileTrack | SpokenTrack) -> None:
        if self.state is not State.TAIL:
            self.state = State.DRAINED
        if track.drained_at is None:
            track.drained_at = self._now
            if self.state is State.DRAINED and isinstance(track, SpokenTrack) and track.has_grace:
                self._timer.arm(self._now, track.wait_ms)  # what is waited for begins now, and is told after the end

    def _is_drained(self, track: FileTrack | SpokenTrack) -> bool:
        """All that was asked for has been played."""
        return not track.pending and self._playout.empty

    def _ends_at(self, track: FileTrack | SpokenTrack) -> float:
        """When a drained playback ends by itself; infinity while it is not drained."""
        if self.state in CUT and track.drained_at is not None:
            return track.drained_at
        return track.ends_at(self._limits)

    @property
    def _running(self) -> FileTrack | SpokenTrack:
        assert self._track is not None
        return self._track

    @property
    def _spoken(self) -> SpokenTrack | None:
        return self._track if isinstance(self._track, SpokenTrack) else None

    def _do(self, *effects: PlaybackEffect) -> None:
        self._effects.extend(effects)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
