"""Texts on their way to a tts worker, audio on its way back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np
import pytest

from dialbus.bus import Bus, NoReply, NoResponder, Refused
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Contract
from dialbus.contracts.speech import CancelSpeech, Speak, SpeechTaken
from media.speech import arrival
from media.speech.synthesis import Synthesis


class FakeBus:
    """Answers a Speak as told, and keeps what was said."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer or SpeechTaken(worker="t1")
        self.said: list[Contract] = []
        self.audio: Callable[[AudioFrame], Awaitable[None]] | None = None

    async def request(self, message: Contract, *, timeout_s: float) -> Contract:
        self.said.append(message)
        await self.overtaking()
        if isinstance(self.answer, Exception):
            raise self.answer
        return cast(Contract, self.answer)

    async def overtaking(self) -> None:
        """What happens between the question and its answer."""

    async def publish(self, message: Contract) -> None:
        self.said.append(message)

    async def subscribe_audio(self, call_id: str, track: str, handler: Any) -> "FakeBus":
        self.audio = handler
        return self

    async def drop(self) -> None:
        self.audio = None


class Listener:
    """Keeps the answers as text."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.news = asyncio.Event()

    def speech_audio(self, utterance_id: str, pcm: np.ndarray) -> None:
        self._tell("audio", utterance_id, pcm.tolist())

    def speech_done(self, utterance_id: str, *, cached: bool, ttfb_ms: int | None) -> None:
        self._tell("done", utterance_id, cached)

    def speech_failed(self, utterance_id: str, code: int, reason: str, *, fatal: bool) -> None:
        self._tell("failed", utterance_id, code, fatal)

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        self.news.set()

    async def until(self, count: int) -> list[tuple[Any, ...]]:
        async with asyncio.timeout(2):
            while len(self.told) < count:
                self.news.clear()
                await self.news.wait()
        return self.told


def _request(utterance_id: str = "u1") -> Speak:
    return Speak(call_id="c", utterance_id=utterance_id, text="hello", rate_hz=8000)


def _frame(sequence: int, *samples: int, utterance: str = "u1", **more: Any) -> AudioFrame:
    return AudioFrame("c", "server", utterance, sequence, 8000, np.array(samples, "<i2").tobytes(), **more)


async def _open(
    bus: FakeBus, watchdog_s: float = 10.0, *, is_full: Callable[[], bool] = lambda: True
) -> tuple[Synthesis, Listener]:
    listener = Listener()
    speech = Synthesis(cast(Bus, bus), "c", "server", watchdog_s, is_full=is_full)
    await speech.start()
    return speech, listener


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_audio_is_passed_on_until_the_last_frame() -> None:
    bus = FakeBus()
    speech, listener = await _open(bus)
    speech.request(_request(), listener)
    await _settled()
    assert bus.audio is not None

    for frame in (_frame(0, 1, 2), _frame(0, 9, utterance="unknown"), _frame(1, 3), _frame(2, last=True), _frame(3, 4)):
        await bus.audio(frame)

    assert listener.told == [("audio", "u1", [1, 2]), ("audio", "u1", [3]), ("done", "u1", False)]
    await speech.close()


async def test_a_failure_in_the_last_frame_comes_after_its_audio() -> None:
    bus = FakeBus()
    speech, listener = await _open(bus)
    speech.request(_request(), listener)
    await _settled()
    assert bus.audio is not None

    await bus.audio(_frame(0, 5, last=True, failure="hoarse"))

    assert listener.told == [("audio", "u1", [5]), ("failed", "u1", 500, False)]
    await speech.close()


@pytest.mark.parametrize(
    ("answer", "code"), [(Refused(404, "no voice"), 404), (NoResponder("x"), 503), (NoReply("x"), 504)]
)
async def test_who_cannot_speak_at_all_fails_for_good(answer: Any, code: int) -> None:
    speech, listener = await _open(FakeBus(answer))

    speech.request(_request(), listener)

    assert await listener.until(1) == [("failed", "u1", code, True)]
    await speech.close()


async def test_a_worker_that_sends_nothing_is_given_up() -> None:
    speech, listener = await _open(FakeBus(), watchdog_s=0.01)

    speech.request(_request(), listener)

    assert await listener.until(1) == [("failed", "u1", 500, False)]
    await speech.close()


async def test_a_text_that_waits_behind_a_long_one_is_not_given_up() -> None:
    bus = FakeBus()
    speech, listener = await _open(bus, watchdog_s=0.1)
    speech.request(_request(), listener)
    speech.request(_request("u2"), listener)
    await _settled()
    assert bus.audio is not None

    for sequence in range(8):
        await asyncio.sleep(0.02)  # a worker paces a long text: this is its pace, not a wait for something
        await bus.audio(_frame(sequence, 1))
    told = list(listener.told)
    await speech.close()

    assert told == [("audio", "u1", [1])] * 8


async def test_a_cancelled_utterance_is_told_to_the_worker_and_its_audio_ignored() -> None:
    bus = FakeBus()
    speech, listener = await _open(bus)
    speech.request(_request(), listener)
    speech.request(_request("u2"), listener)
    await _settled()
    audio = bus.audio
    assert audio is not None

    speech.cancel("u1")
    speech.cancel("u1")
    await audio(_frame(0, 1, last=True))
    await speech.close()
    await audio(_frame(0, 1, utterance="u2"))

    cancels = [message for message in bus.said if isinstance(message, CancelSpeech)]
    assert [cancel.utterance_id for cancel in cancels] == ["u1", "u2"]
    assert listener.told == []
    assert bus.audio is None


async def test_a_worker_that_comes_late_speaks_late_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "_AGAIN_S", 0.002)

    class Late(FakeBus):
        async def overtaking(self) -> None:
            if len(self.said) == 10:  # longer than a worker that was there may be silent
                self.answer = SpeechTaken(worker="t1")
                assert self.audio is not None
                await self.audio(_frame(0, 1, last=True))

    speech, listener = await _open(Late(NoResponder("tts.speak")), watchdog_s=0.1, is_full=lambda: False)
    speech.request(_request(), listener)

    assert await listener.until(2) == [("audio", "u1", [1]), ("done", "u1", False)]
    await speech.close()


async def test_audio_that_overtakes_the_answer_is_heard() -> None:
    class Eager(FakeBus):
        async def overtaking(self) -> None:
            assert self.audio is not None
            await self.audio(_frame(0, 1, 2))
            await self.audio(_frame(1, last=True))

    speech, listener = await _open(Eager())
    speech.request(_request(), listener)

    assert await listener.until(2) == [("audio", "u1", [1, 2]), ("done", "u1", False)]
    await speech.close()


async def test_audio_whose_answer_is_lost_is_heard() -> None:
    class Mute(FakeBus):
        async def overtaking(self) -> None:
            assert self.audio is not None
            await self.audio(_frame(0, 1))

    bus = Mute(NoReply("tts.speak"))
    speech, listener = await _open(bus)
    speech.request(_request(), listener)
    await listener.until(1)
    await _settled()
    assert bus.audio is not None
    await bus.audio(_frame(1, 2, last=True))

    assert listener.told == [("audio", "u1", [1]), ("audio", "u1", [2]), ("done", "u1", False)]
    await speech.close()


async def test_a_cancellation_that_overtakes_the_answer_is_told_to_the_worker() -> None:
    class Interrupted(FakeBus):
        async def overtaking(self) -> None:
            speech.cancel("u1")
            await asyncio.sleep(0)  # where the cancellation arrives

    bus = Interrupted()
    speech, listener = await _open(bus)
    speech.request(_request(), listener)
    await _settled()
    await speech.close()

    assert bus.said[1:] == [CancelSpeech(call_id="c", utterance_id="u1")]
    assert listener.told == []


async def test_a_text_that_no_message_can_carry_is_skipped() -> None:
    speech, listener = await _open(FakeBus(ValueError("surrogates not allowed")))
    speech.request(_request(), listener)

    assert await listener.until(1) == [("failed", "u1", 500, False)]
    await speech.close()
