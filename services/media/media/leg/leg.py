"""One leg, from its allocation to its end, wired from its endpoint to the bus.

`leg_audio` is its 20 ms path, which begins with the first codec; `hearing` and `playing` are what its remote party says
and hears; `options` is what `ConfigureLeg` asked for; `events` and `tellings` are what goes out to clients and to the
owner. Nothing that the engine calls ever waits.
"""

import asyncio
import time

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Refused
from dialbus.contracts import commands
from dialbus.contracts.media import MAIN_LEG, AllocateLeg, ConfigureLeg, LegClosed, PlaybackCommand, RemoteMedia
from dialbus.tasks import TaskSet
from media.audio.codec import Codec
from media.endpoint.endpoint import Endpoint
from media.leg.activity import Activity
from media.leg.counts import LegCounts
from media.leg.events import LegEvents
from media.leg.hearing import Hearing
from media.leg.inbound_track import InboundTrack
from media.leg.ledger import TurnLedger
from media.leg.leg_audio import LegAudio
from media.leg.muting import Muting
from media.leg.options import LegOptions
from media.leg.outbox import Outbox
from media.leg.playing import Playing, playback_of
from media.leg.resources import Resources
from media.leg.tellings import Tellings
from media.leg.translate import bus_track
from media.mix.join import Join, Joinable
from media.mix.live import BridgeFeed, LiveSender
from media.mix.mixing import Mix
from media.mix.patch import Patches
from media.speech.synthesis import Synthesis
from media.turn import playback as core

LegKey = tuple[str, str]
"""`call_id` and `leg_id`."""

log = telemetry.get_logger()

OUTBOX_WAIT_S = 3.0


