"""One playback: a file, or speech made of segments; what is known of it, when it ends, and its state as plain data.

A state names moments in seconds before or after the moment of storing, so that it means the same on another
process's clock. Audio is kept as its length only: what was waiting sounds as silence after loading.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dialbus.audio import Pcm
from dialbus.contracts.commands import Tts
from dialbus.contracts.options import SynthesisOption
from media.turn.fragments import FragmentBuffer
from media.turn.playback.effects import CancelSpeech, Failed, Interrupted, PlaybackEffect
from media.turn.playback.speech import audio_of
from media.turn.playout import Position


@dataclass(frozen=True, slots=True)
class Limits:
    """Waiting times of protocol 2.5 and the bound of Q-22. Seconds."""

    segment_grace_s: float = 2.0
    """After the drain of a playback with playId, wait for its next segment; 0 ends it at the drain."""
    stream_flush_s: float = 0.8
    """Streamed text is spoken when no fragment came for this long."""
    stream_idle_s: float = 5.0
    """A streamed playback ends when it is drained and no fragment came for this long."""
    segments: int = 200
    """Segments waiting to be played."""


@dataclass(slots=True, eq=False)
class Utterance:
    """A segment: text to be synthesised, or audio that came with the command."""

    text: str | None
    option: SynthesisOption
    """The call's with the command's over it."""
    cmd_seq: int | None = None
    key: str = ""
    """Given when it moves to the playout queue."""
    pcm: Pcm | None = None
    requested_at: float = 0.0
    received: int = 0
    """Samples."""
    timings: list[tuple[int, int]] = field(default_factory=list)
    """Milliseconds into the audio, index into the text."""

    def word_at(self, ms: int) -> int | None:
        """Index into the text of the last word begun."""
        begun = [index for at_ms, index in self.timings if at_ms < ms]
        return begun[-1] if begun else None

    def to_state(self, now: float) -> dict[str, Any]:
        """As plain data."""
        return {
            "key": self.key,
            "text": self.text,
            "option": plain_option(self.option),
            "cmd_seq": self.cmd_seq,
            "samples": None if self.pcm is None else len(self.pcm),
            "requested": self.requested_at - now,
            "received": self.received,
            "timings": [list(timing) for timing in self.timings],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], now: float) -> "Utterance":
        """What `to_state` wrote."""
        samples = state["samples"]
        return cls(
            key=state["key"],
            text=state["text"],
            option=SynthesisOption.model_validate(state["option"]),
            cmd_seq=state["cmd_seq"],
            pcm=None if samples is None else np.zeros(samples, np.int16),
            requested_at=state["requested"] + now,
            received=state["received"],
            timings=[(at_ms, index) for at_ms, index in state["timings"]],
        )


@dataclass(slots=True, eq=False)
class Track:
    """What every playback has."""

    play_id: str | None
    auto_hangup: bool = False
    wait_ms: int | None = None
    """`waitInputTimeout`; the last one given counts."""
    started_at: float = 0.0
    touched_at: float = 0.0
    """Of its last command."""
    drained_at: float | None = None
    """Since when all that was asked for has been played."""

    def _moments(self, now: float) -> dict[str, Any]:
        return {
            "play_id": self.play_id,
            "auto_hangup": self.auto_hangup,
            "wait_ms": self.wait_ms,
            "started": self.started_at - now,
            "touched": self.touched_at - now,
            "drained": None if self.drained_at is None else self.drained_at - now,
        }

    def _set_moments(self, state: Mapping[str, Any], now: float) -> None:
        self.auto_hangup, self.wait_ms = state["auto_hangup"], state["wait_ms"]
        self.started_at, self.touched_at = state["started"] + now, state["touched"] + now
        self.drained_at = None if state["drained"] is None else state["drained"] + now


@dataclass(slots=True, eq=False)
class FileTrack(Track):
    """`play`, `ringtone` and `moh`."""

    url: str = ""
    offset_ms: int = 0
    loop: bool = False
    token: str | None = None
    """While it is being loaded."""
    length: int = 0
    """Samples, of the whole file."""
    offset: int = 0
    """Samples that `offsetMs` passed over."""

    @property
    def pending(self) -> bool:
        """Audio is still to come."""
        return self.token is not None

    def ends_at(self, _limits: Limits) -> float:
        """When it ends by itself: at its drain."""
        return math.inf if self.drained_at is None else self.drained_at

    def cancel(self) -> list[CancelSpeech]:
        """Wait for nothing any more."""
        self.token = None
        return []

    def interruption(self, head: Position | None, rate_hz: int) -> Interrupted:
        """Where it is cut; the place is told in the whole file."""
        position = self.offset + (head.played if head else 0)
        if self.length:
            position = position % self.length if self.loop else position
        return Interrupted(self.play_id, None, None, self.length * 1000 // rate_hz, position * 1000 // rate_hz)

    def to_state(self, now: float) -> dict[str, Any]:
        """As plain data."""
        names = ("url", "offset_ms", "loop", "token", "length", "offset")
        return {"kind": "file", **self._moments(now), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], now: float) -> "FileTrack":
        """What `to_state` wrote."""
        names = ("play_id", "url", "offset_ms", "loop", "token", "length", "offset")
        track = cls(**{name: state[name] for name in names})
        track._set_moments(state, now)
        return track


@dataclass(slots=True, eq=False)
class SpokenTrack(Track):
    """`tts`: one segment per command, or, when it is streamed, per speakable chunk of the joined fragments."""

    streaming: bool = False
    option: SynthesisOption = field(default_factory=SynthesisOption)
    """Of the first command."""
    complete: bool = False
    """`endOfStream` came: what follows under its playId is a playback of its own."""
    nothing_more: bool = False
    """Nobody waits for more: it began without a text, or the synthesiser cannot work. Undone by the next text."""
    commands: int = 0
    fragments: FragmentBuffer = field(default_factory=FragmentBuffer)
    queue: deque[Utterance] = field(default_factory=deque)
    """Not yet asked for."""
    awaited: dict[str, Utterance] = field(default_factory=dict)
    """Asked for, audio incomplete."""
    utterances: dict[str, Utterance] = field(default_factory=dict)
    """In the playout queue."""

    @property
    def pending(self) -> bool:
        """Audio is still to come."""
        return bool(self.queue or self.awaited or self.fragments.pending)

    @property
    def has_grace(self) -> bool:
        """Whether it waits for its next segment after the drain (protocol 2.5.2)."""
        return not (self.streaming or self.complete or self.nothing_more) and self.play_id is not None

    def ends_at(self, limits: Limits) -> float:
        """When it ends by itself (protocol 2.5.2, 2.5.3); infinity while it is not drained."""
        if self.drained_at is None:
            return math.inf
        if self.complete or self.nothing_more:
            return self.drained_at
        if self.streaming:
            return max(self.drained_at, self.touched_at + limits.stream_idle_s)
        if self.auto_hangup or self.play_id is None:
            return self.drained_at
        return max(self.drained_at, self.touched_at) + limits.segment_grace_s

    def extend(
        self, command: Tts, text: str, option: SynthesisOption, now: float, rate_hz: int
    ) -> list[PlaybackEffect]:
        """Take what a command adds: `text` without what cannot be spoken, its `option` over the call's."""
        effects: list[PlaybackEffect] = []
        cmd_seq, self.commands = self.commands, self.commands + 1
        self.touched_at = now
        if text.strip():
            self.nothing_more = False
            if command.base64:
                effects += self._add_audio(command, cmd_seq, rate_hz)
            elif self.streaming:
                self._add_chunks(self.fragments.append(text))
            else:
                self.queue.append(Utterance(text.strip(), option, cmd_seq))
        elif cmd_seq == 0 and (not command.streaming or command.auto_hangup):
            self.nothing_more = True
        self.complete = self.complete or command.end_of_stream
        self.auto_hangup = self.auto_hangup or command.auto_hangup
        self.wait_ms = self._wait_of(command, option)
        return effects

    def _wait_of(self, command: Tts, option: SynthesisOption) -> int | None:
        """The last one given counts; the call's is a default."""
        if command.wait_input_timeout is not None:
            return command.wait_input_timeout
        if command.option is not None and command.option.wait_input_timeout is not None:
            return command.option.wait_input_timeout
        return self.wait_ms if self.wait_ms is not None else option.wait_input_timeout

    def _add_audio(self, command: Tts, cmd_seq: int, rate_hz: int) -> list[PlaybackEffect]:
        try:
            pcm = audio_of(command, rate_hz)
        except ValueError as error:
            return [Failed("tts", 400, str(error))]
        self.flush()
        self.queue.append(Utterance(None, SynthesisOption(), cmd_seq, pcm=pcm))
        return []

    def _add_chunks(self, chunks: list[str]) -> None:
        self.queue.extend(Utterance(chunk, self.option) for chunk in chunks)

    def flush(self) -> None:
        """The fragments that wait are spoken as they are."""
        self._add_chunks(self.fragments.flush())

    def flush_at(self, limits: Limits) -> float:
        """When the fragments that wait are spoken as they are; infinity when there are none."""
        if not self.fragments.pending:
            return math.inf
        return -math.inf if self.complete else self.touched_at + limits.stream_flush_s

    def cancel(self, keep: str | None = None) -> list[CancelSpeech]:
        """Drop what is not synthesised yet, except one utterance."""
        self.queue.clear()
        self.fragments.flush()
        dropped = [key for key in self.awaited if key != keep]
        for key in dropped:
            del self.awaited[key]
        return [CancelSpeech(key) for key in dropped]

    def interruption(self, head: Position | None, rate_hz: int) -> Interrupted:
        """Where it is cut; the place is told in the segment."""
        if head is None:
            return Interrupted(self.play_id, None, None, 0, 0)
        current_ms, total_ms = (samples * 1000 // rate_hz for samples in (head.played, head.received))
        utterance = self.utterances[head.key]
        subtitle = utterance.text if head.played else None
        return Interrupted(self.play_id, subtitle, utterance.word_at(current_ms), total_ms, current_ms)

    def to_state(self, now: float) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": "spoken",
            **self._moments(now),
            "streaming": self.streaming,
            "option": plain_option(self.option),
            "complete": self.complete,
            "nothing_more": self.nothing_more,
            "commands": self.commands,
            "fragments": self.fragments.to_state(),
            "queue": [utterance.to_state(now) for utterance in self.queue],
            "utterances": [utterance.to_state(now) for utterance in self.utterances.values()],
            "awaited": list(self.awaited),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], now: float) -> "SpokenTrack":
        """What `to_state` wrote."""
        track = cls(
            state["play_id"],
            streaming=state["streaming"],
            option=SynthesisOption.model_validate(state["option"]),
            complete=state["complete"],
            nothing_more=state["nothing_more"],
            commands=state["commands"],
            fragments=FragmentBuffer.from_state(state["fragments"]),
            queue=deque(Utterance.from_state(item, now) for item in state["queue"]),
        )
        track._set_moments(state, now)
        for item in state["utterances"]:
            track.utterances[item["key"]] = Utterance.from_state(item, now)
        track.awaited = {key: track.utterances[key] for key in state["awaited"]}
        return track


def track_from(state: Mapping[str, Any], now: float) -> FileTrack | SpokenTrack:
    """The playback that `to_state` wrote."""
    return (FileTrack if state["kind"] == "file" else SpokenTrack).from_state(state, now)


def plain_option(option: SynthesisOption) -> dict[str, Any]:
    """What was set, as clients send it; without accounts at vendors, which no synthesiser of ours reads."""
    return option.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude={"app_id", "secret_id", "secret_key"}
    )
