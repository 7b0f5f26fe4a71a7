"""The media service as a process; the owner, asr and tts as the test plays them; phones on real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from dialbus.bus import Bus
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.events import CLIENT_EVENT
from dialbus.contracts.media import (
    MAIN_LEG,
    AllocateBeside,
    AllocateLeg,
    CloseLeg,
    ConfigureLeg,
    ConnectLeg,
    JoinLegs,
    LegAllocated,
    LegClosed,
    LegLost,
    Playback,
    PlaybackEnded,
    RemoteMedia,
    StopPlayback,
)
from dialbus.contracts.session import Heartbeat
from dialbus.contracts.speech import (
    CancelSpeech,
    CloseTranscription,
    OpenTranscription,
    Speak,
    SpeechTaken,
    Transcript,
    TranscriptionOpened,
)
from dialbus.tasks import cancel_all
from tests.harness import START_TIMEOUT_S, STOP_TIMEOUT_S, ServiceProcess, eventually, requests_to, spawn
from tests.peers.rtp import PAYLOAD_TYPES, TELEPHONE_EVENT, RtpPeer, open_peer

Pcm = npt.NDArray[np.int16]
SERVER = "server-side-track"


@pytest.fixture(scope="module")
def media_env(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of the media worker that the tests of a module share."""
    folder = tmp_path_factory.mktemp("media")
    return {
        "DIALBUS_NATS_URL": nats_url,
        "DIALBUS_HTTP_ADDR": "192.0.2.1:8080",
        "DIALBUS_HEALTH_ADDR": "127.0.0.1:0",
        "DIALBUS_RTP_BIND_IP": "127.0.0.1",
        "DIALBUS_PROVIDERS_ASR": '{"tencent": "whisper"}',
        "DIALBUS_PROVIDERS_TTS": '{"tencent": "piper"}',
        "DIALBUS_PROVIDERS_SPEAKERS": '{"601003": ""}',
        "DIALBUS_RECORDER_PATH": str(folder / "recorders"),
        "DIALBUS_MEDIA_PATH": str(folder / "media"),
    }


