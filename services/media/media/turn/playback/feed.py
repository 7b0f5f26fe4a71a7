"""From the texts of a spoken playback to the playout queue: what is asked of the synthesiser, and its answers."""

from media.turn.playback.effects import Failed, PlaybackEffect, SpeechCompleted
from media.turn.playback.inputs import SpeechAudio, SpeechDone, SpeechFailed
from media.turn.playback.speech import SpeechLine, Unspeakable
from media.turn.playback.tracks import SpokenTrack, Utterance
from media.turn.playout import Playout

_AT_ONCE = 2  # utterances asked of the synthesiser before the first of them is complete
_ENOUGH_AUDIO_S = 20.0  # no further utterance is asked for while this much waits to be played


class SpeechFeed:
    """Asks a little ahead of what sounds, in order; answers are for utterances that a track awaits."""

    def __init__(self, line: SpeechLine, playout: Playout) -> None:
        self.named = 0
        """Utterances so far; each has a key of its own within the leg."""
        self._line = line
        self._playout = playout

    def go_on(self, track: SpokenTrack, now: float) -> list[PlaybackEffect]:
        """Move segments to the playout queue and ask for their audio."""
        effects: list[PlaybackEffect] = []
        for key in self._playout.passed():
            track.utterances.pop(key, None)
        while track.queue and len(track.awaited) < _AT_ONCE:
            if self._playout.waiting_samples > _ENOUGH_AUDIO_S * self._line.rate_hz:
                break
            utterance = track.queue.popleft()
            self.named += 1
            utterance.key = f"speech-{self.named}"
            track.utterances[utterance.key] = utterance
            self._playout.open(utterance.key)
            if utterance.pcm is not None:
                self._playout.enqueue(utterance.key, utterance.pcm)
                self._playout.finish(utterance.key)
            else:
                effects += self._ask(track, utterance, now)
        return effects

    def _ask(self, track: SpokenTrack, utterance: Utterance, now: float) -> list[PlaybackEffect]:
        utterance.requested_at = now
        track.awaited[utterance.key] = utterance
        text = utterance.text or ""
        try:
            return [self._line.speak(utterance.key, text, utterance.option, cacheable=not track.streaming)]
        except Unspeakable as error:
            return self.failed(track, SpeechFailed(utterance.key, error.code, error.reason, fatal=True))

    def audio(self, track: SpokenTrack, answer: SpeechAudio) -> bool:
        """Audio came; false when nobody awaits it."""
        utterance = track.awaited.get(answer.utterance_id)
        if utterance is None:
            return False
        utterance.received += len(answer.pcm)
        self._playout.enqueue(utterance.key, answer.pcm)
        return True

    def done(self, track: SpokenTrack, answer: SpeechDone, now: float, default_provider: str | None) -> SpeechCompleted:
        """An utterance that is awaited has all its audio."""
        utterance = track.awaited.pop(answer.utterance_id)
        self._playout.finish(utterance.key)
        return SpeechCompleted(
            provider=utterance.option.provider or default_provider,
            play_id=track.play_id,
            cmd_seq=utterance.cmd_seq,
            length_bytes=2 * utterance.received,
            cached=answer.cached,
            ttfb_ms=answer.ttfb_ms,
            duration_ms=max(0, round((now - utterance.requested_at) * 1000)),
            speaker=utterance.option.speaker or None,
        )

    def failed(self, track: SpokenTrack, answer: SpeechFailed) -> list[PlaybackEffect]:
        """An utterance that is awaited gets no more; with `fatal`, no text does."""
        del track.awaited[answer.utterance_id]
        self._playout.finish(answer.utterance_id)
        effects: list[PlaybackEffect] = [Failed("tts", answer.code or 500, answer.reason)]
        if answer.fatal:
            track.nothing_more = True
            awaited, audio = list(track.awaited), [given for given in track.queue if given.pcm is not None]
            effects += track.cancel()
            track.queue.extend(audio)
            for key in awaited:
                self._playout.finish(key)
        return effects
