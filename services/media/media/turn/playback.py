"""Playback: what one call leg hears from the server, at most one thing at a time.

Source: protocol 2.5 to 2.8, orders O17 to O22.

A playback is spoken (`tts`) or a file (`play`). A spoken one consists of segments: one per command, or,
when it is streamed, one per speakable chunk of the joined fragments. Commands, synthesised audio and time
go in; effects come out, in the order in which their events must reach the client. The 20 ms clock calls
`tick(now)` and then `next_frame(samples)`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt
import soxr

from dialbus.speakable import without_emoji
from media.turn.fragments import LONGEST_CHUNK, FragmentBuffer
from media.turn.input_timeout import InputTimeout, InputTimer
from media.turn.playout import Playout

Pcm = npt.NDArray[np.int16]

_AT_ONCE = 2  # utterances asked of the synthesiser before the first of them is complete
_ENOUGH_AUDIO_S = 20.0  # no further utterance is asked for while this much waits to be played
_MOST_BASE64_S = 600.0  # audio a client may queue as base64
_BASE64_RATE_HZ = 16000
_RATES_HZ = range(4000, 192001)
_EPSILON = 1e-9


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


# Commands


@dataclass(frozen=True, slots=True)
class SayCommand:
    """`tts`. Absent optional fields are None."""

    text: str
    speaker: str | None = None
    play_id: str | None = None
    streaming: bool = False
    end_of_stream: bool = False
    auto_hangup: bool = False
    wait_input_timeout_ms: int | None = None
    option: Mapping[str, object] = field(default_factory=dict)
    """SynthesisOption as sent, camelCase; only present fields override the call's."""
    base64: bool = False
    cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class PlayCommand:
    """`play`, `ringtone` and `moh`."""

    url: str
    play_id: str | None = None
    """None: the URL."""
    auto_hangup: bool = False
    wait_input_timeout_ms: int | None = None
    offset_ms: int = 0
    loop: bool = False


# Effects


@dataclass(frozen=True, slots=True)
class RequestSpeech:
    """Synthesise a text at the leg's rate.

    To be answered with `speech_audio`, any number of times, and one of `speech_done` and `speech_failed`.
    """

    utterance_id: str
    text: str
    options: Mapping[str, object]
    """The call's SynthesisOption with this command's fields and speaker over it."""
    cacheable: bool
    """False for streamed text."""


@dataclass(frozen=True, slots=True)
class CancelSpeech:
    """Stop a synthesis whose audio nobody will hear. Late answers are ignored."""

    utterance_id: str


@dataclass(frozen=True, slots=True)
class LoadFile:
    """Fetch a file and decode it to the leg's rate, mono, from its beginning.

    To be answered with `file_loaded` or `file_failed`.
    """

    token: str
    url: str


@dataclass(frozen=True, slots=True)
class Started:
    """`trackStart` of the server-side track."""

    play_id: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """`trackEnd` of the server-side track; exactly one for each `Started`."""

    play_id: str | None
    duration_ms: int
    """Since `Started`, pauses included."""
    auto_hangup: bool
    """The call is to be hung up now."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """`interruption`; at most one for each `Started`, before its `Ended`."""

    play_id: str | None
    subtitle: str | None
    """Text of the segment that was sounding."""
    position: int | None
    """Index into the subtitle of the last word begun, when the synthesiser told timings."""
    total_duration_ms: int
    """Audio received so far for that segment; for a file its full length."""
    current_ms: int
    """How much of it was played."""


@dataclass(frozen=True, slots=True)
class Failed:
    """`error` of the server-side track; the playback goes on."""

    sender: str
    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """`error` for a command that changed nothing."""

    sender: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpeechCompleted:
    """The `completed.tts.{provider}` metrics of one utterance. None: unknown, to be left out."""

    provider: str | None
    play_id: str | None
    cmd_seq: int | None
    """Index of the command in its playback; None for streamed text."""
    length_bytes: int
    """Audio received, 16 bit at the leg's rate."""
    cached: bool
    ttfb_ms: int | None
    duration_ms: int
    """From the request to the last audio."""
    speaker: str | None


PlaybackEffect = (
    RequestSpeech
    | CancelSpeech
    | LoadFile
    | Started
    | Ended
    | Interrupted
    | Failed
    | Refused
    | SpeechCompleted
    | InputTimeout
)


# State


