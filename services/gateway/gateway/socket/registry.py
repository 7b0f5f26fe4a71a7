"""The shell around a conversation: one client's socket, its readers and writers, and all sockets of a gateway.

A socket is five loops: frames in, commands out to the owner (one at a time, in order of arrival), the call's events
out to the client (pulled from the stream, so a slow client waits for itself alone and loses nothing), audio out to the
client (the oldest is dropped for a slow one), keep-alive. The first of them to end, or the gateway's own end, decides
how the socket closes.
"""

import asyncio
import json
import math
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge

from dialbus import telemetry
from dialbus.bus import Bus, BusError, Conflict, NoReply, NoResponder, Refused, Subscription
from dialbus.contracts import session as contracts
from dialbus.contracts.audio import FROM_CLIENT, TO_CLIENT
from dialbus.contracts.base import Request, Taken
from dialbus.contracts.commands import Accept, BadCommand, Invite, command_from, load_json
from dialbus.contracts.events import ErrorEvent, RejectEvent
from dialbus.contracts.options import masked
from dialbus.contracts.session import (
    CallState,
    CallType,
    ClientCommandSent,
    CommandSeen,
    Heartbeat,
    OpenSession,
    Session,
    SocketCommand,
)
from dialbus.dumps import dump_path
from dialbus.lifecycle import HEARTBEAT_S
from dialbus.liveness import Liveness
from dialbus.sessions import Sessions
from dialbus.tasks import cancel_all
from gateway.errors import BadId, BusAway, IdInUse, ShuttingDown, UpgradeDenied, WrongPath
from gateway.socket.conversation import (
    GOING_AWAY,
    NORMAL,
    Attach,
    Audio,
    Close,
    Command,
    Conversation,
    Detach,
    Disown,
    Effect,
    End,
    Forget,
    Forward,
    KeepAlive,
    Open,
    Ping,
    Record,
    Refusal,
    Reject,
    Report,
    Send,
    Subscribe,
)
from gateway.socket.dump import Dump, dump
from gateway.socket.ending import Ending
from gateway.socket.ids import SocketQuery, generated, is_possible, parse_query
from gateway.socket.uplink import Throttle, bytes_per_second

log = telemetry.get_logger()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
AsgiSend = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MOST_WAITING_FRAMES = 256
_MOST_WAITING_AUDIO = 100
"""Binary frames that wait for a client: two seconds of one track, one second of two."""
_COMMANDS_S = 1.0
"""How long commands that arrived before the socket closed may still take."""
_LAST_EVENTS_S = 2.0
"""How long the last events of a call that we ended are waited for."""
_REJECT_LEAD_S = 0.1
"""How long a client has `reject` for itself before the `hangup` behind it: the Go SDK hands every event to a goroutine
of its own, and its Invite returns with the words of whichever of the two runs first (protocol G3, G18)."""
_CLOSE_S = 0.5
"""How long a cancelled task may take to clean up before it is cancelled again."""
_STOP_S = 3.5
"""All of the gateway's end must fit into five seconds."""

_sockets_open = Gauge("dialbus_gateway_sockets", "Client sockets that are open")
_audio_dropped = Counter("dialbus_gateway_audio_dropped", "Binary frames dropped for clients that read too slowly")


