"""What the server lets the remote party hear: the playback machine, and whatever it wants done."""

import asyncio
import time

from dialbus import telemetry
from dialbus.audio import Pcm, frame_samples
from dialbus.config import Config
from dialbus.contracts.media import AllocateLeg
from dialbus.contracts.speech import Speak
from dialbus.tasks import TaskSet
from media.files.fetch import masked
from media.files.loader import Loader, LoadError
from media.leg import translate
from media.leg.events import LegEvents
from media.leg.ledger import TurnLedger
from media.leg.tellings import Tellings
from media.speech.synthesis import Synthesis
from media.turn import playback as core
from media.turn.input_timeout import InputTimeout

log = telemetry.get_logger()


class Playing:
    """Begins when the rate of the leg's audio is known; gets the answers of the synthesiser (`synthesis.Listener`)."""

    def __init__(
        self,
        playback: core.Playback,
        rate_hz: int,
        ssrc: int,
        speech: Synthesis,
        loader: Loader,
        events: LegEvents,
        tellings: Tellings,
        ledger: TurnLedger,
        tasks: TaskSet,
    ) -> None:
        """`ssrc` is what we send with, as `trackEnd` tells it."""
        self.playback = playback
        self._rate_hz = rate_hz
        self._samples = frame_samples(rate_hz)
        self._ssrc = ssrc
        self._speech = speech
        self._loader = loader
        self._events = events
        self._tellings = tellings
        self._ledger = ledger
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()

    def next_frame(self, now: float) -> Pcm | None:
        """The next 20 ms at the leg's rate; None when nothing plays."""
        if effects := self.playback.receive(core.TICK, now):
            self._perform(effects)
        return self.playback.next_frame(self._samples)

    def receive(self, arrived: core.PlaybackInput) -> None:
        """A command, an answer, or whatever else the machine has to know."""
        self._perform(self.playback.receive(arrived, self._loop.time()))

    def input_heard(self) -> None:
        """The remote party gave a sign: it is not waited for any longer."""
        self.receive(core.InputHeard())

    # -- answers of the synthesiser ---------------------------------------------------------------

    def speech_audio(self, utterance_id: str, pcm: Pcm) -> None:
        """Synthesised audio at the leg's rate."""
        self._ledger.audio(time.time())
        self.receive(core.SpeechAudio(utterance_id, pcm))

    def speech_done(self, utterance_id: str, *, cached: bool, ttfb_ms: int | None) -> None:
        """An utterance is complete."""
        self.receive(core.SpeechDone(utterance_id, cached, ttfb_ms))

    def speech_failed(self, utterance_id: str, code: int, reason: str, *, fatal: bool) -> None:
        """An utterance gets no further audio."""
        self.receive(core.SpeechFailed(utterance_id, code, reason, fatal))

    # -- effects ----------------------------------------------------------------------------------

    def _perform(self, effects: list[core.PlaybackEffect]) -> None:
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: core.PlaybackEffect) -> None:
        events = self._events
        match effect:
            case Speak():
                self._ledger.text(time.time())
                self._speech.request(effect, self)
            case core.CancelSpeech(utterance_id):
                self._speech.cancel(utterance_id)
            case core.LoadFile(token, url):
                self._tasks.start(self._load(token, url), name=f"load {masked(url)}")
            case core.Started(play_id):
                events.track_started(play_id)
            case core.Ended(play_id, duration_ms, auto_hangup):
                events.track_ended(duration_ms, self._ssrc, play_id)
                if auto_hangup:
                    self._tellings.playback_ended()
            case core.Interrupted():
                events.interruption(effect)
            case core.Failed(sender, code, reason) | core.Refused(sender, code, reason):
                # A command that failed is told on the main track, whatever it was about (section 2).
                events.error(events.main_track if sender == "command" else events.server_track, sender, code, reason)
            case core.SpeechCompleted():
                data = translate.completed_data(effect)
                events.metrics(f"completed.tts.{effect.provider}", effect.duration_ms, data)
            case InputTimeout(started_at, duration_ms):
                events.input_missed(time.time() - (self._loop.time() - started_at), duration_ms)

    async def _load(self, token: str, url: str) -> None:
        arrived: core.PlaybackInput
        try:
            arrived = core.FileLoaded(token, await self._loader.load(url, self._rate_hz))
        except LoadError as error:
            log.warning("leg.file_failed", url=masked(url), reason=str(error))
            arrived = core.FileFailed(token, str(error), error.code)
        except Exception as error:  # the boundary of one file: whatever a decoder raises, the playback ends
            log.exception("leg.file_broken", url=masked(url))
            arrived = core.FileFailed(token, f"{type(error).__name__} while the file was loaded", 500)
        self.receive(arrived)


def playback_of(allocation: AllocateLeg, rate_hz: int, config: Config) -> core.Playback:
    """The playback machine of a leg, with this worker's settings."""
    return core.Playback(
        core.SpeechLine(
            allocation.call_id,
            rate_hz,
            translate.bus_track(allocation, "server"),
            providers=config.providers.tts,
            speakers=config.providers.speakers,
        ),
        track_id=allocation.server_track,
        limits=core.Limits(
            segment_grace_s=config.tts_segment_grace,
            stream_flush_s=config.tts_stream_flush,
            stream_idle_s=config.tts_stream_idle,
        ),
    )
