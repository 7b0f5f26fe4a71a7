"""The webhook-dispatcher as a process, and HTTP targets that the test scripts."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.harness import ServiceProcess, run_service

Start = Callable[..., AbstractAsyncContextManager[ServiceProcess]]


@dataclass(frozen=True, slots=True)
class Received:
    """One HTTP request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Target:
    """An HTTP server on a free port; answers with `statuses` in turn, then with the last one. None: no answer."""

    statuses: list[int | None]
    requests: "asyncio.Queue[Received]" = field(default_factory=asyncio.Queue)
    extra: str = ""
    url: str = ""
    _hanging: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, answer it, close."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.put_nowait(Received(method, path, headers, body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status is None:
            self._hanging.append(writer)
            return
        writer.write(f"HTTP/1.1 {status} X\r\n{self.extra}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def hang_up(self) -> None:
        """Close the connections that were never answered."""
        for writer in self._hanging:
            writer.close()


@pytest_asyncio.fixture
async def target() -> AsyncIterator[Callable[..., Any]]:
    """Starts targets: `await target(503, 204)`."""
    async with AsyncExitStack() as stack:

        async def start(*statuses: int | None, extra: str = "") -> Target:
            made = Target(list(statuses), extra=extra)
            server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
            stack.callback(made.hang_up)
            stack.callback(server.close)
            made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
            return made

        yield start


@pytest.fixture
def dispatcher(service_env: dict[str, str]) -> Start:
    """Starts a dispatcher: `async with dispatcher(url, …, METHOD="GET") as service`."""

    def start(*urls: str, **handler: str) -> AbstractAsyncContextManager[ServiceProcess]:
        settings = {f"DIALBUS_UA_HANDLER_{name}": value for name, value in handler.items()}
        return run_service("webhook_dispatcher", service_env | settings | {"DIALBUS_UA_HANDLER_URLS": json.dumps(urls)})

    return start
