"""Calls from outside: INVITE to hangup at a real sip-ua (protocol sections 2.2 to 2.4, 4 and 5)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest

from dialbus.bus import Refused
from dialbus.contracts import media
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.options import RecorderOption
from dialbus.contracts.session import Attach, CallState, ClientCommandSent, WebhookOutcome
from tests.harness import eventually, next_message, refused_raw
from tests.peers.exchange import RTP, SSRC, Exchange
from tests.peers.phone import Message, Phone, sdp


async def test_announced_accepted_and_hung_up_by_the_caller(exchange: Exchange, phone: Phone) -> None:
    """O10 and O15."""
    dialog = phone.call(exchange.uri)
    await dialog.expect_response(100)
    call = await exchange.taken(dialog)
    await call.send("accept", option={"vad": {"type": "silero"}})

    await call.expect("trackStart", trackId=call.call_id)
    answer = await call.expect("answer", trackId=call.call_id, refer=False)
    ok = await dialog.expect_response(200)
    assert answer["sdp"] == ok.text
    assert f"m=audio {RTP[1]} RTP/AVP 0 8 101" in ok.text
    assert dialog.dialog_id == call.call_id
    dialog.ack()
    assert (await exchange.media.expect(media.ConfigureLeg)).vad is not None
    remote = (await exchange.media.expect(media.ConnectLeg)).remote
    assert (remote.address, remote.port) == phone.rtp.getsockname()
    assert (remote.codec, remote.payload_type, remote.telephone_event_pt) == ("pcmu", 0, 101)

    dialog.bye()
    await dialog.expect_response(200)
    end = await call.expect("trackEnd", trackId=call.call_id, ssrc=SSRC)
    assert end["duration"] >= 0
    hangup = await call.expect_end("byCaller", "caller")
    assert hangup["from"]["source"] == phone.uri
    assert hangup["to"] == {"username": "4000", "realm": "127.0.0.1", "source": exchange.uri}
    assert hangup["startTime"] <= hangup["answerTime"] <= hangup["hangupTime"]
    await exchange.media.expect(media.CloseLeg)


async def test_webhook_body_and_books_stand_before_anybody_is_told(exchange: Exchange, phone: Phone) -> None:
    """G7, protocol 5.4 and 5.5; the queue's message is looked at the moment it arrives."""
    headers = [("X-Tenant", "blue"), ("Subject", "hello")]
    dialog = phone.call(exchange.uri, headers=headers, caller="sip:7455@192.0.2.15", tag="b81Fe0")
    webhook = await exchange.announced(dialog)
    session = await exchange.sessions.get(webhook.call_id)
    assert session is not None
    assert (session.state, session.owner, session.gateway) == (CallState.PENDING, exchange.ua.instance, None)
    assert (session.caller, session.callee) == ("sip:7455@192.0.2.15", exchange.uri)

    body = json.loads(webhook.body.to_json())
    assert list(body) == ["event", "dialogId", "caller", "callee", "createdAt", "headers", "offer"]
    assert (body["event"], body["caller"], body["callee"]) == ("invite", "sip:7455@192.0.2.15", exchange.uri)
    assert body["offer"] == phone.sdp()
    assert datetime.fromisoformat(body["createdAt"]).utcoffset() is not None
    assert "X-Tenant: blue" in body["headers"]
    assert any(line.startswith("Via: SIP/2.0/UDP") for line in body["headers"])
    assert all(isinstance(line, str) for line in body["headers"])

    ((first, second),) = re.findall(rf"^{re.escape(dialog.call_id)}-(\w+)-(\w+)$", body["dialogId"])
    assert first.encode() > second.encode()
    assert "b81Fe0" in (first, second)
    assert {len(tag) for tag in (first, second) if tag != "b81Fe0"} == {8}

    call = exchange.follow(webhook.call_id)
    incoming = await call.expect("incoming", sdp=phone.sdp(), caller="sip:7455@192.0.2.15")
    assert incoming["headers"] == {"X-Tenant": "blue"}
    stored = [event async for event in _first(exchange, call.call_id, session.first_sequence)]
    assert stored == ["incoming"]
    dialog.cancel()
    await dialog.expect_response(200, method="CANCEL")


