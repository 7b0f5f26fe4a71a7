"""A program that is the caller itself: audio on its own socket, recognised and spoken by the real models."""

import asyncio
import json
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest

from tests.e2e.conftest import VOICES, Exchange, read_wav
from tests.wer import wer

JFK = "And so my fellow Americans"
JFK_S = 3.2
ANSWER = "Thank you, your request was taken down."


async def test_a_recording_sent_at_once_is_understood_and_answered(
    exchange: Exchange, transcribe: Callable[..., str]
) -> None:
    speech, rate_hz = read_wav(VOICES / "jfk.wav")
    ready = await asyncio.to_thread(_precache, exchange.http, {"text": ANSWER})
    async with exchange.client(path="/call") as client:
        await client.send("invite", option={"sampleRate": rate_hz, "vad": {}, "asr": {}, "tts": {}})
        data = speech[: int(JFK_S * rate_hz)].tobytes()
        early = 15_001  # bytes: before the answer, and up to the middle of a sample
        await client.send_text(data[:early])
        answer = await client.expect("answer")
        for at in range(early, len(data), 50_001):
            await client.send_text(data[at : at + 50_001])
        final = await client.expect("asrFinal", timeout_s=20)
        await client.send("tts", text=ANSWER, autoHangup=True)
        metrics = await client.expect("metrics", timeout_s=20, key="completed.tts.piper")
        hangup = await client.expect("hangup", timeout_s=20)
        assert await client.until_closed() == 1000

    assert answer["sdp"] == ""
    assert wer(JFK, final["text"]) == 0
    assert "mediaReady" not in client.names
    assert hangup["reason"] == "autohangup"
    assert metrics["data"]["cached"] is True
    assert ready["status"] in ("cached", "exists")
    assert {len(frame) for frame in client.binary} == {rate_hz // 25}
    spoken = np.frombuffer(b"".join(client.binary), "<i2")
    assert wer(ANSWER, transcribe(spoken, rate_hz)) <= 0.15


def _precache(base: str, body: dict[str, str]) -> dict[str, object]:
    request = urllib.request.Request(
        base + "/precache", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


@pytest.mark.parametrize("codec", ["pcmu", "g722"])
async def test_other_codecs_have_160_bytes_for_20_ms(exchange: Exchange, codec: str) -> None:
    async with exchange.client(path="/call") as client:
        await client.send("invite", option={"codec": codec, "tts": {}})
        await client.expect("answer")
        await client.send("tts", text="One.", playId="one", endOfStream=True, autoHangup=True)
        await client.expect("hangup", reason="autohangup", timeout_s=30)
        assert await client.until_closed() == 1000
    assert {len(frame) for frame in client.binary} == {160}
    assert client.names[:2] == ["trackStart", "answer"]


async def test_an_unknown_codec_is_told(exchange: Exchange) -> None:
    async with exchange.client(path="/call") as client:
        await client.send("invite", option={"codec": "opus"})
        error = await client.expect("error")
        hangup = await client.expect("hangup")
        assert await client.until_closed() == 1000

    assert (error["sender"], error["code"]) == ("invite", 400)
    assert "pcm, pcmu, pcma, g722" in error["error"]
    assert hangup["reason"] == "failed"
