"""Calls in: webhook, incoming, accept, reject, ringing (P-28 to P-46, O10 to O14)."""

import re
import time
from datetime import UTC, datetime

import pytest

from tests.conformance.files import recording, tones_in
from tests.conformance.parties import SOON_S, client, description, fresh_id, inbound, media_of, ringing_phone
from tests.conformance.strict import is_rfc3339
from tests.ensemble import Exchange
from tests.harness import eventually
from tests.peers.phone import Phone


@pytest.mark.row("P-28", "P-29", "P-30", "P-31", "P-106", "G8")
async def test_p029_the_webhook(exchange: Exchange) -> None:
    number = exchange.number()
    async with inbound(exchange, number=number, headers=[("X-Tenant", "blue")]) as call:
        body = call.body
        assert body["event"] == "invite"
        assert body["caller"] == call.phone.uri
        assert body["callee"] == exchange.address(number)
        assert is_rfc3339(body["createdAt"])
        assert abs((datetime.now(UTC) - datetime.fromisoformat(body["createdAt"])).total_seconds()) < 60
        assert body["offer"] == call.description()
        assert all(
            isinstance(body[key], str) for key in ("dialogId", "createdAt", "caller", "callee", "event", "offer")
        )
        assert "X-Tenant: blue" in body["headers"]
        assert any(line.startswith("Via: SIP/2.0/UDP") for line in body["headers"])
        assert any(line.startswith("From: ") for line in body["headers"])
        [(method, path, headers)] = exchange.webhook.requests[number]
        assert (method, path) == ("POST", "/webhook")
        assert headers["content-type"] == "application/json"
        assert headers["x-conformance"] == "yes"
        # A copy of the INVITE is no second announcement.
        assert call.dialog.invite is not None
        call.dialog.send_again(call.dialog.invite)
        await eventually(lambda: call.dialog.count("INVITE", 100) >= 2, SOON_S)
        await call.client.send("reject")
        await call.dialog.expect_response(603, SOON_S)
        assert len(exchange.webhook.announced[number]) == 1


@pytest.mark.row("P-31")
async def test_p031_the_dialog_id_has_the_larger_tag_first(exchange: Exchange) -> None:
    for tag in ("b81Fe0", "0", "zzzzzzzz", "A-B"):
        async with inbound(exchange, tag=tag) as call:
            await call.client.send("reject")
            refused = await call.dialog.expect_response(603, SOON_S)
            ours = re.search(r";tag=(\w+)", refused.header("To"))
            assert ours is not None
            assert re.fullmatch(r"[A-Za-z0-9]{8}", ours[1])
            larger, smaller = sorted((tag.encode(), ours[1].encode()), reverse=True)
            assert call.body["dialogId"] == f"{call.dialog.call_id}-{larger.decode()}-{smaller.decode()}"


@pytest.mark.row("P-32", "G7")
async def test_p032_a_client_may_connect_before_the_webhook_is_answered(exchange: Exchange) -> None:
    exchange.webhook.release.clear()
    try:
        async with inbound(exchange, number=exchange.number("held")) as call:
            await call.accept()
            exchange.webhook.release.set()
            await call.released()
            await call.client.ended(r"incoming T\(main\) answer E\(main\) hangup\{bySystem,system\}")
    finally:
        exchange.webhook.release.set()


@pytest.mark.row("P-33")
@pytest.mark.fault("X-11")
@pytest.mark.parametrize("prefix", ["broken", "silent", "slow"])
async def test_p033_a_webhook_that_fails_is_503_to_the_caller(exchange: Exchange, prefix: str) -> None:
    exchange.webhook.release.clear()
    try:
        async with ringing_phone(exchange, exchange.number(prefix)) as (_, _, dialog):
            refused = await dialog.expect_response(503, SOON_S)
            assert refused.header("Reason").startswith("SIP;cause=503;text=")
    finally:
        exchange.webhook.release.set()


@pytest.mark.row("P-36", "P-01")
async def test_p036_incoming_comes_at_connect(exchange: Exchange) -> None:
    headers = [("X-Tenant", "blue"), ("X-Trace", "7"), ("Subject", "hello")]
    async with inbound(exchange, headers=headers) as call:
        incoming = call.incoming
        assert incoming["trackId"] == call.body["dialogId"]
        assert (incoming["caller"], incoming["callee"]) == (call.body["caller"], call.body["callee"])
        assert incoming["sdp"] == call.description()
        assert incoming["headers"] == {"X-Tenant": "blue", "X-Trace": "7"}, "only those that no standard names"
        assert call.client.story == "incoming"
        await call.client.send("reject")
        await call.dialog.expect_response(603, SOON_S)


