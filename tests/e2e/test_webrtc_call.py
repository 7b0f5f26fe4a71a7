"""A browser's call through the whole ensemble: spoken to, understood, and hung up from either side."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from media.audio.resample import resample
from tests.e2e.conftest import VOICES, Exchange, read_wav
from tests.harness import eventually
from tests.peers import webrtc
from tests.peers.webrtc import WebRtcPeer, webrtc_peer
from tests.wer import wer

JFK = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
ANSWER = "Thank you, your request was taken down."


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[WebRtcPeer]:
    async with webrtc_peer() as peer:
        yield peer


async def test_a_browser_is_understood_and_answered(
    exchange: Exchange, peer: WebRtcPeer, transcribe: Callable[..., str]
) -> None:
    speech, rate_hz = read_wav(VOICES / "jfk.wav")
    async with exchange.client(path="/call/webrtc") as client:
        option = {"offer": await peer.offer("opus"), "vad": {}, "asr": {}, "tts": {}, "recorder": {}}
        await client.send("invite", option=option)
        answer = await client.expect("answer")
        await client.send("tts", text=ANSWER, playId="greeting", endOfStream=True)
        await peer.answer(answer["sdp"])
        await client.expect("mediaReady")
        await client.expect("trackEnd", timeout_s=20, playId="greeting")
        peer.voice.say(resample(speech, rate_hz, webrtc.RATE_HZ))
        said: list[str] = []
        while wer(JFK, " ".join(said)) > 0.15:
            said.append((await client.expect("asrFinal", timeout_s=30))["text"])
        await peer.press("#")
        dtmf = await client.expect("dtmf")
        await client.send("hangup", reason="done")
        hangup = await client.expect("hangup")
        assert await client.until_closed() == 1000

    assert client.names[:2] == ["trackStart", "answer"]
    assert dtmf["digit"] == "#"
    assert (hangup["reason"], hangup["initiator"]) == ("done", "system")
    assert wer(ANSWER, transcribe(peer.audio(), peer.heard_rate_hz)) <= 0.15
    await eventually(lambda: peer.connection.connectionState in ("closed", "failed"), what="the browser's connection")


@pytest.mark.parametrize("index", ["sdpMLineIndex", "sdpMlineIndex"])
async def test_a_browser_may_trickle_at_once_and_leave(exchange: Exchange, peer: WebRtcPeer, index: str) -> None:
    async with exchange.client(path="/call/webrtc") as client:
        offer = await peer.offer("pcmu", telephone_event=None)
        await client.send("invite", option={"offer": webrtc.without_candidates(offer), "handshakeTimeout": "10s"})
        for line in [*webrtc.candidates(offer), ""]:
            await client.send("addIceCandidate", candidate=line, sdpMid="0", **{index: 0})
        await peer.answer((await client.expect("answer"))["sdp"])
        await client.expect("mediaReady")
        await peer.close()
        hangup = await client.expect("hangup")
        assert await client.until_closed() == 1000

    assert client.names == ["trackStart", "answer", "mediaReady", "trackEnd", "hangup"]
    assert (hangup["reason"], hangup["initiator"]) == ("byCallee", "callee")


@pytest.mark.parametrize(
    "option", [{}, {"offer": "v=0"}, {"offer": "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"}]
)
async def test_an_unusable_offer_is_told(exchange: Exchange, option: dict[str, Any]) -> None:
    async with exchange.client(path="/call/webrtc") as client:
        await client.send("invite", option=option)
        error = await client.expect("error")
        hangup = await client.expect("hangup")
        assert await client.until_closed() == 1000

    assert error["sender"] == "invite"
    assert hangup["reason"] == "failed"
