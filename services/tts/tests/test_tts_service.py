"""The service's edges: messages that overtake one another. On a real bus it is tested in tests/contract/tts."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio

from dialbus.bus import Bus, Refused
from dialbus.config import TtsConfig
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import CancelSpeech, Speak
from tts.engine import AudioChunk, Synthesiser
from tts.service import TtsService
from tts.voices import Voice, Voices


class Subscribed:
    async def leave(self) -> None:
        """Nothing to stop."""

    async def drop(self) -> None:
        """Nothing to stop."""


class KeptBus:
    """Handlers by what they handle, and everything published."""

    instance = "tts-test"

    def __init__(self) -> None:
        self.handlers: dict[Any, Callable[[Any], Coroutine[Any, Any, Any]]] = {}
        self.frames: list[AudioFrame] = []
        self.ended = asyncio.Event()

    async def serve(self, request: Any, handler: Any, **_subject: str) -> Subscribed:
        self.handlers[request] = handler
        return Subscribed()

    async def serve_at_once(self, request: Any, handler: Any, _tasks: Any, *, queue: str) -> Subscribed:
        return await self.serve(request, handler, queue=queue)

    async def subscribe(self, contract: Any, handler: Any, **_subject: str) -> Subscribed:
        self.handlers[contract] = handler
        return Subscribed()

    async def flush(self) -> None:
        """Nothing is buffered."""

    async def publish_audio(self, frame: AudioFrame) -> None:
        self.frames.append(frame)
        if frame.last:
            self.ended.set()


class Engine:
    """Every text is a tenth of a second."""

    def stream(self, text: str, *, rate_hz: int = 16000, **_options: Any) -> Iterator[AudioChunk]:
        yield AudioChunk(np.ones(rate_hz // 10, np.int16), rate_hz, text)


class GatedVoices(Voices):
    """A voice that is found when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = threading.Event(), threading.Event()

    def resolve(self, speaker: str | None = None, language: str | None = None) -> Voice:
        self.asked.set()
        assert self.gate.wait(10)
        return Voice("eva", Path("eva.onnx"), Path("eva.onnx.json"), "de_DE")


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[tuple[KeptBus, GatedVoices, TtsService]]:
    bus, voices = KeptBus(), GatedVoices()
    service = TtsService(cast(Synthesiser, Engine()), voices, cast(Bus, bus), TtsConfig())
    await service.start()
    yield bus, voices, service
    voices.gate.set()
    await service.close()


def speak(utterance_id: str, **more: Any) -> Speak:
    return Speak(call_id="c", utterance_id=utterance_id, text="Hello.", use_cache=False, **more)


Rig = tuple[KeptBus, GatedVoices, TtsService]


async def test_a_cancellation_that_comes_while_the_voice_is_looked_for_counts(rig: Rig) -> None:
    bus, voices, service = rig
    asking = asyncio.create_task(bus.handlers[Speak](speak("u1")))
    assert await asyncio.to_thread(voices.asked.wait, 10)

    await bus.handlers[CancelSpeech](CancelSpeech(call_id="c", utterance_id="u1"))
    voices.gate.set()

    assert (await asking).worker == "tts-test"
    assert service.capacity[1] == 0
    await bus.handlers[Speak](speak("u2"))
    await asyncio.wait_for(bus.ended.wait(), 5)
    assert {frame.utterance for frame in bus.frames} == {"u2"}


async def test_a_text_that_is_asked_for_again_because_its_answer_was_lost_is_spoken_once(rig: Rig) -> None:
    bus, voices, _ = rig
    voices.gate.set()
    await bus.handlers[Speak](speak("u1"))
    await bus.handlers[Speak](speak("u1"))
    await asyncio.wait_for(bus.ended.wait(), 5)

    assert [(frame.sequence, frame.last) for frame in bus.frames] == [(0, False), (1, True)]


async def test_a_text_that_waits_for_its_voice_when_the_service_closes_is_refused(rig: Rig) -> None:
    bus, voices, service = rig
    asking = asyncio.create_task(bus.handlers[Speak](speak("u1")))
    assert await asyncio.to_thread(voices.asked.wait, 10)
    closing = asyncio.create_task(service.close())
    await closing
    voices.gate.set()

    with pytest.raises(Refused, match="stopping"):
        await asking
    assert bus.frames == []
