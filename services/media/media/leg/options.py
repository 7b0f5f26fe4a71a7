"""What `ConfigureLeg` asked for, and its application to the leg's audio."""

from dataclasses import dataclass

from dialbus import providers, telemetry
from dialbus.contracts.media import AllocateLeg, ConfigureLeg, RecordedFile
from dialbus.contracts.options import (
    AGCOption,
    AmbianceOption,
    MediaPassOption,
    RecorderOption,
    SynthesisOption,
    TranscriptionOption,
    VADOption,
)
from dialbus.tasks import TaskSet
from media.audio.recorder import UnsafePathError, recording_path
from media.files.loader import LoadError
from media.leg import translate
from media.leg.events import LegEvents
from media.leg.leg_audio import LegAudio
from media.leg.recording import Recording
from media.leg.resources import Resources
from media.mix.live import LiveSender, Subscriber
from media.mix.media_pass import MediaPass
from media.mix.mixing import Ambiance, Mix
from media.turn.playback import Configure

log = telemetry.get_logger()

_VAD_TYPE = "silero"
_AMBIANCE = "ambiance"
_MEDIA_PASS = "media pass"
_SETTLE_S = 1.2  # below what owners wait for an answer; a slow server never holds up a call


@dataclass(slots=True)
class _Wanted:
    """What waits for the leg's audio, and is applied to it again with each `ConfigureLeg`."""

    denoise: bool = False
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    agc: AGCOption | None = None
    subscribe: bool = False
    ambiance: AmbianceOption | None = None
    recognition_paused: bool = False


