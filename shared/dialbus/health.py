"""`/health` and `/metrics` of every service, as one small ASGI application.

`/health` answers 200 when the service lives and its dependencies are there, else 503, always with the list:
`{"service","instance","version","live":true,"ready":…,"checks":{"nats":true,…},…facts}`. It tells of the process alone;
that of the gateway, which has an API of its own, tells of the whole exchange unless asked with `?service=gateway`.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dialbus import __version__
from dialbus.config import HostPort
from dialbus.punctual import PunctualRequests

Check = Callable[[], bool]
Facts = Callable[[], Mapping[str, Any]]
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Health:
    """What a service says about itself."""

    def __init__(self, service: str, instance: str) -> None:
        self._service = service
        self._instance = instance
        self._checks: dict[str, Check] = {}
        self._facts: Facts = dict

    def check(self, name: str, check: Check) -> None:
        """Add a dependency; the service is ready when every check is true."""
        self._checks[name] = check

    def facts(self, facts: Facts) -> None:
        """Set what else `/health` tells (capacity, calls in progress)."""
        self._facts = facts

    def report(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of `/health`."""
        checks = {name: check() for name, check in self._checks.items()}
        ready = all(checks.values())
        body = {
            "status": "running" if ready else "not ready",
            "service": self._service,
            "instance": self._instance,
            "version": __version__,
            "live": True,
            "ready": ready,
            "checks": checks,
            **self._facts(),
        }
        return (200 if ready else 503), body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: GET /health, GET /metrics, else 404."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            status, report = self.report()
            await _answer(send, status, "application/json", json.dumps(report).encode())
        elif scope["path"] == "/metrics":
            await _answer(send, 200, CONTENT_TYPE_LATEST, generate_latest())
        else:
            await _answer(send, 404, "application/json", b'{"error":"not found"}')


async def _answer(send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class QuietServer(uvicorn.Server):
    """A uvicorn server inside somebody else's process: it leaves signals alone."""

    def install_signal_handlers(self) -> None:
        """Signals belong to `lifecycle.run`."""

    def capture_signals(self) -> Any:
        """Signals belong to `lifecycle.run`."""
        from contextlib import nullcontext

        return nullcontext()


def listen(address: HostPort, setting: str) -> socket.socket:
    """A listening TCP socket. Raises OSError whose text names the setting when the port is taken."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise PortInUse(setting, address, error.strerror or str(error)) from None
    sock.setblocking(False)
    return sock


class PortInUse(Exception):
    """An address that can't be listened on; the text names the setting."""

    def __init__(self, setting: str, address: HostPort, reason: str) -> None:
        super().__init__(f"{setting}: can't listen on {address}: {reason}")


@asynccontextmanager
async def served(app: Any, address: HostPort, setting: str, **options: Any) -> AsyncIterator[HostPort]:
    """Serve an ASGI application while the block runs; gives the real address (the port when 0 was asked).

    Leaving the block closes open connections within a second.
    """
    sock = listen(address, setting)
    bound = HostPort(address.host, sock.getsockname()[1])
    settings: dict[str, Any] = {
        "log_config": None, "access_log": False, "lifespan": "off", "timeout_graceful_shutdown": 1,
        "http": PunctualRequests, **options,
    }  # fmt: skip
    server = QuietServer(uvicorn.Config(app, **settings))
    task = asyncio.create_task(server.serve(sockets=[sock]), name=f"http {bound}")
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event to wait for
            await asyncio.sleep(0.005)
        yield bound
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=3.0)
        task.cancel()
        sock.close()
