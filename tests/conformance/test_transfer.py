"""Transfer: a second call, joined with the first (P-77 to P-85, O23 to O26, protocol section 6)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conformance.files import recording, tones_in
from tests.conformance.parties import (
    LEVEL,
    SERVER,
    SOON_S,
    Call,
    description,
    hears,
    inbound,
    level,
    media_of,
    outbound,
    second_phone,
    speaking,
)
from tests.ensemble import VOICES, Exchange
from tests.harness import eventually
from tests.peers.phone import Dialog, Phone
from tests.peers.rtp import RtpPeer, voice

MOH = "voices/jfk.wav"
FIRST, SECOND, SERVER_TONE = 500, 1100, 1700
MAIN = r"incoming T\(main\) answer "


@asynccontextmanager
async def transferable(exchange: Exchange, **option: Any) -> AsyncIterator[tuple[Call, Phone, RtpPeer]]:
    """A call that is up, and a second phone."""
    async with inbound(exchange) as call, second_phone("pcma") as (phone, rtp):
        await call.accept(**option)
        yield call, phone, rtp


async def refer(call: Call, target: Phone, **options: Any) -> Dialog:
    """Transfer; the INVITE at the target."""
    await call.client.send("refer", callee=target.uri, options=options)
    return await target.expect_call(SOON_S)


async def pick_up(call: Call, dialog: Dialog, rtp: RtpPeer) -> dict[str, Any]:
    """The target answers; the client's `answer`."""
    assert dialog.invite is not None
    rtp.remote = media_of(dialog.invite.text)
    dialog.answer(description(rtp))
    await dialog.expect_request("ACK", SOON_S)
    return await call.client.expect("answer", SOON_S, refer=True)


@pytest.mark.row("P-77", "P-78", "P-81", "O23", "O25", "P-85", "P-101")
async def test_p077_a_transfer_joins_two_phones(exchange: Exchange) -> None:
    async with transferable(exchange, recorder={}) as (call, target, rtp):
        await call.say_tone(SERVER_TONE, 20.0, playId="cut")
        await call.client.expect("trackStart", SOON_S, playId="cut")
        dialog = await refer(call, target)
        assert dialog.invite is not None
        assert dialog.invite.header("X-Referred-Id") == call.client.main
        assert call.body["callee"] in dialog.invite.header("X-Referred-To")
        assert call.body["caller"] in dialog.invite.header("X-Referred-From")
        assert call.body["caller"] in dialog.invite.header("From"), (
            "an inbound call is transferred in its caller's name"
        )
        dialog.ringing()
        await call.client.expect("ringing", SOON_S, refer=True)
        answer = await pick_up(call, dialog, rtp)
        assert answer["trackId"] == SERVER
        assert answer["sdp"] == description(rtp)
        async with call.speaking(FIRST), speaking(rtp, SECOND):
            await call.hears(SECOND)
            await hears(rtp, FIRST)
            await rtp.packets(len(rtp.heard) + 30)
            assert level(rtp, SECOND) < LEVEL / 3, "nobody hears himself"
        dialog.bye()
        await dialog.expect_response(200, SOON_S, method="BYE")
        bye = await call.dialog.expect_bye(SOON_S)  # autoHangup is the default
        assert bye
        await call.client.ended(
            MAIN
            + r"T\(srv,cut\) interruption\{cut\} E\(srv,cut\) (T\(srv\) )?ringing\{refer\} (T\(srv\) )?answer\{refer\} "
            r"E\(srv\) hangup\{refer,byCallee,callee\} E\(main\) hangup\{byRefer,system\}"
        )
        assert call.client.of("hangup", refer=True)[0]["trackId"] == SERVER
        both, rate_hz = await recording(exchange, call.client.main)
        assert tones_in(both[:, 0], rate_hz, FIRST)
        assert not tones_in(both[:, 0], rate_hz, SECOND)
        assert tones_in(both[:, 1], rate_hz, SECOND), "the target is on the server's side"


