"""Transfers at a real sip-ua: both legs are scripted phones, the media worker is played (O23 to O26, section 6)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dialbus.bus import Refused
from dialbus.contracts import media
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.session import CallType
from tests.peers.exchange import RTP, SSRC, Call, Exchange
from tests.peers.phone import Dialog, Phone, is_authorized

NONCE = "84f1c1ae6cbe5ua9c8e88dfa3ecm3459"
SERVER = "server-side-track"
MOH = "http://192.0.2.1/hold.wav"


@pytest_asyncio.fixture
async def target() -> AsyncIterator[Phone]:
    """The phone that calls are transferred to."""
    async with Phone.open() as one:
        yield one


async def _up(exchange: Exchange, phone: Phone, **option: object) -> tuple[Call, Dialog]:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog, **option)
    await exchange.media.expect(media.ConnectLeg)  # the last that its accept asks of media
    exchange.media.heard.clear()
    return call, dialog


async def _referred(call: Call, target: Phone, **options: object) -> Dialog:
    await call.send("refer", callee=target.uri, options=options)
    return await target.expect_call()


async def _joined(call: Call, target: Phone, **options: object) -> Dialog:
    second = await _referred(call, target, **options)
    second.answer()
    await second.expect_request("ACK")
    await call.expect("trackStart", trackId=SERVER)
    await call.expect("answer", refer=True)
    return second


async def test_o23_and_o25_with_music_and_autohangup(exchange: Exchange, phone: Phone, target: Phone) -> None:
    call, first = await _up(exchange, phone, caller="sip:7@h")
    await call.send("play", url="menu.wav")
    await call.expect("trackStart", playId="menu.wav")
    sip = {"username": "7", "password": "secret", "headers": {"X-Tenant": "blue", "X-Referred-Id": "mine"}}
    await call.send("refer", callee=target.uri, options={"moh": MOH, "sip": sip, "vad": {}})
    for name in ("interruption", "trackEnd"):
        await call.expect(name, playId="menu.wav")
    await call.expect("trackStart", playId=MOH)
    second = await target.expect_call()
    invite = second.invite
    assert invite is not None
    assert invite.header("From").startswith("<sip:phone@127.0.0.1"), "an inbound call's From"
    assert invite.header("X-Referred-From") == "sip:7@h"
    assert invite.header("X-Referred-To").startswith("sip:4000@")
    assert (invite.header("X-Referred-Id"), invite.header("X-Tenant")) == ("mine", "blue")
    assert invite.header("Call-ID").startswith("ref-")
    assert f"m=audio {RTP[1]} RTP/AVP 9 0 8 101" in invite.text
    asked = exchange.media.allocations.get_nowait(), exchange.media.allocations.get_nowait()
    assert [one.leg_id for one in asked] == ["main", "refer"]
    assert (asked[1].main_track, asked[1].server_track, asked[1].refer) == (SERVER, call.call_id, True)

    second.reject(401, [("WWW-Authenticate", f'Digest realm="there", nonce="{NONCE}"')])
    await second.expect_request("ACK")
    assert is_authorized(await second.expect_request("INVITE"), "7", "secret", NONCE)
    second.invite = second.seen[-1]
    second.ringing()
    await call.expect("ringing", trackId=SERVER, refer=True, earlyMedia=False)
    answer = second.answer()
    await second.expect_request("ACK")
    await call.expect("trackEnd", trackId=SERVER, playId=MOH)
    begun = await call.expect("trackStart", trackId=SERVER)
    assert "playId" not in begun
    await call.expect("answer", trackId=SERVER, refer=True, sdp=answer.text)
    join = await exchange.media.expect(media.JoinLegs)
    assert (join.leg_id, join.other_leg, join.one_way, join.forward_dtmf, join.pause_asr) == (
        "main", "refer", False, True, False,
    )  # fmt: skip
    connected = await exchange.media.expect(media.ConnectLeg)
    assert (connected.leg_id, connected.remote.port) == ("refer", target.rtp.getsockname()[1])
    assert (await exchange.media.expect(media.ConfigureLeg)).leg_id == "refer"
    loops = [command.loop for command in exchange.media.heard if isinstance(command, media.Playback)]
    assert loops == [False, True]

    second.bye()
    await second.expect_response(200)
    await call.expect("trackEnd", trackId=SERVER, ssrc=SSRC)
    hangup = await call.expect("hangup", trackId=SERVER, refer=True, reason="byCallee", initiator="callee")
    assert hangup["to"]["source"] == target.uri
    await first.expect_bye()
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("byRefer", "system")
    assert exchange.media.legs == []


async def test_o23_early_media_then_o24_refused(exchange: Exchange, phone: Phone, target: Phone) -> None:
    call, first = await _up(exchange, phone)
    second = await _referred(call, target, moh=MOH)
    await call.expect("trackStart", playId=MOH)
    second.ringing(target.sdp())
    await call.expect("ringing", refer=True, earlyMedia=True)
    await call.expect("trackEnd", playId=MOH)
    await call.expect("trackStart", trackId=SERVER)
    assert (await exchange.media.expect(media.JoinLegs)).one_way is True
    second.reject(486)
    await second.expect_request("ACK")
    await call.expect("reject", trackId=SERVER, refer=True, code=486, reason="Busy Here")
    await call.expect("trackEnd", trackId=SERVER)
    await call.expect("hangup", trackId=SERVER, refer=True, reason="rejected", initiator="callee")
    assert exchange.media.legs == [(call.call_id, "main")], "the main call lives"
    await call.send("play", url="sorry.wav")
    await call.expect("trackStart", playId="sorry.wav")

    again = await _joined_after(call, target)
    await call.send("hangup")
    await first.expect_bye()
    await again.expect_bye()
    await call.expect("trackEnd", trackId=SERVER)
    await call.expect("hangup", refer=True, reason="bySystem", initiator="system")
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("bySystem", "system")


async def _joined_after(call: Call, target: Phone) -> Dialog:
    """A second transfer: what plays is interrupted first."""
    await call.send("refer", callee=target.uri)
    for name in ("interruption", "trackEnd"):
        await call.expect(name, playId="sorry.wav")
    second = await target.expect_call()
    second.answer()
    await second.expect_request("ACK")
    await call.expect("trackStart", trackId=SERVER)
    await call.expect("answer", refer=True)
    return second


async def test_o24_timeout_and_an_answer_that_crosses_the_cancel(
    exchange: Exchange, phone: Phone, target: Phone
) -> None:
    call, first = await _up(exchange, phone)
    second = await _referred(call, target, timeout=1, callId="my-call@here")
    assert second.call_id == "my-call@here"
    second.ringing()
    await call.expect("ringing", refer=True)
    cancel = await second.expect_request("CANCEL")
    await call.expect("reject", refer=True, code=408, reason="Timeout when refer")
    await call.expect("hangup", refer=True, reason="noAnswer", initiator="system")
    second.reply(cancel, 200)
    second.answer()
    await second.expect_request("ACK")
    await second.expect_bye()
    await call.send("hangup")
    await first.expect_bye()
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("bySystem", "system")


@pytest.mark.parametrize("is_joined", [True, False])
async def test_p83_hangup_of_the_second_leg_only(
    exchange: Exchange, phone: Phone, target: Phone, is_joined: bool
) -> None:
    call, first = await _up(exchange, phone)
    if is_joined:
        second = await _joined(call, target)
    else:
        second = await _referred(call, target)
        second.ringing()
        await call.expect("ringing", refer=True)
    await call.send("refer", callee=target.uri)
    await call.expect("error", sender="command", code=409)
    await call.send("hangup", refer=True, reason="enough", headers={"X-Why": "1"})
    if is_joined:
        assert (await second.expect_bye()).header("X-Why") == "1"
        await call.expect("trackEnd", trackId=SERVER)
    else:
        second.reply(await second.expect_request("CANCEL"), 200)
        second.reject(487)
        await second.expect_request("ACK")
    await call.expect("hangup", refer=True, reason="enough", initiator="system")
    first.bye()
    await first.expect_response(200)
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("byCaller", "caller")


async def test_p78_p94_what_happens_on_the_second_leg(exchange: Exchange, phone: Phone, target: Phone) -> None:
    call, first = await _up(exchange, phone)
    second = await _joined(call, target, pauseParentAsr=True, forwardDtmf=False, autoHangup=False)
    join = await exchange.media.expect(media.JoinLegs)
    assert (join.pause_asr, join.forward_dtmf) == (True, False)
    second.request("INFO", "Signal=5\r\nDuration=160", content_type="application/dtmf-relay")
    await second.expect_response(200)
    await call.expect("dtmf", trackId=SERVER, refer=True, digit="5")
    second.request("MESSAGE", "from the target", content_type="text/plain")
    await second.expect_response(200)
    await call.expect("message", trackId=SERVER, refer=True, body="from the target")
    second.invite_again(target.sdp(direction="sendonly"))
    held = await second.expect_response(200)
    assert "a=recvonly" in held.text
    second.ack()
    await call.expect("hold", trackId=SERVER, refer=True, onHold=True)
    await call.send("message", body="to the target", refer=True, headers={"X-A": "1"})
    got = await second.expect_request("MESSAGE")
    assert (got.text, got.header("X-A"), got.header("Content-Type")) == (
        "to the target", "1", "text/plain;charset=utf-8",
    )  # fmt: skip
    second.reply(got, 415, reason="No such words")
    assert (await call.expect("error", sender="command"))["error"] == "message: the peer answers 415 No such words"
    await call.send("message", text="to the first", contentType="text/html")
    got = await first.expect_request("MESSAGE")
    assert (got.text, got.header("Content-Type")) == ("to the first", "text/html")
    first.reply(got, 200)
    await call.send("message", body="x", contentType="a\r\nX-Evil: 1")
    await call.expect("error", sender="command")

    await exchange.bus.request(media.LegLost(call_id=call.call_id, leg_id="refer", reason="socket failure"))
    await call.expect("error", sender="media", error="socket failure")
    await second.expect_bye()
    await call.expect("trackEnd", trackId=SERVER)
    await call.expect("hangup", refer=True, reason="failed", initiator="system")
    await call.send("hangup")
    await first.expect_bye()
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("bySystem", "system")


async def test_a_target_that_cannot_be_called_leaves_everything_as_it_is(exchange: Exchange, phone: Phone) -> None:
    call, first = await _up(exchange, phone)
    await call.send("play", url="menu.wav")
    await call.expect("trackStart", playId="menu.wav")
    bad = [("tel:+43", {}), ("sip:a b@c", {}), ("sip:1@host.invalid", {}), ("sip:1@127.0.0.1", {"callId": "a b"})]
    for callee, options in bad:
        await call.send("refer", callee=callee, options=options)
        await call.expect("error", sender="command", code=400)
    exchange.media.refuses = Refused(503, "no room on this media worker")
    await call.send("refer", callee="sip:1@127.0.0.1:9")
    await call.expect("error", sender="command", code=503)
    exchange.media.refuses = None

    async def no_music(command: media.LegRequest[Any]) -> Contract:
        if isinstance(command, media.Playback):
            raise Refused(400, "no such file")
        return Taken()

    async with Phone.open() as target:
        exchange.media.answer = no_music
        second = await _referred(call, target, moh="missing.wav")
        for name in ("interruption", "trackEnd"):
            await call.expect(name, playId="menu.wav")
        await call.expect("error", error="no such file")
        second.ringing()
        await call.expect("ringing", refer=True)
        await call.send("hangup")
        await first.expect_bye()
        second.reply(await second.expect_request("CANCEL"), 200)
        second.reject(487)
    await call.expect("hangup", refer=True, reason="bySystem")
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("bySystem", "system")


@pytest.mark.parametrize("call_type", [CallType.WEBRTC, CallType.WEBSOCKET])
async def test_q14_a_call_without_sip_is_transferred(exchange: Exchange, target: Phone, call_type: CallType) -> None:
    call = await exchange.opened("invite", call_type=call_type, option={"offer": "v=0\r\n"})
    await call.expect("trackStart")
    await call.expect("answer")
    await call.send("refer", callee=target.uri.replace("127.0.0.1", "localhost"))  # a name is looked up
    second = await target.expect_call()
    second.answer()
    await second.expect_request("ACK")
    await call.expect("trackStart", trackId=SERVER)
    await call.expect("answer", refer=True)
    assert second.call_id.startswith("ref-")
    assert second.call_id.endswith(call.call_id)
    await call.detach()
    await second.expect_bye()
    await call.expect("trackEnd", trackId=SERVER)
    await call.expect("hangup", refer=True, reason="bySystem")
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("bySystem", "system")


async def test_the_worker_dies_during_a_transfer(exchange: Exchange, phone: Phone, target: Phone) -> None:
    call, first = await _up(exchange, phone)
    second = await _joined(call, target)
    await exchange.media.vanish()
    await call.send("play", url="a.wav")
    await call.expect("error", sender="media")
    await first.expect_bye()
    await second.expect_bye()
    await call.expect("trackEnd", trackId=SERVER)
    await call.expect("hangup", refer=True, reason="bySystem")
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("failed", "system")
