"""The playback machine of one leg: inputs and time in, effects out, in the order in which clients must be told.

Source: protocol 2.5 to 2.8, orders O17 to O22.
"""

from dialbus.contracts.commands import Interrupt, Pause, Play, Resume, Tts
from dialbus.contracts.options import SynthesisOption
from dialbus.machine import Key, Move, Table, dispatch, in_states
from dialbus.speakable import without_emoji
from media.turn.fragments import LONGEST_CHUNK
from media.turn.playback import inputs
from media.turn.playback.course import CUT, FROZEN, RUNNING, Course, State
from media.turn.playback.effects import Failed, LoadFile, PlaybackEffect, Refused
from media.turn.playback.inputs import Loop, PlaybackInput
from media.turn.playback.speech import option_of
from media.turn.playback.tracks import FileTrack, SpokenTrack

_MAX_BASE64_S = 600.0  # audio a client may queue as base64


class Playback(Course):
    """What one leg hears from the server, at most one thing at a time.

    Utterance ids and file tokens are unique within the leg. Answers to utterances and files that no longer matter are
    ignored, as is everything after `Close`. The 20 ms clock gives `TICK` and then asks for `next_frame`.
    """

    def receive(self, arrived: PlaybackInput, now: float) -> list[PlaybackEffect]:
        """What an input leads to; `now` is monotonic and never goes back."""
        self._now, self._effects = now, []
        dispatch(TABLE, self, arrived)
        return self._effects

    # -- commands ---------------------------------------------------------------------------------

    def _configure(self, arrived: inputs.Configure) -> None:
        self._option = arrived.option

    def _say(self, command: Tts) -> None:
        """Joins the running playback, queues behind it, or replaces it (2.5.1)."""
        text = command.text if command.base64 else without_emoji(command.text)
        option = option_of(command, self._option)
        joined = self._joined_by(command)
        if refusal := self._refusal(command, text, option, joined):
            self._do(refusal)
            return
        if not joined:
            track = SpokenTrack(command.play_id, streaming=command.streaming, option=option)
            self._replace(track)
        else:
            track = self._last(joined, command, option, has_text=bool(text.strip()))
        self._extend(track, command, text, option)
        self._go_on()

    def _play(self, command: Play) -> None:
        self._play_file(command, loop=False)

    def _loop(self, arrived: Loop) -> None:
        self._play_file(arrived.command, loop=True)

    def _play_file(self, command: Play, *, loop: bool) -> None:
        """Replaces the running playback (2.6)."""
        self._files += 1
        token = f"file-{self._files}"
        track = FileTrack(
            command.url if command.play_id is None else command.play_id,
            auto_hangup=command.auto_hangup,
            wait_ms=command.wait_input_timeout,
            touched_at=self._now,
            url=command.url,
            offset_ms=command.offset_ms,
            loop=loop,
            token=token,
        )
        self._replace(track)
        self._do(LoadFile(token, command.url))

    def _interrupt(self, command: Interrupt) -> None:
        """Cut the running playback (2.7)."""
        track, sounding = self._running, None if self.state in FROZEN else self._playout.sounding
        self._behind.clear()
        self._tell_interruption()
        track.auto_hangup = False
        fade_ms = command.fade_out_ms or 0
        if command.graceful and sounding is not None and isinstance(track, SpokenTrack) and not track.streaming:
            self._do(*track.cancel(keep=sounding.key))
            self._playout.flush_behind()
        elif fade_ms > 0 and sounding is not None:
            self._do(*track.cancel())
            self._playout.fade_out(fade_ms * self._rate_hz // 1000)
        else:
            self._stop()
            return
        self.state = State.TAIL
        self._go_on()

    def _interrupt_tail(self, command: Interrupt) -> None:
        if not command.graceful:
            self._stop()

    def _pause(self, _arrived: Pause) -> None:
        """Freeze the running playback (2.8); its end is deferred."""
        self.state = State.PAUSED_TAIL if self.state is State.TAIL else State.PAUSED

    def _resume(self, _arrived: Resume) -> None:
        self.state = State.TAIL if self.state is State.PAUSED_TAIL else State.PLAYING
        self._go_on()

    def _refuse(self, _arrived: Pause | Resume) -> None:
        self._do(Refused("command", 404, f"track not found: {self._track_id}"))

    def _stop_quietly(self, _arrived: inputs.Stop) -> None:
        self._behind.clear()
        self._stop()

    def _hear_input(self, _arrived: inputs.InputHeard) -> None:
        self._timer.cancel()

    def _close(self, _arrived: inputs.Close) -> None:
        """`[Interrupted] Ended` when something plays (O15); interrupted only when something was left to hear."""
        self._behind.clear()
        if self._track is not None:
            if self.state not in CUT and not self._is_drained(self._track):
                self._tell_interruption()
            self._stop()
        self._timer.cancel()
        self.state = State.CLOSED

    # -- answers of the synthesiser and the loader ------------------------------------------------

    def _take_audio(self, arrived: inputs.SpeechAudio) -> None:
        if self._spoken is not None and self._feed.audio(self._spoken, arrived):
            self._go_on()

    def _take_timing(self, arrived: inputs.SpeechTiming) -> None:
        if self._spoken is not None and (utterance := self._spoken.utterances.get(arrived.utterance_id)) is not None:
            utterance.timings.append((arrived.at_ms, arrived.position))

    def _complete_speech(self, arrived: inputs.SpeechDone) -> None:
        if self._spoken is not None and arrived.utterance_id in self._spoken.awaited:
            self._do(self._feed.done(self._spoken, arrived, self._now, self._default_provider))
            self._go_on()

    def _fail_speech(self, arrived: inputs.SpeechFailed) -> None:
        if self._spoken is not None and arrived.utterance_id in self._spoken.awaited:
            self._do(*self._feed.failed(self._spoken, arrived))
            self._go_on()

    def _load_file(self, arrived: inputs.FileLoaded) -> None:
        track, pcm = self._track, arrived.pcm
        if not isinstance(track, FileTrack) or track.token != arrived.token:
            return
        track.token = None
        offset = track.offset_ms * self._rate_hz // 1000
        if track.loop and len(pcm):
            offset %= len(pcm)
        track.length, track.offset = len(pcm), min(offset, len(pcm))
        if len(pcm):
            self._playout.open(arrived.token, loop=pcm if track.loop else None)
            self._playout.enqueue(arrived.token, pcm[offset:])
            if not track.loop:
                self._playout.finish(arrived.token)
        self._go_on()

    def _fail_file(self, arrived: inputs.FileFailed) -> None:
        track = self._track
        if isinstance(track, FileTrack) and track.token == arrived.token:
            track.token = None
            self._do(Failed(f"filetrack: {track.url}", arrived.code, arrived.reason))
            self._go_on()

    def _tick(self, _arrived: inputs.Tick | Resume) -> None:
        self._go_on()

    # -- what a command says ----------------------------------------------------------------------

    def _refusal(self, command: Tts, text: str, option: SynthesisOption, joined: list[SpokenTrack]) -> Refused | None:
        if command.base64:
            if command.streaming:
                return Refused("tts", 400, "base64 audio cannot be streamed")
        elif text.strip() and self._default_provider is None and not option.provider:
            return Refused("command", 400, "no tts option available")
        waiting = [utterance for track in joined for utterance in track.queue]
        audio = sum(len(utterance.pcm) for utterance in waiting if utterance.pcm is not None)
        queued = len(waiting) + sum(len(track.utterances) for track in joined)
        if command.streaming:
            queued += len(text) // LONGEST_CHUNK
        if text.strip() and (queued >= self._limits.segments or audio > _MAX_BASE64_S * self._rate_hz):
            return Refused("command", 409, f"tts queue is full, at most {self._limits.segments} segments")
        return None

    def _joined_by(self, command: Tts) -> list[SpokenTrack]:
        """The playbacks whose queues a command would add to."""
        running = self._track
        if not isinstance(running, SpokenTrack) or self.state in CUT or running.play_id != command.play_id:
            return []
        return [running, *self._behind]

    def _last(self, joined: list[SpokenTrack], command: Tts, option: SynthesisOption, *, has_text: bool) -> SpokenTrack:
        """The playback that a command of the running playId belongs to.

        The last one; a new one behind it when that is complete and the command has something to say.
        """
        last = joined[-1]
        if not last.complete or not has_text:
            return last
        self._behind.append(SpokenTrack(command.play_id, streaming=command.streaming, option=option))
        return self._behind[-1]

    def _extend(self, track: SpokenTrack, command: Tts, text: str, option: SynthesisOption) -> None:
        if text.strip() and track.drained_at is not None:
            track.drained_at = None
            self._timer.cancel()
        self._do(*track.extend(command, text, option, self._now, self._rate_hz))
        if track.wait_ms is not None:
            self._timer.change(track.wait_ms)


_ANYWHERE: dict[Key, Move[Playback, State]] = {
    inputs.Configure: Move(Playback._configure),
    inputs.InputHeard: Move(Playback._hear_input),
    Tts: Move(Playback._say, State.PLAYING, State.DRAINED, State.IDLE),
    Play: Move(Playback._play, State.LOADING),
    Loop: Move(Playback._loop, State.LOADING),
    inputs.Close: Move(Playback._close, State.CLOSED),
}


def _speech(*ends: State) -> dict[Key, Move[Playback, State]]:
    return {
        inputs.SpeechAudio: Move(Playback._take_audio),
        inputs.SpeechTiming: Move(Playback._take_timing),
        inputs.SpeechDone: Move(Playback._complete_speech, *ends),
        inputs.SpeechFailed: Move(Playback._fail_speech, *ends),
    }


# Protocol 2.5 to 2.8. A pair that is absent is ignored on purpose: an interrupt where nothing plays (G4), answers that
# nobody waits for, a second pause, a resume of what goes on, anything after the call.
TABLE: Table[State, Playback] = {
    **in_states((State.IDLE, *RUNNING), _ANYWHERE),
    **in_states(RUNNING, {inputs.Stop: Move(Playback._stop_quietly, State.IDLE)}),
    **in_states((State.PLAYING,), _speech(State.DRAINED, State.IDLE)),
    **in_states((State.TAIL,), _speech(State.IDLE)),
    **in_states(FROZEN, _speech()),
    **in_states((State.LOADING, State.PLAYING, State.DRAINED), {Pause: Move(Playback._pause, State.PAUSED)}),
    **in_states((State.LOADING, State.DRAINED, State.PAUSED), {Interrupt: Move(Playback._interrupt, State.IDLE)}),
    **in_states(CUT, {Interrupt: Move(Playback._interrupt_tail, State.IDLE)}),
    (State.IDLE, Pause): Move(Playback._refuse),
    (State.IDLE, Resume): Move(Playback._refuse),
    (State.IDLE, inputs.Tick): Move(Playback._tick),
    (State.LOADING, inputs.FileLoaded): Move(Playback._load_file, State.PLAYING, State.IDLE),
    (State.LOADING, inputs.FileFailed): Move(Playback._fail_file, State.IDLE),
    (State.PAUSED, inputs.FileLoaded): Move(Playback._load_file),
    (State.PAUSED, inputs.FileFailed): Move(Playback._fail_file),
    (State.PLAYING, Interrupt): Move(Playback._interrupt, State.TAIL, State.IDLE),
    (State.PLAYING, inputs.Tick): Move(Playback._tick, State.DRAINED, State.IDLE),
    (State.DRAINED, inputs.Tick): Move(Playback._tick, State.PLAYING, State.IDLE),
    (State.PAUSED, inputs.Tick): Move(Playback._tick),  # fragments that wait are asked for
    (State.PAUSED, Resume): Move(Playback._resume, State.LOADING, State.PLAYING, State.DRAINED, State.IDLE),
    (State.TAIL, Pause): Move(Playback._pause, State.PAUSED_TAIL),
    (State.TAIL, inputs.Tick): Move(Playback._tick, State.IDLE),
    (State.PAUSED_TAIL, Resume): Move(Playback._resume, State.TAIL, State.IDLE),
}