async def _first(exchange: Exchange, call_id: str, sequence: int) -> AsyncIterator[str]:
    async for event in exchange.bus.events(call_id, sequence):
        yield event.name
        return


@pytest.mark.parametrize(("tag", "is_first"), [("0", False), ("zzzzzzzzz", True)])
async def test_dialog_id_has_the_larger_tag_first(exchange: Exchange, phone: Phone, tag: str, is_first: bool) -> None:
    dialog = phone.call(exchange.uri, tag=tag)
    webhook = await exchange.announced(dialog)
    tags = webhook.call_id.removeprefix(f"{dialog.call_id}-")
    assert tags.startswith(f"{tag}-") is is_first
    dialog.cancel()
    await dialog.expect_response(200, method="CANCEL")


@pytest.mark.parametrize(
    ("fields", "status", "reason", "header"),
    [
        ({}, 603, "rejected", ""),
        ({"reason": "no lines"}, 603, "no lines", 'SIP;cause=603;text="no lines"'),
        ({"code": 486, "reason": "busy"}, 486, "busy", 'SIP;cause=486;text="busy"'),
        ({"code": 404}, 404, "rejected", ""),
    ],
)
async def test_rejected(
    exchange: Exchange, phone: Phone, fields: dict[str, Any], status: int, reason: str, header: str
) -> None:
    """O12."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("reject", **fields)
    assert (await dialog.expect_response(status)).header("Reason") == header
    await call.expect_end(reason, "callee")


async def test_reject_with_a_code_that_refuses_nothing_leaves_the_call_pending(
    exchange: Exchange, phone: Phone
) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("reject", code=302)
    await call.expect("error", sender="command")
    await call.send("reject")
    await dialog.expect_response(603)
    await call.expect_end("rejected", "callee")


async def test_cancelled_by_the_caller(exchange: Exchange, phone: Phone) -> None:
    """O13."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("ringing")
    await dialog.expect_response(180)
    dialog.cancel()
    await dialog.expect_response(200, method="CANCEL")
    await dialog.expect_response(487)
    await call.expect_end("canceled", "caller")


