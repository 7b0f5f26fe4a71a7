"""`/events/{id}`: the events and commands of a call as server-sent events (protocol 7.4).

Events come from the call's stream at the watcher's pace and carry the `seq` that sockets see. Commands are live
messages: a watcher who lets too many wait is cut off, so that what is read has no holes.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from dialbus import telemetry
from dialbus.bus import Bus, BusError, StreamedEvent, Subscription
from dialbus.contracts.session import CommandSeen, Session
from dialbus.sessions import Sessions
from dialbus.tasks import TaskSet
from gateway.rest.calls import shown

log = telemetry.get_logger()

KEEP_ALIVE_S = 15.0
CONTENT_TYPE = "text/event-stream;charset=utf-8"
_LOOK_S = 2.0
"""A call that ends without events (an idle socket closed) is noticed after two of these."""
_MAX_WAITING = 256
_MAX_WAITING_CHARACTERS = 8 << 20


class Watch:
    """One watcher of one call."""

    def __init__(self, bus: Bus, sessions: Sessions, session: Session) -> None:
        self._bus = bus
        self._sessions = sessions
        self._session = session
        self._since = 0
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue(_MAX_WAITING)
        self._characters = 0
        """Of the frames that wait."""
        self._read = asyncio.Event()
        """Set whenever one of them was taken."""
        self._subscription: Subscription | None = None
        self._over = False

    @classmethod
    async def open(cls, bus: Bus, sessions: Sessions, session: Session) -> "Watch":
        """Begin to listen: what is sent after this returns will be seen. Raises BusError."""
        watch = cls(bus, sessions, session)
        watch._subscription = await bus.subscribe(CommandSeen, watch._on_seen, call_id=session.call_id)
        try:
            await bus.flush()
            watch._since = await bus.last_sequence()
        except BaseException:
            await watch._subscription.drop()
            raise
        return watch

    def end(self) -> None:
        """End the stream now."""
        self._over = True
        if not self._waiting.full():
            self._waiting.put_nowait(None)

    async def frames(self) -> AsyncIterator[str]:
        """The body: frames of server-sent events until the call is over."""
        tasks = TaskSet()
        tasks.start(self._follow(), name=f"events for a watcher of {self._session.call_id}")
        tasks.start(self._look(), name=f"end for a watcher of {self._session.call_id}")
        try:
            yield ": watching\n\n"
            while not self._over:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        frame = await self._waiting.get()
                except TimeoutError:
                    frame = ": keep-alive\n\n"
                if frame is None or self._over:
                    return
                yield frame
                self._characters = max(0, self._characters - len(frame))
                self._read.set()
        finally:
            await tasks.close()
            await self.close()

    async def close(self) -> None:
        """Stop listening; harmless when done before."""
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.drop()

    async def _follow(self) -> None:
        """The call's events, from its first on for the sake of their numbers; those before our time are left out."""
        async with aclosing(self._bus.events(self._session.call_id, self._session.first_sequence)) as events:
            async for event in events:
                if event.sequence > self._since:
                    text = event.data.decode().rstrip()
                    await self._wait_for_room()
                    self._characters += len(text)
                    await self._waiting.put(f'event: event\ndata: {text[:-1]},"seq":{event.seq}}}\n\n')
                if is_last(event, self._session.call_id):
                    await self._waiting.put(None)
                    return

    async def _wait_for_room(self) -> None:
        while self._characters > _MAX_WAITING_CHARACTERS:
            self._read.clear()
            await self._read.wait()

    async def _look(self) -> None:
        missed = 0
        while missed < 2:
            await asyncio.sleep(_LOOK_S)
            try:
                current = await self._sessions.get(self._session.call_id)
            except (BusError, TimeoutError):
                continue
            ended = current is None or current.created_at != self._session.created_at
            missed = missed + 1 if ended else 0
        await self._waiting.put(None)

    async def _on_seen(self, seen: CommandSeen) -> None:
        frame = f"event: command\ndata: {shown(seen.command)}\n\n"
        if self._waiting.full() or self._characters > _MAX_WAITING_CHARACTERS:
            log.warning("watch.too_slow", call_id=self._session.call_id)
            self._over = True
            return
        self._characters += len(frame)
        self._waiting.put_nowait(frame)


def is_last(event: StreamedEvent, call_id: str) -> bool:
    """Whether an event is the last one of a call: `hangup` of its main track."""
    return event.name == "hangup" and json.loads(event.data).get("trackId") == call_id
