"""Texts made ready: how many may wait, who is dropped, and what goes first."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio

from dialbus.bus import Refused
from dialbus.contracts.speech import Cached, CacheSpeech, CancelCaching
from tts.cache import SpeechCache
from tts.engine import AudioChunk, Synthesiser
from tts.precaching import Precaching
from tts.requests import VoiceFinder
from tts.store import SpeechStore
from tts.voices import Voice, Voices

MAX_QUEUE = 3


class GatedEngine:
    """Two pieces for each text; `gate` holds the pieces back."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.pieces: list[str] = []

    def stream(self, text: str, *, rate_hz: int = 16000, **_options: Any) -> Iterator[AudioChunk]:
        for _ in range(2):
            self.pieces.append(text)
            self.begun.set()
            assert self.gate.wait(10)
            yield AudioChunk(np.ones(rate_hz // 10, np.int16), rate_hz, text)


class OneVoice(Voices):
    def resolve(self, speaker: str | None = None, language: str | None = None) -> Voice:
        return Voice("eva", Path("eva.onnx"), Path("eva.onnx.json"), "de_DE")


class Rig:
    def __init__(self) -> None:
        self.engine, self.free = GatedEngine(), asyncio.Event()
        self.free.set()
        self.caching = Precaching(
            cast(Synthesiser, self.engine), VoiceFinder(OneVoice(), None), SpeechStore(SpeechCache(1 << 20)),
            max_queue=MAX_QUEUE, max_kept=1 << 20, free=self._free,
        )  # fmt: skip

    async def _free(self) -> None:
        await self.free.wait()

    def ask(self, text: str, **more: Any) -> "asyncio.Task[Cached]":
        request = CacheSpeech(text=text, asker=text, **more)
        return asyncio.create_task(self.caching.make(request), name=f"ask {text}")

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.engine.begun.wait, 10)


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    rig.engine.gate.set()
    await rig.caching.close()


async def refusal(asked: "asyncio.Task[Cached]") -> Refused:
    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(asked, 5)
    return refused.value


async def test_more_than_may_wait_are_refused_at_once_and_the_others_are_answered_in_turn(rig: Rig) -> None:
    asked = [rig.ask(f"text {number}") for number in range(MAX_QUEUE + 2)]

    assert [(await refusal(one)).code for one in asked[MAX_QUEUE:]] == [503, 503]
    rig.engine.gate.set()
    made = await asyncio.wait_for(asyncio.gather(*asked[:MAX_QUEUE]), 5)
    assert [one.existed for one in made] == [False] * MAX_QUEUE
    assert sorted(rig.engine.pieces) == sorted(2 * [f"text {number}" for number in range(MAX_QUEUE)])
    assert len(rig.caching) == 0


async def test_nothing_is_begun_while_speech_wants_the_threads(rig: Rig) -> None:
    rig.free.clear()
    rig.engine.gate.set()
    asked = rig.ask("text", wait_ms=50)

    assert (await refusal(asked)).code == 503
    assert rig.engine.pieces == []
    rig.free.set()
    assert not (await asyncio.wait_for(rig.ask("text"), 5)).existed


async def test_what_an_asker_wanted_who_left_is_not_begun_and_what_is_begun_ends_with_its_piece(rig: Rig) -> None:
    first, second = rig.ask("first"), rig.ask("second")
    await rig.begun()
    (begun,) = rig.engine.pieces
    for asker in ("first", "second"):
        await rig.caching.cancel(CancelCaching(asker=asker))
    assert {(await refusal(one)).code for one in (first, second)} == {503}
    rig.engine.gate.set()

    await asyncio.wait_for(rig.ask("third"), 5)
    assert rig.engine.pieces == [begun, "third", "third"]


async def test_a_leaving_that_overtook_the_request_counts(rig: Rig) -> None:
    rig.engine.gate.set()
    await rig.caching.cancel(CancelCaching(asker="text"))

    assert (await refusal(rig.ask("text"))).code == 503
    assert rig.engine.pieces == []


async def test_what_was_not_made_in_the_time_of_its_asker_is_dropped(rig: Rig) -> None:
    first = rig.ask("first", wait_ms=50)

    assert (await refusal(first)).code == 503
    assert len(rig.caching) == 0


async def test_one_synthesis_serves_all_rates(rig: Rig) -> None:
    rig.engine.gate.set()
    made = await rig.ask("text", other_rates_hz=(8000,))
    narrow = await rig.ask("text", rate_hz=8000)
    again = await rig.ask("text", other_rates_hz=(8000,))

    assert (made.existed, narrow.existed, again.existed) == (False, True, True)
    assert made.size_bytes == again.size_bytes == 2 * narrow.size_bytes == 2 * 2 * 1600
    assert rig.engine.pieces == ["text", "text"]
    wider = await rig.ask("text", other_rates_hz=(8000, 24000))
    assert (wider.existed, len(rig.engine.pieces)) == (False, 2), "what lacks is converted from what is there"


async def test_closing_refuses_what_waits(rig: Rig) -> None:
    asked = [rig.ask("first"), rig.ask("second")]
    await rig.begun()
    rig.engine.gate.set()
    await rig.caching.close()

    assert [(await refusal(one)).code for one in asked] == [503, 503]
    assert (await refusal(rig.ask("third"))).code == 503