@dataclass(slots=True, eq=False)
class _Utterance:
    """A segment: text to be synthesised, or audio that came with the command."""

    key: str
    text: str | None
    options: Mapping[str, object]
    cmd_seq: int | None = None
    pcm: Pcm | None = None
    requested_at: float = 0.0
    received: int = 0  # samples
    timings: list[tuple[int, int]] = field(default_factory=list)  # (ms into the audio, index into the text)


@dataclass(slots=True, eq=False)
class _Playback:
    play_id: str | None
    file: PlayCommand | None = None  # None: spoken
    token: str | None = None  # of the file being loaded
    file_length: int = 0  # samples
    file_offset: int = 0  # samples
    streaming: bool = False
    options: Mapping[str, object] = field(default_factory=dict)  # of the first command
    started_at: float = 0.0
    touched_at: float = 0.0  # last command
    drained_at: float | None = None
    heard_since_drain: bool = False
    closed: bool = False  # endOfStream
    at_once: bool = False  # nothing to say: ends when it starts
    given_up: bool = False  # the synthesiser cannot work at all: ends at its drain
    auto_hangup: bool = False
    wait_ms: int | None = None
    paused: bool = False
    cut: bool = False  # interruption sent; a fade or a graceful tail plays
    commands: int = 0
    fragments: FragmentBuffer = field(default_factory=FragmentBuffer)
    queue: deque[_Utterance] = field(default_factory=deque)  # not yet asked for
    awaited: dict[str, _Utterance] = field(default_factory=dict)  # asked for, audio incomplete
    utterances: dict[str, _Utterance] = field(default_factory=dict)  # in the playout queue


