"""The worker's edges, with an engine whose decodes the test lets go and a bus that only keeps what is published.

The service on a real bus with the real engine is tested in tests/contract/asr.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from asr.decoding import MAX_PENDING
from asr.engine import Audio, Hypothesis
from asr.engines import Engines, Loaded
from asr.errors import ModelNotFound, ModelNotReady
from asr.service import AsrService
from dialbus.bus import Bus, Refused
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Taken
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, Transcript

SECOND = np.ones(16_000, np.int16)


class Left:
    """A subscription that the test does not need."""

    async def leave(self) -> None:
        """Nothing to stop."""

    async def drop(self) -> None:
        """Nothing to stop."""


class KeptBus:
    """Handlers by what they handle, and everything published."""

    instance = "asr-test"

    def __init__(self) -> None:
        self.handlers: dict[Any, Callable[[Any], Awaitable[Any]]] = {}
        self.published: asyncio.Queue[Transcript] = asyncio.Queue()
        self.meanwhile: Callable[[], Awaitable[None]] | None = None  # happens while somebody waits for the server

    async def serve(self, request: Any, handler: Any, **_subject: str) -> Left:
        self.handlers[request] = handler
        return Left()

    async def subscribe_audio(self, _call_id: str, _track: str, handler: Any) -> Left:
        self.handlers[AudioFrame] = handler
        return Left()

    async def flush(self) -> None:
        if self.meanwhile is not None:
            await self.meanwhile()

    async def publish(self, message: Transcript) -> None:
        self.published.put_nowait(message)


@dataclass
class GatedEngine:
    """Each decode waits for the gate; its text is the seconds of audio it heard."""

    slots: int = 2
    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    broken: bool = False

    def check_language(self, language: str | None) -> str | None:
        return language

    def transcribe(self, pcm: Audio, language: str | None = None, beam: int = 1) -> Hypothesis:
        self.started.release()
        assert self.gate.wait(10)
        if self.broken:
            raise RuntimeError("out of memory")
        return Hypothesis(f"{pcm.size / 16_000:g} seconds", "en", 0.0, -0.1, 1, 1.0)

    async def busy(self) -> None:
        """Wait until one more decode has begun."""
        assert await asyncio.to_thread(self.started.acquire, True, 10)


@dataclass
class Rig:
    """A worker with one open session."""

    bus: KeptBus
    engine: GatedEngine
    worker: AsrService
    clock: list[float]
    calls: set[str]

    async def frame(self, utterance: int, sequence: int, *, last: bool = False) -> None:
        frame = AudioFrame("call", "main", str(utterance), sequence, 16_000, SECOND.tobytes(), last=last)
        await self.bus.handlers[AudioFrame](frame)

    async def close(self) -> Taken:
        async with asyncio.timeout(5):
            taken = await self.bus.handlers[CloseTranscription](CloseTranscription(call_id="call"))
        assert isinstance(taken, Taken)
        return taken

    async def next(self) -> Transcript:
        async with asyncio.timeout(5):
            return await self.bus.published.get()

    async def look_after(self, seconds_later: float) -> None:
        self.clock[0] += seconds_later
        for session in list(self.worker._sessions.values()):
            await self.worker.look_after(session)


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    bus, engine, clock, calls = KeptBus(), GatedEngine(), [1_000.0], set[str]()

    async def call_exists(call_id: str) -> bool:
        return call_id in calls

    def load(name: str) -> GatedEngine:
        raise ModelNotFound(name, "asr.modelType", "there is none")

    engines = Engines(Loaded("default", engine), load)
    worker = AsrService(cast(Bus, bus), engines, call_exists, max_sessions=1, now=lambda: clock[0])
    await worker.start()
    await bus.handlers[OpenTranscription](OpenTranscription(call_id="call"))
    yield Rig(bus, engine, worker, clock, calls)
    engine.gate.set()
    await worker.stop()


def dropped(because: str) -> float:
    return REGISTRY.get_sample_value("dialbus_asr_finals_dropped_total", {"because": because}) or 0.0


async def test_what_overtakes_the_answer_to_open_and_to_close_is_recognised(rig: Rig) -> None:
    """Audio comes before the opener has its answer, and again while the closer waits for his."""

    async def audio_meanwhile() -> None:
        await rig.frame(0, 0, last=True)

    rig.bus.meanwhile = audio_meanwhile
    await rig.bus.handlers[OpenTranscription](OpenTranscription(call_id="call"))
    rig.engine.gate.set()
    first = await rig.next()

    rig.clock[0] = asyncio.get_running_loop().time()
    await rig.frame(1, 0)
    closing = asyncio.create_task(rig.close())
    second = await rig.next()
    while not second.final:
        second = await rig.next()
    await closing

    assert [(text.utterance, text.text, text.final) for text in (first, second)] == [
        (0, "1 seconds", True),
        (1, "1 seconds", True),
    ]


async def test_a_delta_that_is_decoded_when_its_utterance_ends_is_not_shown(rig: Rig) -> None:
    await rig.frame(0, 0)
    await rig.engine.busy()
    await rig.frame(0, 1, last=True)
    await rig.engine.busy()
    rig.engine.gate.set()

    final = await rig.next()
    await rig.close()

    assert (final.text, final.final) == ("2 seconds", True)
    assert rig.bus.published.empty()


async def test_finals_come_in_the_order_of_the_utterances(rig: Rig) -> None:
    for utterance in range(3):
        await rig.frame(utterance, 0, last=True)
    rig.engine.gate.set()

    assert [(await rig.next()).utterance for _ in range(3)] == [0, 1, 2]


async def test_an_engine_that_fails_gives_a_final_that_says_so_and_the_next_utterance_is_heard(rig: Rig) -> None:
    rig.engine.gate.set()
    rig.engine.broken = True
    await rig.frame(0, 0, last=True)
    failed = await rig.next()
    rig.engine.broken = False
    await rig.frame(1, 0, last=True)

    assert (failed.text, failed.final, failed.failure) == ("", True, "RuntimeError: out of memory")
    assert ((await rig.next()).text, rig.worker.queued) == ("1 seconds", 0)


async def test_close_gives_up_a_final_that_does_not_come(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.service.CLOSE_WITHIN_S", 0.02)
    rig.clock[0] = asyncio.get_running_loop().time()
    before = dropped("closed")
    await rig.frame(0, 0)

    await rig.close()

    assert dropped("closed") == before + 1
    assert rig.worker.capacity == (1, 0)
    rig.engine.gate.set()
    await rig.worker.stop()
    assert rig.bus.published.empty()


async def test_more_than_can_be_heard_is_refused_utterance_by_utterance(rig: Rig) -> None:
    for utterance in range(MAX_PENDING + 1):
        await rig.frame(utterance, 0, last=True)

    refused = await rig.next()

    assert (refused.utterance, refused.final, refused.text) == (MAX_PENDING, True, "")
    assert refused.failure == "the asr worker is overloaded"
    rig.engine.gate.set()
    assert [(await rig.next()).failure for _ in range(MAX_PENDING)] == [None] * MAX_PENDING


async def test_an_utterance_whose_last_frame_is_lost_ends_after_a_pause(rig: Rig) -> None:
    rig.engine.gate.set()
    await rig.frame(0, 0)
    assert not (await rig.next()).final
    await rig.look_after(4)
    assert rig.bus.published.empty()
    await rig.look_after(2)

    assert (await rig.next()).final


async def test_a_session_without_audio_closes_itself_after_ten_minutes(rig: Rig) -> None:
    await rig.look_after(599)
    assert rig.worker.capacity == (1, 1)
    await rig.look_after(2)
    assert rig.worker.capacity == (1, 0)


async def test_a_session_closes_when_its_call_has_gone_but_not_when_it_was_never_seen(rig: Rig) -> None:
    await rig.look_after(60)
    assert rig.worker.capacity == (1, 1)
    rig.calls.add("call")
    await rig.look_after(60)
    rig.calls.clear()
    await rig.look_after(1)
    assert rig.worker.capacity == (1, 1), "looked up now and then only"
    await rig.look_after(60)
    assert rig.worker.capacity == (1, 0)


async def test_stop_waits_for_what_was_said(rig: Rig) -> None:
    await rig.frame(0, 0, last=True)
    await rig.engine.busy()
    stopping = asyncio.create_task(rig.worker.stop())
    rig.engine.gate.set()
    await stopping

    assert (await rig.next()).text == "1 seconds"
    with pytest.raises(Refused, match="no room"):
        await rig.bus.handlers[OpenTranscription](OpenTranscription(call_id="other"))


async def test_a_model_that_takes_long_to_load_is_there_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.engines.LOAD_WAIT_S", 0.0)
    gate = threading.Event()
    default, other = GatedEngine(), GatedEngine()

    def load(name: str) -> GatedEngine:
        assert gate.wait(10)
        if name == "broken":
            raise ModelNotFound(name, "asr.modelType", "there is none")
        return other

    engines = Engines(Loaded("default", default), load)
    assert (await engines.get(None, ())).engine is default
    with pytest.raises(ModelNotReady, match="is being loaded"):
        await engines.get("other", ())
    gate.set()
    monkeypatch.setattr("asr.engines.LOAD_WAIT_S", 10.0)
    assert (await engines.get("other", ())).engine is other
    with pytest.raises(ModelNotReady, match="in use"):
        await engines.get("broken", {"other"})
    with pytest.raises(ModelNotFound):
        await engines.get("broken", ())
