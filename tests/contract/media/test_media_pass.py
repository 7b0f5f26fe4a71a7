"""A call's audio to and from a WebSocket server of the client's (protocol 10.3, O28, X-09)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve

from dialbus.bus import Bus
from tests.contract.media.conftest import SERVER, Call, Dial, FakeTts
from tests.harness import ServiceProcess, eventually
from tests.peers.rtp import loud, tone

Pcm = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def media_env(media_env: dict[str, str]) -> dict[str, str]:
    """The worker may reach the servers of these tests."""
    return {**media_env, "DIALBUS_FETCH_ALLOW_LOOPBACK": "true"}


@dataclass(slots=True)
class Server:
    """The client's WebSocket server."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    connection: ServerConnection | None = None

    async def accept(self, connection: ServerConnection) -> None:
        """Keep what comes."""
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.connection = connection
        async for message in connection:
            assert isinstance(message, bytes)
            self.heard.append(message)

    def audio(self) -> Pcm:
        """Everything heard so far."""
        return np.frombuffer(b"".join(self.heard), "<i2")

    async def say(self, pcm: Pcm, message: int = 1111) -> None:
        """Audio at once, in messages of so many bytes."""
        assert self.connection is not None
        data = pcm.tobytes()
        for at in range(0, len(data), message):
            await self.connection.send(data[at : at + message])


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """Listens on a port of its own."""
    server = Server()
    async with serve(server.accept, "127.0.0.1", 0) as listening:
        server.url = f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}/pass?key=1"
        yield server


async def _passed(dial: Dial, server: Server, codec: str = "pcmu", **option: int) -> Call:
    """A call with a media pass, as an inbound one is set up: configured, then connected."""
    call: Call = await dial(codec, connect=False)
    fields = {"url": server.url, "inputSampleRate": 16000, "outputSampleRate": 16000, "packetSize": 1920, **option}
    await call.configure(media_pass=fields)
    await call.until("trackStart", timeout_s=0.5)  # it was stored before the reply
    await call.connect()
    return call


@pytest.mark.parametrize(
    ("codec", "to_peer_hz", "from_peer_hz"), [("pcmu", 16000, 24000), ("g722", 8000, 16000), ("g722", 24000, 48000)]
)
async def test_audio_goes_both_ways_in_exact_packets(
    dial: Dial, server: Server, codec: str, to_peer_hz: int, from_peer_hz: int
) -> None:
    call = await _passed(dial, server, codec, outputSampleRate=to_peer_hz, inputSampleRate=from_peer_hz)

    assert server.paths == [f"/pass?key=1&sample_rate={to_peer_hz}&packet_size=1920"]
    await server.say(tone(900, 0.6, from_peer_hz))
    await call.phone.speak(tone(600, 1.0, call.phone.rate_hz))
    await eventually(lambda: loud(server.audio(), to_peer_hz)[0] > 0.9, what="the caller at the server")
    await eventually(lambda: loud(call.phone.audio(), call.phone.rate_hz)[0] > 0.5, what="the server at the phone")

    assert {len(message) for message in server.heard} == {1920}
    assert loud(server.audio(), to_peer_hz)[1] == pytest.approx(600, abs=2)
    seconds, frequency = loud(call.phone.audio(), call.phone.rate_hz)
    assert seconds == pytest.approx(0.6, abs=0.03)
    assert frequency == pytest.approx(900, abs=2)
    await call.close()
    await call.until("trackEnd")
    start, end = call.named("trackStart")[0], call.named("trackEnd")[0]
    assert (start["trackId"], end["trackId"]) == (SERVER, SERVER)
    assert "playId" not in start | end
    assert end["duration"] > 900
    assert [event["event"] for event in call.events] == ["trackStart", "mediaReady", "trackEnd"]


async def test_speech_sounds_on_top_and_the_pass_stays(bus: Bus, dial: Dial, server: Server) -> None:
    await FakeTts(bus, lambda _, rate: tone(1500, 0.5, rate, 0.3)).start()
    call = await _passed(dial, server, inputSampleRate=8000)

    await server.say(tone(700, 2.0, 8000, 0.3))
    await eventually(lambda: loud(call.phone.audio(), 8000)[0] > 0.3, what="the server at the phone")
    await call.do("tts", text="hello", playId="p")
    await call.do("tts", text="", playId="p", endOfStream=True)
    await call.until("trackEnd")
    await eventually(lambda: loud(call.phone.audio(), 8000)[0] > 1.9, what="the rest of the server")

    assert [(event["event"], event.get("playId")) for event in call.events if event["event"] != "metrics"] == [
        ("trackStart", None), ("trackStart", "p"), ("trackEnd", "p"),
    ]  # fmt: skip
    audio = call.phone.audio()
    assert _seconds_of(audio, 700) == pytest.approx(2.0, abs=0.1)
    assert _seconds_of(audio, 1500) == pytest.approx(0.5, abs=0.1)


def _seconds_of(audio: Pcm, frequency: int) -> float:
    """How long a frequency is heard at 8 kHz, in steps of 20 ms."""
    turns = np.exp(-2j * np.pi * frequency * np.arange(160) / 8000)
    levels = np.abs(audio[: len(audio) // 160 * 160].reshape(-1, 160) @ turns) / 80
    return float((levels > 3000).sum()) / 50


async def test_the_call_goes_on_when_the_server_leaves(dial: Dial, server: Server) -> None:
    call = await _passed(dial, server)
    assert server.connection is not None

    await server.connection.close()
    await call.until("trackEnd")
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 10)
    await call.close()

    assert [event["event"] for event in call.events] == ["trackStart", "trackEnd"]


@pytest.mark.parametrize(
    ("option", "code"),
    [({"url": "ws://10.0.0.1:9/p?token=x"}, 403), ({"url": "ws://127.0.0.1:9/p"}, 500), ({"url": "http://x/"}, 400)],
    ids=["private", "nobody there", "no WebSocket"],
)  # fmt: skip
async def test_a_pass_that_cannot_be_opened_is_an_error_after_the_answer(
    dial: Dial, media: ServiceProcess, option: dict[str, Any], code: int
) -> None:
    call = await dial(connect=False)

    await call.configure(media_pass={"inputSampleRate": 8000, "outputSampleRate": 8000, **option})
    assert call.events == []
    await call.connect()
    error = await call.until("error")

    assert (error["sender"], error["code"]) == (f"media_pass: {option['url']}", code)
    await call.phone.packets(5)
    assert [event["event"] for event in call.events] == ["error"]
    assert "token=x" not in media.log


async def test_a_slow_server_does_not_hold_up_the_call(dial: Dial) -> None:
    answering = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering.wait()
        writer.close()

    listening = await asyncio.start_server(slow, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    call = await dial(connect=False)
    try:
        async with asyncio.timeout(1.9):
            await call.configure(media_pass={"url": url, "inputSampleRate": 8000, "outputSampleRate": 8000})
        await call.connect()
    finally:
        answering.set()
        listening.close()
        await listening.wait_closed()

    error = await call.until("error")
    assert (error["trackId"], error["code"]) == (SERVER, 500)