@pytest.mark.row("P-37", "P-38", "O10", "P-47", "P-109")
@pytest.mark.fault("X-13")
async def test_p037_accept(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("accept", option={})
        answer = await call.client.expect("answer", SOON_S)
        ok = await call.answered()
        assert answer["sdp"] == ok.text, "our own SDP"
        assert "a=rtpmap:101 telephone-event/8000\r\n" in ok.text
        assert "\r\n" in ok.text
        assert "\n" not in ok.text.replace("\r\n", "")
        await call.client.send("accept", option={})
        await call.client.expect("error", SOON_S, sender="command")
        await call.hang_up()
        await call.client.ended(r"incoming T\(main\) answer error\{command\} E\(main\) hangup\{byCaller,caller\}")


@pytest.mark.row("P-109")
@pytest.mark.fault("X-13")
async def test_p109_the_answer_keeps_the_offers_order_and_numbers(exchange: Exchange) -> None:
    offers = [
        (["0 PCMU/8000", "9 G722/8000", "97 telephone-event/8000"], [0, 97], "telephone-event/8000"),
        (["18 G729/8000", "9 G722/8000", "8 PCMA/8000", "101 telephone-event/8000"], [9, 101], "G722/8000"),
        (["99 G722/8000", "8 PCMA/8000"], [99], "G722/8000"),
    ]
    for codecs, wanted, line in offers:
        async with Phone.open() as phone:
            number = exchange.number()
            dialog = phone.call(exchange.address(number), sdp=phone.sdp(codecs=codecs), retransmits=True)
            body = await exchange.announcement(number)
            async with client(exchange, body["dialogId"]) as socket:
                await socket.send("accept", option={})
                ok = await dialog.expect_response(200, SOON_S)
                dialog.ack()
                line_of_media = re.search(r"m=audio \d+ RTP/AVP ([\d ]+)\r\n", ok.text)
                assert line_of_media is not None
                numbers = [int(text) for text in line_of_media[1].split()]
                assert numbers[0] == wanted[0], ok.text
                assert [n for n in numbers if n in wanted] == wanted, ok.text
                assert line in ok.text
                assert "G722/16000" not in ok.text
                assert "G729" not in ok.text
                await socket.send("hangup")
                await dialog.expect_bye(SOON_S)


@pytest.mark.row("P-109")
async def test_p109_no_common_codec_is_488(exchange: Exchange) -> None:
    async with inbound(exchange, sdp=None) as call:
        await call.client.send("reject")
    async with Phone.open() as phone:
        number = exchange.number()
        dialog = phone.call(exchange.address(number), sdp=phone.sdp(codecs=["18 G729/8000"]), retransmits=True)
        body = await exchange.announcement(number)
        async with client(exchange, body["dialogId"]) as socket:
            await socket.send("accept", option={})
            await dialog.expect_response(488, SOON_S)
            await socket.ended(r"incoming (T\(main\) )?error\{accept\} (E\(main\) )?hangup\{failed,system\}")


@pytest.mark.row("G19", "P-37")
async def test_g19_speech_at_once_after_accept_is_heard_though_the_ack_is_late(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("accept", option={})
        await call.say_tone(700, 2.0, playId="p", endOfStream=True)
        ok = await call.dialog.expect_response(200, SOON_S)
        await call.client.expect("trackStart", SOON_S, playId="p")
        await call.hears(700)
        call.dialog.ack()
        call.rtp.remote = media_of(ok.text)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hang_up()
        await call.client.until_closed(SOON_S)
        assert not call.client.of("error")


@pytest.mark.row("P-39", "P-41", "O12")
@pytest.mark.fault("X-11")
async def test_p039_reject_is_603(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("reject")
        await call.dialog.expect_response(603, SOON_S)
        await call.client.ended(r"incoming hangup\{rejected,callee\}")


@pytest.mark.row("P-40", "P-41", "O12")
async def test_p040_reject_with_code_and_reason(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        for code in (200, 399, 700, 0):
            await call.client.send("reject", code=code, reason="x")
            await call.client.expect("error", SOON_S, sender="command")
        await call.client.send("reject", code=486, reason='busy "now"')
        refused = await call.dialog.expect_response(486, SOON_S)
        assert refused.header("Reason") == r'SIP;cause=486;text="busy \"now\""'
        await call.client.ended(r'incoming (error\{command\} ){4}hangup\{busy "now",callee\}')


@pytest.mark.row("P-39")
async def test_reject_without_a_call_is_an_error(exchange: Exchange) -> None:
    async with client(exchange, fresh_id()) as socket:
        await socket.send("reject")
        await socket.expect("error", SOON_S, sender="command")


@pytest.mark.row("P-42", "O12")
async def test_p042_ringing_is_180_and_may_be_repeated(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("ringing")
        ringing = await call.dialog.expect_response(180, SOON_S)
        assert not ringing.body
        await call.client.send("ringing")
        await eventually(lambda: call.dialog.count("INVITE", 180) >= 2, SOON_S)
        await call.client.send("reject")
        await call.dialog.expect_response(603, SOON_S)
        assert not call.client.of("ringing"), "no ringing event for a call that comes in"
        await call.client.ended(r"incoming hangup\{rejected,callee\}")


@pytest.mark.row("P-42", "P-43", "O11", "P-66")
async def test_p042_a_ringtone_is_heard_before_the_answer_and_stops_at_accept(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("ringing", ringtone="voices/jfk.wav", recorder={"recorderFile": "ring-{id}"})
        early = await call.dialog.expect_response(183, SOON_S)
        assert media_of(early.text)
        start = await call.client.expect("trackStart", SOON_S, playId="voices/jfk.wav")
        assert start["trackId"] == "server-side-track"
        call.rtp.remote = media_of(early.text)
        await call.rtp.packets(50)
        async with call.speaking(900):
            await call.accept(recorder={"recorderFile": "ignored"})
            await call.say_tone(700, 1.0, playId="p", endOfStream=True)
            await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hang_up()
        await call.client.ended(
            r"incoming T\(main\) T\(srv,voices/jfk.wav\) (interruption\{voices/jfk.wav\} )?"
            r"E\(srv,voices/jfk.wav\) answer T\(srv,p\) E\(srv,p\) "
            r"E\(main\) hangup\{byCaller,caller\}"
        )
        path = exchange.recordings / f"ring-{call.client.main}.wav"
        both, rate_hz = await recording(exchange, "", path=path)
        assert tones_in(both[:, 0], rate_hz, 900)
        assert tones_in(both[:, 1], rate_hz, 700)
        assert not list(exchange.recordings.glob("ignored*")), "the recorder of ringing wins"


@pytest.mark.row("P-42", "O12")
async def test_p042_early_media_without_a_ringtone_and_speech_on_it(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("ringing", earlyMedia=True)
        await call.dialog.expect_response(183, SOON_S)
        await call.say_tone(700, 5.0, playId="early")
        await call.hears(700)
        await call.client.send("reject", code=480)
        await call.dialog.expect_response(480, SOON_S)
        await call.client.ended(
            r"incoming T\(main\) T\(srv,early\) (interruption\{early\} )?E\(srv,early\) E\(main\) "
            r"hangup\{rejected,callee\}"
        )


@pytest.mark.row("P-44", "G3")
async def test_p044_accept_without_a_call(exchange: Exchange) -> None:
    async with client(exchange, fresh_id()) as socket:
        await socket.send("accept", option={})
        await socket.ended(r"reject\{486\} error\{\w+\} hangup\{\w+,\w+\}")
        assert socket.of("reject")[0]["reason"] == "no pending call"


@pytest.mark.row("P-45", "O13")
@pytest.mark.parametrize("rings", [False, True])
async def test_p045_the_caller_gives_up(exchange: Exchange, rings: bool) -> None:
    async with inbound(exchange) as call:
        tracks = ""
        if rings:
            await call.client.send("ringing", ringtone="voices/jfk.wav")
            await call.dialog.expect_response(183, SOON_S)
            await call.client.expect("trackStart", SOON_S, playId="voices/jfk.wav")
            tracks = r"T\(main\) T\(srv,voices/jfk.wav\) "
            tracks += r"(interruption\{voices/jfk.wav\} )?E\(srv,voices/jfk.wav\) E\(main\) "
        call.dialog.cancel()
        await call.dialog.expect_response(200, SOON_S, method="CANCEL")
        await call.dialog.expect_response(487, SOON_S, method="INVITE")
        await call.client.ended(rf"incoming {tracks}hangup\{{canceled,caller\}}")
        # The dialog id is forgotten: a client that comes late has an ordinary idle session.
        async with client(exchange, call.body["dialogId"]) as late:
            await late.send("accept", option={})
            await late.expect("reject", SOON_S, code=486)


@pytest.mark.row("P-37")
async def test_invite_on_a_pending_call_says_use_accept(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("invite", option={"callee": "sip:x@127.0.0.1"})
        error = await call.client.expect("error", SOON_S, sender="command")
        assert "accept" in error["error"]
        await call.accept()
        await call.released()


@pytest.mark.row("P-38")
async def test_p038_an_invite_without_sdp_is_offered_ours(exchange: Exchange) -> None:
    async with inbound(exchange, sdp="") as call:
        assert call.body["offer"] == ""
        await call.client.send("accept", option={})
        ok = await call.dialog.expect_response(200, SOON_S)
        assert re.search(r"m=audio \d+ RTP/AVP 9 0 8 101", ok.text)
        call.dialog.ack(description(call.rtp))
        call.rtp.remote = media_of(ok.text)
        await call.client.expect("answer", SOON_S)
        await call.say_tone(700, 2.0)
        await call.hears(700)
        await call.released()


@pytest.mark.row("P-28")
async def test_an_invite_without_from_tag_is_400(exchange: Exchange) -> None:
    async with Phone.open() as phone:
        dialog = phone.dialog(exchange.address(exchange.number()))
        message = dialog.build("INVITE", phone.sdp(), cseq=1)
        spoiled = tuple((n, v.partition(";tag")[0] if n == "From" else v) for n, v in message.headers)
        phone.send_raw(type(message)(message.start, spoiled, message.body).write(), dialog.peer)
        refused = await dialog.expect_any_response(SOON_S)
        assert refused.status == 400


@pytest.mark.row("P-46", "P-12")
@pytest.mark.fault("X-11")
async def test_p046_hangup_on_a_pending_call_is_603(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        began = time.monotonic()
        await call.client.send("hangup", reason="not today")
        await call.dialog.expect_response(603, SOON_S)
        assert time.monotonic() - began < 3
        await call.client.ended(r"incoming hangup\{not today,system\}")