class LegOptions:
    """A part that can't work is left out and becomes an `error` event.

    Options may come before the leg has a codec: they are taken with `audio=None`, and applied when it is there.
    """

    def __init__(
        self,
        resources: Resources,
        allocation: AllocateLeg,
        ssrc: int,
        mix: Mix,
        live: LiveSender,
        events: LegEvents,
        tasks: TaskSet,
    ) -> None:
        self._resources = resources
        self._allocation = allocation
        self._ssrc = ssrc
        self._mix = mix
        self._live = live
        self._events = events
        self._tasks = tasks
        self._wanted = _Wanted()
        self._recording: Recording | None = None
        self._media_pass: MediaPass | None = None
        self._subscriber: Subscriber | None = None

    def take(self, wanted: ConfigureLeg, audio: LegAudio | None) -> None:
        """Fields that are given replace what was."""
        if wanted.denoise is not None:
            self._wanted.denoise = wanted.denoise
        if wanted.vad is not None:
            if wanted.vad.type.lower() not in (_VAD_TYPE, translate.NO_VAD):
                self._events.option_error("vad", 400, f"unknown VAD type {wanted.vad.type!r}, {_VAD_TYPE} is used")
            self._wanted.vad = wanted.vad
        if wanted.asr is not None:
            self._want_recognition(wanted.asr)
        if wanted.tts is not None:
            self._wanted.tts = wanted.tts
        if wanted.recorder is not None and self._recording is None:
            self._record(wanted.recorder)
        if wanted.agc is not None:
            self._wanted.agc = wanted.agc
        if wanted.ambiance is not None:
            self._wanted.ambiance = wanted.ambiance if wanted.ambiance.enabled is not False else None
            self._mix.ambiance = None
            if audio is not None:
                self._begin_ambiance(audio.rate_hz)
        if wanted.subscribe is not None:
            self._wanted.subscribe = wanted.subscribe
        if wanted.media_pass is not None and self._media_pass is None:
            self._media_pass = self._pass_media(wanted.media_pass)
        for name in wanted.unsupported or ():
            self._events.option_error(name, 404, f"{name} is not supported")
        if audio is not None:
            self._apply(audio)

    def pause_recognition(self, paused: bool, audio: LegAudio | None) -> None:
        """Recognise nothing until it is said again, whatever options say meanwhile."""
        self._wanted.recognition_paused = paused
        if audio is not None:
            audio.hearing.pause(paused)

    def begin(self, audio: LegAudio) -> None:
        """The leg has audio now."""
        self._apply(audio)
        self._begin_ambiance(audio.rate_hz)

    async def settle(self) -> bool:
        """Give what was begun a moment, before the owner answers the call; whether there was anything."""
        if self._media_pass is None:
            return False
        await self._media_pass.settled(_SETTLE_S)
        return True

    async def close_media_pass(self) -> None:
        """End the client's WebSocket; its `trackEnd` is put at once."""
        if self._media_pass is not None:
            await self._media_pass.close()

    async def close_recording(self) -> tuple[RecordedFile, ...]:
        """Complete the file; what was recorded."""
        recording = self._recording
        if recording is None:
            return ()
        await recording.close()
        if recording.size_bytes is None:
            return ()
        track = self._allocation.main_track
        return (RecordedFile(track_id=track, path=str(recording.path), size_bytes=recording.size_bytes),)

    # -- application ------------------------------------------------------------------------------

    def _apply(self, audio: LegAudio) -> None:
        wanted, hearing = self._wanted, audio.hearing
        hearing.pause(wanted.recognition_paused)
        hearing.track.denoise(wanted.denoise)
        if wanted.vad is not None:
            hearing.track.report_speech(translate.endpointing_options(wanted.vad))
        if wanted.agc is not None:
            hearing.track.control_gain(translate.gain_options(wanted.agc))
        if wanted.asr is not None:
            hearing.recognise(wanted.asr)
        audio.subscriber = self._subscriber_at(audio.rate_hz)
        if wanted.tts is not None:
            audio.playing.receive(Configure(wanted.tts))
        if self._recording is not None:
            self._recording.start(audio.rate_hz)
        audio.recording, audio.media_pass = self._recording, self._media_pass

    def _subscriber_at(self, rate_hz: int) -> Subscriber | None:
        # On `/call` the socket carries the audio itself.
        if not self._wanted.subscribe or self._allocation.kind == "socket":
            self._subscriber = None
        elif self._subscriber is None:
            self._subscriber = Subscriber(self._resources.bus, self._allocation.call_id, self._live, rate_hz)
        return self._subscriber

    def _want_recognition(self, option: TranscriptionOption) -> None:
        try:
            self._wanted.asr = providers.recognition(option, self._resources.config.providers.asr)
        except providers.NotAvailable as missing:
            self._events.option_error("asr", 404, str(missing))

    def _begin_ambiance(self, rate_hz: int) -> None:
        if (option := self._wanted.ambiance) is not None:
            self._tasks.start(self._load_ambiance(option, rate_hz), name="load ambiance")

    async def _load_ambiance(self, option: AmbianceOption, rate_hz: int) -> None:
        if not option.path:
            self._events.option_error(_AMBIANCE, 400, "path: missing")
            return
        try:
            pcm = await self._resources.loader.load(option.path, rate_hz)
        except LoadError as error:
            self._events.option_error(_AMBIANCE, error.code, str(error))
            return
        except Exception as error:  # the boundary of one file
            log.exception("leg.ambiance_broken")
            self._events.option_error(_AMBIANCE, 500, f"{type(error).__name__} while the file was loaded")
            return
        if self._wanted.ambiance is option and len(pcm):
            self._mix.ambiance = Ambiance(
                pcm, normal=option.normal_level, ducked=option.duck_level, transition=option.transition_speed
            )

    def _pass_media(self, option: MediaPassOption) -> MediaPass:
        """Open the client's WebSocket; it is a part of the server-side track, and one of its own in events."""
        track = self._allocation.server_track

        def started() -> None:
            self._events.track_started()
            self._mix.put(_MEDIA_PASS, media_pass)

        def ended(duration_ms: int) -> None:
            self._mix.drop(_MEDIA_PASS)
            self._events.track_ended(duration_ms, self._ssrc)

        def failed(code: int, reason: str) -> None:
            self._events.option_error(f"media_pass: {option.url}", code, reason, track=track)

        media_pass = MediaPass(self._resources.fetcher, option, track, started=started, ended=ended, failed=failed)
        media_pass.open()
        return media_pass

    def _record(self, option: RecorderOption) -> None:
        config = self._resources.config
        if option.format.lower() != "wav":
            self._events.option_error("recorder", 400, f"recordings are wav files, not {option.format!r}")
            return
        try:
            path = recording_path(
                config.recorder_path,
                self._allocation.call_id,
                option.recorder_file,
                allow_absolute=config.recording.allow_absolute_paths,
            )
        except UnsafePathError as error:
            self._events.option_error("recorder", 400, str(error))
            return
        self._recording = Recording(
            self._allocation.call_id,
            path,
            option.samplerate,
            option.ptime,
            lambda reason: self._events.option_error("recorder", 500, reason),
            # An absolute path is one that the settings allow: it may be anywhere.
            below=config.recorder_path if path.is_relative_to(config.recorder_path) else None,
        )