class Playback:
    """The playback machine of one leg.

    Utterance ids and file tokens are unique within the leg. Answers to utterances and files that no longer
    matter are ignored, as is everything after `close`.
    """

    def __init__(
        self,
        rate_hz: int,
        defaults: Mapping[str, object] | None = None,
        *,
        default_provider: str | None = "piper",
        track_id: str = "server-side-track",
        limits: Limits | None = None,
    ) -> None:
        self._rate_hz = rate_hz
        self._defaults = dict(defaults or {})
        self._default_provider = default_provider
        self._track_id = track_id
        self._limits = limits or Limits()
        self._playout = Playout()
        self._running: _Playback | None = None
        self._behind: deque[_Playback] = deque()  # same playId as the running one, which is closed
        self._timer = InputTimer()
        self._ids = count(1)
        self._closed = False

    def configure(self, defaults: Mapping[str, object]) -> None:
        """The call's SynthesisOption, for the commands from now on."""
        self._defaults = dict(defaults)

    @property
    def playing(self) -> bool:
        """A playback had its `Started` and not yet its `Ended`."""
        return self._running is not None

    @property
    def play_id(self) -> str | None:
        """Of the running playback."""
        return self._running.play_id if self._running else None

    @property
    def underruns(self) -> int:
        """Frames of silence played because synthesised audio was late, since the start of the leg."""
        return self._playout.underruns

    @property
    def deadline(self) -> float:
        """When `tick` has something to do though no audio is playing; infinity when nothing waits."""
        playback = self._running
        if playback is None:
            return self._timer.deadline
        if playback.paused:
            return math.inf
        flush_at = math.inf
        if playback.fragments.pending:
            flush_at = playback.touched_at + self._limits.stream_flush_s
        return min(flush_at, self._ends_at(playback))

    # Commands

    def say(self, command: SayCommand, now: float) -> list[PlaybackEffect]:
        """`tts`: joins the running playback, queues behind it, or replaces it (2.5.1)."""
        if self._closed:
            return []
        text = command.text if command.base64 else without_emoji(command.text)
        options = self._options(command)
        if refusal := self._refusal(command, text, options):
            return [refusal]
        running = self._running
        if running is None or not self._joined(command):
            playback = _Playback(command.play_id, streaming=command.streaming, options=options)
            effects = self._replace(playback, now)
        else:
            playback = self._last(running, bool(text.strip()), command, options)
            effects = []
        effects += self._extend(playback, command, text, options, now)
        return effects + self._settle(now)

    def play(self, command: PlayCommand, now: float) -> list[PlaybackEffect]:
        """`play`: replaces the running playback (2.6)."""
        if self._closed:
            return []
        play_id = command.url if command.play_id is None else command.play_id
        playback = _Playback(play_id, file=command, token=f"file-{next(self._ids)}", touched_at=now)
        playback.auto_hangup = command.auto_hangup
        playback.wait_ms = command.wait_input_timeout_ms
        effects = self._replace(playback, now)
        return [*effects, LoadFile(playback.token or "", command.url)]

    def interrupt(self, graceful: bool, fade_ms: int, now: float) -> list[PlaybackEffect]:
        """`interrupt`: cut the running playback (2.7); nothing when nothing plays."""
        playback = self._running
        self._behind.clear()
        if playback is None:
            return []
        if playback.cut:
            return [] if graceful else self._stop(playback, now)
        effects: list[PlaybackEffect] = [self._interruption(playback)]
        playback.cut = True
        playback.auto_hangup = False
        sounding = None if playback.paused else self._playout.sounding
        if graceful and sounding is not None and playback.file is None and not playback.streaming:
            effects += self._cancel(playback, keep=sounding.key)
            self._playout.flush_behind()
        elif fade_ms > 0 and sounding is not None:
            effects += self._cancel(playback)
            self._playout.fade_out(fade_ms * self._rate_hz // 1000)
        else:
            return effects + self._stop(playback, now)
        return effects + self._settle(now)

    def pause(self) -> list[PlaybackEffect]:
        """`pause`: freeze the running playback (2.8); its end is deferred."""
        return self._set_paused(True)

    def resume(self, now: float) -> list[PlaybackEffect]:
        """`resume`: go on from the position of `pause`."""
        return self._set_paused(False) or self._settle(now)

    def stop(self, now: float) -> list[PlaybackEffect]:
        """End the running playback without `Interrupted` and without hang-up.

        For a ringtone at accept (O11) and music on hold at answer (O23).
        """
        self._behind.clear()
        return self._stop(self._running, now) if self._running else []

    def input_heard(self) -> None:
        """The caller spoke, pressed a key or was understood: `waitInputTimeout` is off (2.5.5)."""
        self._timer.cancel()
        if self._running is not None and self._running.drained_at is not None:
            self._running.heard_since_drain = True

    def close(self, now: float) -> list[PlaybackEffect]:
        """The call ends: `[Interrupted] Ended` when something plays (O15).

        Interrupted only when something was left to hear.
        """
        playback = self._running
        self._behind.clear()
        effects: list[PlaybackEffect] = []
        if playback is not None:
            if not playback.cut and not self._drained(playback):
                effects.append(self._interruption(playback))
            effects += self._stop(playback, now)
        self._timer.cancel()
        self._closed = True
        return effects

    # Answers of the synthesiser and the loader

    def speech_audio(self, utterance_id: str, pcm: Pcm, now: float) -> list[PlaybackEffect]:
        """The next audio of an utterance, int16[n] at the leg's rate."""
        utterance = self._awaited(utterance_id)
        if utterance is None:
            return []
        utterance.received += len(pcm)
        self._playout.enqueue(utterance_id, pcm)
        return self._settle(now)

    def speech_timing(self, utterance_id: str, at_ms: int, position: int) -> None:
        """The word or character at index `position` of the text begins `at_ms` into the audio; in order."""
        if self._running is not None and utterance_id in self._running.utterances:
            self._running.utterances[utterance_id].timings.append((at_ms, position))

    def speech_done(
        self, utterance_id: str, now: float, *, cached: bool = False, ttfb_ms: int | None = None
    ) -> list[PlaybackEffect]:
        """All audio of an utterance has been given."""
        utterance = self._awaited(utterance_id)
        if utterance is None or self._running is None:
            return []
        del self._running.awaited[utterance_id]
        self._playout.finish(utterance_id)
        completed = SpeechCompleted(
            provider=_text(utterance.options.get("provider")) or self._default_provider,
            play_id=self._running.play_id,
            cmd_seq=utterance.cmd_seq,
            length_bytes=2 * utterance.received,
            cached=cached,
            ttfb_ms=ttfb_ms,
            duration_ms=_ms(now - utterance.requested_at),
            speaker=_text(utterance.options.get("speaker")),
        )
        return [completed, *self._settle(now)]

    def speech_failed(
        self, utterance_id: str, code: int | None, reason: str, now: float, *, fatal: bool = False
    ) -> list[PlaybackEffect]:
        """An utterance gets no (further) audio: it is skipped, what came of it is played (2.5.6).

        With `fatal`, the synthesiser cannot work at all: the texts that wait are skipped too, and the playback ends
        at its drain unless something more comes for it.
        """
        playback = self._running
        if playback is None or self._awaited(utterance_id) is None:
            return []
        del playback.awaited[utterance_id]
        self._playout.finish(utterance_id)
        effects: list[PlaybackEffect] = [Failed("tts", code or 500, reason)]
        if fatal:
            playback.given_up = True
            awaited, audio = list(playback.awaited), [given for given in playback.queue if given.pcm is not None]
            effects += self._cancel(playback)
            playback.queue.extend(audio)
            for key in awaited:
                self._playout.finish(key)
        return effects + self._settle(now)

    def file_loaded(self, token: str, pcm: Pcm, now: float) -> list[PlaybackEffect]:
        """The whole file, int16[n] at the leg's rate; `offset_ms` is applied here."""
        playback = self._running
        if playback is None or playback.file is None or playback.token != token:
            return []
        playback.token = None
        offset = playback.file.offset_ms * self._rate_hz // 1000
        if playback.file.loop and len(pcm):
            offset %= len(pcm)
        playback.file_length, playback.file_offset = len(pcm), min(offset, len(pcm))
        if len(pcm):
            self._playout.open(token, loop=pcm if playback.file.loop else None)
            self._playout.enqueue(token, pcm[offset:])
            if not playback.file.loop:
                self._playout.finish(token)
        return self._settle(now)

    def file_failed(self, token: str, reason: str, now: float, *, code: int | None = None) -> list[PlaybackEffect]:
        """The file cannot be played (O22)."""
        playback = self._running
        if playback is None or playback.file is None or playback.token != token:
            return []
        playback.token = None
        return [Failed(f"filetrack: {playback.file.url}", code, reason), *self._settle(now)]

    # Time and audio

    def tick(self, now: float) -> list[PlaybackEffect]:
        """What is due: ends, flushes, `waitInputTimeout`. Call it before `next_frame`."""
        return self._settle(now)

    def next_frame(self, samples: int) -> Pcm | None:
        """The next frame to send, int16[samples], not to be written to; None when nothing sounds."""
        if self._running is None or self._running.paused:
            return None
        return self._playout.next_frame(samples)

    # Inside: commands

    def _options(self, command: SayCommand) -> dict[str, object]:
        given = {name: value for name, value in command.option.items() if value is not None}
        options = {name: value for name, value in self._defaults.items() if value is not None} | given
        if command.speaker is not None:
            options["speaker"] = command.speaker
        if command.cache_key is not None:
            options["cacheKey"] = command.cache_key
        return options

    def _refusal(self, command: SayCommand, text: str, options: Mapping[str, object]) -> Refused | None:
        if command.base64:
            if command.streaming:
                return Refused("tts", 400, "base64 audio cannot be streamed")
        elif text.strip() and self._default_provider is None and not options.get("provider"):
            return Refused("command", 400, "no tts option available")
        joined = self._joined(command)
        waiting = [utterance for playback in joined for utterance in playback.queue]
        audio = sum(len(utterance.pcm) for utterance in waiting if utterance.pcm is not None)
        queued = len(waiting) + sum(len(playback.utterances) for playback in joined)
        if command.streaming:
            queued += len(text) // LONGEST_CHUNK
        if text.strip() and (queued >= self._limits.segments or audio > _MOST_BASE64_S * self._rate_hz):
            return Refused("command", 409, f"tts queue is full, at most {self._limits.segments} segments")
        return None

    def _joined(self, command: SayCommand) -> list[_Playback]:
        """The playbacks whose queues a command would add to."""
        running = self._running
        if running is None or running.file or running.cut or running.play_id != command.play_id:
            return []
        return [running, *self._behind]

    def _last(
        self, running: _Playback, has_text: bool, command: SayCommand, options: Mapping[str, object]
    ) -> _Playback:
        """The playback that a command of the running playId belongs to.

        The last one; a new one behind it when that is closed and the command has something to say.
        """
        last = self._behind[-1] if self._behind else running
        if not last.closed or not has_text:
            return last
        self._behind.append(_Playback(command.play_id, streaming=command.streaming, options=options))
        return self._behind[-1]

    def _extend(
        self,
        playback: _Playback,
        command: SayCommand,
        text: str,
        options: Mapping[str, object],
        now: float,
    ) -> list[PlaybackEffect]:
        effects: list[PlaybackEffect] = []
        cmd_seq, playback.commands = playback.commands, playback.commands + 1
        playback.touched_at = now
        if not text.strip():
            playback.at_once = cmd_seq == 0 and (not command.streaming or command.auto_hangup)
        else:
            playback.drained_at, playback.heard_since_drain = None, False
            playback.at_once, playback.given_up = False, False
            if command.base64:
                effects += self._queue_audio(playback, command, cmd_seq)
            elif playback.streaming:
                self._queue_text(playback, playback.fragments.append(text), None, playback.options)
            else:
                self._queue_text(playback, [text.strip()], cmd_seq, options)
        playback.closed = playback.closed or command.end_of_stream
        playback.auto_hangup = playback.auto_hangup or command.auto_hangup
        wait = _first(command.wait_input_timeout_ms, _whole(command.option.get("waitInputTimeout")))
        if wait is None and playback.wait_ms is None:
            wait = _whole(self._defaults.get("waitInputTimeout"))
        playback.wait_ms = _first(wait, playback.wait_ms)
        return effects

    def _queue_text(
        self, playback: _Playback, texts: list[str], cmd_seq: int | None, options: Mapping[str, object]
    ) -> None:
        for text in texts:
            playback.queue.append(_Utterance(f"speech-{next(self._ids)}", text, options, cmd_seq))

    def _queue_audio(self, playback: _Playback, command: SayCommand, cmd_seq: int) -> list[PlaybackEffect]:
        try:
            pcm = _decode(command.text, command.option.get("samplerate"), self._rate_hz)
        except ValueError as error:
            return [Failed("tts", 400, str(error))]
        self._queue_text(playback, playback.fragments.flush(), None, playback.options)
        playback.queue.append(_Utterance(f"audio-{next(self._ids)}", None, {}, cmd_seq, pcm))
        return []

    def _set_paused(self, paused: bool) -> list[PlaybackEffect]:
        if self._closed:
            return []
        if self._running is None:
            return [Refused("command", 404, f"track not found: {self._track_id}")]
        self._running.paused = paused
        return []

    # Inside: beginning and ending

    def _replace(self, playback: _Playback, now: float) -> list[PlaybackEffect]:
        """Cut what runs and start something new (O19)."""
        effects: list[PlaybackEffect] = []
        self._behind.clear()
        if self._running is not None:
            if not self._running.cut:
                effects.append(self._interruption(self._running))
            effects += self._stop(self._running, now)
        return effects + self._start(playback, now)

    def _start(self, playback: _Playback, now: float) -> list[PlaybackEffect]:
        self._timer.cancel()
        playback.started_at = now
        self._running = playback
        return [Started(playback.play_id)]

    def _stop(self, playback: _Playback, now: float) -> list[PlaybackEffect]:
        """End the running playback by force."""
        effects = self._cancel(playback)
        self._playout.flush()
        self._playout.passed()
        self._running = None
        return [*effects, Ended(playback.play_id, _ms(now - playback.started_at), auto_hangup=False)]

    def _cancel(self, playback: _Playback, keep: str | None = None) -> list[PlaybackEffect]:
        """Drop what is not synthesised yet, except one utterance."""
        playback.queue.clear()
        playback.fragments.flush()
        playback.token = None
        dropped = [key for key in playback.awaited if key != keep]
        for key in dropped:
            del playback.awaited[key]
        return [CancelSpeech(key) for key in dropped]

    def _interruption(self, playback: _Playback) -> Interrupted:
        if playback.file is not None:
            head = self._playout.head
            position = playback.file_offset + (head.played if head else 0)
            if playback.file_length:
                position = position % playback.file_length if playback.file.loop else position
            total_ms = playback.file_length * 1000 // self._rate_hz
            return Interrupted(playback.play_id, None, None, total_ms, position * 1000 // self._rate_hz)
        head = self._playout.head
        if head is None:
            return Interrupted(playback.play_id, None, None, 0, 0)
        current_ms, total_ms = (samples * 1000 // self._rate_hz for samples in (head.played, head.received))
        utterance = playback.utterances[head.key]
        begun = [index for at_ms, index in utterance.timings if at_ms < current_ms]
        subtitle = utterance.text if head.played else None
        return Interrupted(playback.play_id, subtitle, begun[-1] if begun else None, total_ms, current_ms)

    # Inside: going on

    def _settle(self, now: float) -> list[PlaybackEffect]:
        """Everything that is due now, until nothing more is."""
        effects: list[PlaybackEffect] = []
        while (playback := self._running) is not None:
            if playback.fragments.pending and self._flush_due(playback, now):
                self._queue_text(playback, playback.fragments.flush(), None, playback.options)
            effects += self._pump(playback, now)
            if playback.paused or not self._drained(playback):
                return effects
            if playback.drained_at is None:
                playback.drained_at = now
            if now < self._ends_at(playback) - _EPSILON:
                return effects
            effects += self._finish(playback, now)
        return [*effects, *self._timer.tick(now)]

    def _flush_due(self, playback: _Playback, now: float) -> bool:
        return playback.closed or now >= playback.touched_at + self._limits.stream_flush_s - _EPSILON

    def _pump(self, playback: _Playback, now: float) -> list[PlaybackEffect]:
        """Move segments to the playout queue and ask for their audio, a little ahead of what sounds."""
        effects: list[PlaybackEffect] = []
        for key in self._playout.passed():
            playback.utterances.pop(key, None)
        while playback.queue and len(playback.awaited) < _AT_ONCE:
            if self._playout.waiting_samples > _ENOUGH_AUDIO_S * self._rate_hz:
                break
            utterance = playback.queue.popleft()
            playback.utterances[utterance.key] = utterance
            self._playout.open(utterance.key)
            if utterance.pcm is not None:
                self._playout.enqueue(utterance.key, utterance.pcm)
                self._playout.finish(utterance.key)
                continue
            utterance.requested_at = now
            playback.awaited[utterance.key] = utterance
            cacheable = not playback.streaming
            effects.append(RequestSpeech(utterance.key, utterance.text or "", utterance.options, cacheable))
        return effects

    def _drained(self, playback: _Playback) -> bool:
        """All that was asked for has been played."""
        pending = playback.token is not None or playback.queue or playback.awaited
        return not pending and not playback.fragments.pending and self._playout.empty

    def _ends_at(self, playback: _Playback) -> float:
        """When a drained playback ends by itself (2.5.2, 2.5.3); infinity while it is not drained."""
        if playback.drained_at is None:
            return math.inf
        if playback.cut or playback.closed or playback.at_once or playback.given_up or playback.file is not None:
            return playback.drained_at
        if playback.streaming:
            return max(playback.drained_at, playback.touched_at + self._limits.stream_idle_s)
        if playback.auto_hangup or playback.play_id is None:
            return playback.drained_at
        return max(playback.drained_at, playback.touched_at) + self._limits.segment_grace_s

    def _finish(self, playback: _Playback, now: float) -> list[PlaybackEffect]:
        """The natural end, or the end of a tail."""
        self._running = None
        self._playout.flush()
        self._playout.passed()
        ended = Ended(playback.play_id, _ms(now - playback.started_at), playback.auto_hangup)
        if playback.auto_hangup:
            self._behind.clear()
            return [ended]
        if self._behind:
            return [ended, *self._start(self._behind.popleft(), now)]
        if not playback.cut:
            self._arm_timer(playback, now)
        return [ended]

    def _arm_timer(self, playback: _Playback, now: float) -> None:
        by_grace = (
            playback.file is None
            and not (playback.streaming or playback.closed or playback.at_once or playback.given_up)
            and playback.play_id is not None
        )
        if not by_grace or playback.drained_at is None:
            self._timer.arm(now, playback.wait_ms)
        elif not playback.heard_since_drain:
            self._timer.arm(playback.drained_at, playback.wait_ms)

    def _awaited(self, utterance_id: str) -> _Utterance | None:
        return self._running.awaited.get(utterance_id) if self._running is not None else None


def _decode(text: str, samplerate: object, rate_hz: int) -> Pcm:
    """Base64 of s16le mono PCM as int16[n] at `rate_hz` (2.5.4). Raises ValueError with the reason."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"bad base64 audio: {error}") from error
    source_hz = _BASE64_RATE_HZ if samplerate is None else _whole(samplerate)
    if source_hz is None or source_hz not in _RATES_HZ:
        raise ValueError(f"bad samplerate for base64 audio: {samplerate!r}")
    pcm = np.frombuffer(data[: len(data) & ~1], dtype="<i2").astype(np.int16)
    if source_hz == rate_hz or not len(pcm):
        return pcm
    resampled: Pcm = soxr.resample(pcm, source_hz, rate_hz)
    return resampled


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    """A non-negative whole number, also when it came as text; None for anything else."""
    try:
        number = int(value) if isinstance(value, int | float | str) else -1
    except (ValueError, OverflowError):
        return None
    return number if number >= 0 else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
