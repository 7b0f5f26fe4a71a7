"""The shell around a conversation: one client's socket, its readers and writers.

A socket is five loops: frames in, commands out to the owner (one at a time, in order of arrival), the call's events
out to the client (pulled from the stream, so a slow client waits for itself alone and loses nothing), audio out to the
client (the oldest is dropped for a slow one), keep-alive. The first of them to end, or the gateway's own end, decides
how the socket closes.
"""

import asyncio
import json
import math
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts.base import Taken
from dialbus.contracts.session import CallState, CallType, CommandSeen, Session, SocketCommand
from dialbus.sessions import Sessions
from dialbus.tasks import TaskSet, cancel_all
from gateway.socket.call_events import CallEvents
from gateway.socket.connection import CLOSE_S, Connection
from gateway.socket.conversation import Conversation
from gateway.socket.downlink import Downlink
from gateway.socket.dump import dump
from gateway.socket.effects import GOING_AWAY, INTERNAL_ERROR, NORMAL, Close, Effect
from gateway.socket.ending import Ending
from gateway.socket.ids import SocketQuery
from gateway.socket.keep_alive import KeepAlive
from gateway.socket.parsing import Sent
from gateway.socket.performer import Performer
from gateway.socket.uplink import Throttle

log = telemetry.get_logger()

_MAX_WAITING_FRAMES = 256
_COMMANDS_S = 1.0
"""How long commands that arrived before the socket closed may still take."""
_LAST_EVENTS_S = 2.0
"""How long the last events of a call that we ended are waited for."""
_REJECT_LEAD_S = 0.1
"""How long a client has `reject` for itself before the `hangup` behind it: the Go SDK hands every event to a goroutine
of its own, and its Invite returns with the words of whichever of the two runs first (protocol G3, G18)."""