class Connection:
    """The ASGI ends of a WebSocket; sending to a client that is gone is harmless."""

    def __init__(self, receive: Receive, send: AsgiSend) -> None:
        self.receive = receive
        self._send = send
        self._turn = asyncio.Lock()
        """Frames leave in the order in which they were handed over, also those that wait for a slow client."""
        self._silent = False

    async def accept(self) -> None:
        """Answer the upgrade with 101."""
        await self._try({"type": "websocket.accept"})

    async def deny(self, denied: UpgradeDenied) -> None:
        """Answer the upgrade with an HTTP status and a JSON body."""
        body = json.dumps(denied.body).encode()
        headers = [(b"content-type", b"application/json")]
        await self._try({"type": "websocket.http.response.start", "status": denied.status, "headers": headers})
        await self._try({"type": "websocket.http.response.body", "body": body})

    async def send(self, text: str) -> None:
        """A text frame; returns when the client has room for more."""
        async with self._turn:
            await self._try({"type": "websocket.send", "text": text})

    async def send_audio(self, data: bytes) -> None:
        """A binary frame, unless there shall be no more."""
        async with self._turn:
            if not self._silent:
                await self._try({"type": "websocket.send", "bytes": data})

    def no_more_audio(self) -> None:
        """What waits for its turn stays behind, too."""
        self._silent = True

    async def ping(self, payload: bytes) -> None:
        """A Ping control frame."""
        await self._try({"type": "websocket.ping", "payload": payload})

    async def close(self, code: int, reason: str = "") -> None:
        """A Close frame, or a dropped connection when the client reads nothing."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._try({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            await self._try({"type": "websocket.abort"})

    async def _try(self, message: MutableMapping[str, Any]) -> None:
        # OSError: the client is gone. RuntimeError: our Close frame is already out.
        with suppress(OSError, RuntimeError):
            await self._send(message)


class ClientSocket:
    """One open socket of a session that this gateway has claimed."""

    def __init__(
        self, connection: Connection, bus: Bus, sessions: Sessions, session: Session, query: SocketQuery
    ) -> None:
        self._connection = connection
        self._bus = bus
        self._sessions = sessions
        self._session = session
        self._query = query
        self.call_id = self._call_id = session.call_id
        pending = session.state is CallState.PENDING
        self._conversation = Conversation(
            session.call_id,
            pending=pending,
            parse=client_command,
            carries_audio=session.call_type is CallType.WEBSOCKET,
        )
        self._keep_alive = KeepAlive(query.ping_s, asyncio.get_running_loop().time())
        self._frames: asyncio.Queue[str | None] = asyncio.Queue(_MOST_WAITING_FRAMES)
        self._audio: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING_AUDIO)
        self._subscriptions: list[Subscription] = []
        self._stopping = asyncio.Event()
        self._ending = Ending(session.call_id, session.created_at)
        self._record = Dump(None)

    def stop(self) -> None:
        """The gateway stops: end the call, deliver its last events, close with 1001."""
        self._stopping.set()

    async def owner_lost(self, session: Session) -> None:
        """The worker that ran the call is gone with all it knew: say so, and what every call ends with.

        `session`: as the owner left it.
        """
        log.warning("call.owner_lost")
        await self._sessions.delete(self._call_id)
        await self._report("the worker that owned the call is gone", 500)
        await self._tell_end("failed", "system", session.caller, session.callee)

    async def _tell_end(self, reason: str, initiator: str, caller: str | None, callee: str | None) -> None:
        """The call's last events, in its owner's place; composed at once, for they are noted as they come back."""
        last = self._ending.events(
            _ms(datetime.now(UTC)), reason=reason, initiator=initiator, caller=caller, callee=callee
        )
        for event in last:
            await self._bus.emit(self._call_id, event)

    async def run(self, dump_path: Path | None) -> None:
        """Serve the socket until it is closed and the call has been told."""
        self._subscriptions.append(await self._bus.serve(SocketCommand, self._from_elsewhere, call_id=self._call_id))
        if dump_path is not None:
            self._subscriptions.append(await self._bus.subscribe(CommandSeen, self._on_seen, call_id=self._call_id))
        await self._bus.flush()  # whoever sees the socket open may send to it from elsewhere
        await self._connection.accept()
        self._frames.put_nowait(None)  # stands for "connected", before any frame
        loops = {
            name: asyncio.create_task(loop, name=f"{name} {self._call_id}")
            for name, loop in (
                ("frames", self._read()),
                ("commands", self._work()),
                ("events", self._deliver()),
                ("audio", self._play()),
                ("keep-alive", self._stay_alive()),
                ("stop", self._stopping.wait()),
            )
        }
        try:
            async with dump(dump_path) as self._record:
                ends = [task for name, task in loops.items() if name not in ("commands", "audio")]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                await self._finish(loops)
                await cancel_all(loops.values())
        finally:
            for subscription in self._subscriptions:
                await subscription.drop()
            await cancel_all(loops.values())

    async def _from_elsewhere(self, request: SocketCommand) -> Taken:
        """A command that did not come over the socket, and is treated as if it had."""
        try:
            text = json.dumps(request.command, ensure_ascii=False)
            client_command(text)
        except (ValueError, RecursionError) as error:
            raise Refused(400, str(error)) from None
        if self._conversation.ended:
            raise Refused(409, "the call has ended")
        try:
            self._frames.put_nowait(text)
        except asyncio.QueueFull:
            raise Refused(503, "too many commands are waiting") from None
        return Taken()

    async def _finish(self, loops: dict[str, "asyncio.Task[Any]"]) -> None:
        """Close as whoever ended first demands."""
        events = loops["events"]
        if self._conversation.ended:
            # Whoever sees the call closed may read its dump; a slow disk keeps nobody waiting for long.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._record.settled()
            await self._connection.close(NORMAL)
            return
        if events.done():
            log.error("socket.failed", exc_info=events.exception())
            await self._connection.close(1011)
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
        await self._try_all(self._conversation.leave())

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
                        await self._perform(effect)
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
                await self._try_all(self._conversation.connected() if frame is None else self._conversation.text(frame))
            finally:
                self._frames.task_done()

    async def _deliver(self) -> None:
        clock, may_end_at = asyncio.get_running_loop().time, 0.0
        async with aclosing(self._bus.events(self._call_id, self._session.first_sequence)) as events:
            async for event in events:
                self._ending.note(event.name, event.data)
                if event.name == "reject":
                    may_end_at = clock() + _REJECT_LEAD_S
                elif event.name == "hangup":
                    await asyncio.sleep(may_end_at - clock())
                for effect in self._conversation.event(event.number, event.name, event.data.decode()):
                    if isinstance(effect, Close):
                        return
                    await self._perform(effect)

    async def _play(self) -> None:
        while True:
            await self._connection.send_audio(await self._audio.get())

    async def _hear(self, data: bytes) -> None:
        """Audio for the client; a slow one loses the oldest."""
        if self._audio.full():
            self._audio.get_nowait()
            _audio_dropped.inc()
        self._audio.put_nowait(data)

    async def _stay_alive(self) -> None:
        loop = asyncio.get_running_loop()
        sending: asyncio.Task[None] | None = None
        try:
            while self._keep_alive.deadline < math.inf:
                await asyncio.sleep(self._keep_alive.deadline - loop.time())
                moment = datetime.now(UTC)
                effects = self._keep_alive.tick(loop.time(), _ms(moment), moment.isoformat())
                if any(isinstance(effect, Close) for effect in effects):
                    return
                # A client that reads nothing blocks the sender, and must not block the count of missed pongs.
                if effects and (sending is None or sending.done()):
                    sending = asyncio.create_task(self._try_all(effects), name=f"ping {self._call_id}")
            await asyncio.Event().wait()  # pings are off
        finally:
            if sending is not None:
                await cancel_all([sending])

    # -- effects ----------------------------------------------------------------------------------

    async def _try_all(self, effects: list[Effect]) -> None:
        """Perform effects; what fails unforeseen is logged and costs this list, not the socket."""
        try:
            for effect in effects:
                await self._perform(effect)
        except Exception:  # the boundary of one socket
            log.exception("socket.effect_failed")

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(text, recorded, last):
                if last:
                    self._connection.no_more_audio()
                await self._send(text, recorded=recorded)
            case Audio(data):
                await self._publish(data)
            case Subscribe():
                self._subscriptions.append(await self._bus.subscribe_raw(self._call_id, TO_CLIENT, self._hear))
            case Ping(payload):
                await self._connection.ping(payload)
            case Close(code, reason):
                await self._connection.close(code, reason)
            case Record(text):
                await self._show(text)
            case Report(error, code, sender):
                await self._report(error, code, sender)
            case Reject(reason, code):
                now_ms = _ms(datetime.now(UTC))
                await self._bus.emit(
                    self._call_id, RejectEvent(timestamp=now_ms, track_id=self._call_id, reason=reason, code=code)
                )
            case End(reason, initiator, caller, callee):
                await self._sessions.delete(self._call_id)  # before `hangup`: then the id is free
                await self._tell_end(reason, initiator, caller, callee)
            case Forget():
                await self._sessions.delete(self._call_id)
            case Disown():
                await self._sessions.change(self._call_id, _disowned)
            case Attach() | Open() | Forward() | Detach():
                await self._request(effect)

    async def _show(self, text: str) -> None:
        """A command for the dump and for those who watch the call."""
        at_ms = _ms(datetime.now(UTC))
        self._record("command", at_ms, text)
        try:
            command = masked(json.loads(text))
            await self._bus.publish(CommandSeen(call_id=self._call_id, at_ms=at_ms, via="socket", command=command))
        except (BusError, ValueError, RecursionError) as error:  # nested beyond measure, or the bus is away
            log.debug("command.not_shown", error=str(error)[:200])

    async def _on_seen(self, seen: CommandSeen) -> None:
        """A command that another way led to the call's owner belongs into the dump of its socket."""
        if seen.via != "socket":
            self._record("command", seen.at_ms, json.dumps(seen.command, ensure_ascii=False))

    async def _send(self, text: str, *, recorded: bool) -> None:
        if recorded:
            self._record("event", _ms(datetime.now(UTC)), text)
        await self._connection.send(text)

    async def _publish(self, data: bytes) -> None:
        if self._bus.connected:  # what would wait for a connection would come out late and all at once
            with suppress(BusError):
                await self._bus.publish_raw(self._call_id, FROM_CLIENT, data)

    async def _report(self, error: str, code: int, sender: str = "command") -> None:
        log.info("command.failed", code=code, error=error)
        event = ErrorEvent(
            timestamp=_ms(datetime.now(UTC)), track_id=self._call_id, sender=sender, error=error, code=code
        )
        await self._bus.emit(self._call_id, event)

    async def _request(self, effect: Attach | Open | Forward | Detach) -> None:
        answered = self._conversation.not_taken
        try:
            await self._bus.request(self._message(effect), Taken)
        except NoResponder:
            effects = answered(effect, Refusal.NOBODY, call_is_over=await self._is_over())
        except NoReply as error:
            effects = answered(effect, Refusal.SILENCE, reason=str(error), call_is_over=await self._is_over())
        except Refused as refused:
            over = await self._is_over()
            effects = answered(effect, Refusal.NO, code=refused.code, reason=refused.reason, call_is_over=over)
        except ValueError as error:  # JSON that parses and can't be written again: nested too deeply
            effects = answered(effect, Refusal.NO, code=400, reason=f"not a usable command: {error}")
        else:
            effects = self._conversation.taken()
        for following in effects:
            await self._perform(following)

    async def _is_over(self) -> bool:
        """The owner deletes the session before it emits the call's last event."""
        return await self._sessions.get(self._call_id) is None

    def _message(self, effect: Attach | Open | Forward | Detach) -> Request:
        call_id, gateway = self._call_id, self._session.gateway or ""
        match effect:
            case Attach():
                return contracts.Attach(
                    call_id=call_id,
                    gateway=gateway,
                    server_side_track=self._query.server_side_track,
                    dump=self._query.dump,
                )
            case Open(command):
                return OpenSession(
                    call_id=call_id,
                    call_type=self._session.call_type,
                    created_at=self._session.created_at,
                    gateway=gateway,
                    server_side_track=self._query.server_side_track,
                    dump=self._query.dump,
                    command=command,
                )
            case Forward(command, command_id):
                return ClientCommandSent(call_id=call_id, command=command, command_id=command_id)
            case Detach():
                return contracts.Detach(call_id=call_id, gateway=gateway)


