"""Nobody is there yet, or all are full: the bus says the same, heartbeats tell them apart."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.speech import OpenTranscription, TranscriptionOpened
from media.speech import arrival

ASKED = OpenTranscription(call_id="c")
OPENED = TranscriptionOpened(worker="w1", model="m")


class FakeBus:
    """Gives one answer after another, the last one for good."""

    def __init__(self, *answers: Any, asked: Callable[[], None] = lambda: None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self._told = asked

    async def request(self, _request: Any, *, timeout_s: float) -> Any:
        self.asked += 1
        self._told()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "_AGAIN_S", 0.0)
    monkeypatch.setattr(arrival, "WAIT_S", 0.05)


async def ask(bus: FakeBus, is_full: Callable[[], bool]) -> TranscriptionOpened:
    async with asyncio.timeout(2):
        return await arrival.ask(cast(Bus, bus), ASKED, timeout_s=1.0, is_full=is_full)


async def test_a_worker_that_comes_later_is_waited_for() -> None:
    bus = FakeBus(NoResponder("asr.open"), NoResponder("asr.open"), OPENED)

    assert await ask(bus, lambda: False) == OPENED
    assert bus.asked == 3


async def test_full_workers_refuse_at_once() -> None:
    bus = FakeBus(NoResponder("asr.open"))

    with pytest.raises(NoResponder):
        await ask(bus, lambda: True)
    assert bus.asked == 1


async def test_full_workers_that_nobody_has_heard_yet_refuse_when_they_are_heard() -> None:
    heard: list[str] = []
    bus = FakeBus(NoResponder("asr.open"), asked=lambda: heard.append("beat"))

    with pytest.raises(NoResponder):
        await ask(bus, lambda: len(heard) >= 2)
    assert bus.asked == 3


async def test_a_heartbeat_that_overtakes_the_answer_is_no_full_worker() -> None:
    """Nobody listened when it was asked; the worker that came right behind has room."""
    heard: list[str] = []
    bus = FakeBus(NoResponder("asr.open"), OPENED, asked=lambda: heard.append("beat"))

    assert await ask(bus, lambda: bool(heard)) == OPENED


async def test_nobody_comes() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    bus = FakeBus(NoResponder("asr.open"))

    with pytest.raises(NoResponder):
        await ask(bus, lambda: False)
    assert loop.time() - begun >= arrival.WAIT_S
    assert bus.asked > 1


async def test_a_refusal_is_an_answer() -> None:
    bus = FakeBus(NoResponder("asr.open"), Refused(404, "no model"))

    with pytest.raises(Refused, match="no model"):
        await ask(bus, lambda: False)