@pytest.fixture(scope="module")
def media(media_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A running media worker: one for a module, since each test has calls of its own."""
    run_dir = tmp_path_factory.mktemp("run")
    service = spawn("media", media_env, run_dir)
    announcement = run_dir / f"media-{service.instance}.json"
    try:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not announcement.exists():
            assert service.process.poll() is None, service.log
            assert time.monotonic() < give_up_at, service.log
            time.sleep(0.02)
        yield service
        if service.process.poll() is None:
            service.process.terminate()
            assert service.process.wait(STOP_TIMEOUT_S) == 0, service.log
        assert "Traceback" not in service.log, service.log
    finally:
        service.kill()


@dataclass(slots=True)
class Call:
    """One leg of a call as its owner and its phone see it."""

    bus: Bus
    call_id: str
    phone: RtpPeer
    allocated: LegAllocated
    leg_id: str = MAIN_LEG
    events: list[dict[str, Any]] = field(default_factory=list)
    """Every event stored so far, in order."""
    ended: "asyncio.Queue[PlaybackEnded]" = field(default_factory=asyncio.Queue)
    lost: "asyncio.Queue[LegLost]" = field(default_factory=asyncio.Queue)
    closed: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _beside: "list[Call]" = field(default_factory=list)
    _task: "asyncio.Task[None] | None" = None

    async def connect(self, **changes: Any) -> None:
        """ConnectLeg towards the phone."""
        host, port = self.phone.address
        remote = RemoteMedia(
            address=host,
            port=port,
            codec=self.phone.codec,
            payload_type=PAYLOAD_TYPES[self.phone.codec],
            telephone_event_pt=TELEPHONE_EVENT,
        ).model_copy(update=changes)
        await self.bus.request(ConnectLeg(call_id=self.call_id, leg_id=self.leg_id, remote=remote))

    async def configure(self, **options: Any) -> None:
        """ConfigureLeg."""
        await self.bus.request(ConfigureLeg(call_id=self.call_id, leg_id=self.leg_id, **options))

    async def do(self, command: str, *, loop: bool = False, **fields: Any) -> None:
        """A playback command."""
        request = Playback(call_id=self.call_id, leg_id=self.leg_id, command={"command": command, **fields}, loop=loop)
        await self.bus.request(request)

    async def stop_playback(self, *, interruption: bool = False) -> None:
        """StopPlayback."""
        request = StopPlayback(call_id=self.call_id, leg_id=self.leg_id, interruption=interruption)
        await self.bus.request(request)

    async def close(self) -> LegClosed:
        """CloseLeg."""
        self.closed = True
        return await self.bus.request(CloseLeg(call_id=self.call_id, leg_id=self.leg_id), timeout_s=5.0)

    async def join(self, other: "Call", **options: Any) -> None:
        """JoinLegs."""
        request = JoinLegs(call_id=self.call_id, leg_id=self.leg_id, other_leg=other.leg_id, **options)
        await self.bus.request(request)

    async def hears(self, *frequencies: int) -> None:
        """Wait until the phone hears exactly these of the usual notes."""
        await eventually(lambda: self.phone.notes()(*frequencies), what=f"{self.leg_id} hears {frequencies}")

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == name]

    async def until(self, name: str, count: int = 1, timeout_s: float = 10.0) -> dict[str, Any]:
        """The `count`th event of a kind, once it is stored."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.named(name)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {name} within {timeout_s} s, only {self.events}") from None
        return self.named(name)[count - 1]

    def listen(self) -> None:
        """Follow the call's events; each must fit the clients' schema."""

        async def follow() -> None:
            async for stored in self.bus.events(self.call_id):
                CLIENT_EVENT.validate_json(stored.data)
                self.events.append(json.loads(stored.data))
                self._news.set()

        self._task = asyncio.create_task(follow())

    async def beside(self, codec: str = "pcmu", *, leg_id: str = "refer", connect: bool = True) -> "Call":
        """A second leg of this call, whose party is this leg's server-side track, with a phone of its own."""
        request = AllocateBeside(
            call_id=self.call_id, leg_id=leg_id, main_track=SERVER, server_track=SERVER, refer=True,
            remote_host="127.0.0.1",
        )  # fmt: skip
        allocated = await self.bus.request(request)
        phone = await open_peer(codec)
        phone.remote = (allocated.address, allocated.port)
        other = Call(self.bus, self.call_id, phone, allocated, leg_id, self.events, _news=self._news)
        if connect:
            await other.connect()
        self._beside.append(other)
        return other

    async def stop(self) -> None:
        """Close what the test left open."""
        for other in self._beside:
            await other.stop()
        if self._task is not None:
            await cancel_all([self._task])
        if not self.closed:
            with suppress(Exception):
                await self.close()
        self.phone.close()


Dial = Callable[..., Any]


@pytest_asyncio.fixture
async def dial(bus: Bus, media: ServiceProcess, call_id: str) -> AsyncIterator[Dial]:
    """`await dial(codec=…, connect=…)` allocates a leg and connects a phone to it."""
    calls: list[Call] = []

    async def place(codec: str = "pcmu", *, connect: bool = True, owned: bool = True) -> Call:
        name = f"{call_id}-{len(calls)}"
        request = AllocateLeg(call_id=name, main_track=name, server_track=SERVER, remote_host="127.0.0.1")
        allocated = await bus.request(request)
        phone = await open_peer(codec)
        phone.remote = (allocated.address, allocated.port)
        call = Call(bus, name, phone, allocated)
        if owned:
            call.ended = await requests_to(bus, PlaybackEnded, call_id=name)
            call.lost = await requests_to(bus, LegLost, call_id=name)
        call.listen()
        calls.append(call)
        if connect:
            await call.connect()
        return call

    yield place
    for call in calls:
        await call.stop()