@pytest.mark.row("P-80", "O23")
async def test_p080_music_on_hold_until_the_answer(exchange: Exchange, sounds: Any) -> None:
    moh = sounds.url("tone.wav")
    async with transferable(exchange) as (call, target, rtp):
        dialog = await refer(call, target, moh=moh, autoHangup=False)
        dialog.ringing()
        await call.client.expect("ringing", SOON_S, refer=True)
        await call.hears(700)
        heard = len(call.rtp.heard)
        await call.rtp.packets(heard + 130, SOON_S)  # 2.6 s: the file has two
        await call.hears(700)
        await pick_up(call, dialog, rtp)
        await call.does_not_hear(700)
        async with speaking(rtp, SECOND):
            await call.hears(SECOND)
        dialog.bye()
        await dialog.expect_response(200, SOON_S, method="BYE")
        await call.client.expect("hangup", SOON_S, refer=True)
        await call.say_tone(SERVER_TONE, 1.0, playId="p", endOfStream=True)  # the main call can speak again
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hang_up()
        await call.client.ended(
            MAIN + rf"T\(srv,{moh}\) ringing\{{refer\}} (interruption\{{{moh}\}} )?E\(srv,{moh}\) T\(srv\) answer"
            r"\{refer\} E\(srv\) hangup\{refer,byCallee,callee\} T\(srv,p\) E\(srv,p\) "
            r"E\(main\) hangup\{byCaller,caller\}"
        )


@pytest.mark.row("P-80")
async def test_p080_music_that_cannot_be_read_is_an_error_and_the_transfer_goes_on(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, rtp):
        dialog = await refer(call, target, moh="voices/missing.wav")
        await call.client.expect("error", SOON_S)
        await pick_up(call, dialog, rtp)
        async with call.speaking(FIRST):
            await hears(rtp, FIRST)
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-77")
async def test_p077_early_media_of_the_target_is_heard_instead_of_music(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, rtp):
        dialog = await refer(call, target, moh=MOH)
        assert dialog.invite is not None
        rtp.remote = media_of(dialog.invite.text)
        dialog.ringing(description(rtp))
        await call.client.expect("ringing", SOON_S, refer=True, earlyMedia=True)
        async with speaking(rtp, SECOND):
            await call.hears(SECOND)
        await pick_up(call, dialog, rtp)
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-82", "O24", "P-78")
@pytest.mark.fault("X-10")
@pytest.mark.parametrize("moh", ["", MOH])
async def test_p082_a_refused_transfer_keeps_the_main_call(exchange: Exchange, moh: str) -> None:
    async with transferable(exchange) as (call, target, _):
        dialog = await refer(call, target, autoHangup=True, **({"moh": moh} if moh else {}))
        dialog.ringing()
        await call.client.expect("ringing", SOON_S, refer=True)
        dialog.reject(486)
        reject = await call.client.expect("reject", SOON_S, refer=True)
        assert (reject["code"], reject["reason"], reject["trackId"]) == (486, "Busy Here", SERVER)
        await call.client.expect("hangup", SOON_S, refer=True)
        await call.say_tone(SERVER_TONE, 1.0, playId="p", endOfStream=True)
        await call.hears(SERVER_TONE)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        # And it can be transferred again.
        again = await refer(call, target)
        again.reject(603)
        await call.client.expect("hangup", SOON_S, refer=True)
        await call.hang_up()
        music = rf"(interruption\{{{moh}\}} )?E\(srv,{moh}\) " if moh else ""
        start = rf"T\(srv,{moh}\) " if moh else r"(T\(srv\) )?"
        await call.client.ended(
            MAIN
            + rf"{start}ringing\{{refer\}} {music}reject\{{refer,486\}} (E\(srv\) )?hangup\{{refer,rejected,callee\}} "
            r"T\(srv,p\) E\(srv,p\) (T\(srv\) )?reject\{refer,603\} (E\(srv\) )?hangup\{refer,rejected,callee\} "
            r"E\(main\) hangup\{byCaller,caller\}"
        )
        assert not call.client.of("error")


