"""A phone rings, a program answers, both are heard and understood."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import VOICES, Exchange, StartPhone, read_wav
from tests.harness import eventually
from tests.wer import wer

JFK = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
GREETING = "Hello, this is the receptionist. How can I help you today?"
FAREWELL = "Thank you for calling us today."
OPTION: dict[str, Any] = {"vad": {}, "asr": {"provider": "whisper"}, "tts": {"provider": "piper"}, "recorder": {}}


def in_order(names: list[str], *wanted: str) -> bool:
    """Whether these names appear in this order, others between them allowed."""
    rest = iter(names)
    return all(any(name == found for found in rest) for name in wanted)


async def test_a_caller_is_greeted_understood_and_told_goodbye(
    exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    number = exchange.number()
    caller = await phone(exchange.address(number), "--say", str(VOICES / "jfk.wav"), "--after-greeting")
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        incoming = await client.expect("incoming", trackId=body["dialogId"])
        await client.send("accept", option=OPTION)
        await client.expect("answer")
        await client.send("tts", text=GREETING, playId="greeting", endOfStream=True)
        await client.expect("trackEnd", playId="greeting", timeout_s=20)

        said: list[str] = []
        while wer(JFK, " ".join(said)) > 0.15:
            said.append((await client.expect("asrFinal", timeout_s=25))["text"])

        await client.send("tts", text=FAREWELL, playId="bye", endOfStream=True, autoHangup=True)
        hangup = await client.expect("hangup", timeout_s=20)
        assert await client.until_closed() == 1000

    # Events: the normative orders O10, O17, O18; numbered without gaps; nothing after hangup.
    assert incoming["caller"].startswith("sip:dialbus-phone@")
    assert in_order(client.names, "incoming", "trackStart", "answer", "mediaReady")
    assert in_order(client.names, "answer", "trackStart", "metrics", "trackEnd", "speaking", "asrDelta", "asrFinal")
    assert client.names[-3:] == ["trackEnd", "trackEnd", "hangup"]
    assert [event["seq"] for event in client.events if event["event"] != "ping"] == list(
        range(1, 1 + sum(event["event"] != "ping" for event in client.events))
    )
    assert (hangup["reason"], hangup["initiator"]) == ("autohangup", "system")
    for event in client.events:
        if event["event"] in ("asrFinal", "asrDelta"):
            assert event["endTime"] >= event["startTime"] > 1_700_000_000_000
    starts = [event.get("playId") for event in client.events if event["event"] == "trackStart"]
    ends = [event.get("playId") for event in client.events if event["event"] == "trackEnd"]
    assert sorted(map(str, starts)) == sorted(map(str, ends)), "one trackEnd per trackStart"

    # The phone: a normal call, and it heard the greeting.
    assert await caller.over() == 0, caller.lines
    heard, rate_hz = read_wav(caller.heard)
    words = transcribe(heard, rate_hz)
    assert wer(f"{GREETING} {FAREWELL}", words) <= 0.15, words

    # The recording: caller left, server right, one timeline.
    recording = exchange.recordings / f"{body['dialogId']}.wav"
    both, rate_hz = await eventually(lambda: read_wav(recording) if recording.exists() else None, what=str(recording))
    assert rate_hz == 16000
    left, right = both[:, 0], both[:, 1]
    assert wer(JFK, transcribe(left, rate_hz)) <= 0.15
    assert wer(f"{GREETING} {FAREWELL}", transcribe(right, rate_hz)) <= 0.15
    loud_left, loud_right = (np.flatnonzero(np.abs(side.astype(int)) > 800)[0] for side in (left, right))
    assert loud_right < loud_left, "the greeting came first"

    # The dump: every event and command, in order, as JSON strings.
    dump = exchange.recordings / f"{body['dialogId']}.events.jsonl"
    lines = [json.loads(line) for line in dump.read_text().splitlines()]
    assert {line["type"] for line in lines} == {"event", "command"}
    dumped = [json.loads(line["content"])["event"] for line in lines if line["type"] == "event"]
    assert dumped == [name for name in client.names if name != "ping"]


async def test_a_synthesised_sentence_with_a_number_is_understood(
    exchange: Exchange, phone: StartPhone, synthesise: Callable[[str], Any]
) -> None:
    number, sentence = exchange.number(), "My order number is forty seven, and my room is nineteen."
    await phone(exchange.address(number), "--say", str(synthesise(sentence)), "--wait-before-say", "0.5")
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option=OPTION)
        said: list[str] = []
        while wer(sentence, " ".join(said)) > 0.15:
            said.append((await client.expect("asrFinal", timeout_s=25))["text"])
        await client.send("hangup", reason="Normal clearing")
        hangup = await client.expect("hangup")
        assert (hangup["reason"], hangup["initiator"]) == ("Normal clearing", "system")
        assert await client.until_closed() == 1000


async def test_the_caller_hangs_up(exchange: Exchange, phone: StartPhone) -> None:
    number = exchange.number()
    caller = await phone(exchange.address(number), "--seconds", "1", "--dtmf", "42#")
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option={})
        hangup = await client.expect("hangup", timeout_s=20)
        assert await client.until_closed() == 1000
    assert (hangup["reason"], hangup["initiator"]) == ("byCaller", "caller")
    assert client.names[-2:] == ["trackEnd", "hangup"]
    assert [event["digit"] for event in client.events if event["event"] == "dtmf"] == ["4", "2", "#"]
    assert await caller.over() == 0


async def test_reject_is_603_or_the_code_asked_for(exchange: Exchange, phone: StartPhone) -> None:
    for fields, status in (({}, "603"), ({"code": 486, "reason": "busy"}, "486")):
        number = exchange.number()
        caller = await phone(exchange.address(number))
        body = await exchange.announcement(number)
        async with exchange.client(body["dialogId"]) as client:
            await client.expect("incoming")
            await client.send("reject", **fields)
            await client.expect("hangup", initiator="callee")
            assert await client.until_closed() == 1000
        assert await caller.over() == 1
        assert any(f"refused: {status}" in line for line in caller.lines), caller.lines


async def test_a_socket_that_is_lost_ends_the_call(exchange: Exchange, phone: StartPhone) -> None:
    number = exchange.number()
    caller = await phone(exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.send("accept", option={})
        await client.expect("answer")
        await caller.told("answered")
        client.drop()
        await caller.told("hung up by the other side", timeout_s=3)
    assert await caller.over() == 0


async def test_an_id_taken_raw_or_percent_encoded_is_the_same_call_and_only_one_may_have_it(
    exchange: Exchange, phone: StartPhone
) -> None:
    number = exchange.number()
    await phone(exchange.address(number))
    body = await exchange.announcement(number)
    async with exchange.client(body["dialogId"]) as client:
        await client.expect("incoming")
        for text in (body["dialogId"], quote(body["dialogId"], safe="")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{exchange.http.replace('http', 'ws')}/call/sip?id={text}")
            assert refused.value.response.status_code == 409
            assert json.loads(refused.value.response.body or b"{}")["error"] == "session id in use"
        await client.send("reject")


async def test_an_unreachable_webhook_is_503_to_the_caller(exchange: Exchange, phone: StartPhone) -> None:
    for prefix in ("broken", "silent"):
        caller = await phone(exchange.address(exchange.number(prefix)))
        assert await caller.over(20) == 1
        assert any("refused: 503" in line for line in caller.lines), caller.lines
