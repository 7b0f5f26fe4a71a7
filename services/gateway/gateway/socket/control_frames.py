"""WebSocket with control pings: what ASGI leaves out.

ASGI has no message for Ping and Pong frames, and uvicorn's own keep-alive sends random payloads on its own schedule
and closes with 1011. The call protocol (section 1.2) wants a Ping whose payload is the time, when the application
says so, and 1001 after missed pongs. `ControlFrames` therefore understands two more messages from the application
and reports one more to it:

    {"type": "websocket.ping", "payload": bytes}    send a Ping frame (at most 125 bytes)
    {"type": "websocket.abort"}                     drop the connection without waiting for a peer that reads nothing
    {"type": "websocket.pong"}                      (received) a Pong with the payload of a Ping that was sent

Everything else is uvicorn's sans-IO WebSocket protocol; its own keep-alive must be off (`ws_ping_interval=None`).
"""

import socket
from asyncio.transports import BaseTransport
from collections import deque
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

_REMEMBERED_PINGS = 8
_MAX_UNSENT_BYTES = 64 << 10
"""What the kernel may hold unsent. Without a limit it takes minutes of audio, and events wait behind them."""


class ControlFrames(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with Ping and Pong in the hands of the application."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A Pong answers the Ping of its payload (RFC 6455 section 5.5.3); any other is unsolicited and means nothing.
        self._pings: deque[bytes] = deque(maxlen=_REMEMBERED_PINGS)

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep the queue before a slow client short."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)

    async def send(self, message: Any) -> None:
        """ASGI send; raises ClientDisconnected when the connection is gone."""
        match message["type"]:
            case "websocket.ping":
                await self.writable.wait()
                self._ping(message["payload"])
            case "websocket.abort":
                self.transport.abort()
            case "websocket.http.response.body":
                await super().send(message)
                # uvicorn answers a refused upgrade, and then reports as an error that it was not accepted.
                self.handshake_complete = self.handshake_complete or not message.get("more_body", False)
            case _:
                await super().send(message)

    def _ping(self, payload: bytes) -> None:
        if self.disconnected or self.close_sent:
            raise ClientDisconnected()
        try:
            self.conn.send_ping(payload)
        except InvalidState:
            raise ClientDisconnected() from None
        self._pings.append(payload)
        self.transport.write(b"".join(self.conn.data_to_send()))

    def handle_pong(self, event: Frame) -> None:
        """Tell the application of the answer to one of its pings."""
        payload = bytes(event.data)
        if payload in self._pings:
            while self._pings.popleft() != payload:
                pass  # an answer to a later ping answers the earlier ones too
            pong: Any = {"type": "websocket.pong"}
            self.queue.put_nowait(pong)
