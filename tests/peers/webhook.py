"""A webhook receiver: an HTTP server on a free port that records every request and answers as told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

WAIT_S = 10.0
NEVER = 0
"""An answer that never comes: the request is read, the connection stays open."""


@dataclass(frozen=True)
class Received:
    """One HTTP request."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class WebhookReceiver:
    """The receiver. `answers` holds the statuses of the next requests; when it is empty, `status` is used.

    An answer of `NEVER` leaves the client waiting. `refuse()` closes the port, so that connections are refused.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.answers: list[int] = []
        self.requests: list[Received] = []
        self.url = ""
        self._arrivals: asyncio.Queue[Received] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, status: int = 200) -> AsyncIterator["WebhookReceiver"]:
        """Listen while the block runs."""
        receiver = cls(status)
        receiver._server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0)
        port = receiver._server.sockets[0].getsockname()[1]
        receiver.url = f"http://127.0.0.1:{port}/webhook"
        try:
            yield receiver
        finally:
            receiver.refuse()
            for task in receiver._connections:
                task.cancel()
            await asyncio.gather(*receiver._connections, return_exceptions=True)

    def refuse(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()

    async def next(self, timeout_s: float = WAIT_S) -> Received:
        """The next request; TimeoutError fails the test."""
        async with asyncio.timeout(timeout_s):
            return await self._arrivals.get()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while (request := await self._read(reader)) is not None:
                    self.requests.append(request)
                    self._arrivals.put_nowait(request)
                    status = self.answers.pop(0) if self.answers else self.status
                    if status == NEVER:
                        await reader.read()  # until the client gives up
                        return
                    writer.write(f"HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n".encode())
                    await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received | None:
        line = (await reader.readline()).decode().split()
        if len(line) != 3:
            return None
        headers: dict[str, str] = {}
        while text := (await reader.readline()).decode().strip():
            name, _, value = text.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(line[0], line[1], headers, body)
