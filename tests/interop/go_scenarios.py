"""What the Go program goes through, with the stand-in (tests/conformance) and with the SDK itself (tests/interop)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conformance.parties import media_of, ringing_phone, speaking
from tests.ensemble import VOICES, Exchange, StartPhone, read_wav
from tests.harness import eventually
from tests.interop.gosdk import SOON_S, SPOKEN_S, GoProgram
from tests.peers.phone import Phone
from tests.peers.rtp import voice
from tests.wer import wer

REPLY = "Thank you. Your order is on its way, and it will be there tomorrow."
GREETING = "Hello, this is the machine. How can I help you?"


def socket_url(exchange: Exchange) -> str:
    """What the SDK connects to."""
    return exchange.http.replace("http://", "ws://")


async def calls_out(program: Path, exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]) -> None:
    """P-121: a SIP call out, speech both ways, a reply in segments, a hang-up."""
    callee = await phone("--listen", "--say", str(VOICES / "jfk.wav"), "--after-greeting")
    address = re.search(r"sip:\S+", await callee.told("listening on"))
    assert address is not None
    flags = {"caller": "sip:7301@127.0.0.1", "callee": address[0], "greeting": GREETING, "reply": REPLY}
    async with GoProgram.run(program, socket_url(exchange), mode="sip", **flags) as go:
        answer = await go.saw("answer", SOON_S)
        assert "m=audio" in answer["sdp"]
        await go.saw("trackEnd", SPOKEN_S, playId="1")
        final = await go.saw("asrFinal", SPOKEN_S)
        assert final["text"]
        assert final["took"] > 0
        await go.saw("trackStart", SPOKEN_S, playId="reply")
        await go.saw("addHistory", SOON_S, speaker="bot")
        await go.saw("trackEnd", SPOKEN_S, playId="reply")
        assert go.of("speaking")
        assert go.of("asrDelta")
        await go.tell("hangup Normal clearing")
        hangup = await go.saw("hangup", SOON_S)
        assert (hangup["reason"], hangup["initiator"]) == ("Normal clearing", "system")
        assert hangup["from"]["username"] == "7301"
        await go.saw("close", SOON_S)
        assert await go.over() == 0
        go.assert_understood()
        assert not go.of("error")
    assert await callee.over() == 0
    heard, rate_hz = read_wav(callee.heard)
    said = transcribe(heard, rate_hz)
    assert wer(GREETING, said) < 0.9, said  # the greeting, and after it what was said of the reply


async def is_refused(program: Path, exchange: Exchange) -> None:
    """P-121: the text of a refusal reaches the caller of Invite."""
    async with Phone.open() as target:
        flags = {"caller": "sip:7301@127.0.0.1", "callee": target.uri, "username": "7301", "password": "x"}
        async with GoProgram.run(program, socket_url(exchange), mode="sip", **flags) as go:
            dialog = await target.expect_call(SOON_S)
            dialog.reject(486)
            assert "Busy Here" in await go.saw("not answered", SOON_S)
            assert "reject" in go.of("event")
            assert await go.over() == 0
            go.assert_understood()


async def answers(program: Path, exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]) -> None:
    """P-122: a call in by webhook: connected before the webhook is answered, streaming without an end, a transfer."""
    async with Phone.open() as target:
        flags: dict[str, Any] = {
            "greeting": GREETING, "reply": REPLY, "streaming": True, "refer": target.uri, "caller": "sip:go@127.0.0.1",
        }  # fmt: skip
        async with GoProgram.run(program, socket_url(exchange), mode="webhook", **flags) as go:
            exchange.webhook.relay = await go.saw("listening")
            number = exchange.number("go")
            caller = await phone(exchange.address(number), "--say", str(VOICES / "lj.wav"), "--after-greeting")
            body = await go.saw("announced", SOON_S)
            assert body["Callee"] == exchange.address(number)
            assert body["Event"] == "invite"
            await go.saw("incoming", SOON_S, trackId=body["DialogID"])
            await caller.told("answered")
            await go.saw("trackEnd", SPOKEN_S)  # the greeting, which has no playId
            await go.saw("asrFinal", SPOKEN_S)
            await go.saw("trackStart", SPOKEN_S, playId="reply")
            dialog = await target.expect_call(SPOKEN_S)  # it transfers while or after it speaks
            assert dialog.invite is not None
            assert "sip:go@127.0.0.1" in dialog.invite.header("From")
            dialog.ringing()
            await go.saw("ringing", SOON_S, refer=True)
            dialog.answer()
            await dialog.expect_request("ACK", SOON_S)
            dialog.bye()
            await dialog.expect_response(200, SOON_S, method="BYE")
            await go.saw("hangup", SOON_S, refer=True)
            hangup = await go.saw("hangup", SOON_S, refer=False)  # autoHangup is the default
            assert (hangup["reason"], hangup["initiator"]) == ("byRefer", "system")
            await go.saw("close", SOON_S)
            go.assert_understood()
            assert not go.of("error")
        assert await caller.over() == 0
        heard, rate_hz = read_wav(caller.heard)
        assert wer(GREETING, transcribe(heard[: rate_hz * 6], rate_hz)) < 0.7


async def rings_and_is_interrupted(program: Path, exchange: Exchange) -> None:
    """P-122: a ringtone before the answer; speech that is cut by the caller's own."""
    long = "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen."
    async with GoProgram.run(
        program, socket_url(exchange), mode="webhook", greeting=long, ringtone="voices/jfk.wav"
    ) as go:
        exchange.webhook.relay = await go.saw("listening")
        async with ringing_phone(exchange, exchange.number("go")) as (_, rtp, dialog):
            await dialog.expect_response(183, SOON_S)
            ok = await dialog.expect_response(200, SOON_S)
            dialog.ack()
            rtp.remote = media_of(ok.text)
            await go.saw("trackStart", SOON_S, playId="voices/jfk.wav")
            await go.saw("trackEnd", SOON_S, playId="voices/jfk.wav")
            async with speaking(rtp, voice(VOICES / "lj.wav", 8000)):
                await go.saw("speaking", SPOKEN_S)
                await go.saw("interruption", SPOKEN_S)
            await rtp.press("5")
            await go.saw("dtmf", SOON_S, digit="5")
            dialog.bye()
            await dialog.expect_response(200, SOON_S, method="BYE")
            hangup = await go.saw("hangup", SOON_S)
            assert (hangup["reason"], hangup["initiator"]) == ("byCaller", "caller")
            await go.saw("close", SOON_S)
            go.assert_understood()


async def calls_by_webrtc(program: Path, exchange: Exchange, codec: str) -> None:
    """P-123: pion with one codec and no telephone-event."""
    async with GoProgram.run(
        program, socket_url(exchange), mode="webrtc", codec=codec, greeting="Hello. One, two, three, four."
    ) as go:
        await go.saw("iceservers")
        answer = await go.saw("answer", SOON_S)
        assert "telephone-event" not in answer["sdp"], "none was offered"
        await eventually_connected(go)
        heard = await go.saw("heard", SPOKEN_S, packets=50)
        assert heard["payload"] == 160
        await go.saw("trackEnd", SPOKEN_S, playId="1")
        await go.tell("hangup done")
        assert (await go.saw("hangup", SOON_S))["reason"] == "done"
        assert await go.over() == 0
        go.assert_understood()
        assert not go.of("error")
        assert "mediaReady" in go.of("event")


async def eventually_connected(go: GoProgram) -> None:
    """ICE and DTLS have succeeded."""
    await eventually(lambda: "connected" in go.of("connection"), SOON_S, what=f"connected in {go.of('connection')}")