class CallSockets:
    """Every client socket of a gateway; `endpoint` is the ASGI application of one path."""

    def __init__(self, bus: Bus, sessions: Sessions, *, instance: str, recorder_path: Path) -> None:
        self._bus = bus
        self._sessions = sessions
        self._instance = instance
        self._recorder_path = recorder_path
        self._gateways = Liveness(HEARTBEAT_S)
        self._owners = Liveness(HEARTBEAT_S)
        self._open: dict[ClientSocket, asyncio.Task[Any]] = {}
        self._stopping = False

    @property
    def count(self) -> int:
        """Sockets open now."""
        return len(self._open)

    def endpoint(self, call_type: CallType) -> "Endpoint":
        """Where calls of a type come in."""
        return Endpoint(self, call_type)

    async def serve(self, call_type: CallType, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Serve one upgrade request to its end."""
        connection = Connection(receive, send)
        await receive()  # websocket.connect
        query = parse_query(scope["query_string"].decode("latin-1"))
        try:
            session = await self._claim(query, call_type)
        except UpgradeDenied as denied:
            log.info("socket.denied", status=denied.status, reason=str(denied))
            await connection.deny(denied)
            return
        except Exception:  # the boundary of one upgrade: whatever the bus raises, the client is told
            log.exception("socket.not_claimed")
            await connection.deny(BusAway())
            return
        with telemetry.bound(call_id=session.call_id):
            await self._serve(ClientSocket(connection, self._bus, self._sessions, session, query), session, query)

    async def _serve(self, socket: ClientSocket, session: Session, query: SocketQuery) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[socket] = task
        _sockets_open.set(len(self._open))
        log.info("socket.open", state=session.state.value)
        if self._stopping:
            socket.stop()
        try:
            await socket.run(dump_path(self._recorder_path, session.call_id) if query.dump else None)
        finally:
            del self._open[socket]
            _sockets_open.set(len(self._open))
            log.info("socket.closed")

    async def close_all(self) -> None:
        """End the call of every socket, deliver the last events, close with 1001; bounded below five seconds."""
        self._stopping = True
        for socket in self._open:
            socket.stop()
        if self._open:
            await asyncio.wait(list(self._open.values()), timeout=_STOP_S)

    # -- who gets which session -------------------------------------------------------------------

    async def _claim(self, query: SocketQuery, call_type: CallType) -> Session:
        """The pending call that a reading of the id names, else a new idle session. Raises UpgradeDenied."""
        if self._stopping:
            raise ShuttingDown
        for reading in query.readings:
            if is_possible(reading) and (session := await self._take(reading, call_type)) is not None:
                return session
        return await self._create(query.new_id or generated(uuid.uuid4), call_type)

    async def listen(self) -> None:
        """Hear who is alive, so that a dead gateway's idle sockets don't hold their ids for ever."""
        await self._bus.subscribe(Heartbeat, self._on_heartbeat)
        self._gateways.is_gone(self._instance, self._now())

    async def watch(self) -> None:
        """Until cancelled: end what the clients of calls still hold whose owner fell silent."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self._bus.connected:
                self._gateways.deaf(self._now())
                self._owners.deaf(self._now())
                continue
            gone = self._owners.lost(self._now())
            for socket in list(self._open) if gone else ():
                try:
                    session = await self._sessions.get(socket.call_id)
                    if session is not None and session.owner in gone:
                        with telemetry.bound(call_id=socket.call_id):
                            await socket.owner_lost(session)
                except BusError as error:
                    log.warning("call.owner_lost_not_told", call_id=socket.call_id, error=str(error))

    async def _on_heartbeat(self, beat: Heartbeat) -> None:
        if beat.service == "gateway":
            self._gateways.heard(beat.instance, self._now())
        elif beat.service == "sip-ua":
            self._owners.heard(beat.instance, self._now())

    def _is_abandoned(self, session: Session) -> bool:
        """An idle session whose gateway is gone: nobody else would ever end it."""
        if session.owner is not None or session.gateway is None:
            return False
        return self._gateways.is_gone(session.gateway, self._now())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _take(self, call_id: str, call_type: CallType) -> Session | None:
        """The pending call of this id, now ours; None when there is no such session."""
        taken = False

        def take(session: Session) -> Session | None:
            nonlocal taken
            free = session.state is CallState.PENDING and session.gateway is None
            if free and session.call_type is not call_type:
                raise WrongPath(call_id)
            taken = free
            return session.model_copy(update={"gateway": self._instance}) if taken else None

        session = await self._sessions.change(call_id, take)
        if session is not None and not taken:
            if not self._is_abandoned(session):
                raise IdInUse(call_id)
            await self._sessions.delete(call_id)
            return None
        return session

    async def _create(self, call_id: str, call_type: CallType) -> Session:
        if not is_possible(call_id):
            raise BadId
        session = Session(
            call_id=call_id,
            call_type=call_type,
            gateway=self._instance,
            first_sequence=await self._bus.last_sequence() + 1,
            created_at=datetime.now(UTC).isoformat(),
        )
        try:
            await self._sessions.create(session)
        except Conflict:
            raise IdInUse(call_id) from None
        return session


class Endpoint:
    """The ASGI application of one path."""

    def __init__(self, sockets: CallSockets, call_type: CallType) -> None:
        self._sockets = sockets
        self._call_type = call_type

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Serve one upgrade request to its end."""
        await self._sockets.serve(self._call_type, scope, receive, send)


def client_command(text: str) -> Command:
    """A text frame, known to be a valid command. Raises BadCommand, a ValueError, that says why not."""
    data = load_json(text)
    if "\\ud" in text.lower():  # escaped surrogates: without their other half they are no text
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise BadCommand("malformed JSON: half of a surrogate pair") from None
    command = command_from(data)
    if isinstance(command, Invite | Accept):
        option = command.option
        return Command(data, option.subscribe, bytes_per_second(option.codec, option.sample_rate))
    return Command(data)


def _disowned(session: Session) -> Session:
    return session.model_copy(update={"state": CallState.IDLE, "owner": None, "direction": None})


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
