"""The audio of `/call`: raw binary frames both ways, whatever their length (protocol 10.1, X-24)."""

import asyncio
import time
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from dialbus.bus import Bus, Refused
from dialbus.contracts.audio import FROM_CLIENT, TO_CLIENT
from dialbus.contracts.media import AllocateLeg
from media.audio.codec import make_codec
from tests.contract.media.conftest import SERVER, Call, FakeAsr, FakeTts
from tests.harness import ServiceProcess, eventually
from tests.peers.rtp import loud, strength, tone, voice

Pcm = npt.NDArray[np.int16]

JFK = Path(__file__).parents[2] / "data" / "voices" / "jfk.wav"


@dataclass(slots=True)
class Socket:
    """The client's socket as the gateway hands its frames on."""

    bus: Bus
    call_id: str
    codec: str
    rate_hz: int
    heard: list[bytes] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    """Loop time of each message."""

    async def open(self) -> "Socket":
        """Listen."""

        async def frame(data: bytes) -> None:
            self.heard.append(data)
            self.at.append(asyncio.get_running_loop().time())

        await self.bus.subscribe_raw(self.call_id, TO_CLIENT, frame)
        await self.bus.flush()
        return self

    async def send(self, pcm: Pcm, *, message: int) -> None:
        """Audio at once, as fast as it goes, in messages of so many bytes."""
        data = pcm.tobytes() if self.codec == "pcm" else make_codec(self.codec).encode(pcm)
        for at in range(0, len(data), message):
            await self.bus.publish_raw(self.call_id, FROM_CLIENT, data[at : at + message])

    def audio(self) -> Pcm:
        """Everything heard so far."""
        data = b"".join(self.heard)
        return np.frombuffer(data, "<i2") if self.codec == "pcm" else make_codec(self.codec).decode(data)

    def close(self) -> None:
        """Nothing to give back."""


OpenSocket = Callable[..., Any]


@pytest_asyncio.fixture
async def open_socket(bus: Bus, media: ServiceProcess, call_id: str) -> AsyncIterator[OpenSocket]:
    """`await open_socket(codec, rate_hz)` allocates a socket leg; the client is its `phone`."""
    calls: list[Call] = []

    async def place(codec: str = "pcm", rate_hz: int = 16000) -> Call:
        name = f"{call_id}-{len(calls)}"
        client = await Socket(bus, name, codec, 16000 if codec == "g722" else rate_hz).open()
        request = AllocateLeg(
            call_id=name, kind="socket", main_track=name, server_track=SERVER, codec=codec, rate_hz=rate_hz
        )
        allocated = await bus.request(request)
        call = Call(bus, name, client, allocated)  # type: ignore[arg-type]  # its phone is a socket
        call.listen()
        calls.append(call)
        return call

    yield place
    for call in calls:
        await call.stop()


@pytest.mark.parametrize(
    ("codec", "rate_hz", "message_bytes"),
    [("pcm", 16000, 640), ("pcm", 8000, 320), ("pcm", 24000, 960), ("pcmu", 8000, 160), ("pcma", 8000, 160),
     ("g722", 16000, 160)],
)  # fmt: skip
async def test_a_tone_goes_both_ways(
    bus: Bus, open_socket: OpenSocket, media_env: dict[str, str], codec: str, rate_hz: int, message_bytes: int
) -> None:
    await FakeTts(bus, lambda _, rate: tone(700, 0.5, rate)).start()
    call = await open_socket(codec, rate_hz)
    client: Socket = call.phone
    await call.configure(recorder={})

    await call.do("tts", text="hello")
    await client.send(tone(1100, 1.0, rate_hz), message=333)
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "metrics", "trackEnd"], "and no mediaReady"
    assert call.events[-1]["ssrc"] == call.allocated.ssrc
    await eventually(lambda: len(client.heard) >= 25, what="audio at the client")
    assert {len(message) for message in client.heard} == {message_bytes}
    seconds, frequency = loud(client.audio(), rate_hz)
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert frequency == pytest.approx(700, abs=1)
    gaps = np.diff(client.at)
    assert np.median(gaps) == pytest.approx(0.02, abs=0.004), "in real time"
    recorded = Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav"
    seconds, frequency = await eventually(lambda: _heard(recorded), what="the recording of a second")
    assert seconds == pytest.approx(1.0, abs=0.03)
    assert frequency == pytest.approx(1100, abs=1)
    await call.close()
    assert len(client.heard) <= 26, "only while there is something to hear"


def _heard(path: Path) -> tuple[float, float] | None:
    """Seconds and frequency of what a recording has of the client, once a second of it is followed by silence."""
    try:
        with wave.open(str(path)) as file:
            left = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 0]
    except (FileNotFoundError, EOFError):
        return None
    found = loud(left, 16000)
    return found if found[0] > 0.9 and not left[-1600:].any() else None


async def test_a_file_sent_at_once_is_recognised_whole_at_its_pace(bus: Bus, open_socket: OpenSocket) -> None:
    asr = await FakeAsr(bus, text="my fellow Americans").start()
    call = await open_socket()
    await call.configure(vad={"silencePadding": 300}, asr={})
    speech = voice(JFK, 16000)[: int(3.2 * 16000)]
    began = time.time()

    await call.phone.send(speech, message=60_001)
    speaking, final = await call.until("speaking"), await call.until("asrFinal")

    assert speaking["startTime"] / 1000 - began == pytest.approx(0.35, abs=0.25)
    assert final["endTime"] / 1000 - began == pytest.approx(2.2, abs=0.4)
    assert len(asr.audio()) / 16000 == pytest.approx(2.2, abs=0.5)


async def test_an_unknown_codec_is_refused(bus: Bus, open_socket: OpenSocket) -> None:
    for codec in ("opus", "mp3", ""):
        with pytest.raises(Refused) as refused:
            await open_socket(codec)
        assert (refused.value.code, "pcm, pcmu, pcma, g722" in refused.value.reason) == (400, True)


async def test_the_client_of_a_socket_is_joined_to_a_phone(open_socket: OpenSocket) -> None:
    call = await open_socket("pcm", 24000)
    client: Socket = call.phone
    target = await call.beside("pcmu")

    await call.join(target)
    await client.send(tone(500, 20.0, 24000), message=24000)
    async with target.phone.humming(900):
        await target.hears(500)
        await eventually(lambda: strength(client.audio()[-6000:], 24000, 900) > 0.1, what="the phone at the client")
    assert {len(data) for data in client.heard} == {960}