class ClientSocket:
    """One open socket of a session that this gateway has claimed."""

    def __init__(
        self, connection: Connection, bus: Bus, sessions: Sessions, session: Session, query: SocketQuery
    ) -> None:
        self._connection = connection
        self._bus = bus
        self._sessions = sessions
        self._session = session
        self.call_id = self._call_id = session.call_id
        self._conversation = Conversation(
            session.call_id,
            pending=session.state is CallState.PENDING,
            carries_audio=session.call_type is CallType.WEBSOCKET,
        )
        self._keep_alive = KeepAlive(query.ping_s, asyncio.get_running_loop().time())
        self._frames: asyncio.Queue[str | Sent | None] = asyncio.Queue(_MAX_WAITING_FRAMES)
        self._downlink = Downlink(connection)
        self._stopping = asyncio.Event()
        self._events = CallEvents(bus, session.call_id, session.first_sequence)
        self._ending = Ending(session.call_id, session.created_at)
        self._performer = Performer(
            bus,
            sessions,
            session,
            query,
            connection=connection,
            conversation=self._conversation,
            downlink=self._downlink,
            events=self._events,
            ending=self._ending,
        )

    def __repr__(self) -> str:
        stopping = " stopping" if self._stopping.is_set() else ""
        return f"<ClientSocket {self._conversation!r} {self._frames.qsize()} frames waiting{stopping}>"

    def stop(self) -> None:
        """The gateway stops: end the call, deliver its last events, close with 1001."""
        self._stopping.set()

    async def owner_lost(self, session: Session) -> None:
        """The worker that ran the call is gone with all it knew: say so, and what every call ends with.

        `session`: as the owner left it.
        """
        log.warning("call.owner_lost")
        await self._sessions.delete(self._call_id)
        await self._performer.report("the worker that owned the call is gone", 500)
        await self._performer.tell_end("failed", "system", session.caller, session.callee)

    async def run(self, dump_path: Path | None) -> None:
        """Serve the socket until it is closed and the call has been told."""
        subscriptions = await self._listen(dumping=dump_path is not None)
        await self._bus.flush()  # whoever sees the socket open may send to it from elsewhere
        await self._connection.accept()
        self._frames.put_nowait(None)  # stands for "connected", before any frame
        tasks = TaskSet()
        loops = {
            name: tasks.start(loop, name=f"{name} {self._call_id}")
            for name, loop in (
                ("frames", self._read()),
                ("commands", self._work()),
                ("events", self._deliver()),
                ("audio", self._downlink.play()),
                ("keep-alive", self._stay_alive()),
                ("stop", self._stopping.wait()),
            )
        }
        try:
            async with dump(dump_path) as self._performer.record:
                ends = [task for name, task in loops.items() if name not in ("commands", "audio")]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                await self._finish(loops)
                await tasks.close()
        finally:
            for subscription in subscriptions:
                await subscription.drop()
            await self._performer.close()
            await tasks.close()

    async def _listen(self, *, dumping: bool) -> list[Subscription]:
        subscriptions = [await self._bus.serve(SocketCommand, self._from_elsewhere, call_id=self._call_id)]
        if dumping:
            subscriptions.append(await self._bus.subscribe(CommandSeen, self._on_seen, call_id=self._call_id))
        return subscriptions

    async def _from_elsewhere(self, request: SocketCommand) -> Taken:
        """A command that did not come over the socket, and is treated as if it had."""
        if self._conversation.ended:
            raise Refused(409, "the call has ended")
        try:
            self._frames.put_nowait(Sent.by_us(request.command, request.command_id))
        except asyncio.QueueFull:
            raise Refused(503, "too many commands are waiting") from None
        return Taken()

    async def _on_seen(self, seen: CommandSeen) -> None:
        """A command that another way led to the call's owner belongs into the dump of its socket."""
        if seen.via != "socket":
            self._performer.record("command", seen.at_ms, json.dumps(seen.command, ensure_ascii=False))

    # -- the end ----------------------------------------------------------------------------------

    async def _finish(self, loops: "dict[str, asyncio.Task[Any]]") -> None:
        """Close as whoever ended first demands."""
        events = loops["events"]
        if self._conversation.ended:
            # Whoever sees the call closed may read its dump; a slow disk keeps nobody waiting for long.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._performer.record.settled()
            await self._connection.close(NORMAL)
            return
        if events.done():
            log.error("socket.failed")  # why was logged when the task ended
            await self._connection.close(INTERNAL_ERROR)
        elif loops["keep-alive"].done():
            log.info("socket.silent")
            await self._connection.close(GOING_AWAY, "no pong")
        await self._leave(loops["commands"])
        if not events.done() and self._conversation.owned:
            await asyncio.wait([events], timeout=_LAST_EVENTS_S)
        await self._connection.close(GOING_AWAY if self._stopping.is_set() else NORMAL)

    async def _leave(self, commands: "asyncio.Task[Any]") -> None:
        """Let the commands that arrived first go first, for a moment, then tell the owner."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_COMMANDS_S):
                await self._frames.join()
        await cancel_all([commands])
        await self._performer.try_all(self._conversation.leave())

    # -- the loops --------------------------------------------------------------------------------

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        throttle = Throttle(clock())
        while True:
            message = await self._connection.receive()
            match message:
                case {"type": "websocket.pong"}:
                    self._keep_alive.pong()
                case {"type": "websocket.receive", "text": str(text)}:
                    await self._frames.put(text)
                case {"type": "websocket.receive", "bytes": bytes(data)}:
                    for effect in self._conversation.binary(data):
                        await self._performer.perform(effect)
                        if isinstance(effect, Close):
                            return
                    if delay := throttle.delay(len(data), clock()):
                        await asyncio.sleep(delay)
                case {"type": "websocket.disconnect"}:
                    log.debug("socket.lost", code=message.get("code"))
                    return

    async def _work(self) -> None:
        while True:
            frame = await self._frames.get()
            try:
                await self._performer.try_all(self._effects_of(frame))
            finally:
                self._frames.task_done()

    def _effects_of(self, frame: str | Sent | None) -> list[Effect]:
        match frame:
            case None:
                return self._conversation.connected()
            case Sent():
                return self._conversation.command(frame)
        return self._conversation.text(frame)

    async def _deliver(self) -> None:
        clock, may_end_at = asyncio.get_running_loop().time, 0.0
        async with aclosing(self._events.read()) as events:
            async for event in events:
                self._ending.note(event.name, event.data)
                if event.name == "reject":
                    may_end_at = clock() + _REJECT_LEAD_S
                elif event.name == "hangup":
                    await asyncio.sleep(may_end_at - clock())
                for effect in self._conversation.event(event.seq, event.name, event.data.decode()):
                    if isinstance(effect, Close):
                        return
                    await self._performer.perform(effect)

    async def _stay_alive(self) -> None:
        loop = asyncio.get_running_loop()
        sending: asyncio.Task[None] | None = None
        try:
            while self._keep_alive.deadline < math.inf:
                await asyncio.sleep(self._keep_alive.deadline - loop.time())
                moment = datetime.now(UTC)
                effects = self._keep_alive.tick(loop.time(), int(moment.timestamp() * 1000), moment.isoformat())
                if any(isinstance(effect, Close) for effect in effects):
                    return
                # A client that reads nothing blocks the sender, and must not block the count of missed pongs.
                if effects and (sending is None or sending.done()):
                    sending = asyncio.create_task(self._performer.try_all(effects), name=f"ping {self._call_id}")
            await asyncio.Event().wait()  # pings are off
        finally:
            if sending is not None:
                await cancel_all([sending])
