"""The ASGI ends of one WebSocket: what is read from a client, and what is written to it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from gateway.errors import UpgradeDenied

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
AsgiSend = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLOSE_S = 0.5
"""How long a client may keep us waiting at the end before the connection is dropped."""


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
        if denied.retry_after_s is not None:
            headers.append((b"retry-after", str(denied.retry_after_s).encode()))
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
            async with asyncio.timeout(CLOSE_S):
                await self._try({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            await self._try({"type": "websocket.abort"})

    async def _try(self, message: MutableMapping[str, Any]) -> None:
        # OSError: the client is gone. RuntimeError: our Close frame is already out.
        with suppress(OSError, RuntimeError):
            await self._send(message)