@dataclass(slots=True)
class FakeTts:
    """Answers every text with the audio of `voice(text, rate_hz)`, in frames of 100 ms, all at once."""

    bus: Bus
    voice: Callable[[str, int], Pcm]
    asked: list[Speak] = field(default_factory=list)
    cancelled: list[CancelSpeech] = field(default_factory=list)
    failure: str | None = None
    silent: bool = False
    """Take requests and send nothing."""
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def start(self) -> "FakeTts":
        """Join the queue group."""

        async def speak(request: Speak) -> Contract:
            self.asked.append(request)
            if not self.silent:
                task = asyncio.create_task(self._send(request))
                self._tasks.add(task)
            return SpeechTaken(worker="fake-tts")

        async def cancel(message: CancelSpeech) -> None:
            self.cancelled.append(message)

        await self.bus.serve(Speak, speak, queue="tts")
        await self.bus.subscribe(CancelSpeech, cancel)
        await self.bus.flush()
        return self

    async def _send(self, request: Speak) -> None:
        pcm = self.voice(request.text, request.rate_hz)
        size = request.rate_hz // 10
        parts = [pcm[start : start + size] for start in range(0, len(pcm), size)]
        for sequence, part in enumerate([*parts, pcm[:0]]):
            last = sequence == len(parts)
            frame = AudioFrame(
                request.call_id, request.track, request.utterance_id, sequence, request.rate_hz, part.tobytes(),
                last=last, failure=self.failure if last else None, facts={"ttfb": "1", "cached": "0"} if last else {},
            )  # fmt: skip
            await self.bus.publish_audio(frame)


@dataclass(slots=True)
class FakeAsr:
    """An asr worker that keeps what it hears; the test decides what it says."""

    bus: Bus
    name: str = "fake-asr"
    text: str | None = None
    """Said as the final of every utterance; None: the test says it."""
    opened: list[OpenTranscription] = field(default_factory=list)
    closed: list[CloseTranscription] = field(default_factory=list)
    frames: dict[str, list[AudioFrame]] = field(default_factory=dict)
    """By utterance."""
    complete: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)
    _subscriptions: list[Any] = field(default_factory=list)
    _beat: "asyncio.Task[None] | None" = None

    async def start(self) -> "FakeAsr":
        """Join the queue group and show signs of life."""
        self._subscriptions.append(await self.bus.serve(OpenTranscription, self._open, queue="asr"))
        self._beat = asyncio.create_task(self._beats())
        await self.bus.flush()
        return self

    async def die(self) -> None:
        """As a crash: no word, no heartbeat, no ears."""
        if self._beat is not None:
            self._beat.cancel()
        for subscription in self._subscriptions:
            await subscription.drop()
        await self.bus.flush()

    async def say(self, call_id: str, utterance: int, text: str, *, final: bool, **more: Any) -> None:
        """A transcript."""
        message = Transcript(call_id=call_id, utterance=utterance, text=text, final=final, **more)
        await self.bus.publish(message)

    def audio(self, utterance: str = "0") -> Pcm:
        """What was heard of an utterance."""
        return np.frombuffer(b"".join(frame.pcm for frame in self.frames[utterance]), "<i2").astype(np.int16)

    async def _open(self, request: OpenTranscription) -> Contract:
        self.opened.append(request)

        async def heard(frame: AudioFrame) -> None:
            self.frames.setdefault(frame.utterance, []).append(frame)
            if frame.last:
                self.complete.put_nowait(frame.utterance)
                if self.text is not None:
                    await self.say(
                        request.call_id, int(frame.utterance), self.text, final=True, confidence=0.9,
                        track=request.track,
                    )  # fmt: skip

        async def close(closing: CloseTranscription) -> Contract:
            self.closed.append(closing)
            return Taken()

        self._subscriptions.append(await self.bus.subscribe_audio(request.call_id, request.track, heard))
        self._subscriptions.append(
            await self.bus.serve(CloseTranscription, close, call_id=request.call_id, track=request.track)
        )
        await self.bus.flush()
        return TranscriptionOpened(worker=self.name, model="fake")

    async def _beats(self) -> None:
        while True:
            await self.bus.publish(Heartbeat(service="asr", instance=self.name, version="0", started_at="now"))
            await asyncio.sleep(0.5)
