"""Speech workers that are not there yet are waited for; full ones are told at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from dialbus.bus import Bus
from dialbus.contracts.session import Heartbeat
from dialbus.tasks import TaskSet
from tests.contract.media.conftest import Dial, FakeAsr, FakeTts, Pcm
from tests.peers.rtp import loud, tone, voice

JFK = Path(__file__).parents[2] / "data" / "voices" / "jfk.wav"
LATE_S = 2.0


def _tone(text: str, rate_hz: int) -> Pcm:
    return tone(600, 0.4, rate_hz)


@asynccontextmanager
async def full(bus: Bus, service: str) -> AsyncIterator[None]:
    """A ready worker that takes nothing more."""

    async def beats() -> None:
        while True:
            beat = Heartbeat(
                service=service, instance=f"full-{service}", version="0", capacity=1, in_use=1, started_at="now"
            )
            await bus.publish(beat)
            await asyncio.sleep(0.5)

    tasks = TaskSet()
    tasks.start(beats(), name="beats")
    try:
        yield
    finally:
        await tasks.close()


async def test_a_greeting_is_heard_when_the_first_tts_worker_comes(bus: Bus, dial: Dial) -> None:
    call = await dial()
    begun = time.monotonic()
    await call.do("tts", text="Welcome.", playId="p", endOfStream=True)
    await call.until("trackStart")
    await asyncio.sleep(LATE_S)  # the worker loads its model: this is its pace, not a wait for something

    tts = await FakeTts(bus, _tone).start()
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "metrics", "trackEnd"]
    assert [asked.text for asked in tts.asked] == ["Welcome."]
    assert loud(call.phone.audio(), 8000)[0] > 0.35
    assert time.monotonic() - begun < 8


async def test_a_worker_that_died_with_room_left_is_not_taken_for_full(bus: Bus, dial: Dial) -> None:
    call = await dial()
    died = Heartbeat(service="tts", instance="dead-tts", version="0", capacity=4, in_use=1, started_at="now")
    await bus.publish(died)
    await bus.flush()
    await call.do("tts", text="Welcome.", playId="p", endOfStream=True)
    await call.until("trackStart")

    tts = await FakeTts(bus, _tone).start()
    await call.until("trackEnd")

    assert not call.named("error")
    assert [asked.text for asked in tts.asked] == ["Welcome."]


async def test_words_said_before_the_first_asr_worker_came_are_recognised(bus: Bus, dial: Dial) -> None:
    call = await dial()
    await call.configure(asr={"language": "en"})
    await call.phone.speak(voice(JFK, 8000)[: 8000 * 3])
    await call.phone.speak(np.zeros(8000, np.int16))

    asr = await FakeAsr(bus, name="late-asr", text="ask not").start()
    await call.until("asrFinal")
    await asr.die()

    assert not call.named("error")
    assert call.named("asrFinal")[0]["text"] == "ask not"
    assert len(asr.audio()) > 16000
    assert [frame.sequence for frame in asr.frames["0"]] == list(range(len(asr.frames["0"])))


async def test_full_workers_are_told_at_once(bus: Bus, dial: Dial) -> None:
    call = await dial()
    async with full(bus, "tts"), full(bus, "asr"):
        begun = time.monotonic()
        await call.do("tts", text="Welcome.")
        await call.configure(asr={"language": "en"})
        await call.until("trackEnd", timeout_s=4.0)
        await call.until("error", 2, timeout_s=4.0)

    told = sorted((error["sender"], error["code"], error["error"]) for error in call.named("error"))
    assert told == [("asr", 500, "no asr worker has room"), ("tts", 500, "no tts worker has room")]
    assert time.monotonic() - begun < 4