@pytest.mark.row("P-79", "O24")
@pytest.mark.fault("X-18")
async def test_p079_a_transfer_that_nobody_answers(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, _):
        dialog = await refer(call, target, timeout=2)
        dialog.ringing()
        cancel = await dialog.expect_request("CANCEL", SOON_S)
        dialog.reply(cancel, 200)
        dialog.reject(487)
        reject = await call.client.expect("reject", SOON_S, refer=True)
        assert (reject["code"], reject["reason"]) == (408, "Timeout when refer")
        hangup = await call.client.expect("hangup", SOON_S, refer=True)
        assert (hangup["reason"], hangup["initiator"]) == ("noAnswer", "system")
        await call.say_tone(SERVER_TONE, 1.0)
        await call.hears(SERVER_TONE)
        await call.hang_up()
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-83", "O24")
async def test_p083_hangup_of_the_transferred_leg_alone(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, rtp):
        ringing = await refer(call, target)
        ringing.ringing()
        await call.client.expect("ringing", SOON_S, refer=True)
        await call.client.send("hangup", refer=True)
        cancel = await ringing.expect_request("CANCEL", SOON_S)
        ringing.reply(cancel, 200)
        ringing.reject(487)
        await call.client.expect("hangup", SOON_S, refer=True)
        dialog = await refer(call, target)
        await pick_up(call, dialog, rtp)
        await call.client.send("hangup", refer=True, reason="enough", headers={"X-Why": "enough"})
        bye = await dialog.expect_bye(SOON_S)
        assert bye.header("X-Why") == "enough"
        hangup = await call.client.expect("hangup", SOON_S, refer=True)
        assert (hangup["reason"], hangup["initiator"]) == ("enough", "system")
        await call.say_tone(SERVER_TONE, 1.0)
        await call.hears(SERVER_TONE)
        call.dialog.assert_silent()  # never autoHangup
        await call.hang_up()
        await call.client.until_closed(SOON_S)


@pytest.mark.row("O26", "P-78", "P-77")
@pytest.mark.parametrize("who", ["caller", "client", "while it rings"])
async def test_o26_the_main_side_ends_during_a_transfer(exchange: Exchange, who: str) -> None:
    async with transferable(exchange) as (call, target, rtp):
        dialog = await refer(call, target)
        if who == "while it rings":
            dialog.ringing()
            await call.client.expect("ringing", SOON_S, refer=True)
            call.dialog.bye()
            cancel = await dialog.expect_request("CANCEL", SOON_S)
            dialog.reply(cancel, 200)
            dialog.reject(487)
            await call.client.until_closed(SOON_S)
            assert call.client.story.endswith("E(main) hangup{byCaller,caller}")
            return
        await pick_up(call, dialog, rtp)
        if who == "caller":
            call.dialog.bye()
        else:
            await call.client.send("hangup")
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)
        end = "byCaller,caller" if who == "caller" else "bySystem,system"
        tail = call.client.story.partition("answer{refer} ")[2]
        assert tail.startswith("E(srv) hangup{refer,")
        assert tail.endswith(f"E(main) hangup{{{end}}}")


@pytest.mark.row("P-84", "P-75")
@pytest.mark.fault("X-09")
async def test_p084_speech_during_the_transfer_is_mixed_and_the_join_stays(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, rtp):
        dialog = await refer(call, target)
        await pick_up(call, dialog, rtp)
        async with call.speaking(FIRST), speaking(rtp, SECOND):
            await call.hears(SECOND)
            await call.say_tone(SERVER_TONE, 20.0, playId="p")
            await call.hears(SERVER_TONE, SECOND)
            await hears(rtp, FIRST)
            assert level(rtp, SERVER_TONE) < LEVEL / 3, "only the first party hears it"
            await call.client.send("play", url="numbers/11.wav", playId="file")
            await call.client.expect("trackEnd", SOON_S, playId="file")
            await call.hears(SECOND)
            await call.client.send("interrupt")
            await call.client.send("mute", trackId=SERVER)  # the target is muted
            await call.does_not_hear(SECOND)
            await hears(rtp, FIRST)
            await call.client.send("unmute", trackId=SERVER)
            await call.hears(SECOND)
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)
        assert not call.client.of("error")


