"""A WebSocket server of the client's hears and speaks: exact packets out, any messages in, and the bounds of both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from dialbus.config import FetchConfig
from dialbus.contracts.options import MediaPassOption
from media.files.fetch import Fetcher
from media.mix import media_pass
from media.mix.media_pass import MediaPass, Packets, pass_url
from tests.harness import eventually
from tests.peers.rtp import tone

FRAME = 160  # 20 ms at 8 kHz


class Peer:
    """The client's server."""

    def __init__(self) -> None:
        self.path = ""
        self.heard: list[Any] = []
        self.connection: ServerConnection | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/pass"

    async def accept(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.path, self.connection = connection.request.path, connection
        async for message in connection:
            self.heard.append(message)


@asynccontextmanager
async def _peer() -> AsyncIterator[Peer]:
    peer = Peer()
    async with serve(peer.accept, "127.0.0.1", 0) as server:
        peer.port = next(iter(server.sockets)).getsockname()[1]
        yield peer


class Told:
    """What a pass told its leg."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def opened(self, url: str, **more: Any) -> MediaPass:
        fields = {"url": url, "inputSampleRate": 8000, "outputSampleRate": 8000, **more}
        opened = MediaPass(
            Fetcher(FetchConfig(allow_loopback=True)), MediaPassOption.model_validate(fields), "server",
            started=lambda: self.events.append("started"),
            ended=lambda duration_ms: self.events.append("ended"),
            failed=lambda code, _: self.events.append(f"failed {code}"),
        )  # fmt: skip
        opened.open()
        return opened


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://h.test/a", "wss://h.test/a?sample_rate=16000&packet_size=2560"),
        ("wss://h.test/a?b=%2F+c&d#frag", "wss://h.test/a?b=%2F+c&d&sample_rate=16000&packet_size=2560"),
    ],
)
def test_the_query_is_added_to(url: str, expected: str) -> None:
    option = MediaPassOption.model_validate({"url": url, "inputSampleRate": 8000, "outputSampleRate": 16000})
    assert pass_url(option) == expected


@pytest.mark.parametrize("rates", [(8000, 8000), (8000, 16000), (16000, 24000), (16000, 44100)])
def test_packets_have_exactly_their_size_and_lose_nothing(rates: tuple[int, int]) -> None:
    source_hz, target_hz = rates
    packets = Packets(source_hz, target_hz, 1000, max_s=10.0)
    pcm = tone(700, 1.0, source_hz)
    for at in range(0, len(pcm), source_hz // 50):
        packets.put(pcm[at : at + source_hz // 50])

    assert {len(packet) for packet in packets.ready} == {1000}
    assert len(packets.ready) == 2 * target_hz // 1000
    assert packets.dropped == 0


def test_packets_nobody_takes_are_dropped_the_oldest_first() -> None:
    packets = Packets(8000, 8000, 320, max_s=0.1)
    for number in range(10):
        packets.put(np.full(FRAME, number, np.int16))

    assert packets.dropped == 5
    assert [np.frombuffer(packet, "<i2")[0] for packet in packets.ready] == [5, 6, 7, 8, 9]


async def test_both_ways_and_the_end() -> None:
    told = Told()
    async with _peer() as peer:
        opened = told.opened(peer.url, packetSize=480)
        await opened.settled(5)
        assert told.events == ["started"]
        assert peer.path == "/pass?sample_rate=8000&packet_size=480"

        for _ in range(6):
            opened.put(8000, tone(700, 0.02, 8000))
        await eventually(lambda: len(peer.heard) == 4, what="4 packets")
        assert {len(message) for message in peer.heard} == {480}

        assert opened.next_frame(8000) is None
        assert peer.connection is not None
        await peer.connection.send("text is ignored")
        await peer.connection.send(b"\x01\x00" * 5 * FRAME + b"\x02")
        frame = await eventually(lambda: (opened.next_frame(8000),)[0] is not None, what="audio")
        assert frame
        await peer.connection.close()
        heard = 1
        while "ended" not in told.events:
            heard += opened.next_frame(8000) is not None
            await asyncio.sleep(0)
        assert heard == 5, "what came before the end is heard"
        await opened.close()

    assert told.events == ["started", "ended"]


async def test_closing_ends_it_once_and_before_it_waits() -> None:
    told = Told()
    async with _peer() as peer:
        opened = told.opened(peer.url)
        await opened.settled(5)
        closing = asyncio.create_task(opened.close())
        await asyncio.sleep(0)
        assert told.events == ["started", "ended"]
        await closing

    assert told.events == ["started", "ended"]


async def test_a_peer_that_is_gone_before_there_is_audio() -> None:
    told = Told()
    async with _peer() as peer:
        opened = told.opened(peer.url)
        await opened.settled(5)
        assert peer.connection is not None
        await peer.connection.close()
        await eventually(lambda: "ended" in told.events, what="the end")
        await opened.close()


async def test_what_cannot_be_opened_is_told_with_its_code() -> None:
    told = Told()
    for url in ("ws://10.0.0.1/", "http://127.0.0.1/", "ws://127.0.0.1:9/"):
        opened = told.opened(url)
        await opened.settled(5)
        await opened.close()

    assert told.events == ["failed 403", "failed 400", "failed 502"]


async def test_a_peer_far_ahead_is_read_no_further_until_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_pass, "MAX_AHEAD_S", 1.0)
    told, sent = Told(), 0
    async with _peer() as peer:
        opened = told.opened(peer.url)
        await opened.settled(5)
        opened.next_frame(8000)
        assert peer.connection is not None

        async def flood() -> None:
            nonlocal sent
            assert peer.connection is not None
            for number in range(200):  # 0.5 s and 8 kB each: more than all buffers on the way can hold
                await peer.connection.send(np.full(4000, number, np.int16).tobytes())
                sent += 1

        flooding = asyncio.create_task(flood())
        await eventually(lambda: opened._input is not None and opened._input.seconds >= 1, what="a second")
        assert opened._input is not None
        assert opened._input.seconds < 2
        heard: list[int] = []
        while len(heard) < 200 * 4000:
            frame = opened.next_frame(8000)
            heard.extend([] if frame is None else frame.tolist())
            await asyncio.sleep(0)
        await flooding
        await opened.close()

    assert heard == np.repeat(np.arange(200), 4000).tolist()


async def test_a_pass_that_breaks_unforeseen_while_it_is_opened_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_fetcher: Fetcher, _url: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Fetcher, "websocket", broken)
    told = Told()
    opened = told.opened("ws://127.0.0.1:1/pass")

    async with asyncio.timeout(5):
        await opened.settled(5)
    await opened.close()

    assert told.events == ["failed 500"]
