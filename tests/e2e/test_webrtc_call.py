"""A browser's call through the whole ensemble: spoken to, understood, and hung up from either side."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from media.audio.resample import resample
from tests.e2e.conftest import VOICES, Exchange, read_wav
from tests.harness import eventually
from tests.peers import webrtc
from tests.peers.phone import Phone, sdp
from tests.peers.rtp import loud, open_peer, tone
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


async def test_a_browser_that_speaks_sip_is_answered_as_a_browser(exchange: Exchange, peer: WebRtcPeer) -> None:
    """Protocol 5.7: an INVITE may bring a browser's offer."""
    number = exchange.number()
    async with Phone.open() as phone:
        dialog = phone.call(exchange.address(number), sdp=await peer.offer("opus", "pcmu"))
        body = await exchange.announcement(number)
        async with exchange.client(body["dialogId"]) as client:
            await client.send("accept", option={})
            answer = await client.expect("answer")
            ok = await dialog.expect_response(200)
            dialog.ack()
            await peer.answer(ok.text)
            await client.expect("mediaReady")
            await peer.press("5")
            await client.expect("dtmf", digit="5")
            dialog.bye()
            await dialog.expect_response(200)
            hangup = await client.expect("hangup")

    assert answer["sdp"] == ok.text
    assert "a=fingerprint:" in ok.text
    assert hangup["reason"] == "byCaller"


async def test_a_browser_is_transferred_to_a_phone_and_both_hear_each_other(
    exchange: Exchange, peer: WebRtcPeer
) -> None:
    """Q-14: the second leg is SIP, whatever the first one is."""
    ear = await open_peer("pcmu")
    async with Phone.open() as phone, exchange.client(path="/call/webrtc") as client:
        await client.send("invite", option={"offer": await peer.offer("opus")})
        await peer.answer((await client.expect("answer"))["sdp"])
        await client.expect("mediaReady")
        await client.send("refer", caller="sip:bot@127.0.0.1", callee=phone.uri, options={"timeout": 20})
        dialog = await phone.expect_call()
        offered = re.search(r"m=audio (\d+) ", dialog.invite.text)
        assert offered is not None
        ear.remote = ("127.0.0.1", int(offered[1]))
        dialog.answer(sdp("127.0.0.1", ear.address[1]))
        await dialog.expect_request("ACK")
        await client.expect("answer", refer=True)
        peer.say(440, 1.0)
        await ear.speak(tone(700, 1.0, 8000))
        await eventually(lambda: loud(ear.audio(), 8000)[0] > 0.8, what="seconds of the browser's tone")
        await eventually(lambda: loud(peer.audio(), 48000)[0] > 0.8, what="seconds of the phone's tone")
        await client.send("hangup")
        await dialog.expect_bye()
        assert await client.until_closed() == 1000
    ear.close()

    assert loud(ear.audio(), 8000)[1] == pytest.approx(440, abs=2)
    assert loud(peer.audio(), peer.heard_rate_hz)[1] == pytest.approx(700, abs=2)
