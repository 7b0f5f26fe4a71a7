"""Ten calls that never meet, and bad input that costs nobody anything."""

import asyncio
import json
import os
import re
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import DATA, Exchange, StartPhone, read_wav
from tests.wer import words

NUMBERS = {
    "11": "eleven", "12": "twelve", "16": "sixteen", "24": "twenty four", "35": "thirty five", "46": "forty six",
    "57": "fifty seven", "68": "sixty eight", "72": "seventy two", "95": "ninety five",
}  # fmt: skip
OPTION: dict[str, dict[str, object]] = {"vad": {}, "asr": {}, "tts": {}}


def numbers_in(text: str) -> set[str]:
    """The numbers of a text, as digits."""
    return {word for word in words(text) if word.isdigit()}


async def one_call(exchange: Exchange, phone: StartPhone, digits: str) -> tuple[str, Path]:
    """A call that says its number, hears it again, and is hung up; all that was understood, and what was heard."""
    number = exchange.number()
    voice = DATA / "numbers" / f"{digits}.wav"
    caller = await phone(exchange.address(number), "--say", str(voice), "--wait-before-say", "1")
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option=OPTION)
        while not numbers_in((await client.expect("asrFinal", timeout_s=60))["text"]):
            pass
        text = f"You are in room {NUMBERS[digits]}. I repeat, room {NUMBERS[digits]}."
        await client.send("tts", text=text, playId="echo", endOfStream=True, autoHangup=True)
        await client.expect("hangup", timeout_s=60)
    assert await caller.over() == 0, caller.lines
    return " ".join(event["text"] for event in client.events if event["event"] == "asrFinal"), caller.heard


async def test_ten_calls_at_once_each_hear_only_themselves(
    exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    results = await asyncio.gather(*(one_call(exchange, phone, digits) for digits in NUMBERS))
    for digits, (understood, heard) in zip(NUMBERS, results, strict=True):
        assert numbers_in(understood) == {digits}
        pcm, rate_hz = read_wav(heard)
        assert numbers_in(transcribe(pcm, rate_hz)) & set(NUMBERS) == {digits}


async def test_bad_commands_are_errors_and_the_call_goes_on(exchange: Exchange, phone: StartPhone) -> None:
    number = exchange.number()
    await phone(exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        for text, why in (
            ("{", "malformed JSON"),
            ("[]", "object"),
            ('{"command":"fly"}', "unknown command"),
            ('{"command":"tts"}', "missing field: text"),
            ('{"command":"accept","option":{"vad":7}}', "option.vad"),
        ):
            await client.send_text(text)
            error = await client.expect("error")
            assert (error["sender"], error["code"]) == ("command", 400)
            assert why in error["error"]
        await client.send_text(b"\x00\x01")  # binary is ignored
        await client.send("accept", option={"asr": {"provider": "tencent"}, "tts": {}, "vad": {"type": "nonsense"}})
        await client.expect("answer")
        errors = {(await client.expect("error"))["sender"] for _ in range(2)}
        assert errors == {"asr", "vad"}
        await client.send("tts", text="hello", speaker="nobody-has-this-voice")
        assert (await client.expect("error"))["sender"] == "tts"
        await client.send("invite", option={"callee": "sip:a@127.0.0.1"})
        await client.expect("error", sender="command")
        await client.send("interrupt")  # nothing plays: silent
        await client.send("tts", text="Still here.", playId="p", endOfStream=True)
        await client.expect("trackEnd", playId="p", timeout_s=20)
        await client.send("hangup")
        assert await client.until_closed() == 1000


async def test_garbage_on_sip_and_rtp_harms_nobody(exchange: Exchange, phone: StartPhone) -> None:
    number = exchange.number()
    caller = await phone(exchange.address(number))
    body = await exchange.announcement(number)
    host, _, port = exchange.sip.rpartition(":")
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option=OPTION)
        answer = await client.expect("answer")
        media_port = int(re.findall(r"m=audio (\d+)", answer["sdp"])[0])
        await client.expect("mediaReady")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for size in (0, 1, 11, 12, 13, 200, 1500, 60_000):
                noise.sendto(os.urandom(size), ("127.0.0.1", media_port))
                noise.sendto(b"\x80\x00" + os.urandom(max(0, size - 2)), ("127.0.0.1", media_port))
                noise.sendto(os.urandom(size), (host, int(port)))
            noise.sendto(b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nFrom: <sip:a@b>\r\n\r\n", (host, int(port)))
        await client.send("tts", text="Still here.", playId="p", endOfStream=True)
        await client.expect("trackEnd", playId="p", timeout_s=20)
        await client.send("hangup")
        assert await client.until_closed() == 1000
    assert await caller.over() == 0
    await every_service_is_healthy(exchange)


async def test_every_service_tells_its_health(exchange: Exchange) -> None:
    await every_service_is_healthy(exchange)


async def every_service_is_healthy(exchange: Exchange) -> None:
    """All six answer 200 on /health and speak Prometheus on /metrics."""
    assert len(exchange.health) == 6

    def get(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())

    for url in exchange.health.values():
        assert json.loads(await asyncio.to_thread(get, url))["ready"], url
        assert b"# TYPE" in await asyncio.to_thread(get, url.replace("/health", "/metrics"))