class Leg:
    """What the owner's requests and the engine's ticks do to one leg."""

    def __init__(
        self, resources: Resources, allocation: AllocateLeg, endpoint: Endpoint, muted: set[str] | None = None
    ) -> None:
        """`muted` holds the ids of the call's muted tracks, shared by all its legs."""
        self.call_id = allocation.call_id
        self.leg_id = allocation.leg_id
        self.main_track = allocation.main_track
        self.endpoint = endpoint
        self.mix = Mix(allocation.server_track)
        self.join: Join | None = None
        self.muting = Muting(allocation.main_track, allocation.server_track, self.mix, muted)
        self.audio: LegAudio | None = None
        """From the first codec on."""
        self.touched_at = 0.0
        """When the owner last asked for something, on the loop's clock."""
        bus = resources.bus
        self._log = log.bind(call_id=self.call_id, leg_id=self.leg_id)
        self._resources = resources
        self._allocation = allocation
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskSet(call_id=self.call_id, leg_id=self.leg_id)
        self._outbox = Outbox(bus, self.call_id)
        self._events = LegEvents(allocation, self._outbox)
        self.tellings = Tellings(bus, allocation, self._outbox, self._tasks)
        self._speech = Synthesis(
            bus, self.call_id, bus_track(allocation, "server"), is_full=lambda: resources.is_full("tts")
        )
        self._live = LiveSender("/".join(self.key))
        self._patches = Patches(bus, self.call_id, self.mix, BridgeFeed(bus, self.call_id, self._live))
        self._options = LegOptions(
            resources, allocation, endpoint.ssrc, self.mix, self._live, self._events, self._tasks
        )
        self._activity = Activity()
        self._counts = LegCounts()
        self._dtmf_to: Joinable | None = None
        self._ready = False

    def __repr__(self) -> str:
        audio = self.audio
        state = "no codec yet" if audio is None else f"{audio.codec.format.name} {audio.playing.playback!r}"
        return (
            f"<Leg {self.call_id}/{self.leg_id} {self._allocation.kind} {state}"
            f" in={self.endpoint.accepted} out={self.endpoint.packets_sent}>"
        )

    def touch(self) -> None:
        """Somebody cares for it."""
        self.touched_at = self._loop.time()

    async def start(self) -> None:
        """Listen for synthesised audio; an endpoint that knows its codec by itself is connected."""
        self.touch()
        await self._speech.start()
        if self.endpoint.codec is not None:
            self._use(self.endpoint.codec)

    @property
    def key(self) -> LegKey:
        """What names the leg among all others."""
        return self.call_id, self.leg_id

    @property
    def rate_hz(self) -> int:
        """Of its audio; 0 until there is any."""
        return 0 if self.audio is None else self.audio.rate_hz

    @property
    def remote_party(self) -> Pcm | None:
        """The remote party in this tick, as others may hear it; None when there is nothing to hear."""
        return None if self.audio is None else self.audio.remote_party

    @property
    def asr_worker(self) -> str | None:
        """The asr instance that listens to this leg."""
        return None if self.audio is None else self.audio.hearing.asr_worker

    # -- requests of the owner --------------------------------------------------------------------

    def connect(self, remote: RemoteMedia) -> None:
        """Send to and expect from here; `remote.address` is an IP literal."""
        self.touch()
        now = self._loop.time()
        is_other_codec = self.endpoint.connect(remote, now)
        if is_other_codec and self.endpoint.codec is not None:
            self._use(self.endpoint.codec)
        self._activity.expect(now)
        self._events.release_errors()
        self._log.info(
            "leg.connected", remote=f"{remote.address}:{remote.port}", codec=remote.codec, direction=remote.direction
        )

    def configure(self, wanted: ConfigureLeg) -> None:
        """What is done with the audio; a part that can't work is left out and becomes an `error` event.

        Errors wait for the answer when that is still to come. Else they wait for the next `connect`, at most a second.
        """
        self.touch()
        self._events.hold_errors(answered=wanted.answered)
        if wanted.inactivity_timeout_s is not None:
            self._activity.limit_s = wanted.inactivity_timeout_s
        self._options.take(wanted, self.audio)

    async def settle(self) -> None:
        """Give what `configure` began a moment, so that its trackStart is stored before the owner answers the call."""
        if await self._options.settle():
            await self._outbox.flush()

    def command(self, command: PlaybackCommand, *, loop: bool = False) -> None:
        """A client's playback command; a file is repeated with `loop`. Raises Refused."""
        self.touch()
        if isinstance(command, commands.Mute | commands.Unmute):
            self.muting.apply(command)
        elif self.audio is not None:
            looped = core.Loop(command) if loop and isinstance(command, commands.Play) else command
            self.audio.playing.receive(looped)
        elif isinstance(command, commands.Pause | commands.Resume):
            raise Refused(404, f"track not found: {self._allocation.server_track}")
        elif not isinstance(command, commands.Interrupt):  # nothing plays, which is no fault of that one (G4)
            raise Refused(409, f"{command.command}: the leg has no media yet")

    async def stop_playback(self, *, interruption: bool, play_id: str | None = None) -> None:
        """End what plays (if it is `play_id`, when given), without hanging up; its trackEnd is stored on return."""
        self.touch()
        if self.audio is not None and play_id in (None, self.audio.playing.playback.play_id):
            self.audio.playing.receive(commands.Interrupt() if interruption else core.Stop())
        await self._outbox.flush()

    def note_input(self) -> None:
        """The remote party gave a sign outside RTP."""
        if self.audio is not None:
            self.audio.playing.input_heard()

    async def bridge(self, other: str) -> None:
        """Patch the remote party through to that of another call. Raises Refused."""
        self.touch()
        await self._patches.add(other)

    async def unbridge(self, other: str) -> None:
        """Undo it."""
        self.touch()
        await self._patches.remove(other)

    def forward_dtmf_to(self, other: Joinable | None) -> None:
        """Send the digits of the remote party to that of another leg, too; None ends that."""
        self._dtmf_to = other

    def send_dtmf(self, digit: str) -> None:
        """Send a digit to the remote party, when it understands telephone-events."""
        self.endpoint.send_dtmf(digit)

    def pause_recognition(self, paused: bool) -> None:
        """Recognise nothing until it is said again."""
        self._options.pause_recognition(paused, self.audio)

    def asr_lost(self) -> None:
        """The asr worker fell silent."""
        if self.audio is not None:
            self.audio.hearing.asr_lost()

    async def close(self) -> LegClosed:
        """End the leg; its events are stored and its recording is complete when this returns.

        The engine no longer drives it.
        """
        self._events.release_errors(end=True)
        if self.join is not None:
            self.join.end()
        if self.audio is not None:
            self.audio.playing.receive(core.Close())
            self.audio.hearing.finish()
        await self._options.close_media_pass()
        await self._speech.close()
        await self._patches.close()
        await self._live.close()
        self._tasks.cancel()
        if self.audio is not None:
            await self.audio.hearing.close()
        self.endpoint.close()
        recordings = await self._options.close_recording()
        await self._outbox.close(OUTBOX_WAIT_S)
        await self._tasks.close()  # what the last events began, too: the owner that closed the leg needs no telling
        self._log.info("leg.closed", packets_in=self.endpoint.accepted, packets_out=self.endpoint.packets_sent,
                 ignored=dict(self.endpoint.ignored()))  # fmt: skip
        return LegClosed(recordings=recordings)

    # -- the tick ---------------------------------------------------------------------------------

    def receive(self, now: float) -> None:
        """Take what has arrived from the remote party; its audio is processed by `audio`, when there is any."""
        audio = self.audio
        if audio is not None:
            # Until `process_inbound`, which may fail or not be called: the last frame must not go on sounding.
            audio.remote_party = None
        digits = self.endpoint.drain(now)
        if not self._ready and self.endpoint.accepted:
            self._ready = True
            if self.leg_id == MAIN_LEG and self._allocation.kind != "socket":
                self._events.media_ready()
            self._log.info("leg.media_ready")
        if digits and audio is not None and self.main_track not in self.muting.tracks:
            for digit in digits:
                self._events.dtmf(digit)
                if self._dtmf_to is not None:
                    self._dtmf_to.send_dtmf(digit)
            audio.playing.input_heard()
        if (silent_s := self._activity.silent_for(self.endpoint, now)) is not None:
            self._log.info("leg.inactive", seconds=round(silent_s, 1))
            self.tellings.inactive()

    def report(self, now: float) -> None:
        """Every 5 s: RTCP, and what the metrics need."""
        self.endpoint.report(time.time(), now)
        if self.audio is not None:
            self.audio.report()

    def count(self) -> None:
        """Add what happened since the last time to the process's metrics."""
        self._counts.add(self.endpoint, 0 if self.audio is None else self.audio.playing.playback.underruns)

    # -- the codec --------------------------------------------------------------------------------

    def _use(self, codec: Codec) -> None:
        """Audio has a codec now, or another one."""
        self._activity.expect(self._loop.time())
        if self.audio is not None:
            self.audio.use(codec)
            return
        self.audio = self._begin_audio(codec)
        self._options.begin(self.audio)

    def _begin_audio(self, codec: Codec) -> LegAudio:
        resources, allocation, ledger = self._resources, self._allocation, TurnLedger()
        rate_hz = codec.format.sample_rate_hz
        playing = Playing(
            playback_of(allocation, rate_hz, resources.config),
            rate_hz,
            self.endpoint.ssrc,
            self._speech,
            resources.loader,
            self._events,
            self.tellings,
            ledger,
            self._tasks,
        )
        track = InboundTrack(rate_hz, resources.detector)
        hearing = Hearing(resources, allocation, track, self._events, ledger, playing.input_heard)
        return LegAudio(
            self.key,
            codec,
            self.endpoint,
            hearing,
            playing,
            self.mix,
            self._patches,
            self.muting.tracks,
            self._events,
            ledger,
        )
