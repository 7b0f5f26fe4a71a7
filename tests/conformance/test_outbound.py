"""Calls out: invite and what comes of it (P-16 to P-27, O1 to O7)."""

import re
import secrets

import pytest

from tests.conformance.files import recording, tones_in
from tests.conformance.parties import SOON_S, TELEPHONE_EVENT, client, description, fresh_id, level, media_of, outbound
from tests.ensemble import VOICES, Exchange
from tests.harness import eventually
from tests.peers import digest
from tests.peers.phone import is_authorized
from tests.peers.rtp import open_peer, tone, voice

CREDENTIALS = {"username": "7301", "password": "s3cr3t"}


@pytest.mark.row("P-16", "P-22", "O1", "P-24")
async def test_p016_an_answered_call(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        dialog.ringing()
        assert dialog.invite is not None
        dialog.reply(dialog.invite, 183, call.description())
        await call.client.told(r"T\(main\) ringing ringing")
        answer = await call.answer()
        assert answer["sdp"] == call.description(), "the remote SDP of the 200"
        async with call.speaking(440):
            await call.client.expect("mediaReady", SOON_S)
        await call.released()
        await call.client.ended(r"T\(main\) ringing ringing answer E\(main\) hangup\{bySystem,system\}")
        assert [event["earlyMedia"] for event in call.client.of("ringing")] == [False, True]
        names = [name for name in call.client.names if name != "ping"]
        assert names.count("mediaReady") == 1
        assert names.index("mediaReady") > names.index("answer")


@pytest.mark.row("P-16", "P-24", "O2", "G3", "G10")
@pytest.mark.fault("X-03")
@pytest.mark.parametrize("status", [302, 404, 486, 503, 603])
async def test_p024_a_refused_call(exchange: Exchange, status: int) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        dialog.ringing()
        await call.client.told(r"T\(main\) ringing")
        dialog.reject(status, reason="No Such Luck")
        await call.client.ended(rf"T\(main\) ringing reject\{{{status}\}} E\(main\) hangup\{{rejected,callee\}}")
        assert call.client.of("reject")[0]["reason"] == "No Such Luck"


@pytest.mark.row("P-17")
async def test_p017_the_default_caller_is_the_local_address(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        assert dialog.invite is not None
        assert re.match(rf"<?sip:{re.escape(exchange.sip)}>?;tag=", dialog.invite.header("From"))
        dialog.reject(486)


@pytest.mark.row("P-17")
async def test_p017_caller_and_callee_without_scheme_and_a_caller_of_ones_own(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        plain = call.phone.uri.removeprefix("sip:")
        dialog = await call.invite(callee=plain, caller="7301@192.0.2.9")
        assert dialog.invite is not None
        assert "sip:7301@192.0.2.9" in dialog.invite.header("From")
        assert dialog.invite.uri == call.phone.uri
        assert f"sip:7301@{exchange.sip}" in dialog.invite.header("Contact")
        dialog.reject(486)
    async with outbound(exchange) as call:
        dialog = await call.invite(sip=CREDENTIALS)
        assert dialog.invite is not None
        assert f"sip:7301@{exchange.sip.rpartition(':')[0]}" in dialog.invite.header("From")
        dialog.reject(486)


@pytest.mark.row("P-19")
@pytest.mark.parametrize(
    ("status", "algorithm", "qop"), [(401, "MD5", ""), (407, "MD5", "auth"), (401, "SHA-256", "auth")]
)
async def test_p019_a_challenge_is_answered(exchange: Exchange, status: int, algorithm: str, qop: str) -> None:
    asks, answers = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}[
        status
    ]
    nonce = secrets.token_hex(8)
    async with outbound(exchange) as call:
        dialog = await call.invite(sip=CREDENTIALS)
        first = dialog.invite
        assert first is not None
        challenge = f'Digest realm="10.20.0.9", nonce="{nonce}", algorithm={algorithm}' + (
            f', qop="{qop}"' if qop else ""
        )
        dialog.reject(status, [(asks, challenge)])
        await dialog.expect_request("ACK", SOON_S)
        second = await dialog.expect_request("INVITE", SOON_S)
        assert is_authorized(second, "7301", "s3cr3t", nonce, header=answers)
        given = digest.answer(second.header(answers))
        assert (given["algorithm"], given.get("qop", "")) == (algorithm, qop)
        assert second.cseq > first.cseq
        assert (second.header("Call-ID"), second.header("From")) == (first.header("Call-ID"), first.header("From"))
        await call.answer()
        await call.released()
        await call.client.ended(r"T\(main\) answer E\(main\) hangup\{bySystem,system\}")


@pytest.mark.row("P-27", "O5")
@pytest.mark.fault("X-14")
@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
async def test_p027_a_failed_authentication_has_its_code(
    exchange: Exchange, status: int, credentials: dict[str, str] | None
) -> None:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    async with outbound(exchange) as call:
        dialog = await call.invite(**({"sip": credentials} if credentials else {}))
        dialog.reject(status, [(name, 'Digest realm="x", nonce="1"')])
        await dialog.expect_request("ACK", SOON_S)
        if credentials:
            await dialog.expect_request("INVITE", SOON_S)
            dialog.reject(status, [(name, 'Digest realm="x", nonce="2"')])
        await call.client.ended(rf"T\(main\) reject\{{{status}\}} E\(main\) hangup\{{rejected,callee\}}")


@pytest.mark.row("P-20")
async def test_p020_sip_headers_go_on_the_invite_only(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        headers = {"X-Tenant": "blue", "Call-ID": "mine", "From": "<sip:mallory@x>"}
        dialog = await call.invite(sip={"headers": headers})
        assert dialog.invite is not None
        assert dialog.invite.header("X-Tenant") == "blue"
        assert dialog.invite.header("Call-ID") != "mine", "standard headers are not overridden"
        assert len(dialog.invite.all("From")) == 1
        assert "mallory" not in dialog.invite.header("From")
        await call.answer()
        bye = await call.released()
        assert not bye.header("X-Tenant")
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-22", "P-23")
async def test_p023_early_media_is_heard_and_a_200_with_other_sdp_replaces_it(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite(recorder={}, subscribe=True)
        assert dialog.invite is not None
        early = await open_peer("pcma")
        early.remote = call.rtp.remote = media_of(dialog.invite.text)
        try:
            dialog.ringing(description(early))
            await call.client.expect("ringing", SOON_S, earlyMedia=True)
            await early.speak(tone(600, 2.0, 8000))
            await call.client.expect("mediaReady", SOON_S)
            await call.answer()  # other port, other codec
            async with call.speaking(900):
                await call.say_tone(700, 2.0, playId="p", endOfStream=True)
                await call.hears(700)
                assert level(early, 700) < 0.01, "the old address hears nothing any more"
                await call.client.expect("trackEnd", SOON_S, playId="p")
            await call.released()
            await call.client.until_closed(SOON_S)
        finally:
            early.close()
        both, rate_hz = await recording(exchange, call.client.main)
        for frequency in (600, 900):
            assert tones_in(both[:, 0], rate_hz, frequency), f"{frequency} Hz on the left"


@pytest.mark.row("P-23")
async def test_p023_a_200_without_sdp_keeps_the_early_one(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        assert dialog.invite is not None
        call.rtp.remote = media_of(dialog.invite.text)
        dialog.ringing(call.description())
        await call.client.expect("ringing", SOON_S)
        dialog.answer("")
        await dialog.expect_request("ACK", SOON_S)
        answer = await call.client.expect("answer", SOON_S)
        assert answer["sdp"] == call.description()
        await call.say_tone(700, 2.0)
        await call.hears(700)
        await call.released()


@pytest.mark.row("P-26", "P-15", "O4")
@pytest.mark.parametrize("how", ["hangup", "close"])
async def test_p026_hanging_up_while_it_rings_cancels(exchange: Exchange, how: str) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        dialog.ringing()
        await call.client.told(r"T\(main\) ringing")
        if how == "hangup":
            await call.client.send("hangup", reason="changed my mind", initiator="caller")
        else:
            call.client.drop()
        cancel = await dialog.expect_request("CANCEL", SOON_S)
        dialog.reply(cancel, 200)
        dialog.reject(487)
        await dialog.expect_request("ACK", SOON_S)
        if how == "hangup":
            await call.client.ended(r"T\(main\) ringing E\(main\) hangup\{changed my mind,caller\}")


@pytest.mark.row("P-15")
@pytest.mark.fault("X-05")
async def test_p015_fifty_commands_on_a_ringing_call_stall_nothing(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        dialog.ringing()
        await call.client.told(r"T\(main\) ringing")
        for number in range(50):
            await call.client.send("history", speaker="user", text=str(number))
            await call.client.send("interrupt")
        await call.client.expect("addHistory", SOON_S, text="49")
        assert [event["text"] for event in call.client.of("addHistory")] == [str(number) for number in range(50)]
        await call.client.send("custom", data={"still": "ringing"})
        await call.client.expect("custom", SOON_S)
        assert not call.client.of("answer")
        await call.answer()
        await call.released()
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-55", "P-16")
async def test_q12_speech_before_the_answer_is_held(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        dialog.ringing()
        await call.say_tone(700, 1.0, playId="held", endOfStream=True)
        await call.client.told(r"T\(main\) ringing")
        await call.answer()
        await call.client.expect("trackEnd", SOON_S, playId="held")
        await call.released()
        await call.client.ended(r"T\(main\) ringing answer T\(srv,held\) E\(srv,held\) E\(main\) hangup.*")


@pytest.mark.row("O6")
async def test_o06_a_200_without_usable_sdp_ends_with_488(exchange: Exchange) -> None:
    for body in ("", "v=0\r\nnonsense\r\n"):
        async with outbound(exchange) as call:
            dialog = await call.invite()
            dialog.answer(body)
            await dialog.expect_request("ACK", SOON_S)
            await dialog.expect_bye(SOON_S)
            await call.client.ended(r"T\(main\) reject\{488\} E\(main\) hangup\{\w+,\w+\}")


@pytest.mark.row("O7", "P-16")
@pytest.mark.parametrize("callee", ["", "sip:", "<<>>", "tel:+1234", "sip:a@no-such-host.invalid"])
async def test_o07_a_local_fault_is_an_error_and_the_end(exchange: Exchange, callee: str) -> None:
    async with client(exchange) as socket:
        await socket.send("invite", option={"callee": callee})
        await socket.ended(r"(T\(main\) )?error\{invite\} (E\(main\) )?hangup\{failed,system\}", 30)


@pytest.mark.row("G2")
@pytest.mark.fault("X-17")
async def test_g02_a_name_that_nobody_knows_is_an_error_after_the_answer_and_costs_only_itself(
    exchange: Exchange,
) -> None:
    async with outbound(exchange) as call:
        option = {"vad": {"type": "whatever"}, "asr": {"provider": "nobody"}, "tts": {}, "eou": {"type": "x"}}
        await call.up(**option)
        await eventually(lambda: {e["sender"] for e in call.client.of("error")} == {"vad", "asr", "eou"}, SOON_S)
        async with call.speaking(voice(VOICES / "lj.wav", 8000)):
            await call.client.expect("speaking", SOON_S)  # the built-in VAD does its work
        await call.released()
        await call.client.until_closed(SOON_S)
        names = call.client.names
        assert names.index("error") > names.index("answer")


@pytest.mark.row("P-16")
async def test_p016_the_second_invite_is_an_error_and_the_first_goes_on(exchange: Exchange) -> None:
    async with outbound(exchange, call_id=fresh_id()) as call:
        dialog = await call.invite()
        assert dialog.call_id == call.client.main, "the session id is the Call-ID"
        await call.client.send("invite", option={"callee": call.phone.uri})
        await call.client.expect("error", SOON_S, sender="command")
        await call.client.send("reject")
        await call.client.expect("error", SOON_S, sender="command")
        await call.answer()
        await call.released()
        await call.client.ended(r"T\(main\) error\{command\} error\{command\} answer E\(main\) hangup.*")


@pytest.mark.row("P-109")
async def test_p109_the_offer(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        assert dialog.invite is not None
        text = dialog.invite.text
        assert re.search(r"m=audio \d+ RTP/AVP 9 0 8 101\r\n", text), text
        for line in (
            "a=rtpmap:9 G722/8000",
            f"a=rtpmap:{TELEPHONE_EVENT}",
            "a=fmtp:101 0-16",
            "a=sendrecv",
            "a=ptime:20",
            "a=rtcp-mux",
        ):
            assert f"{line}\r\n" in text, line
        assert media_of(text)[1] % 2 == 0
        dialog.reject(486)
