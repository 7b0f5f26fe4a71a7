"""What the remote party says: speech and silence, utterances, transcripts.

The detector's reports become `speaking` and `silence`; utterances go to an asr worker, and what it understood comes
back as `asrDelta` and `asrFinal`.
"""

import time
from collections.abc import Callable, Iterable

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.contracts.media import AllocateLeg
from dialbus.contracts.options import TranscriptionOption
from media.leg.events import LegEvents
from media.leg.inbound_track import InboundEffect, InboundTrack
from media.leg.ledger import TurnLedger
from media.leg.resources import Resources
from media.leg.translate import bus_track
from media.speech.recognition import Heard, Recognition
from media.turn.endpointing import SilenceTimeout, SpeechStarted, SpeechStopped
from media.turn.utterance import UtteranceAudio, UtteranceEnded, UtteranceStarted

log = telemetry.get_logger()

FINALS_WAIT_S = 0.8
"""How long the end of a session waits for the last transcripts."""


class Hearing:
    """Begins when the rate of the leg's audio is known."""

    def __init__(
        self,
        resources: Resources,
        allocation: AllocateLeg,
        track: InboundTrack,
        events: LegEvents,
        ledger: TurnLedger,
        input_heard: Callable[[], None],
    ) -> None:
        """`input_heard` is told of each sign that the remote party gave by its voice."""
        self.track = track
        self._resources = resources
        self._call_id = allocation.call_id
        self._bus_track = bus_track(allocation, "main")
        self._events = events
        self._ledger = ledger
        self._input_heard = input_heard
        self._recognition: Recognition | None = None
        self._paused = False

    @property
    def asr_worker(self) -> str | None:
        """The asr instance that listens."""
        return self._recognition.worker if self._recognition is not None else None

    def process_inbound(self, pcm: Pcm, spoken_until: float) -> Pcm:
        """Take the next 20 ms, whose last sample was spoken at that Unix time; what may be recorded and heard."""
        pcm, effects = self.track.process_inbound(pcm, spoken_until)
        if effects:
            self._report(effects)
        return pcm

    def on_speech_probability(self, probability: float, end_sample: int) -> None:
        """The speech detector's verdict on a window of the track."""
        self._report(self.track.on_speech_probability(probability, end_sample))

    def recognise(self, option: TranscriptionOption) -> None:
        """Open a session with an asr worker, or another one where the options changed, and cut utterances for it."""
        before = self._recognition
        if before is None or before.option != option:
            self._recognition = Recognition(
                self._resources.bus,
                self._call_id,
                self._bus_track,
                option,
                self.track.rate_hz,
                heard=self._on_transcript,
                failed=lambda code, reason: self._events.option_error("asr", code, reason),
                clock=time.time,
                is_full=lambda: self._resources.is_full("asr"),
            )
            self._recognition.start(after=before.close(FINALS_WAIT_S) if before is not None else None)
        if not self._paused:
            self.track.cut_utterances()

    def pause(self, paused: bool) -> None:
        """Recognise nothing until it is said again; an utterance under way ends."""
        if paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._report(self.track.stop_cutting())
        elif self._recognition is not None:
            self.track.cut_utterances()

    def asr_lost(self) -> None:
        """The asr worker fell silent."""
        if self._recognition is not None:
            log.warning("leg.asr_lost", call_id=self._call_id, worker=self._recognition.worker)
            self._recognition.worker_lost()

    def finish(self) -> None:
        """Nothing more is said: an utterance under way ends."""
        self._report(self.track.finish())

    async def close(self) -> None:
        """Wait a moment for the last transcripts, then end the session; after `finish`."""
        if self._recognition is not None:
            await self._recognition.close(FINALS_WAIT_S)

    def _report(self, effects: Iterable[InboundEffect]) -> None:
        track, recognition = self.track, self._recognition
        for effect in effects:
            match effect:
                case SpeechStarted(at):
                    self._events.speaking(track.wall(at))
                    self._input_heard()
                case SpeechStopped(ended_at=ended_at, silence_s=silence_s):
                    self._events.silence(track.wall(ended_at), silence_s)
                case SilenceTimeout(started_at, duration_s):
                    self._events.silence(track.wall(started_at), duration_s)
                case UtteranceStarted() if recognition is not None:
                    recognition.begin(effect.index, track.wall(effect.started_at))
                case UtteranceAudio() if recognition is not None:
                    recognition.audio(effect.index, effect.pcm)
                case UtteranceEnded() if recognition is not None:
                    recognition.end(effect.index, track.wall(effect.ended_at), effect.samples)

    def _on_transcript(self, heard: Heard) -> None:
        utterance, transcript, now = heard.utterance, heard.transcript, time.time()
        if transcript.failure is not None:
            self._events.option_error("asr", 500, transcript.failure)
        elif not transcript.final and not transcript.text:
            return
        ended = now if utterance.ended is None else utterance.ended
        self._events.transcript(heard, now, ended)
        name, index = heard.provider, {"index": utterance.index}
        if transcript.final:
            self._events.metrics(f"completed.asr.{name}", _ms(now - ended), index)
            if transcript.text:
                self._ledger.final(utterance.index, ended, now)
        elif heard.first:
            self._events.metrics(f"ttfb.asr.{name}", _ms(now - utterance.started), index)
        self._input_heard()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
