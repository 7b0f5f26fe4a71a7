"""What phones do during a call: keys, hold, messages, REFER, OPTIONS (P-91 to P-97, P-110)."""

import pytest

from tests.conformance.files import recording, silent
from tests.conformance.parties import LEVEL, SOON_S, assert_balanced, description, hears, inbound, media_of, outbound
from tests.ensemble import Exchange
from tests.peers.phone import Phone
from tests.peers.rtp import open_peer, tone


@pytest.mark.row("P-91", "P-109")
@pytest.mark.fault("X-13")
async def test_p091_keys_as_telephone_events(exchange: Exchange) -> None:
    for there in (inbound, outbound):
        async with there(exchange) as call:
            await (call.accept() if call.incoming else call.up())
            for digit in "1#A*5":
                await call.rtp.press(digit)
            await call.rtp.press("5")  # again is a new key
            await call.client.expect("dtmf", SOON_S, digit="5")
            await call.client.expect("dtmf", SOON_S, digit="5")
            await call.hang_up()
            await call.client.until_closed(SOON_S)
            assert "".join(event["digit"] for event in call.client.of("dtmf")) == "1#A*55"


@pytest.mark.row("P-92")
async def test_p092_keys_as_info(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        for body, kind in (
            ("Signal=4\r\nDuration=160\r\n", "application/dtmf-relay"),
            ("Signal= #\r\n", "application/dtmf-relay"),
            ("9", "application/dtmf"),
        ):
            call.dialog.request("INFO", body, content_type=kind)
            await call.dialog.expect_response(200, SOON_S, method="INFO")
        await call.client.expect("dtmf", SOON_S, digit="9")
        assert [event["digit"] for event in call.client.of("dtmf")] == ["4", "#", "9"]
        await call.hang_up()


@pytest.mark.row("P-93")
@pytest.mark.fault("X-12")
async def test_p093_hold(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept(recorder={})
        for index, (changes, answered, held) in enumerate(
            [
                ({"direction": "sendonly"}, "a=recvonly", True),
                ({"direction": "sendrecv"}, "a=sendrecv", False),
                ({"direction": "inactive"}, "a=inactive", True),
                ({"direction": "sendrecv"}, "a=sendrecv", False),
                ({"connection": "0.0.0.0"}, "", True),
                ({"direction": "sendonly"}, "a=recvonly", None),  # still held: no event
                ({"direction": "sendrecv"}, "a=sendrecv", False),
            ],
            2,
        ):
            call.dialog.invite_again(call.description(version=index, **changes))
            ok = await call.dialog.expect_response(200, SOON_S, method="INVITE")
            call.dialog.ack()
            assert answered in ok.text
            if held is not None:
                await call.client.expect("hold", SOON_S, onHold=held)
            if held and index == 2:
                await call.rtp.speak(tone(900, 0.5, 8000))  # what is said on hold
                await call.rtp.speak(tone(900, 0.5, 8000, 0.0))  # and has left the jitter buffer before the hold ends
        await call.hang_up()
        await call.client.until_closed(SOON_S)
        assert [event["onHold"] for event in call.client.of("hold")] == [True, False, True, False, True, False]
        both, _ = await recording(exchange, call.client.main)
        assert silent(both[:, 0]), "on hold the caller is replaced by silence"


@pytest.mark.row("P-93")
@pytest.mark.fault("X-12")
async def test_p093_a_reinvite_moves_the_media_and_one_without_sdp_gets_our_offer(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        await call.say_tone(700, 20.0, playId="p")
        await call.hears(700)
        other = await open_peer("pcma")
        try:
            call.dialog.invite_again(description(other, version=2))
            ok = await call.dialog.expect_response(200, SOON_S, method="INVITE")
            call.dialog.ack()
            other.remote = media_of(ok.text)
            await hears(other, 700)
            call.dialog.invite_again("")
            ok = await call.dialog.expect_response(200, SOON_S, method="INVITE")
            assert "m=audio" in ok.text
            call.dialog.ack(description(other, version=3))
            await hears(other, 700)
            call.dialog.request("UPDATE", description(other, version=4))
            ok = await call.dialog.expect_response(200, SOON_S, method="UPDATE")
            assert "m=audio" in ok.text
        finally:
            other.close()
        await call.hang_up()


@pytest.mark.row("P-94")
@pytest.mark.fault("X-25")
async def test_p094_messages_both_ways(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.client.send("message", body="too early")
        await call.client.expect("error", SOON_S, sender="command")
        await call.accept()
        call.dialog.request("MESSAGE", '{"seat": 12}', content_type="application/json")
        await call.dialog.expect_response(200, SOON_S, method="MESSAGE")
        event = await call.client.expect("message", SOON_S)
        assert (event["body"], event["contentType"], event["refer"]) == ('{"seat": 12}', "application/json", False)
        await call.client.send("message", body="grüß dich", headers={"X-Note": "1"})
        message = await call.dialog.expect_request("MESSAGE", SOON_S)
        call.dialog.reply(message, 200)
        assert (message.text, message.header("X-Note")) == ("grüß dich", "1")
        assert message.header("Content-Type").replace(" ", "").lower() == "text/plain;charset=utf-8"
        await call.client.send("message", text="the old name", contentType="text/html")
        message = await call.dialog.expect_request("MESSAGE", SOON_S)
        call.dialog.reply(message, 415)
        assert (message.text, message.header("Content-Type")) == ("the old name", "text/html")
        await call.client.expect("error", SOON_S, sender="command")
        await call.hang_up()


@pytest.mark.row("P-95")
async def test_p095_a_refer_is_told_and_nothing_else_happens(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        headers = [("Refer-To", "<sip:8100@10.20.0.30>"), ("Referred-By", "<sip:boss@10.20.0.9>")]
        call.dialog.request("REFER", headers=headers)
        await call.dialog.expect_response(202, SOON_S, method="REFER")
        event = await call.client.expect("transferRequest", SOON_S)
        assert "sip:8100@10.20.0.30" in event["referTo"]
        assert "sip:boss@10.20.0.9" in event["referredBy"]
        await call.say_tone(700, 1.0)
        await call.hears(700)
        await call.hang_up()


@pytest.mark.row("P-110")
@pytest.mark.fault("X-12")
async def test_p110_options_within_and_outside_of_a_call_and_other_methods(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        for method, status in (("OPTIONS", 200), ("NOTIFY", 200), ("PUBLISH", 405)):
            headers = [("Event", "refer")] if method == "NOTIFY" else []
            call.dialog.request(method, headers=headers)
            await call.dialog.expect_response(status, SOON_S, method=method)
        await call.hang_up()
    async with Phone.open() as phone:
        told = await phone.ask("OPTIONS", exchange.address("x")).expect_response(200, SOON_S)
        assert {"INVITE", "ACK", "BYE", "CANCEL"} <= {name.strip() for name in told.header("Allow").split(",")}
        assert "application/sdp" in told.header("Accept")
        await phone.ask("REFER", exchange.address("x"), [("Refer-To", "<sip:a@b>")]).expect_response(400, SOON_S)
        await phone.ask("PUBLISH", exchange.address("x")).expect_response(405, SOON_S)
        stranger = phone.dialog(exchange.address("x"))
        stranger.remote += ";tag=nobody"
        stranger.request("BYE")
        await stranger.expect_response(481, SOON_S)


@pytest.mark.row("P-97")
async def test_p097_bridge(exchange: Exchange) -> None:
    async with inbound(exchange) as one, inbound(exchange, codec="g722") as two:
        await one.accept()
        await two.accept()
        a, b = one.client.main, two.client.main
        for target in ("nobody", a):
            await one.client.send("bridge", targetSessionId=target)
            await one.client.expect("error", SOON_S, sender="command")
        await one.client.send("bridge", targetSessionId=b)
        await one.client.expect("trackStart", SOON_S, trackId=f"bridge:{a}:to:{b}")
        await two.client.expect("trackStart", SOON_S, trackId=f"bridge:{b}:to:{a}")
        async with one.speaking(500), two.speaking(1100):
            await two.hears(500)
            await one.hears(1100)
            await one.say_tone(1700, 20.0, playId="p")  # speech keeps working, for one side
            await one.hears(1700, 1100)
            assert two.level(1700) < LEVEL / 3
            await one.client.send("bridge", targetSessionId=b)  # again: replaced
            await one.client.expect("trackStart", SOON_S, trackId=f"bridge:{a}:to:{b}")
            await one.hears(1100)
            for _ in range(2):  # idempotent
                await two.client.send("unbridge", targetSessionId=a)
            await two.does_not_hear(500)
            await one.does_not_hear(1100)
        await one.client.expect("trackEnd", SOON_S, trackId=f"bridge:{a}:to:{b}")
        await one.client.send("bridge", targetSessionId=b)
        async with two.speaking(1100):
            await one.hears(1100)
        await two.hang_up()  # the other lives on
        await two.client.until_closed(SOON_S)
        await one.say_tone(700, 1.0, playId="q", endOfStream=True)
        await one.hears(700)
        await one.client.send("unbridge", targetSessionId=b)
        await one.client.expect("trackEnd", SOON_S, playId="q")
        await one.hang_up()
        assert await one.client.until_closed(SOON_S) == 1000
        assert_balanced(one.client.events)
        assert_balanced(two.client.events)