async def test_cancelled_while_the_accept_is_under_way(exchange: Exchange, phone: Phone) -> None:
    """No `answer` for a call that was never answered; the leg that came too late is given back."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    exchange.media.has_room.clear()
    await call.send("accept", option={})
    await next_message(exchange.media.allocations)
    dialog.cancel()
    await dialog.expect_response(200, method="CANCEL")
    await dialog.expect_response(487)
    exchange.media.has_room.set()
    await call.expect_end("canceled", "caller")
    await exchange.media.expect(media.CloseLeg)


@pytest.mark.parametrize(("how", "code"), [("hangup", 603), ("reject", 603), ("socket", 603)])
async def test_the_end_of_a_call_waits_for_no_media_worker(
    exchange: Exchange, phone: Phone, how: str, code: int
) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    exchange.media.has_room.clear()
    await call.send("accept", option={})
    await next_message(exchange.media.allocations)
    await (call.detach() if how == "socket" else call.send(how))
    await dialog.expect_response(code)
    await call.expect_end(*(("rejected", "callee") if how == "reject" else ("bySystem", "system")))
    exchange.media.has_room.set()
    await exchange.media.expect(media.CloseLeg)


async def test_webhook_that_fails_is_a_503(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    webhook = await exchange.announced(dialog)
    call = exchange.follow(webhook.call_id)
    reason = "No invite handler configured"
    await exchange.bus.request(WebhookOutcome(call_id=call.call_id, delivered=False, reason=reason))
    refusal = await dialog.expect_response(503)
    assert refusal.header("Reason") == f'SIP;cause=503;text="{reason}"'
    await call.expect("incoming")
    await call.expect_end("failed", "system")


async def test_webhook_that_fails_after_the_accept_changes_nothing(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    await exchange.bus.request(WebhookOutcome(call_id=call.call_id, delivered=False, reason="500"))
    dialog.bye()
    await dialog.expect_response(200)
    await call.expect("trackEnd")
    await call.expect_end("byCaller", "caller")


async def test_socket_lost_while_pending(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.detach()
    refusal = await dialog.expect_response(603)
    assert refusal.header("Reason") == 'SIP;cause=603;text="handler disconnected"'
    await call.expect_end("bySystem", "system")


async def test_socket_lost_while_up(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    await call.detach()
    await dialog.expect_bye()
    await call.expect("trackEnd")
    await call.expect_end("bySystem", "system")


async def test_hung_up_by_the_client_with_headers(exchange: Exchange, phone: Phone) -> None:
    """O16 and protocol 5.10: the command's headers win over the option's, and none replaces a standard one."""
    dialog = phone.call(exchange.uri)
    sip = {"hangup_headers": {"X-Cost": "1", "X-Plan": "free"}, "headers": {"X-Only-On-Invite": "1"}}
    call = await exchange.accepted(dialog, sip=sip)
    headers = {"X-Cost": "2", "CSeq": "99 BYE", "X-Bad": "a\r\nb"}
    await call.send("hangup", reason="Normal clearing", initiator="caller", headers=headers)
    bye = await dialog.expect_bye()
    assert (bye.header("X-Cost"), bye.header("X-Plan")) == ("2", "free")
    assert len(bye.all("CSeq")) == 1
    assert bye.cseq < 99
    assert not bye.all("X-Only-On-Invite")
    assert not bye.all("X-Bad")
    await call.expect("trackEnd")
    await call.expect_end("Normal clearing", "caller")


async def test_auto_hangup_and_its_hangup_headers(exchange: Exchange, phone: Phone) -> None:
    """O18, from the PlaybackEnded on."""
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog, sip={"hangup_headers": {"X-Cost": "1"}})
    await exchange.bus.request(media.PlaybackEnded(call_id=call.call_id))
    assert (await dialog.expect_bye()).header("X-Cost") == "1"
    await call.expect("trackEnd")
    await call.expect_end("autohangup", "system")


async def test_bye_before_the_ack(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await dialog.expect_response(200)
    dialog.bye()
    await dialog.expect_response(200, method="BYE")
    for name in ("trackStart", "answer", "trackEnd"):
        await call.expect(name)
    await call.expect_end("byCaller", "caller")


async def test_hangup_of_ours_waits_for_the_ack(exchange: Exchange, phone: Phone) -> None:
    """RFC 3261 §15: the callee sends no BYE before the ACK."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await dialog.expect_response(200)
    await call.send("hangup")
    for name in ("trackStart", "answer", "trackEnd"):
        await call.expect(name)
    await call.expect_end("bySystem", "system")
    dialog.assert_silent()
    dialog.ack()
    await dialog.expect_bye()


