"""What the caller says: speech events, utterances for asr, transcripts, keys (protocol 3.3 to 3.6)."""

import asyncio
import time
from pathlib import Path

import pytest

from dialbus.bus import Bus
from tests.contract.media.conftest import Dial, FakeAsr, FakeTts
from tests.harness import eventually, next_message
from tests.peers.rtp import tone, voice

JFK = Path(__file__).parents[2] / "data" / "voices" / "jfk.wav"
VAD = {"type": "silero", "silencePadding": 300}


@pytest.mark.parametrize("codec", ["pcmu", "g722"])
async def test_speech_becomes_events_utterances_and_transcripts(bus: Bus, dial: Dial, codec: str) -> None:
    asr = await FakeAsr(bus, text="and so").start()
    call = await dial(codec)
    await call.configure(vad=VAD, asr={"language": "en", "modelType": "tiny"})
    began = time.time()

    # "And so my fellow Americans": speech from 0.3 s to 2.2 s, then a pause.
    speech = voice(JFK, call.phone.rate_hz)[: int(3.2 * call.phone.rate_hz)]
    await call.phone.speak(speech)
    speaking = await call.until("speaking")
    silence = await call.until("silence")
    final = await call.until("asrFinal")

    assert (asr.opened[0].language, asr.opened[0].model) == ("en", "tiny")
    assert call.events[0]["event"] == "mediaReady"
    assert speaking["startTime"] / 1000 - began == pytest.approx(0.35, abs=0.25)
    assert silence["duration"] >= 300
    assert final["text"] == "and so"
    assert final["index"] == 0
    assert final["confidence"] == 0.9
    assert final["startTime"] == pytest.approx(speaking["startTime"], abs=150)
    assert final["startTime"] < final["endTime"] <= final["timestamp"]
    assert final["endTime"] / 1000 - began == pytest.approx(2.2, abs=0.4)
    frames = asr.frames["0"]
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    assert {frame.rate_hz for frame in frames} == {16000}
    assert len(asr.audio()) / 16000 == pytest.approx(2.2, abs=0.5)
    metrics = await call.until("metrics")
    assert (metrics["key"], metrics["data"]) == ("completed.asr.whisper", {"index": 0})


async def test_deltas_share_the_index_of_their_final(bus: Bus, dial: Dial) -> None:
    asr = await FakeAsr(bus).start()
    call = await dial()
    await call.configure(asr={})

    speaking = asyncio.create_task(call.phone.speak(voice(JFK, 8000)[: 8000 * 16 // 5]))
    await eventually(lambda: asr.frames, what="audio at asr")
    await asr.say(call.call_id, 0, "and", final=False)
    delta = await call.until("asrDelta")
    await asr.say(call.call_id, 0, "and so my", final=False)
    await speaking
    assert await next_message(asr.complete) == "0"
    await asr.say(call.call_id, 0, "And so my fellow Americans", final=True)
    await asr.say(call.call_id, 0, "too late", final=True)
    final = await call.until("asrFinal")
    await call.until("metrics", 2)

    assert [event["event"] for event in call.events] == [
        "mediaReady", "asrDelta", "metrics", "asrDelta", "asrFinal", "metrics",
    ]  # fmt: skip
    assert [metrics["key"] for metrics in call.named("metrics")] == ["ttfb.asr.whisper", "completed.asr.whisper"]
    assert delta["index"] == final["index"] == 0
    assert delta["startTime"] == final["startTime"]
    assert not call.named("speaking"), "speech events are for those who asked for vad"


async def test_an_unfinished_utterance_is_sent_again_when_its_asr_worker_dies(bus: Bus, dial: Dial) -> None:
    first = await FakeAsr(bus, "first-asr").start()
    call = await dial()
    await call.configure(asr={})
    await call.phone.speak(voice(JFK, 8000)[: 8000 * 16 // 5])
    assert await next_message(first.complete) == "0"

    await first.die()
    second = await FakeAsr(bus, "second-asr", text="again").start()

    final = await call.until("asrFinal", timeout_s=15)
    assert (final["index"], final["text"]) == (0, "again")
    assert second.audio().tobytes() == first.audio().tobytes()
    assert not call.named("error")


async def test_a_reply_leaves_a_latency_ledger(bus: Bus, dial: Dial) -> None:
    await FakeAsr(bus, text="hello").start()
    await FakeTts(bus, lambda _, rate_hz: tone(500, 0.2, rate_hz)).start()
    call = await dial()
    await call.configure(asr={})
    await call.phone.speak(voice(JFK, 8000)[: 8000 * 16 // 5])
    await call.until("asrFinal")

    await call.do("tts", text="Hello yourself.")
    await call.until("trackEnd")

    (turn,) = [event for event in call.named("metrics") if event["key"] == "turn"]
    data = turn["data"]
    assert data["index"] == 0
    assert 0 <= data["final"] <= data["text"] <= data["audio"] <= data["rtp"] == turn["duration"]
    assert all(type(value) is int for value in data.values())


async def test_a_key_is_one_event_however_many_packets_it_takes(dial: Dial) -> None:
    call = await dial()

    for digit in "15#5":
        await call.phone.press(digit)
    await call.until("dtmf", 4)

    assert [event["digit"] for event in call.named("dtmf")] == ["1", "5", "#", "5"]
    assert call.named("dtmf")[0]["trackId"] == call.call_id
    assert call.named("dtmf")[0]["refer"] is False


async def test_a_muted_caller_is_not_heard(bus: Bus, dial: Dial) -> None:
    asr = await FakeAsr(bus, text="x").start()
    call = await dial()
    await call.configure(vad=VAD, asr={})
    await call.do("mute", trackId=call.call_id)

    await call.phone.speak(voice(JFK, 8000)[: 8000 * 5 // 2])
    await call.phone.press("1")
    await call.do("unmute", trackId=call.call_id)
    await call.phone.press("2")
    dtmf = await call.until("dtmf")

    assert dtmf["digit"] == "2"
    assert not call.named("speaking")
    assert not asr.frames


async def test_parts_that_cannot_be_had_are_errors_after_the_answer(bus: Bus, dial: Dial) -> None:
    call = await dial(connect=False)

    await call.configure(vad={"type": "crystal-ball"}, asr={"provider": "oracle"}, recorder={"recorderFile": "../x"})
    assert not call.events
    await call.connect()
    await call.until("error", 3)

    assert [(event["sender"], event["code"]) for event in call.named("error")] == [
        ("vad", 400), ("asr", 404), ("recorder", 400),
    ]  # fmt: skip
    await call.phone.speak(voice(JFK, 8000)[: 8000 * 5 // 2])
    await call.until("speaking")


async def test_recognition_without_a_worker_is_one_error(dial: Dial) -> None:
    call = await dial()

    await call.configure(asr={})
    error = await call.until("error", timeout_s=15.0)  # a first worker is waited for

    assert (error["sender"], error["code"]) == ("asr", 500)


async def test_closing_waits_for_the_last_transcript(bus: Bus, dial: Dial) -> None:
    asr = await FakeAsr(bus, text="so").start()
    call = await dial()
    await call.configure(asr={})
    await call.phone.speak(voice(JFK, 8000)[: 8000 * 6 // 5])
    await eventually(lambda: asr.frames, what="audio at asr")

    await call.close()

    assert (await call.until("asrFinal", timeout_s=1.0))["text"] == "so"
    assert len(asr.closed) == 1
