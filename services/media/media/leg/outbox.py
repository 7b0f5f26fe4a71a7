"""One call's events, stored one after another in the order in which they were put."""

import asyncio
from collections.abc import Awaitable, Callable

from dialbus import telemetry
from dialbus.bus import Bus, BusError
from dialbus.contracts.events import Event

log = telemetry.get_logger()

Action = Callable[[], Awaitable[None]]


class Outbox:
    """Holds events until the call's stream has acknowledged them; `put` never waits."""

    def __init__(self, bus: Bus, call_id: str) -> None:
        self._bus = bus
        self._call_id = call_id
        self._log = log.bind(call_id=call_id)
        self._queue: asyncio.Queue[Event | Action] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name=f"outbox {call_id}")

    def put(self, event: Event) -> None:
        """Store an event after those before it."""
        self._queue.put_nowait(event)

    def then(self, action: Action) -> None:
        """Do something when every event before it is stored; events after it wait for it."""
        self._queue.put_nowait(action)

    async def flush(self) -> None:
        """Wait until everything put so far is stored, or the outbox is closed."""
        stored = asyncio.Event()

        async def reached() -> None:
            stored.set()

        self.then(reached)
        waiting = asyncio.create_task(stored.wait(), name=f"flush {self._call_id}")
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def close(self, timeout_s: float) -> None:
        """Flush, then stop; what is not stored in time is lost and logged."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            self._log.error("outbox.events_lost", events=self._queue.qsize())
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                if isinstance(item, Event):
                    await self._bus.emit(self._call_id, item)
                else:
                    await item()
            except BusError as error:
                self._log.error("outbox.event_lost", error=str(error))
            except Exception:  # the boundary: one bad event never stops those behind it
                self._log.exception("outbox.failed")
            finally:
                self._queue.task_done()
