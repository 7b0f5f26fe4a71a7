"""WebRTC and `/call` calls: owned by sip-ua, their audio with a media worker, no SIP (O7 to O9, P-51, P-98)."""

import pytest

from dialbus.bus import Refused
from dialbus.contracts import media
from dialbus.contracts.session import CallState, CallType
from tests.harness import eventually
from tests.peers.exchange import OUR_ANSWER, Exchange

OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"


async def test_o8_webrtc(exchange: Exchange) -> None:
    call = await exchange.opened("addIceCandidate", call_type=CallType.WEBRTC, candidate="candidate:1", sdpMid="0")
    await call.send("invite", option={"offer": OFFER, "handshakeTimeout": "20s", "enableIpv6": True, "vad": {}})
    await call.expect("trackStart", trackId=call.call_id)
    await call.expect("answer", trackId=call.call_id, sdp=OUR_ANSWER, refer=False)

    asked = exchange.media.allocations.get_nowait()
    assert (asked.kind, asked.offer, asked.enable_ipv6, asked.handshake_timeout_s) == ("webrtc", OFFER, True, 20.0)
    assert (await exchange.media.expect(media.AddCandidate)).candidate == "candidate:1"
    assert (await exchange.media.expect(media.ConfigureLeg)).vad is not None
    await call.send("addIceCandidate", candidate="", sdpMLineIndex=0)
    late = await exchange.media.expect(media.AddCandidate)
    assert (late.candidate, late.sdp_m_line_index) == ("", 0)

    async def is_written() -> bool:
        return (await call.session()).state is CallState.UP

    await eventually(is_written, what="the state in the books")
    entry = await call.session()
    assert (entry.call_type, entry.owner, entry.direction) == (CallType.WEBRTC, exchange.ua.instance, "outbound")
    assert entry.answered_at is not None
    await call.send("message", body="hi")
    await call.expect("error", sender="command")
    await call.send("hangup", reason="done")
    await call.expect("trackEnd", trackId=call.call_id)
    hangup = await call.expect_end("done", "system")
    assert hangup["extra"]["call_type"] == "webrtc"
    assert exchange.media.legs == []


async def test_o9_the_call_socket(exchange: Exchange) -> None:
    call = await exchange.opened("invite", call_type=CallType.WEBSOCKET, option={"codec": "pcm", "sampleRate": 24000})
    await call.expect("trackStart")
    await call.expect("answer", sdp="")
    asked = exchange.media.allocations.get_nowait()
    assert (asked.kind, asked.codec, asked.rate_hz) == ("socket", "pcm", 24000)
    await call.detach()
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")


@pytest.mark.parametrize("refusal", [None, Refused(400, "no usable SDP"), Refused(488, "no common codec")])
async def test_o7_webrtc_without_a_usable_offer(exchange: Exchange, refusal: Refused | None) -> None:
    exchange.media.refuses = refusal
    option = {} if refusal is None else {"offer": "rubbish"}
    call = await exchange.opened("invite", call_type=CallType.WEBRTC, option=option)
    error = await call.expect("error", sender="invite")
    assert error["error"] == ("invite: option.offer is missing" if refusal is None else refusal.reason)
    await call.expect_end("failed", "system")


async def test_o27_inactivity_and_lost_ice_end_the_call(exchange: Exchange) -> None:
    call = await exchange.opened("invite", call_type=CallType.WEBRTC, option={"offer": OFFER, "inactivityTimeout": 5})
    await call.expect("trackStart")
    await call.expect("answer")
    assert (await exchange.media.expect(media.ConfigureLeg)).inactivity_timeout_s == 5.0
    await exchange.bus.request(media.LegInactive(call_id=call.call_id))
    await call.expect("inactivity", trackId=call.call_id)
    await call.expect("trackEnd")
    await call.expect_end("inactivityTimeout", "system")

    other = await exchange.opened("invite", call_type=CallType.WEBRTC, option={"offer": OFFER})
    await other.send("play", url="a.wav")
    for name in ("trackStart", "answer", "trackStart"):
        await other.expect(name)
    await exchange.bus.request(media.LegLost(call_id=other.call_id, reason="ICE failed"))
    await other.expect("error", sender="media", error="ICE failed")
    await other.expect("trackEnd", playId="a.wav")
    await other.expect("trackEnd", trackId=other.call_id)
    await other.expect_end("failed", "system")
    assert exchange.media.legs == [], "a worker that lives is asked to close"


@pytest.mark.parametrize("call_type", [CallType.WEBRTC, CallType.WEBSOCKET])
async def test_p44_accept_without_a_call(exchange: Exchange, call_type: CallType) -> None:
    call = await exchange.opened("reject", call_type=call_type)
    await call.expect("error", sender="command")
    await call.send("accept", option={})
    await call.expect("reject", code=486)
    await call.expect("error", sender="accept")
    await call.expect_end("failed", "system")


async def test_a_flood_of_commands_is_refused_and_the_call_goes_on(exchange: Exchange) -> None:
    exchange.media.has_room.clear()
    call = await exchange.opened("invite", call_type=CallType.WEBSOCKET, option={})
    await exchange.media.allocations.get()
    with pytest.raises(Refused) as refused:  # noqa: PT012 - one of them, and nobody can say which
        for _ in range(2000):
            await call.send("mute")
    assert refused.value.code == 429
    exchange.media.has_room.set()
    await call.expect("trackStart")
    await call.expect("answer")
    await call.send("hangup")
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")
