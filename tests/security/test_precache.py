"""A flood of `/precache`: bounded, behind live speech, and over when those who asked are gone (issue 8, item 6)."""

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from dialbus.bus import Bus
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import Speak
from tests.harness import ServiceProcess, eventually, next_message, run_service

START_S = 90.0
POSTS, BOUND = 60, 10
LONG = "The town library is open from nine to five, and on Thursdays until eight. " * 40
ANSWER_S = 60.0

Posted = asyncio.Task[httpx.Response]


@pytest_asyncio.fixture
async def tts(service_env: dict[str, str]) -> AsyncIterator[ServiceProcess]:
    env = service_env | {"DIALBUS_TTS_MAX_CACHE_QUEUE": str(BOUND), "DIALBUS_TTS_THREADS": "1"}
    async with run_service("tts", env, timeout_s=START_S) as service:
        yield service


@pytest_asyncio.fixture
async def api(service_env: dict[str, str], tts: ServiceProcess) -> AsyncIterator[httpx.AsyncClient]:
    env = service_env | {"DIALBUS_HEALTH_EXPECTS": "[]"}
    limits = httpx.Limits(max_connections=2 * POSTS)
    async with (
        run_service("gateway", env) as gateway,
        httpx.AsyncClient(base_url=gateway.facts["http"], trust_env=False, timeout=ANSWER_S, limits=limits) as client,
    ):
        yield client


def posts(api: httpx.AsyncClient, count: int, text: str) -> list[Posted]:
    """That many strangers ask at once, each for a text of its own."""
    return [
        asyncio.create_task(api.post("/precache", json={"text": f"Number {number}. {text}"}), name=f"post {number}")
        for number in range(count)
    ]


async def being_made(tts: ServiceProcess) -> int:
    """Texts that the worker makes ready or will."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return int((await client.get(tts.facts["health"])).json()["caching"])


async def made(tts: ServiceProcess) -> int:
    """Texts that the worker has made ready since its start."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        text = (await client.get(tts.facts["health"].replace("/health", "/metrics"))).text
    found = re.search(r'^dialbus_tts_syntheses_total\{outcome="cached"\} (\S+)', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


async def until_idle(tts: ServiceProcess) -> None:
    async with asyncio.timeout(20):
        while await being_made(tts):
            pass


async def say(bus: Bus, call_id: str, utterance: str) -> AudioFrame:
    """Speak as a call does; its last frame, which has the facts."""
    frames: asyncio.Queue[AudioFrame] = asyncio.Queue()

    async def put(frame: AudioFrame) -> None:
        if frame.last and frame.utterance == utterance:
            frames.put_nowait(frame)

    subscription = await bus.subscribe_audio(call_id, "server", put)
    await bus.flush()
    await bus.request(Speak(call_id=call_id, utterance_id=utterance, text=f"{utterance} is here."), timeout_s=3.0)
    last = await next_message(frames, 20.0)
    await subscription.drop()
    return last


async def test_a_flood_is_refused_beyond_the_bound_and_is_over_when_its_askers_leave(
    api: httpx.AsyncClient, tts: ServiceProcess, bus: Bus, call_id: str
) -> None:
    flood = posts(api, POSTS, LONG)
    await eventually(lambda: sum(post.done() for post in flood) >= POSTS - BOUND, ANSWER_S)

    refused = [post.result() for post in flood if post.done()]
    assert {answer.status_code for answer in refused} == {503}
    assert len(refused) == POSTS - BOUND
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert await being_made(tts) == BOUND

    spoken = await say(bus, call_id, "Amy")
    assert spoken.failure is None
    assert int(spoken.facts["ttfb"]) < 2000
    assert await being_made(tts) >= BOUND - 1, "a call's text waits for none of them"

    for post in flood:
        post.cancel()
    await asyncio.wait(flood)
    await until_idle(tts)
    count = await made(tts)
    assert count < BOUND
    await say(bus, call_id, "Joe")
    assert (await made(tts), await being_made(tts)) == (count, 0)

    stayed = await asyncio.gather(*posts(api, BOUND, "Please hold."))
    assert [answer.status_code for answer in stayed] == [200] * BOUND
    assert {answer.json()["status"] for answer in stayed} == {"cached"}


async def test_what_one_asker_left_is_not_made_before_those_who_stay(
    api: httpx.AsyncClient, tts: ServiceProcess
) -> None:
    left = posts(api, BOUND - 1, LONG)
    async with asyncio.timeout(20):
        while await being_made(tts) < BOUND - 1:
            pass
    (stays,) = posts(api, 1, "Please hold.")
    for post in left:
        post.cancel()

    answer = await stays
    assert (answer.status_code, answer.json()["status"]) == (200, "cached")
    assert await made(tts) <= 2, "nearly nothing of those who left"
