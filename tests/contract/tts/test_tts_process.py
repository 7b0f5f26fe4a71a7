"""How a tts process starts, fills up and stops; each test has the only worker on the bus."""

import asyncio
import signal
from pathlib import Path

import pytest

from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import CancelSpeech, Speak, SpeechTaken
from tests.harness import ServiceProcess, eventually, next_message, run_service, spawn

START_S = 60.0
HOUR = "The line is busy, please be patient and wait. " * 500


async def ask(bus: Bus, call_id: str, utterance: str, text: str = HOUR) -> SpeechTaken:
    return await bus.request(Speak(call_id=call_id, utterance_id=utterance, text=text), timeout_s=10.0)


async def listen(bus: Bus, call_id: str) -> "asyncio.Queue[AudioFrame]":
    frames: asyncio.Queue[AudioFrame] = asyncio.Queue()

    async def put(frame: AudioFrame) -> None:
        frames.put_nowait(frame)

    await bus.subscribe_audio(call_id, "server", put)
    await bus.flush()
    return frames


async def last_of(frames: "asyncio.Queue[AudioFrame]", utterance: str) -> AudioFrame:
    while True:
        frame = await next_message(frames, 20.0)
        if frame.last and frame.utterance == utterance:
            return frame


async def test_sigterm_ends_speech_with_a_reason_and_exits_with_0(
    bus: Bus, call_id: str, service_env: dict[str, str]
) -> None:
    async with run_service("tts", service_env, timeout_s=START_S) as service:
        frames = await listen(bus, call_id)
        await ask(bus, call_id, "spoken")
        await ask(bus, call_id, "queued")
        await next_message(frames, 20.0)
        service.process.send_signal(signal.SIGTERM)

        queued = await last_of(frames, "queued")
        spoken = await last_of(frames, "spoken")
        assert await service.exited() == 0

    assert queued.failure == spoken.failure == "the tts worker is stopping"
    assert (queued.sequence, queued.facts["length"]) == (0, "0"), "it had not begun"
    assert int(spoken.facts["length"]) > 0
    with pytest.raises(NoResponder):
        await ask(bus, call_id, "late")


async def test_sigterm_lets_a_short_text_finish(bus: Bus, call_id: str, service_env: dict[str, str]) -> None:
    async with run_service("tts", service_env, timeout_s=START_S) as service:
        frames = await listen(bus, call_id)
        await ask(bus, call_id, "u", "Goodbye, and thank you.")
        await next_message(frames, 20.0)
        service.process.send_signal(signal.SIGTERM)

        assert (await last_of(frames, "u")).failure is None
        assert await service.exited() == 0


async def test_full_worker_leaves_the_queue_group_and_comes_back(
    bus: Bus, call_id: str, service_env: dict[str, str]
) -> None:
    env = {**service_env, "DIALBUS_TTS_THREADS": "1", "DIALBUS_TTS_MAX_QUEUE": "1"}
    async with run_service("tts", env, timeout_s=START_S):
        await ask(bus, call_id, "one")
        await ask(bus, call_id, "two")

        codes: set[int] = set()

        async def nobody_listens() -> bool:
            try:
                await ask(bus, call_id, "three")
            except Refused as refused:
                codes.add(refused.code)
                return False
            except NoResponder:
                return True
            raise AssertionError("taken without room")

        await eventually(nobody_listens, what="leaving the queue group")
        assert codes <= {503}
        await bus.publish(CancelSpeech(call_id=call_id))

        async def taken() -> bool:
            try:
                await ask(bus, call_id, "four", "Here again.")
            except (NoResponder, Refused):
                return False
            return True

        frames = await listen(bus, call_id)
        await eventually(taken, what="rejoining the queue group")
        assert (await last_of(frames, "four")).failure is None


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"DIALBUS_TTS_SPEAKER": "/nowhere/voice.onnx"}, "dialbus: tts: tts.speaker: no voice '/nowhere/voice.onnx'"),
        ({"DIALBUS_TTS_SPEAKER": "nobody"}, "dialbus: tts: tts.speaker: no voice 'nobody'"),
        ({"DIALBUS_TTS_VOICES_PATH": "/nowhere"}, "dialbus: tts: tts.voices_path: no directory /nowhere"),
    ],
)
async def test_missing_model_ends_the_process_with_one_line(
    env: dict[str, str], line: str, service_env: dict[str, str], tmp_path: Path
) -> None:
    service: ServiceProcess = spawn("tts", {**service_env, **env}, tmp_path)

    assert await service.exited(START_S) == 2
    assert service.log.startswith(line)
    assert service.log.count("\n") == 1