@pytest.mark.row("P-15", "P-77")
async def test_p015_a_second_refer_is_an_error_and_other_commands_are_not_stalled(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, _):
        dialog = await refer(call, target)
        dialog.ringing()
        await call.client.expect("ringing", SOON_S, refer=True)
        await call.client.send("refer", callee=target.uri)
        await call.client.expect("error", SOON_S, sender="command", code=409)
        await call.client.send("history", speaker="x", text="meanwhile")
        await call.client.expect("addHistory", SOON_S)
        dialog.reject(486)
        await call.client.expect("hangup", SOON_S, refer=True)
        await call.hang_up()
        await call.client.until_closed(SOON_S)
    async with outbound(exchange) as call:  # not before the answer
        ringing = await call.invite()
        await call.client.send("refer", callee=call.phone.uri)
        await call.client.expect("error", SOON_S, sender="command")
        ringing.reject(486)


@pytest.mark.row("P-85", "P-77", "P-19")
async def test_p085_a_transfer_of_an_outbound_call_with_credentials(exchange: Exchange) -> None:
    async with outbound(exchange) as call, second_phone() as (target, rtp):
        await call.up(caller="sip:7301@10.20.0.4:13050")
        dialog = await refer(call, target, sip={"username": "7301", "password": "x", "headers": {"X-Leg": "2"}})
        assert dialog.invite is not None
        assert "sip:7301@10.20.0.4:13050" in dialog.invite.header("From")
        assert call.phone.uri in dialog.invite.header("X-Referred-To")
        assert dialog.invite.header("X-Leg") == "2"
        dialog.reject(401, [("WWW-Authenticate", 'Digest realm="x", nonce="n"')])
        await dialog.expect_request("ACK", SOON_S)
        again = await dialog.expect_request("INVITE", SOON_S)
        assert again.header("Authorization")
        await pick_up(call, dialog, rtp)
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-77", "P-91", "P-78")
async def test_p077_keys_pass_between_the_legs_and_are_flagged(exchange: Exchange) -> None:
    async with transferable(exchange) as (call, target, rtp):
        dialog = await refer(call, target)
        await pick_up(call, dialog, rtp)
        async with call.speaking(FIRST):
            await hears(rtp, FIRST)
        await call.rtp.press("7")
        await call.client.expect("dtmf", SOON_S, digit="7", refer=False)
        await eventually(lambda: any(packet.payload_type == 101 for packet in rtp.heard), SOON_S)
        assert next(packet for packet in rtp.heard if packet.payload_type == 101).payload[0] == 7
        await rtp.press("9")
        key = await call.client.expect("dtmf", SOON_S, digit="9")
        assert (key["refer"], key["trackId"]) == (True, SERVER)
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-78", "P-86")
async def test_p078_the_targets_speech_is_understood_and_flagged(exchange: Exchange) -> None:
    async with transferable(exchange, vad={}, asr={}) as (call, target, rtp):
        dialog = await refer(call, target, vad={}, asr={})
        await pick_up(call, dialog, rtp)
        async with speaking(rtp, voice(VOICES / "lj.wav", rtp.rate_hz)):
            speech = await call.client.expect("speaking", SOON_S)
            assert (speech.get("refer"), speech["trackId"]) == (True, SERVER)
            final = await call.client.expect("asrFinal", 40)
            assert (final.get("refer"), final["trackId"]) == (True, SERVER)
            assert final["text"]
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)
