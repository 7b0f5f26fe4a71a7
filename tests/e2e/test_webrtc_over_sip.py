"""A browser whose offer comes inside SIP, as a gateway in front of browsers sends it (protocol 5.7)."""

import numpy as np

from tests.e2e.conftest import Exchange
from tests.harness import eventually
from tests.peers.phone import Phone
from tests.peers.webrtc import webrtc_peer


async def test_an_invite_with_a_browsers_offer_is_answered_as_webrtc(exchange: Exchange) -> None:
    number = exchange.number()
    async with webrtc_peer() as peer, Phone.open() as phone:
        dialog = phone.call(exchange.address(number), sdp=await peer.offer())
        body = await exchange.announcement(number)
        assert "a=fingerprint:" in body["offer"]
        async with exchange.client(body["dialogId"]) as client:
            await client.send("accept", option={"tts": {}})
            answer = await dialog.expect_response(200)
            dialog.ack()
            assert "UDP/TLS/RTP/SAVPF" in answer.text
            await peer.answer(answer.text)
            await peer.connected()
            assert (await client.expect("answer"))["sdp"] == answer.text

            await client.send("tts", text="Can you hear me in the browser?")
            await client.expect("trackEnd", trackId="server-side-track", timeout_s=20)
            await eventually(lambda: np.abs(peer.audio().astype(np.int32)).max(initial=0) > 2000, what="a voice")
            await peer.press("7")
            await client.expect("dtmf", digit="7")

            dialog.bye()
            await dialog.expect_response(200, method="BYE")
            await client.expect("hangup", reason="byCaller", initiator="caller")
            assert await client.until_closed() == 1000
