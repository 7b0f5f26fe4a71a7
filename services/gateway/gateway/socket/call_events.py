"""The events of a socket's call, in the order of their stream.

A consumer of the stream costs the server, which has only so many of them, and an idle session has no events but those
that its own gateway appends. So these are handed over as they are appended, and the stream is read from the moment at
which others may append: before the first request to an owner leaves. It is read by sequence, so that nothing is lost.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from dialbus.bus import Bus, StreamedEvent
from dialbus.contracts.events import Event

_MAX_WAITING = 16
"""Events for a client that reads slowly; whoever appends the next one waits for it."""


class CallEvents:
    """Appends events of one call and reads all of them, those from `first_sequence` on."""

    def __init__(self, bus: Bus, call_id: str, first_sequence: int) -> None:
        self._bus = bus
        self._call_id = call_id
        self._next_sequence = first_sequence
        self._counted = 0
        self._following = False
        self._told: asyncio.Queue[StreamedEvent | None] = asyncio.Queue(_MAX_WAITING)

    async def append(self, event: Event) -> None:
        """Returns when the stream has it. Raises BusError."""
        data = event.to_json().encode()
        sequence = await self._bus.emit_raw(self._call_id, event.event, data)
        if self._following:
            return
        self._counted += 1
        self._next_sequence = sequence + 1
        await self._told.put(StreamedEvent(self._counted, sequence, event.event, data))

    async def follow(self) -> None:
        """From now on others append, too: read the stream."""
        if not self._following:
            self._following = True
            await self._told.put(None)

    async def read(self) -> AsyncGenerator[StreamedEvent, None]:
        """The call's events, numbered from 1. Endless."""
        while (told := await self._told.get()) is not None:
            yield told
        async with aclosing(self._bus.events(self._call_id, self._next_sequence, self._counted)) as events:
            async for event in events:
                yield event
