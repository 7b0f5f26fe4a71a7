"""What is kept of a call on a real bus: lines of several services, commands and events, read back in their order."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from dialbus.bus import Bus, BusError, NoResponder, Refused
from dialbus.bus.trace_store import CallLine, TraceStore
from dialbus.config import NatsConfig, TraceConfig
from dialbus.contracts.base import Contract
from dialbus.contracts.events import AddHistory, HangupEvent
from dialbus.contracts.media import CloseLeg
from dialbus.contracts.session import CommandSeen
from dialbus.contracts.trace import TraceKind
from tests.harness import eventually

HANGUP = HangupEvent(timestamp=1, track_id="s", start_time="a", hangup_time="b", reason="byCallee", initiator="callee")


@pytest_asyncio.fixture
async def traced(nats_url: str) -> AsyncIterator[Bus]:
    """A service that keeps traces."""
    settings, instance = NatsConfig(url=nats_url), f"media-{secrets.token_hex(4)}"
    async with Bus.connect(settings, service="media", instance=instance, trace=TraceConfig()) as bus:
        yield bus


@pytest_asyncio.fixture
async def store(nats_url: str, traced: Bus) -> AsyncIterator[TraceStore]:
    """What `dialbus trace` reads."""
    async with TraceStore.connect(nats_url) as store:
        yield store


async def kept(store: TraceStore, call_id: str, count: int) -> list[CallLine]:
    """The call's lines, once there are so many."""

    async def look() -> list[CallLine] | None:
        lines = [line async for line in store.lines(call_id)]
        return lines if len(lines) >= count else None

    return await eventually(look, what="the lines")


def names(lines: list[CallLine]) -> list[tuple[str, str, str]]:
    return [(line.service, line.kind, line.name) for line in lines]


async def test_all_that_concerns_a_call_is_kept_in_order(traced: Bus, store: TraceStore, call_id: str) -> None:
    async def refuse(_: CloseLeg) -> Contract:
        raise Refused(409, "not now")

    await traced.publish(CommandSeen(call_id=call_id, at_ms=1, via="socket", command={"command": "tts", "text": "hi"}))
    await kept(store, call_id, 1)  # its time is that of its being stored
    traced.tracer.note(call_id, TraceKind.SIP_IN, "INVITE sip:a:hush@b SIP/2.0", text="INVITE sip:a:hush@b SIP/2.0\r\n")
    with pytest.raises(NoResponder):
        await traced.request(CloseLeg(call_id=call_id))
    listening = await traced.serve(CloseLeg, refuse, call_id=call_id)
    await traced.flush()
    with pytest.raises(Refused):
        await traced.request(CloseLeg(call_id=call_id))
    await listening.drop()
    await traced.emit(call_id, AddHistory(timestamp=1, speaker="bot", text="said"))

    lines = await kept(store, call_id, 5)
    assert names(lines) == [
        ("media", "command", "tts"),
        ("media", "sip-in", "INVITE sip:a:***@b SIP/2.0"),
        ("media", "request", "CloseLeg"),
        ("media", "request", "CloseLeg"),
        ("media", "event", "addHistory"),
    ]
    assert lines[0].facts == {"text": "hi", "via": "socket"}
    assert lines[1].text == "INVITE sip:a:***@b SIP/2.0\r\n"
    assert str(lines[2].facts["answer"]).startswith("NoResponder")
    assert lines[3].facts["answer"] == "Refused: not now"
    assert lines[4].instance == traced.instance
    assert [line.at for line in lines] == sorted(line.at for line in lines)


async def test_a_call_is_followed_until_it_has_ended(traced: Bus, store: TraceStore, call_id: str) -> None:
    traced.tracer.note(call_id, TraceKind.INPUT, "first")
    await kept(store, call_id, 1)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def follow() -> None:
        async with aclosing(store.lines(call_id, follow=True)) as lines:
            async for line in lines:
                told.put_nowait(line.name)

    following = asyncio.create_task(follow(), name="follow")
    assert await asyncio.wait_for(told.get(), 10) == "first"
    traced.tracer.note(call_id, TraceKind.INPUT, "second")
    assert await asyncio.wait_for(told.get(), 10) == "second"
    await traced.emit(call_id, HANGUP.model_copy(update={"refer": True}))
    await traced.emit(call_id, HANGUP)
    traced.tracer.note(call_id, TraceKind.SIP_IN, "SIP/2.0 200 OK")
    await asyncio.wait_for(following, 20)
    assert [told.get_nowait() for _ in range(3)] == ["hangup", "hangup", "SIP/2.0 200 OK"]


async def test_recent_calls_are_listed_with_those_that_live(traced: Bus, store: TraceStore, call_id: str) -> None:
    live = f"{call_id}-live"
    for one in (call_id, live):
        traced.tracer.note(one, TraceKind.INPUT, "begin")
    await traced.emit(call_id, HANGUP)
    await traced.emit(live, HANGUP.model_copy(update={"refer": True}))
    await kept(store, live, 2)
    calls = {call.call_id: call.ended for call in await store.calls()}
    assert (calls[call_id], calls[live]) == (True, False)
    assert [line async for line in store.lines(f"{call_id}-unknown", follow=True)] == []


async def test_without_tracing_the_events_are_there(bus: Bus, nats_url: str, call_id: str) -> None:
    await bus.emit(call_id, HANGUP)
    async with TraceStore.connect(nats_url) as store:
        assert names([line async for line in store.lines(call_id, follow=True)]) == [("test", "event", "hangup")]


async def test_what_was_noted_last_is_sent_before_leaving(nats_url: str, call_id: str) -> None:
    settings = NatsConfig(url=nats_url)
    async with Bus.connect(settings, service="asr", instance="asr-1", trace=TraceConfig()) as bus:
        bus.tracer.note(call_id, TraceKind.LOG, "goodbye")
    async with TraceStore.connect(nats_url) as store:
        assert names(await kept(store, call_id, 1)) == [("asr", "log", "goodbye")]


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BusError):
        async with TraceStore.connect("nats://127.0.0.1:1"):
            pass