async def test_answer_is_sent_again_until_the_ack(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await dialog.expect_response(200)
    await eventually(lambda: dialog.count("INVITE", 200) >= 2, what="a second 200")
    dialog.ack()
    await call.send("hangup")
    await dialog.expect_bye()


async def test_retransmitted_invite_makes_no_second_call(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    assert dialog.invite is not None
    dialog.send_again(dialog.invite)
    call = await exchange.taken(dialog)
    dialog.send_again(dialog.invite)
    await call.send("ringing")
    await dialog.expect_response(180)
    dialog.send_again(dialog.invite)
    await eventually(lambda: dialog.count("INVITE", 180) == 2, what="the 180 for a copy")
    await call.send("reject")
    await dialog.expect_response(603)
    await call.expect_end("rejected", "callee")
    await exchange.bus.flush()
    assert exchange.webhooks.empty()


async def test_ringing_with_early_media_then_accept(exchange: Exchange, phone: Phone) -> None:
    """O11; a ringtone said again is replaced, and none survives the answer."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    recorder = {"recorderFile": "ring.wav"}
    old, ringtone = "http://192.0.2.1/old.wav", "http://192.0.2.1/ring.wav"
    await call.send("ringing", ringtone=old, recorder=recorder)
    early = await dialog.expect_response(183)
    await call.expect("trackStart", trackId=call.call_id)
    assert (await exchange.media.expect(media.ConfigureLeg)).recorder == RecorderOption(recorder_file="ring.wav")
    await exchange.media.expect(media.ConnectLeg)
    await call.expect("trackStart", trackId="server-side-track", playId=old)
    await call.send("ringing", ringtone=ringtone)
    for name in ("interruption", "trackEnd"):
        await call.expect(name, playId=old)
    await call.expect("trackStart", playId=ringtone)
    assert [(await exchange.media.expect(media.Playback)).loop for _ in range(2)] == [False, False]
    await call.send("ringing")
    await eventually(lambda: dialog.count("INVITE", 183) == 3, what="a 183 for each ringing")

    await call.send("accept", option={"recorder": {"recorderFile": "late.wav"}})
    ok = await dialog.expect_response(200)
    assert ok.text == early.text
    assert _tag(ok) == _tag(early)
    dialog.ack()
    await call.expect("trackEnd", trackId="server-side-track", playId=ringtone)
    await call.expect("answer", sdp=ok.text)
    assert (await exchange.media.expect(media.StopPlayback)).interruption is False
    entry = await call.session()
    assert entry.ringing_at is not None
    await call.send("hangup")
    await dialog.expect_bye()


def _tag(response: Message) -> str:
    return response.header("To").rpartition("tag=")[2]


@pytest.mark.parametrize("end", ["reject", "cancel", "hangup"])
async def test_ended_after_early_media(exchange: Exchange, phone: Phone, end: str) -> None:
    """O12 and O13 with a leg: its track ends before the call."""
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("ringing", earlyMedia=True)
    await dialog.expect_response(183)
    await call.expect("trackStart")
    if end == "cancel":
        dialog.cancel()
        await dialog.expect_response(200, method="CANCEL")
    else:
        await call.send(end)
    await dialog.expect_response(487 if end == "cancel" else 603)
    assert (await call.expect("trackEnd"))["duration"] == 0
    reasons = {"reject": ("rejected", "callee"), "cancel": ("canceled", "caller"), "hangup": ("bySystem", "system")}
    await call.expect_end(*reasons[end])
    await exchange.media.expect(media.CloseLeg)


async def test_cancel_after_the_answer_changes_nothing(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    dialog.cancel()
    await dialog.expect_any_response()
    dialog.bye()
    await dialog.expect_response(200, method="BYE")
    await call.expect("trackEnd")
    await call.expect_end("byCaller", "caller")


async def test_routes_of_the_invite_are_used(exchange: Exchange, phone: Phone) -> None:
    """RFC 3261 §12.1.1: the proxies that recorded themselves see our BYE, in their order."""
    proxies = [f"<sip:{phone.host}:{phone.port};lr>", "<sip:192.0.2.77;lr>"]
    dialog = phone.call(exchange.uri, headers=[("Record-Route", proxy) for proxy in proxies])
    call = await exchange.accepted(dialog)
    await call.send("hangup")
    bye = await dialog.expect_bye()
    assert ", ".join(bye.all("Route")).replace(" ", "") == ",".join(proxies)
    assert bye.uri == f"sip:phone@{phone.host}:{phone.port}"


async def test_many_calls_at_once_keep_apart(exchange: Exchange) -> None:
    async with AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(Phone.open()) for _ in range(12)]
        dialogs = [phone.call(exchange.uri) for phone in phones]
        webhooks = [await next_message(exchange.webhooks) for _ in dialogs]
        of = {webhook.call_id.rsplit("-", 2)[0]: exchange.follow(webhook.call_id) for webhook in webhooks}
        calls = [of[dialog.call_id] for dialog in dialogs]
        await asyncio.gather(*(call.send("accept", option={}) for call in calls))
        for phone, dialog, call in zip(phones, dialogs, calls, strict=True):
            await dialog.expect_response(200)
            dialog.ack()
            await call.expect("incoming", caller=phone.uri)
        await asyncio.gather(*(call.send("hangup", reason=call.call_id) for call in calls))
        for dialog, call in zip(dialogs, calls, strict=True):
            await dialog.expect_bye()
            for name in ("trackStart", "answer", "trackEnd"):
                await call.expect(name)
            await call.expect_end(call.call_id, "system")


async def test_parties_are_told_without_names_and_brackets(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.dialog(exchange.uri)
    dialog.local = f'"Müller, Bob" <sip:7455@192.0.2.15:5062;user=phone>;tag={dialog.tag}'
    dialog.invite = dialog.request("INVITE", phone.sdp())
    body = (await exchange.announced(dialog)).body
    assert (body.caller, body.callee) == ("sip:7455@192.0.2.15:5062;user=phone", exchange.uri)
    dialog.cancel()
    await dialog.expect_response(200, method="CANCEL")


async def test_delayed_offer(exchange: Exchange, phone: Phone) -> None:
    """INVITE without SDP: our offer goes out with the 200, the answer comes with the ACK."""
    dialog = phone.call(exchange.uri, sdp="")
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await call.expect("trackStart")
    answer = await call.expect("answer")
    offer = await dialog.expect_response(200)
    assert offer.text == answer["sdp"]
    assert "m=audio 40000 RTP/AVP 9 0 8 101" in offer.text
    assert "a=rtpmap:9 G722/8000" in offer.text
    dialog.ack(phone.sdp(codecs=["8 PCMA/8000"]))
    remote = (await exchange.media.expect(media.ConnectLeg)).remote
    assert (remote.codec, remote.port) == ("pcma", phone.rtp.getsockname()[1])
    await call.send("hangup")
    await dialog.expect_bye()


async def test_delayed_offer_that_is_never_answered_ends_the_call(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri, sdp="")
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await dialog.expect_response(200)
    dialog.ack()
    await dialog.expect_bye()
    for name in ("trackStart", "answer"):
        await call.expect(name)
    await call.expect("error", sender="accept")
    await call.expect("trackEnd")
    await call.expect_end("failed", "system")


async def test_offer_without_a_codec_of_ours_is_a_488(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri, sdp=phone.sdp(codecs=["18 G729/8000"]))
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await dialog.expect_response(488)
    await call.expect("error", sender="accept")
    await call.expect_end("failed", "system")
    assert exchange.media.allocations.empty()


async def test_body_that_is_no_sdp_is_a_488(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri, sdp="hello")
    call = await exchange.taken(dialog)
    await call.send("accept", option={})
    await dialog.expect_response(488)
    await call.expect("error", sender="accept")
    await call.expect_end("failed", "system")


async def test_media_worker_that_refuses_playback_becomes_an_error_event(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)

    async def refuse(command: media.LegRequest[Any]) -> Contract:
        if isinstance(command, media.Playback):
            raise Refused(404, "track not found: server-side-track")
        return Taken()

    exchange.media.answer = refuse
    await call.send("pause")
    await call.expect("error", sender="command", error="track not found: server-side-track", code=404)
    await call.send("hangup")
    await dialog.expect_bye()


async def test_media_worker_that_gives_the_leg_up(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    await exchange.bus.request(media.LegLost(call_id=call.call_id, reason="shutting down"))
    await dialog.expect_bye()
    await call.expect("error", sender="media", error="shutting down")
    await call.expect("trackEnd")
    await call.expect_end("failed", "system")


async def test_command_id_that_comes_twice_is_executed_once(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.accepted(dialog)
    for _ in range(2):
        await call.send("custom", command_id="same", data=1)
    await call.send("custom", command_id="other", data=2)
    await call.expect("custom", data=1)
    await call.expect("custom", data=2)
    await call.send("hangup")
    await dialog.expect_bye()


async def test_command_that_makes_no_sense_is_refused(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    for name in ("dance", "accept"):  # unknown; without its option
        refusal = await refused_raw(exchange.bus, ClientCommandSent, call.call_id, {"command": name})
        assert refusal.code == 400
    await call.send("accept", option={})
    await dialog.expect_response(200)
    dialog.ack()
    await call.send("accept", option={})
    for name in ("trackStart", "answer"):
        await call.expect(name)
    await call.expect("error", sender="command")
    await call.send("hangup")
    await dialog.expect_bye()


async def test_server_side_track_of_the_socket_reaches_the_worker(exchange: Exchange, phone: Phone) -> None:
    dialog = phone.call(exchange.uri)
    webhook = await exchange.announced(dialog)
    call = exchange.follow(webhook.call_id)
    await exchange.bus.request(Attach(call_id=call.call_id, gateway="g", server_side_track="srv"))
    await call.send("accept", option={})
    await dialog.expect_response(200)
    dialog.ack()
    allocation = await exchange.media.allocations.get()
    assert (allocation.server_track, allocation.main_track, allocation.remote_host) == ("srv", call.call_id, phone.host)
    await call.send("hangup")
    await dialog.expect_bye()


def test_sdp_of_the_phone_is_one_audio_line() -> None:
    assert sdp("192.0.2.1", 4000, codecs=["0 PCMU/8000"]).count("m=") == 1
