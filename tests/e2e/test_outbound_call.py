"""A program calls a phone."""

import re
from collections.abc import Callable

from tests.e2e.conftest import VOICES, Exchange, StartPhone, read_wav
from tests.ensemble import Phone
from tests.wer import wer

TEXT = "This is a reminder. Your car is ready and you can collect it today."


async def listening(phone: StartPhone, *arguments: str) -> tuple[Phone, str]:
    """A waiting phone and its address."""
    callee: Phone = await phone("--listen", *arguments)
    line = await callee.told("listening on")
    found = re.search(r"sip:\S+", line)
    assert found is not None
    return callee, found[0]


async def test_a_phone_is_called_spoken_to_and_understood(
    exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    callee, address = await listening(phone, "--say", str(VOICES / "lj.wav"), "--after-greeting", "--dtmf", "5")
    async with exchange.client() as client:
        await client.send("tts", text="too early")
        assert (await client.expect("error"))["sender"] == "command"
        await client.send("invite", option={"callee": address, "vad": {}, "asr": {}, "tts": {}})
        await client.send("tts", text=TEXT, playId="reminder", endOfStream=True)  # held until the answer
        ringing = await client.expect("ringing")
        assert ringing["earlyMedia"] is False
        answer = await client.expect("answer")
        assert "m=audio" in answer["sdp"]
        await client.expect("trackEnd", playId="reminder", timeout_s=20)
        await client.expect("asrFinal", timeout_s=25)
        await client.expect("dtmf", digit="5", timeout_s=25)
        await client.send("hangup")
        hangup = await client.expect("hangup")
        assert (hangup["reason"], hangup["initiator"]) == ("bySystem", "system")
        assert await client.until_closed() == 1000
    main = [event["event"] for event in client.events if event.get("trackId", "").startswith("s.")]
    assert main[1:4] == ["trackStart", "ringing", "answer"], client.names
    assert await callee.over() == 0
    heard, rate_hz = read_wav(callee.heard)
    assert wer(TEXT, transcribe(heard, rate_hz)) <= 0.15


async def test_a_refusal_is_a_reject_with_its_code(exchange: Exchange, phone: StartPhone) -> None:
    _, address = await listening(phone, "--refuse", "486")
    async with exchange.client() as client:
        await client.send("invite", option={"callee": address})
        reject = await client.expect("reject", timeout_s=15)
        assert (reject["code"], reject["reason"]) == (486, "Busy Here")
        await client.expect("hangup", reason="rejected", initiator="callee")
        assert await client.until_closed() == 1000
    assert client.names[-3:] == ["reject", "trackEnd", "hangup"]


async def test_hanging_up_while_it_rings_cancels(exchange: Exchange, phone: StartPhone) -> None:
    callee, address = await listening(phone, "--ring", "60")
    async with exchange.client() as client:
        await client.send("invite", option={"callee": address})
        await client.expect("ringing")
        await client.send("hangup", reason="changed my mind")
        await client.expect("hangup", reason="changed my mind")
        assert await client.until_closed() == 1000
    assert client.names == ["trackStart", "ringing", "trackEnd", "hangup"]
    await callee.told("the caller gave up")


async def test_a_local_fault_is_an_error_and_the_end(exchange: Exchange) -> None:
    for callee in ("sip:nobody", "tel:+1234", "sip:a@no-such-host.invalid", "<<>>"):
        async with exchange.client() as client:
            await client.send("invite", option={"callee": callee})
            error = await client.expect("error", timeout_s=15)
            assert error["sender"] == "invite"
            await client.expect("hangup", reason="failed")
            assert await client.until_closed() == 1000
