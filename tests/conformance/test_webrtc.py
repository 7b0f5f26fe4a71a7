"""WebRTC sessions, with aiortc as the browser (P-02, P-18, P-51, P-98, P-124, O8)."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conformance.files import recording, tones_in
from tests.conformance.parties import (
    LEVEL,
    SOON_S,
    SPOKEN_S,
    Client,
    amplitude,
    client,
    description,
    fresh_id,
    hears,
    media_of,
    second_phone,
    speaking,
    tone_text,
)
from tests.ensemble import Exchange
from tests.harness import eventually
from tests.peers.webrtc import WebRtcPeer, candidates, webrtc_peer, without_candidates


@asynccontextmanager
async def browser(exchange: Exchange, *codecs: str, **option: Any) -> AsyncIterator[tuple[Client, WebRtcPeer]]:
    """A WebRTC call that is connected; hung up in the end."""
    async with webrtc_peer() as peer, client(exchange, fresh_id(), path="/call/webrtc") as socket:
        await socket.send("invite", option={"offer": await peer.offer(*codecs), **option})
        answer = await socket.expect("answer", SOON_S)
        await peer.answer(answer["sdp"])
        await peer.connected(SOON_S)
        yield socket, peer
        if socket.closed is None:
            await socket.send("hangup")
            await socket.until_closed(SOON_S)


async def browser_hears(peer: WebRtcPeer, frequency_hz: float) -> None:
    """The browser comes to hear a tone."""
    await eventually(
        lambda: (
            peer.heard_rate_hz
            and amplitude(peer.audio()[-peer.heard_rate_hz // 4 :], peer.heard_rate_hz, frequency_hz) > LEVEL
        ),
        SOON_S,
        what=f"{frequency_hz} Hz",
    )


@pytest.mark.row("P-02", "P-18", "O8", "P-51", "P-101", "P-109")
@pytest.mark.fault("X-23")
@pytest.mark.parametrize("codec", ["opus", "pcmu", "g722"])
async def test_p018_a_webrtc_call(exchange: Exchange, codec: str) -> None:
    async with browser(exchange, codec, recorder={}) as (socket, peer):
        sdp = socket.of("answer")[0]["sdp"]
        assert "a=fingerprint:" in sdp
        assert "a=ice-ufrag:" in sdp
        assert "a=candidate:" in sdp
        assert "\n" not in sdp.replace("\r\n", ""), "CRLF line ends"
        peer.say(500, 30)
        await socket.expect("mediaReady", SOON_S)
        await socket.send("tts", text=tone_text(700, 5.0), base64=True, playId="p", endOfStream=True)
        await browser_hears(peer, 700)
        await eventually(lambda: len(peer.audio()) > peer.heard_rate_hz, SOON_S)  # a second, so that it is recorded too
        await socket.send("interrupt")
        await socket.expect("trackEnd", SOON_S, playId="p")
        await socket.send("hangup", reason="Normal clearing")
        await socket.ended(
            r"T\(main\) answer T\(srv,p\) interruption\{p\} E\(srv,p\) E\(main\) hangup\{Normal clearing,system\}"
        )
        both, rate_hz = await recording(exchange, socket.call_id)
        assert tones_in(both[:, 0], rate_hz, 500)
        assert tones_in(both[:, 1], rate_hz, 700)


@pytest.mark.row("P-91", "P-02")
async def test_p091_keys_of_a_browser(exchange: Exchange) -> None:
    async with browser(exchange, "opus") as (socket, peer):
        await socket.expect("mediaReady", SOON_S)
        await peer.press("5")
        await socket.expect("dtmf", SOON_S, digit="5")


@pytest.mark.row("P-98")
@pytest.mark.parametrize("spelling", ["sdpMLineIndex", "sdpMlineIndex"])
async def test_p098_trickled_candidates(exchange: Exchange, spelling: str) -> None:
    async with webrtc_peer() as peer, client(exchange, fresh_id(), path="/call/webrtc") as socket:
        offer = await peer.offer("opus")
        trickled = candidates(offer)
        assert trickled
        await socket.send("addIceCandidate", candidate=trickled[0], sdpMid="0", **{spelling: 0})  # before the invite
        await socket.send("invite", option={"offer": without_candidates(offer)})
        answer = await socket.expect("answer", SOON_S)
        await peer.answer(answer["sdp"])
        for candidate in [*trickled, ""]:
            await socket.send("addIceCandidate", candidate=candidate, sdpMid="0", **{spelling: 0})
        await peer.connected(SOON_S)
        await socket.send("tts", text=tone_text(700, 5.0), base64=True)
        await browser_hears(peer, 700)
        assert not socket.of("error")
        await socket.send("hangup")
        await socket.until_closed(SOON_S)


@pytest.mark.row("P-18", "O7")
@pytest.mark.parametrize("offer", ["", "v=0\r\nnonsense\r\n"])
async def test_p018_an_offer_that_cannot_be_used(exchange: Exchange, offer: str) -> None:
    async with client(exchange, fresh_id(), path="/call/webrtc") as socket:
        await socket.send("invite", option={"offer": offer})
        await socket.ended(r"(T\(main\) )?error\{invite\} (E\(main\) )?hangup\{failed,system\}")


@pytest.mark.row("P-51", "P-02")
async def test_p051_a_browser_that_goes_away_ends_the_call(exchange: Exchange) -> None:
    async with webrtc_peer() as peer, client(exchange, fresh_id(), path="/call/webrtc") as socket:
        await socket.send("invite", option={"offer": await peer.offer("opus")})
        answer = await socket.expect("answer", SOON_S)
        await peer.answer(answer["sdp"])
        await peer.connected(SOON_S)
        await socket.expect("mediaReady", SOON_S)
        await peer.connection.close()  # DTLS says goodbye
        await socket.ended(r"T\(main\) answer (error\{media\} )?E\(main\) hangup\{\w+,\w+\}", 60)


@pytest.mark.row("P-02", "P-77", "P-78")
async def test_q14_a_browser_is_transferred_to_a_phone(exchange: Exchange) -> None:
    async with browser(exchange, "opus") as (socket, peer), second_phone() as (target, rtp):
        await socket.send("refer", callee=target.uri, options={"autoHangup": False})
        dialog = await target.expect_call(SOON_S)
        assert dialog.invite is not None
        rtp.remote = media_of(dialog.invite.text)
        dialog.answer(description(rtp))
        await dialog.expect_request("ACK", SOON_S)
        await socket.expect("answer", SOON_S, refer=True)
        peer.say(500, 30)
        async with speaking(rtp, 1100):
            await hears(rtp, 500)
            await browser_hears(peer, 1100)
        dialog.bye()
        await dialog.expect_response(200, SOON_S, method="BYE")
        await socket.expect("hangup", SOON_S, refer=True)


@pytest.mark.row("P-124", "P-11", "P-59", "P-02")
@pytest.mark.fault("X-07")
async def test_p124_the_browser_page_of_another_exchange(exchange: Exchange) -> None:
    """What that page sends, as it sends it: a stray `callType`, null for VAD numbers it could not read, and several
    `tts` with one `playId` of which none has `endOfStream`."""
    async with webrtc_peer() as peer, client(exchange, fresh_id(), path="/call/webrtc") as socket:
        offer = json.dumps(await peer.offer("opus", "pcmu", "pcma"))
        await socket.send_text(
            '{"command":"invite","callType":"webrtc","option":{"callType":"webrtc","offer":' + offer + ","
            '"vad":{"type":"silero","samplerate":null,"speechPadding":null,"silencePadding":null,"ratio":null,'
            '"voiceThreshold":null,"maxBufferDurationSecs":null,"endpoint":"","secretKey":"","secretId":""},'
            '"asr":{"provider":"tencent","appId":null,"secretId":"","secretKey":"","modelType":null,"language":null},'
            '"tts":{"provider":"tencent","speaker":"601003","appId":null,"secretId":"","secretKey":"","speed":null,'
            '"volume":null},"recorder":null,"denoise":null,"eou":null,"handshakeTimeout":"30"}}'
        )
        answer = await socket.expect("answer", SOON_S)
        assert re.search(r"m=audio \d+ UDP/TLS/RTP/SAVPF", answer["sdp"])
        await peer.answer(answer["sdp"])
        await peer.connected(SOON_S)
        for text in ("Good morning.", "How can I", "help you?"):
            await socket.send_text(
                json.dumps({"command": "tts", "callType": "webrtc", "text": text, "playId": "llm-1", "speaker": None})
            )
        end = await socket.expect("trackEnd", SPOKEN_S, playId="llm-1")
        assert end["duration"] > 1500
        assert [event["playId"] for event in socket.of("trackStart") if "playId" in event] == ["llm-1"]
        assert not socket.of("error")
        assert len(peer.audio())
        await socket.send_text('{"command":"hangup","callType":"webrtc","reason":"user_requested","initiator":"user"}')
        await socket.ended(
            r"T\(main\) answer T\(srv,llm-1\) E\(srv,llm-1\) E\(main\) hangup\{user_requested,user\}", SOON_S
        )
