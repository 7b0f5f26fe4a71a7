"""The live sockets of a gateway: each from its upgrade request to its end, and all of them when something ends them."""

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from dialbus import telemetry
from dialbus.bus import Bus, BusError
from dialbus.contracts.session import CallType, Session
from dialbus.dumps import dump_path
from dialbus.liveness import HEARTBEAT_S
from dialbus.sessions import Sessions
from gateway.errors import BusAway, ShuttingDown, TooManySockets, UpgradeDenied
from gateway.socket.claims import Claims
from gateway.socket.client_socket import ClientSocket
from gateway.socket.connection import AsgiSend, Connection, Receive, Scope
from gateway.socket.ids import SocketQuery, parse_query
from gateway.workers import Workers

log = telemetry.get_logger()

_STOP_S = 3.5
"""All of the gateway's end must fit into five seconds."""

_sockets_open = Gauge("dialbus_gateway_sockets", "Client sockets that are open")


class CallSockets:
    """Every client socket of a gateway; `endpoint` is the ASGI application of one path."""

    def __init__(
        self,
        bus: Bus,
        sessions: Sessions,
        workers: Workers,
        *,
        instance: str,
        recorder_path: Path,
        max_sockets: int,
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._workers = workers
        self._recorder_path = recorder_path
        self._claims = Claims(bus, sessions, workers.is_gone, instance=instance)
        self._open: dict[ClientSocket, asyncio.Task[Any]] = {}
        self._max_sockets = max_sockets
        self._taken = 0
        """Sockets that are open, or will be once they have a session."""
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
        self._taken += 1
        try:
            await self._upgrade(call_type, scope, Connection(receive, send))
        finally:
            self._taken -= 1

    async def _upgrade(self, call_type: CallType, scope: Scope, connection: Connection) -> None:
        await connection.receive()  # websocket.connect
        query = parse_query(scope["query_string"].decode("latin-1"))
        try:
            if self._stopping:
                raise ShuttingDown
            if self._taken > self._max_sockets:
                raise TooManySockets
            session = await self._claims.claim(query, call_type)
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

    async def watch(self) -> None:
        """Until cancelled: end what the clients of calls still hold whose owner fell silent."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            gone = self._workers.lost()
            for socket in list(self._open) if gone else ():
                with telemetry.bound(call_id=socket.call_id):
                    await self._end_if_owned_by(gone, socket)

    async def _end_if_owned_by(self, gone: set[str], socket: ClientSocket) -> None:
        try:
            session = await self._sessions.get(socket.call_id)
            if session is not None and session.owner in gone:
                await socket.owner_lost(session)
        except BusError as error:
            log.warning("call.owner_lost_not_told", error=str(error))


class Endpoint:
    """The ASGI application of one path."""

    def __init__(self, sockets: CallSockets, call_type: CallType) -> None:
        self._sockets = sockets
        self._call_type = call_type

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Serve one upgrade request to its end."""
        await self._sockets.serve(self._call_type, scope, receive, send)
