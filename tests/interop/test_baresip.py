"""baresip calls us, and we call baresip: with each codec, both are heard and understood."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ensemble import VOICES, Exchange, Pcm, read_wav
from tests.harness import eventually
from tests.interop.baresip import CODECS
from tests.interop.conftest import StartBaresip
from tests.peers.client import ApiClient
from tests.wer import wer

pytestmark = pytest.mark.interop

JFK = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
GREETING = "Hello, this is the receptionist. How can I help you today?"
OPTION: dict[str, Any] = {"vad": {}, "asr": {}, "tts": {}, "recorder": {}}

Transcribe = Callable[[Pcm, int], str]


async def understood(client: ApiClient) -> None:
    """Wait until all of the phone's voice has come as text."""
    said: list[str] = []
    while wer(JFK, " ".join(said)) > 0.15:
        said.append((await client.expect("asrFinal", timeout_s=30))["text"])


async def conversation(client: ApiClient) -> None:
    """Greet, and hear what the phone says, at the same time."""
    await client.send("tts", text=GREETING, playId="greeting", endOfStream=True)
    await understood(client)
    assert any(event["event"] == "trackEnd" and event.get("playId") == "greeting" for event in client.events)


async def both_were_recorded(exchange: Exchange, call_id: str, transcribe: Transcribe) -> None:
    """The recording has the phone left and the greeting right."""
    path = exchange.recordings / f"{call_id}.wav"
    both, rate_hz = await eventually(lambda: read_wav(path) if path.exists() else None, what=str(path))
    assert wer(JFK, transcribe(np.ascontiguousarray(both[:, 0]), rate_hz)) <= 0.15
    assert wer(GREETING, transcribe(np.ascontiguousarray(both[:, 1]), rate_hz)) <= 0.15


def audio_codec(sdp: str) -> str:
    """The first codec of a description's audio line, by its name; static payload types have no other."""
    first = re.search(r"m=audio \d+ RTP/AVP (\d+)", sdp)
    assert first is not None
    return {"0": "PCMU", "8": "PCMA", "9": "G722"}[first[1]]


@pytest.mark.parametrize("codec", CODECS)
async def test_baresip_calls_speaks_is_greeted_and_hangs_up(
    exchange: Exchange, baresip: StartBaresip, transcribe: Transcribe, codec: str
) -> None:
    number = exchange.number()
    phone = await baresip(codec)
    await phone.command("dial", exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.expect("incoming")
        await client.send("accept", option=OPTION)
        answer = await client.expect("answer")
        assert audio_codec(answer["sdp"]) == codec
        await phone.told("CALL_ESTABLISHED")
        await conversation(client)
        await phone.command("hangup")
        await client.expect("hangup", reason="byCaller", initiator="caller")
        assert await client.until_closed() == 1000
    assert client.names[-2:] == ["trackEnd", "hangup"]
    heard = transcribe(*await phone.heard())
    assert wer(GREETING, heard) <= 0.15, heard
    await both_were_recorded(exchange, body["dialogId"], transcribe)


@pytest.mark.parametrize("codec", CODECS)
async def test_baresip_is_called_speaks_is_greeted_and_is_hung_up(
    exchange: Exchange, baresip: StartBaresip, transcribe: Transcribe, codec: str
) -> None:
    phone = await baresip(codec)
    async with exchange.client() as client:
        await client.send("invite", option={**OPTION, "callee": phone.address})
        answer = await client.expect("answer")
        assert audio_codec(answer["sdp"]) == codec
        await phone.told("CALL_ESTABLISHED")
        await conversation(client)
        await client.send("hangup")
        await client.expect("hangup", reason="bySystem")
        assert await client.until_closed() == 1000
    await phone.told("CALL_CLOSED")
    heard = transcribe(*await phone.heard())
    assert wer(GREETING, heard) <= 0.15, heard
    await both_were_recorded(exchange, answer["trackId"], transcribe)


async def test_a_called_baresip_hangs_up(exchange: Exchange, baresip: StartBaresip) -> None:
    phone = await baresip("PCMU")
    async with exchange.client() as client:
        await client.send("invite", option={"callee": phone.address})
        await client.expect("mediaReady")
        await phone.command("hangup")
        await client.expect("hangup", reason="byCallee", initiator="callee")
        assert await client.until_closed() == 1000
    assert client.names[-2:] == ["trackEnd", "hangup"]


async def test_we_hang_up_on_a_calling_baresip(exchange: Exchange, baresip: StartBaresip) -> None:
    number = exchange.number()
    phone = await baresip("PCMA")
    await phone.command("dial", exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option={})
        await client.expect("mediaReady")
        await client.send("hangup")
        await client.expect("hangup", reason="bySystem", initiator="system")
        assert await client.until_closed() == 1000
    await phone.told("CALL_CLOSED")


@pytest.mark.parametrize("codec", CODECS)
async def test_keys_pressed_at_baresip_are_dtmf_events(exchange: Exchange, baresip: StartBaresip, codec: str) -> None:
    number = exchange.number()
    phone = await baresip(codec, VOICES / "lj.wav")
    await phone.command("dial", exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option={})
        await client.expect("mediaReady")
        for digit in "19*#0":
            await phone.command("sndcode", digit)
            await client.expect("dtmf", digit=digit)
        await client.send("hangup")
        assert await client.until_closed() == 1000
    assert [event["digit"] for event in client.events if event["event"] == "dtmf"] == list("19*#0")


async def test_baresip_holds_the_call_and_takes_it_back(exchange: Exchange, baresip: StartBaresip) -> None:
    number = exchange.number()
    phone = await baresip("PCMU")
    await phone.command("dial", exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option={})
        await client.expect("mediaReady")
        await phone.command("hold")
        assert (await client.expect("hold"))["onHold"] is True
        await phone.command("resume")
        assert (await client.expect("hold"))["onHold"] is False
        await phone.command("hangup")
        assert await client.until_closed() == 1000
