"""A client of the API: one WebSocket, every event in order, commands as JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

WAIT_S = 10.0
MAX_FRAME_BYTES = 4 << 20


class ApiClient:
    """A connected client. `events` has every event so far; `closed` the close code once the server has closed."""

    def __init__(self, socket: ClientConnection) -> None:
        self.events: list[dict[str, Any]] = []
        self.binary: list[bytes] = []
        self.closed: int | None = None
        self._socket = socket
        self._next = 0
        self._news = asyncio.Condition()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="api client")

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        base: str,
        path: str = "/call/sip",
        call_id: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> AsyncIterator["ApiClient"]:
        """Connect to `{base}{path}?id=…`; leaving closes the socket. `base` is `ws://host:port`."""
        wanted = ({} if call_id is None else {"id": call_id}) | query
        text = "&".join(f"{name}={quote(value, safe='@')}" for name, value in wanted.items())
        url = f"{base}{path}?{text}"
        async with connect(
            url, ping_interval=None, proxy=None, max_size=MAX_FRAME_BYTES, additional_headers=headers
        ) as s:
            client = cls(s)
            try:
                yield client
            finally:
                await s.close()
                await client._reader

    async def send(self, command: str, /, **fields: Any) -> None:
        """Send a command; fields by their JSON names."""
        await self.send_text(json.dumps({"command": command, **fields}))

    async def send_text(self, text: str | bytes) -> None:
        """Send a frame as it is."""
        await self._socket.send(text)

    async def expect(self, name: str, timeout_s: float = WAIT_S, **fields: Any) -> dict[str, Any]:
        """The next event of this name with these values; events before it are passed over.

        AssertionError, with all that came, when the socket closes first or the time is over.
        """
        try:
            async with asyncio.timeout(timeout_s), self._news:
                while True:
                    while self._next < len(self.events):
                        event = self.events[self._next]
                        self._next += 1
                        if event["event"] == name and all(event.get(key) == value for key, value in fields.items()):
                            return event
                    if self.closed is not None:
                        break
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {name} {fields or ''} within {timeout_s} s, but {self.events}") from None
        raise AssertionError(f"closed with {self.closed} before {name} {fields or ''}: {self.events}")

    async def until_closed(self, timeout_s: float = WAIT_S) -> int:
        """Wait for the server's close; the close code."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: self.closed is not None)
        assert self.closed is not None
        return self.closed

    async def close(self) -> None:
        """Close the socket from our side."""
        await self._socket.close()

    def drop(self) -> None:
        """Lose the connection, as a crash of the client would."""
        self._socket.transport.abort()

    @property
    def names(self) -> list[str]:
        """The names of the events so far, in order."""
        return [event["event"] for event in self.events]

    async def _read(self) -> None:
        try:
            async for frame in self._socket:
                async with self._news:
                    if isinstance(frame, str):
                        self.events.append(json.loads(frame))
                    else:
                        self.binary.append(frame)
                    self._news.notify_all()
        except ConnectionClosed:
            pass  # the code tells how
        finally:
            async with self._news:
                self.closed = self._socket.close_code if self._socket.close_code is not None else 1006
                self._news.notify_all()
