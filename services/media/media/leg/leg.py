"""One leg wired from its endpoint to the bus: what its party says becomes events, what clients ask becomes audio.

The engine drives it 50 times a second (`receive`, `process_inbound`, `on_speech_probability`, `next_outbound_frame`);
requests of the call's owner come in between. Nothing that the engine calls ever waits.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dialbus import providers, telemetry
from dialbus.bus import Bus, BusError, Refused
from dialbus.config import Config
from dialbus.contracts import commands, events
from dialbus.contracts.base import Request, Taken
from dialbus.contracts.media import (
    MAIN_LEG,
    AllocateLeg,
    ConfigureLeg,
    LegClosed,
    LegInactive,
    PlaybackCommand,
    PlaybackEnded,
    RecordedFile,
    RemoteMedia,
)
from dialbus.contracts.options import (
    AGCOption,
    AmbianceOption,
    MediaPassOption,
    RecorderOption,
    SynthesisOption,
    TranscriptionOption,
    VADOption,
)
from dialbus.contracts.speech import Speak
from dialbus.tasks import cancel_all
from media.audio.concealment import Concealer
from media.audio.recorder import UnsafePathError, recording_path
from media.audio.resample import LiveResampler, live_resampler
from media.audio.vad import SpeechDetector
from media.endpoint.rtp import Endpoint
from media.files.fetch import Fetcher, masked
from media.files.loader import Loader, LoadError
from media.leg import translate
from media.leg.inbound_track import InboundEffect, InboundTrack
from media.leg.ledger import KEY as TURN
from media.leg.ledger import TurnLedger
from media.leg.outbox import Action, Outbox
from media.leg.recording import Recording
from media.mix.join import Join, Joinable
from media.mix.live import BridgeFeed, LiveSender, Subscriber
from media.mix.media_pass import MediaPass
from media.mix.mixing import Ambiance, Mix
from media.mix.patch import Patches
from media.rtp.jitter import MISSING, NoAudio
from media.speech.recognition import Heard, Recognition
from media.speech.synthesis import Speech
from media.turn import playback as core
from media.turn.endpointing import SilenceTimeout, SpeechStarted, SpeechStopped
from media.turn.input_timeout import InputTimeout
from media.turn.utterance import UtteranceAudio, UtteranceEnded, UtteranceStarted
from media.worker import metrics

Pcm = npt.NDArray[np.int16]
LegKey = tuple[str, str]
"""`call_id` and `leg_id`."""

log = telemetry.get_logger()

FRAMES_PER_SECOND = 50
FINALS_WAIT_S = 0.8
"""How long the end of a call waits for the last transcripts."""
OUTBOX_WAIT_S = 3.0
_ERRORS_HELD_S = 1.0
_TELL_ATTEMPTS = 5  # of a call's end: one that the owner misses would leave the remote party in silence
_FRAME_S = 1 / FRAMES_PER_SECOND
_VAD_TYPE = "silero"
_AMBIANCE = "ambiance"
_MEDIA_PASS = "media pass"
_SETTLE_S = 1.2  # below what owners wait for an answer; a slow server never holds up a call


@dataclass(slots=True)
class _Wanted:
    """What `ConfigureLeg` asked for so far."""

    denoise: bool = False
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    agc: AGCOption | None = None
    subscribe: bool = False
    inactive_after_s: float = 0.0


@dataclass(slots=True)
class _Counted:
    """What the process's metrics know of this leg."""

    packets_in: int = 0
    packets_out: int = 0
    concealed: int = 0
    underruns: int = 0


