"""The events of a socket's call: no consumer without an owner, one before the first request, each event once."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from dialbus.bus import Bus, StreamedEvent
from dialbus.contracts.events import ErrorEvent
from gateway.socket.call_events import CallEvents


class Stream:
    """The bus's stream, whose consumers are counted."""

    def __init__(self) -> None:
        self.stored = [b""] * 40  # of other calls
        self.consumers = 0

    async def emit_raw(self, call_id: str, name: str, data: bytes) -> int:
        self.stored.append(data)
        return len(self.stored)

    async def events(self, call_id: str, first: int, counted: int) -> AsyncGenerator[StreamedEvent, None]:
        self.consumers += 1
        for sequence, data in enumerate(self.stored[first - 1 :], first):
            counted += 1
            yield StreamedEvent(counted, sequence, "error", data)
        await asyncio.Event().wait()


def error(text: str) -> ErrorEvent:
    return ErrorEvent(timestamp=1, track_id="c", sender="command", error=text, code=400)


async def read(events: CallEvents, count: int) -> list[tuple[int, int, Any]]:
    found = []
    async with asyncio.timeout(5), aclosing(events.read()) as reader:
        async for event in reader:
            found.append((event.seq, event.sequence, json.loads(event.data)["error"]))
            if len(found) == count:
                break
    return found


async def test_events_of_an_idle_session_need_no_consumer() -> None:
    stream = Stream()
    events = CallEvents(cast(Bus, stream), "c", 41)

    await events.append(error("one"))
    await events.append(error("two"))

    assert await read(events, 2) == [(1, 41, "one"), (2, 42, "two")]
    assert stream.consumers == 0


async def test_what_is_stored_from_the_first_request_on_comes_once_and_in_order() -> None:
    stream = Stream()
    events = CallEvents(cast(Bus, stream), "c", 41)

    await events.append(error("ours, idle"))
    await events.follow()
    await events.follow()
    await stream.emit_raw("c", "error", error("the owner's").to_json().encode())
    await events.append(error("ours, with an owner"))

    assert await read(events, 3) == [(1, 41, "ours, idle"), (2, 42, "the owner's"), (3, 43, "ours, with an owner")]
    assert stream.consumers == 1


async def test_an_owner_that_stores_while_we_append_is_not_missed() -> None:
    stream = Stream()
    events = CallEvents(cast(Bus, stream), "c", 41)

    await events.follow()
    await stream.emit_raw("c", "error", error("first").to_json().encode())

    assert await read(events, 1) == [(1, 41, "first")]
