"""The ASGI middleware before everything else: `origin.py` judges, `proxies.py` says whose address counts.

Pages of `[gateway] origins` also get the headers by which their browser lets them read the answers (CORS).
"""

import json
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import Counter

from gateway.access import AsgiApp, Receive, Scope, Send, deny
from gateway.origin import Doors, Headers, Refused, by_name
from gateway.proxies import Proxies

_PREFLIGHT_S = 600
_refusals = Counter("dialbus_gateway_refused", "Requests refused for their Host, Origin or body", ["status"])


class Entrance:
    """Refuses what is not for us or not of a page that may ask: 421, 403, 415; a socket's upgrade, too."""

    def __init__(self, app: AsgiApp, doors: Doors, proxies: Proxies) -> None:
        self._app = app
        self._doors = doors
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its client's address corrected, or refuse it."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = by_name(scope["headers"])
        refused = self._judge(scope, headers)
        if refused is not None:
            _refusals.labels(str(refused.status)).inc()
            body = json.dumps({"error": refused.reason}).encode()
            await deny(kind, receive, send, refused.status, body)
            return
        peer = scope["client"][0] if scope.get("client") else None
        client = self._proxies.client(peer, headers)
        if client != peer:
            # In place: the token leaves the query string in the scope that the server shows when it logs.
            scope["client"] = None if client is None else (client, 0)
        if kind == "http" and self._doors.admits_page(headers):
            send = _Readable(send, headers["origin"][0])
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await send.consent()
                return
        await self._app(scope, receive, send)

    def _judge(self, scope: Scope, headers: Headers) -> Refused | None:
        reached = scope["server"][0] if scope.get("server") else None
        socket = scope["type"] == "websocket"
        method = "GET" if socket else scope["method"]
        return self._doors.judge(method, scope["path"], headers, reached=reached, socket=socket)


class _Readable:
    """A `send` whose answers a page of this origin may read."""

    def __init__(self, send: Send, origin: str) -> None:
        self._send = send
        self._headers = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        await self._send(message)

    async def consent(self) -> None:
        """Answer a preflight request; it carries no token."""
        headers = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", str(_PREFLIGHT_S).encode()),
        ]
        await self({"type": "http.response.start", "status": 204, "headers": headers})
        await self({"type": "http.response.body", "body": b""})