class Leg:
    """One leg, from `AllocateLeg` to `CloseLeg`."""

    def __init__(
        self,
        bus: Bus,
        config: Config,
        allocation: AllocateLeg,
        endpoint: Endpoint,
        detector: SpeechDetector,
        fetcher: Fetcher,
        loader: Loader,
        muted: set[str] | None = None,
        *,
        is_there: Callable[[str], bool],
    ) -> None:
        """`is_there` tells whether a ready worker of a service has been heard of.

        `muted` holds the ids of the call's muted tracks, shared by all its legs: one's server side is another."""
        self.call_id = allocation.call_id
        self.leg_id = allocation.leg_id
        self._kind = allocation.kind
        self.endpoint = endpoint
        self.main_track = allocation.main_track
        self.server_track = allocation.server_track
        self.mix = Mix(allocation.server_track)
        self.join: Join | None = None
        self.remote_party: Pcm | None = None
        """The remote party in this tick, as others may hear it; None when there is nothing to hear."""
        self.muted: set[str] = set() if muted is None else muted
        self.touched_at = 0.0
        """When the owner or the remote party was last heard."""
        self._log = log.bind(call_id=self.call_id, leg_id=self.leg_id)
        self._bus = bus
        self._config = config
        self._detector = detector
        self._fetcher = fetcher
        self._loader = loader
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(bus, self.call_id)
        self._speech = Speech(bus, self.call_id, self._bus_track("server"), self, is_there=lambda: is_there("tts"))
        self._is_there = is_there
        self._wanted = _Wanted()
        self._refer = allocation.refer
        self._dtmf_to: Joinable | None = None
        self._recognition_paused = False
        self._live = LiveSender("/".join(self.key))
        self._patches = Patches(bus, self.call_id, self.mix, BridgeFeed(bus, self.call_id, self._live))
        self._subscriber: Subscriber | None = None
        self._ambiance: AmbianceOption | None = None
        self._missed_at: float | None = None  # the remote party sends, or need not, since then
        self._told_inactive = False
        self._ledger = TurnLedger()
        self._recording: Recording | None = None
        self._recognition: Recognition | None = None
        self._media_pass: MediaPass | None = None
        self._held: list[tuple[str, str, int | None, str]] | None = None  # errors that wait for the answer
        self._awaits_answer = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = False
        self._counted = _Counted()
        # From the first `connect` on; the rate stays even when a re-INVITE changes the codec.
        self.rate_hz = 0
        self._samples = 0
        self._track: InboundTrack | None = None
        self._playback: core.Playback | None = None
        self._concealer: Concealer | None = None
        self._from_codec: LiveResampler = live_resampler(8000, 8000)
        self._to_codec: LiveResampler = live_resampler(8000, 8000)
        self._left: Pcm | None = None
        self._delay_s = 0.06

    async def start(self) -> None:
        """Listen for synthesised audio; an endpoint that knows its codec by itself is connected."""
        self.touched_at = self._loop.time()
        await self._speech.start()
        if self.endpoint.codec is not None:
            self._codec_known()

    @property
    def key(self) -> LegKey:
        """What names the leg among all others."""
        return self.call_id, self.leg_id

    @property
    def connected(self) -> bool:
        """Whether the codec is known, and audio flows."""
        return self._playback is not None

    @property
    def row(self) -> int | None:
        """Of the speech detector."""
        return self._track.row if self._track is not None else None

    @property
    def asr_worker(self) -> str | None:
        """The asr instance that listens to this leg."""
        return self._recognition.worker if self._recognition is not None else None

    # -- requests of the owner ------------------------------------------------------------------------

    def connect(self, remote: RemoteMedia) -> None:
        """Send to and expect from here; `remote.address` is an IP literal."""
        now = self.touched_at = self._loop.time()
        if self.endpoint.connect(remote, now):
            self._codec_known()
        self._missed_at = now
        self._release_errors()
        self._log.info(
            "leg.connected", remote=f"{remote.address}:{remote.port}", codec=remote.codec, direction=remote.direction
        )

    def configure(self, wanted: ConfigureLeg) -> None:
        """What is done with the audio; a part that can't work is left out and becomes an `error` event.

        Errors wait for the answer when that is still to come. Else they wait for the next `connect`, at most a second.
        """
        self.touched_at = self._loop.time()
        if wanted.answered is not None:
            self._awaits_answer = not wanted.answered
        if wanted.answered:
            self._release_errors()
        elif self._held is None:
            self._held = []
            self._loop.call_later(_ERRORS_HELD_S, self._release_errors)
        if wanted.denoise is not None:
            self._wanted.denoise = wanted.denoise
        if wanted.vad is not None:
            if wanted.vad.type.lower() not in (_VAD_TYPE, translate.NO_VAD):
                self._complain("vad", 400, f"unknown VAD type {wanted.vad.type!r}, {_VAD_TYPE} is used")
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
            self._ambiance = wanted.ambiance if wanted.ambiance.enabled is not False else None
            self.mix.ambiance = None
            if self._ambiance is not None and self.connected:
                self._do(self._load_ambiance(self._ambiance))
        if wanted.subscribe is not None:
            self._wanted.subscribe = wanted.subscribe
        if wanted.inactivity_timeout_s is not None:
            self._wanted.inactive_after_s = wanted.inactivity_timeout_s
        if wanted.media_pass is not None and self._media_pass is None:
            self._pass_media(wanted.media_pass)
        for name in wanted.unsupported or ():
            self._complain(name, 404, f"{name} is not supported")
        if self.connected:
            self._apply()

    async def settle(self) -> None:
        """Give what `configure` began a moment, so that its trackStart is stored before the owner answers the call."""
        if self._media_pass is not None:
            await self._media_pass.settled(_SETTLE_S)
            await self._outbox.flush()

    def command(self, command: PlaybackCommand, *, loop: bool = False) -> None:
        """A client's playback command; a file is repeated with `loop`. Raises Refused."""
        self.touched_at = self._loop.time()
        if isinstance(command, commands.Mute | commands.Unmute):
            self._mute(command.track_id, isinstance(command, commands.Mute))
            return
        if self._playback is None:
            match command:
                case commands.Interrupt():
                    return  # nothing plays, which is no fault (G4)
                case commands.Pause() | commands.Resume():
                    raise Refused(404, f"track not found: {self.server_track}")
                case _:
                    raise Refused(409, f"{command.command}: the leg has no media yet")
        arrived = core.Loop(command) if loop and isinstance(command, commands.Play) else command
        self._perform(self._playback.receive(arrived, self._loop.time()))

    async def stop_playback(self, *, interruption: bool, play_id: str | None = None) -> None:
        """End what plays (if it is `play_id`, when given), without hanging up; its trackEnd is stored on return."""
        self.touched_at = now = self._loop.time()
        if self._playback is not None and play_id in (None, self._playback.play_id):
            self._perform(self._playback.receive(commands.Interrupt() if interruption else core.Stop(), now))
        await self._outbox.flush()

    def note_input(self) -> None:
        """The remote party gave a sign outside RTP."""
        if self._playback is not None:
            self._playback.receive(core.InputHeard(), self._loop.time())

    async def bridge(self, other: str) -> None:
        """Patch the remote party through to that of another call. Raises Refused."""
        self.touched_at = self._loop.time()
        await self._patches.add(other)

    async def unbridge(self, other: str) -> None:
        """Undo it."""
        self.touched_at = self._loop.time()
        await self._patches.remove(other)

    def forward_dtmf_to(self, other: Joinable | None) -> None:
        """Send the digits of the remote party to that of another leg, too; None ends that."""
        self._dtmf_to = other

    def send_dtmf(self, digit: str) -> None:
        """Send a digit to the remote party, when it understands telephone-events."""
        self.endpoint.send_dtmf(digit)

    def pause_recognition(self, paused: bool) -> None:
        """Recognise nothing until it is said again."""
        if paused == self._recognition_paused:
            return
        self._recognition_paused = paused
        if self._track is not None and paused:
            self._report(self._track, list(self._track.stop_cutting()))
        elif self._track is not None and self._recognition is not None:
            self._track.cut_utterances()

    async def close(self) -> LegClosed:
        """End the leg; its events are stored and its recording is complete when this returns.

        The engine no longer drives it.
        """
        self._awaits_answer = False
        self._release_errors()
        if self.join is not None:
            self.join.end()
        if self._playback is not None:
            self._perform(self._playback.receive(core.Close(), self._loop.time()))
        if self._track is not None:
            self._report(self._track, list(self._track.finish()))
        if self._media_pass is not None:
            await self._media_pass.close()
        await self._speech.close()
        await self._patches.close()
        await self._live.close()
        for task in self._tasks:
            task.cancel()
        if self._recognition is not None:
            await self._recognition.close(FINALS_WAIT_S)
        self.endpoint.close()
        if self._recording is not None:
            await self._recording.close()
        await self._outbox.close(OUTBOX_WAIT_S)
        await cancel_all(self._tasks)  # what the last events began, too: the owner that closed the leg needs no telling
        self._log.info("leg.closed", packets_in=self.endpoint.accepted, packets_out=self.endpoint.packets_sent,
                 ignored=dict(self.endpoint.ignored()))  # fmt: skip
        return LegClosed(recordings=self._recorded())

    def _recorded(self) -> tuple[RecordedFile, ...]:
        recording = self._recording
        if recording is None or recording.size_bytes is None:
            return ()
        return (RecordedFile(track_id=self.main_track, path=str(recording.path), size_bytes=recording.size_bytes),)

    def asr_lost(self) -> None:
        """The asr worker fell silent."""
        if self._recognition is not None:
            self._log.warning("leg.asr_lost", worker=self._recognition.worker)
            self._recognition.worker_lost()

    # -- the tick -------------------------------------------------------------------------------------

    def receive(self, now: float) -> None:
        """Take what has arrived on the sockets."""
        self.remote_party = (
            None  # until `process_inbound`, which may fail or not be called: the last frame must not go on sounding
        )
        digits = self.endpoint.drain(now)
        if not self._ready and self.endpoint.accepted:
            self._ready = True
            if self.leg_id == MAIN_LEG and self._kind != "socket":
                self._outbox.put(events.MediaReady(track_id=self.main_track, timestamp=_now_ms()))
            self._log.info("leg.media_ready")
        if digits and self.main_track not in self.muted and self._playback is not None:
            for digit in digits:
                self._outbox.put(
                    events.Dtmf(track_id=self.main_track, timestamp=_now_ms(), digit=digit, refer=self._refer)
                )
                if self._dtmf_to is not None:
                    self._dtmf_to.send_dtmf(digit)
            self._playback.receive(core.InputHeard(), self._loop.time())
        if self._wanted.inactive_after_s > 0 and not self._told_inactive:
            self._watch_activity(now)

    def process_inbound(self, audio: Pcm | NoAudio, wall: float) -> None:
        """The next 20 ms of the remote party, at the codec's rate, or why there are none; `wall` is Unix time."""
        assert self._track is not None
        assert self._concealer is not None
        if not isinstance(audio, NoAudio):
            pcm = self._concealer.good(audio)
        elif audio is MISSING:
            pcm = self._concealer.lost(self._codec_samples)
        else:
            self._concealer.silence()
            pcm = np.zeros(self._codec_samples, np.int16)
        track = self._track
        track.silenced = self.endpoint.on_hold or self.main_track in self.muted
        self._left, effects = track.process_inbound(self._from_codec.process(pcm), wall - self._delay_s)
        nothing_came = isinstance(audio, NoAudio) and audio is not MISSING
        self.remote_party = None if track.silenced or nothing_came else self._left
        if self.remote_party is not None:
            self._patches.put(self.rate_hz, self.remote_party)
        if self._media_pass is not None:
            self._media_pass.put(self.rate_hz, self._left)
        if self._subscriber is not None and self._ready:
            self._subscriber.main(self._left)
        self._report(track, list(effects))

    def on_speech_probability(self, probability: float, end_sample: int) -> None:
        """The speech detector's verdict on a window of the remote party."""
        if self._track is not None:
            self._report(self._track, self._track.on_speech_probability(probability, end_sample))

    def next_outbound_frame(self, now: float) -> Pcm | None:
        """The next 20 ms to send, at the codec's rate; None is silence."""
        assert self._playback is not None
        self._perform(self._playback.receive(core.TICK, now))
        frame = self.mix.next_frame(self._playback.next_frame(self._samples), self.rate_hz, self.muted)
        if self._subscriber is not None and frame is not None:
            self._subscriber.server(frame)
        if self._recording is not None:
            self._recording.write(self._left, frame)
        if frame is None:
            return None
        if (entry := self._ledger.sent(time.time())) is not None:
            self._put_metrics(TURN, entry["rtp"], entry)
        return self._to_codec.process(frame)

    def report(self, now: float) -> None:
        """Every 5 s: RTCP, and what the metrics need."""
        self.endpoint.report(time.time(), now)
        if self.connected:
            statistics = self.endpoint.statistics()
            # A frame is spoken a packet's length before it arrives, and played when the jitter buffer lets it go.
            self._delay_s = statistics.target_delay + _FRAME_S
            metrics.JITTER.observe(statistics.jitter_seconds)

    def count(self) -> None:
        """Add what happened since the last time to the process's metrics."""
        concealed = self.endpoint.statistics().concealed
        seen = _Counted(
            self.endpoint.accepted,
            self.endpoint.packets_sent,
            max(concealed, self._counted.concealed),
            self._playback.underruns if self._playback is not None else 0,
        )
        metrics.PACKETS_IN.inc(seen.packets_in - self._counted.packets_in)
        metrics.PACKETS_OUT.inc(max(0, seen.packets_out - self._counted.packets_out))
        metrics.LOST.inc(seen.concealed - self._counted.concealed)
        metrics.UNDERRUNS.inc(seen.underruns - self._counted.underruns)
        self._counted = seen

    # -- configuration --------------------------------------------------------------------------------

    @property
    def _codec_samples(self) -> int:
        assert self.endpoint.codec is not None
        return self.endpoint.codec.format.sample_rate_hz // FRAMES_PER_SECOND

    def _codec_known(self) -> None:
        """Audio has a codec now, or another one."""
        self._missed_at = self._loop.time()
        assert self.endpoint.codec is not None
        codec_hz = self.endpoint.codec.format.sample_rate_hz
        if self._playback is None:
            self._open(codec_hz)
        self._concealer = Concealer(codec_hz)
        self._from_codec = live_resampler(codec_hz, self.rate_hz)
        self._to_codec = live_resampler(self.rate_hz, codec_hz)

    def _open(self, rate_hz: int) -> None:
        """The first codec is known: from here on there is audio."""
        config = self._config
        self.rate_hz, self._samples = rate_hz, rate_hz // FRAMES_PER_SECOND
        self._track = InboundTrack(rate_hz, self._detector)
        self._playback = core.Playback(
            core.SpeechLine(
                self.call_id,
                rate_hz,
                self._bus_track("server"),
                providers=config.providers.tts,
                speakers=config.providers.speakers,
            ),
            track_id=self.server_track,
            limits=core.Limits(
                segment_grace_s=config.tts_segment_grace,
                stream_flush_s=config.tts_stream_flush,
                stream_idle_s=config.tts_stream_idle,
            ),
        )
        self._apply()
        if self._ambiance is not None:
            self._do(self._load_ambiance(self._ambiance))

    def _apply(self) -> None:
        assert self._track is not None
        assert self._playback is not None
        wanted = self._wanted
        self._track.denoise(wanted.denoise)
        if wanted.vad is not None:
            self._track.report_speech(translate.endpointing_options(wanted.vad))
        if wanted.agc is not None:
            self._track.control_gain(translate.gain_options(wanted.agc))
        if wanted.asr is not None:
            self._recognise(wanted.asr)
            if not self._recognition_paused:
                self._track.cut_utterances()
        # On `/call` the socket carries the audio itself.
        if not wanted.subscribe or self._kind == "socket":
            self._subscriber = None
        elif self._subscriber is None:
            self._subscriber = Subscriber(self._bus, self.call_id, self._live, self.rate_hz)
        if wanted.tts is not None:
            self._playback.receive(core.Configure(wanted.tts), self._loop.time())
        if self._recording is not None:
            self._recording.start(self.rate_hz)

    async def _load_ambiance(self, option: AmbianceOption) -> None:
        if not option.path:
            self._complain(_AMBIANCE, 400, "path: missing")
            return
        try:
            pcm = await self._loader.load(option.path, self.rate_hz)
        except LoadError as error:
            self._complain(_AMBIANCE, error.code, str(error))
            return
        if self._ambiance is option and len(pcm):
            self.mix.ambiance = Ambiance(
                pcm, normal=option.normal_level, ducked=option.duck_level, transition=option.transition_speed
            )

    def _pass_media(self, option: MediaPassOption) -> None:
        """Open the client's WebSocket; it is a part of the server-side track, and one of its own in events."""
        track = self.server_track

        def started() -> None:
            self._outbox.put(events.TrackStart(track_id=track, timestamp=_now_ms()))
            self.mix.put(_MEDIA_PASS, media_pass)

        def ended(duration_ms: int) -> None:
            self.mix.drop(_MEDIA_PASS)
            self._outbox.put(
                events.TrackEnd(track_id=track, timestamp=_now_ms(), duration=duration_ms, ssrc=self.endpoint.ssrc)
            )

        def failed(code: int, reason: str) -> None:
            self._complain(f"media_pass: {option.url}", code, reason, track=track)

        media_pass = MediaPass(self._fetcher, option, track, started=started, ended=ended, failed=failed)
        self._media_pass = media_pass
        media_pass.open()

    def _bus_track(self, side: str) -> str:
        """The name of this leg's audio on the bus: `main` and `server`, of further legs with their id before it."""
        return side if self.leg_id == MAIN_LEG else f"{self.leg_id}-{side}"

    def _want_recognition(self, option: TranscriptionOption) -> None:
        try:
            self._wanted.asr = providers.recognition(option, self._config.providers.asr)
        except providers.NotAvailable as missing:
            self._complain("asr", 404, str(missing))

    def _recognise(self, option: TranscriptionOption) -> None:
        """Open the session, or another one where the options changed."""
        before = self._recognition
        if before is not None and before.option == option:
            return
        self._recognition = Recognition(
            self._bus,
            self.call_id,
            self._bus_track("main"),
            option,
            self.rate_hz,
            heard=self._on_transcript,
            failed=lambda code, reason: self._complain("asr", code, reason),
            clock=time.time,
            is_there=lambda: self._is_there("asr"),
        )
        self._recognition.start(after=before.close(FINALS_WAIT_S) if before is not None else None)

    def _record(self, option: RecorderOption) -> None:
        config = self._config
        if option.format.lower() != "wav":
            self._complain("recorder", 400, f"recordings are wav files, not {option.format!r}")
            return
        try:
            path = recording_path(
                Path(config.recorder_path),
                self.call_id,
                option.recorder_file,
                allow_absolute=config.recording.allow_absolute_paths,
            )
        except UnsafePathError as error:
            self._complain("recorder", 400, str(error))
            return
        self._recording = Recording(
            path, option.samplerate, option.ptime, lambda reason: self._complain("recorder", 500, reason)
        )

    def _complain(self, sender: str, code: int | None, reason: str, *, track: str | None = None) -> None:
        """An `error` event, of the main track as a rule; while the answer is on its way, it waits for that."""
        track = track or self.main_track
        if self._held is not None:
            self._held.append((track, sender, code, reason))
        else:
            self._put_error(track, sender, code, reason)

    def _release_errors(self) -> None:
        if self._awaits_answer:
            return
        held, self._held = self._held, None
        for error in held or ():
            self._put_error(*error)

    def _mute(self, track_id: str | None, muted: bool) -> None:
        """In place: the set is the whole call's."""
        known = {self.main_track, self.server_track} | self.mix.tracks
        tracks = known if track_id is None else known & {track_id}
        if muted:
            self.muted.update(tracks)
        elif track_id is None:
            self.muted.clear()
        else:
            self.muted.discard(track_id)

    def _watch_activity(self, now: float) -> None:
        """Tell the owner, once, when nothing was heard of the remote party for the inactivity timeout."""
        if self._missed_at is None:
            return
        if self.endpoint.on_hold or not self.endpoint.ready:
            self._missed_at = now
        since = max(self._missed_at, self.endpoint.heard_at or 0.0)
        if now - since > self._wanted.inactive_after_s:
            self._told_inactive = True
            self._log.info("leg.inactive", seconds=round(now - since, 1))
            self._outbox.then(self._tell_later(LegInactive(call_id=self.call_id)))

    # -- what the remote party says -------------------------------------------------------------------

    def _report(self, track: InboundTrack, effects: list[InboundEffect]) -> None:
        for effect in effects:
            match effect:
                case SpeechStarted(at):
                    self._put_speaking(_ms(track.wall(at)))
                case SpeechStopped(ended_at=ended_at, silence_s=silence_s):
                    self._put_silence(self.main_track, _ms(track.wall(ended_at)), _ms(silence_s), refer=self._refer)
                case SilenceTimeout(started_at, duration_s):
                    self._put_silence(self.main_track, _ms(track.wall(started_at)), _ms(duration_s), refer=self._refer)
                case UtteranceStarted() if self._recognition is not None:
                    self._recognition.begin(effect.index, track.wall(effect.started_at))
                case UtteranceAudio() if self._recognition is not None:
                    self._recognition.audio(effect.index, effect.pcm)
                case UtteranceEnded() if self._recognition is not None:
                    self._recognition.end(effect.index, track.wall(effect.ended_at), effect.samples)

    def _on_transcript(self, heard: Heard) -> None:
        utterance, transcript, now = heard.utterance, heard.transcript, time.time()
        if transcript.failure is not None:
            self._complain("asr", 500, transcript.failure)
        elif not transcript.final and not transcript.text:
            return
        kind = events.AsrFinal if transcript.final else events.AsrDelta
        ended = now if utterance.ended is None else utterance.ended
        self._outbox.put(
            kind(
                track_id=self.main_track,
                timestamp=_ms(now),
                index=utterance.index,
                text=transcript.text,
                start_time=_ms(utterance.started),
                end_time=max(_ms(ended), _ms(utterance.started)),
                confidence=transcript.confidence,
                refer=True if self._refer else None,
            )
        )
        name, index = heard.provider, {"index": utterance.index}
        if transcript.final:
            self._put_metrics(f"completed.asr.{name}", _ms(now - ended), index)
            if transcript.text:
                self._ledger.final(utterance.index, ended, now)
        elif heard.first:
            self._put_metrics(f"ttfb.asr.{name}", _ms(now - utterance.started), index)
        if self._playback is not None:
            self._playback.receive(core.InputHeard(), self._loop.time())

    # -- what the remote party hears ------------------------------------------------------------------

    def speech_audio(self, utterance_id: str, pcm: Pcm) -> None:
        """Synthesised audio at the leg's rate."""
        if self._playback is not None:
            self._ledger.audio(time.time())
            self._perform(self._playback.receive(core.SpeechAudio(utterance_id, pcm), self._loop.time()))

    def speech_done(self, utterance_id: str, *, cached: bool, ttfb_ms: int | None) -> None:
        """An utterance is complete."""
        if self._playback is not None:
            self._perform(self._playback.receive(core.SpeechDone(utterance_id, cached, ttfb_ms), self._loop.time()))

    def speech_failed(self, utterance_id: str, code: int, reason: str, *, fatal: bool) -> None:
        """An utterance gets no further audio."""
        if self._playback is not None:
            failed = core.SpeechFailed(utterance_id, code, reason, fatal)
            self._perform(self._playback.receive(failed, self._loop.time()))

    def _perform(self, effects: list[core.PlaybackEffect]) -> None:
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: core.PlaybackEffect) -> None:
        put, track, now = self._outbox.put, self.server_track, _now_ms()
        match effect:
            case Speak():
                self._ledger.text(time.time())
                self._speech.request(effect)
            case core.CancelSpeech(utterance_id):
                self._speech.cancel(utterance_id)
            case core.LoadFile(token, url):
                self._do(self._load(token, url))
            case core.Started(play_id):
                put(events.TrackStart(track_id=track, timestamp=now, play_id=play_id))
            case core.Ended(play_id, duration_ms, auto_hangup):
                put(
                    events.TrackEnd(
                        track_id=track, timestamp=now, duration=duration_ms, ssrc=self.endpoint.ssrc, play_id=play_id
                    )
                )
                if auto_hangup:
                    self._outbox.then(self._tell_later(PlaybackEnded(call_id=self.call_id)))
            case core.Interrupted():
                put(translate.interruption(effect, track, now))
            case core.Failed(sender, code, reason) | core.Refused(sender, code, reason):
                # A command that failed is told on the main track, whatever it was about (section 2).
                self._put_error(self.main_track if sender == "command" else track, sender, code, reason)
            case core.SpeechCompleted():
                self._put_metrics(
                    f"completed.tts.{effect.provider}", effect.duration_ms, translate.completed_data(effect)
                )
            case InputTimeout(started_at, duration_ms):
                started = time.time() - (self._loop.time() - started_at)
                self._put_silence(track, _ms(started), duration_ms)

    async def _load(self, token: str, url: str) -> None:
        assert self._playback is not None
        try:
            pcm = await self._loader.load(url, self.rate_hz)
        except LoadError as error:
            self._log.warning("leg.file_failed", url=masked(url), reason=str(error))
            failed = core.FileFailed(token, str(error), error.code)
            self._perform(self._playback.receive(failed, self._loop.time()))
        else:
            self._perform(self._playback.receive(core.FileLoaded(token, pcm), self._loop.time()))

    def _tell_later(self, request: Request[Taken]) -> Action:
        """Tell the owner, without holding up the events behind this one."""

        async def tell() -> None:
            self._do(self._tell(request))

        return tell

    async def _tell(self, request: Request[Taken]) -> None:
        for _ in range(_TELL_ATTEMPTS):
            try:
                await self._bus.request(request)
                return
            except (BusError, Refused) as error:
                self._log.warning("leg.owner_not_told", error=str(error))
            await asyncio.sleep(1.0)

    # -- events ---------------------------------------------------------------------------------------

    def _put_speaking(self, start_ms: int) -> None:
        refer = True if self._refer else None
        event = events.Speaking(track_id=self.main_track, timestamp=_now_ms(), start_time=start_ms, refer=refer)
        self._outbox.put(event)
        if self._playback is not None:
            self._playback.receive(core.InputHeard(), self._loop.time())

    def _put_silence(self, track: str, start_ms: int, duration_ms: int, *, refer: bool = False) -> None:
        event = events.Silence(
            track_id=track,
            timestamp=_now_ms(),
            start_time=start_ms,
            duration=duration_ms,
            refer=True if refer else None,
        )
        self._outbox.put(event)

    def _put_error(self, track: str, sender: str, code: int | None, reason: str) -> None:
        """Protocol 3.5 has one code for whatever a provider can't do: no worker, no answer in time, a failure."""
        code = code if code is None else min(code, 500)
        event = events.ErrorEvent(track_id=track, timestamp=_now_ms(), sender=sender, error=reason, code=code)
        self._outbox.put(event)

    def _put_metrics(self, key: str, duration_ms: int, data: Mapping[str, Any]) -> None:
        event = events.Metrics(timestamp=_now_ms(), key=key, duration=max(0, duration_ms), data=dict(data))
        self._outbox.put(event)

    def _do(self, work: Any) -> None:
        """Run a coroutine that ends with the leg."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _now_ms() -> int:
    return round(time.time() * 1000)
