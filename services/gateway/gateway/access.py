"""The shared token of the API (`http_token`): who may use it, and what is open to everybody.

`Guard` stands in front of all routes, sockets and HTTP alike, so that a new route is closed unless it is named here.
The token leaves the query string before anybody else sees it: no log line, dump or error can repeat it.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote, unquote_plus

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/metrics", "/"})
"""Paths that need no token: what watches the service, and the test page (which asks its user for the token)."""
OPEN_FOLDERS = ("/console/",)
"""Beginnings of such paths: the files of the test page."""

_UNAUTHORIZED = json.dumps({"error": "token missing or wrong"}).encode()


class Access:
    """Judges requests by the configured token; without one everybody may come in."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None

    def allows(self, path: str, headers: Iterable[tuple[bytes, bytes]], query: str) -> bool:
        """Whether a request may pass. Tokens are compared in constant time.

        A token is `Authorization: Bearer …` or, for browsers' sockets and event streams that can't set headers,
        `?token=`, in whichever way it was escaped.
        """
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return True
        given = [*_bearers(headers), *_in_query(query)]
        return any(hmac.compare_digest(token, self._token) for token in given)


class Guard:
    """ASGI middleware: 401 with a JSON body, for sockets too, unless `access` allows the request."""

    def __init__(self, app: AsgiApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, without its token, or deny it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        # In place: the server shows this very scope when it logs a request.
        scope["query_string"] = _without_token(query).encode("latin-1")
        if self._access.allows(scope["path"], scope["headers"], query):
            await self._app(scope, receive, send)
        else:
            await deny(scope["type"], receive, send, 401, _UNAUTHORIZED, (b"www-authenticate", b"Bearer"))


async def deny(
    kind: str, receive: Receive, send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]
) -> None:
    """Answer with a status and a JSON body: a request, or the upgrade of a socket, which then never opens."""
    prefix = "http.response"
    if kind == "websocket":
        await receive()  # websocket.connect
        prefix = "websocket.http.response"
    all_headers = [(b"content-type", b"application/json"), *headers]
    await send({"type": f"{prefix}.start", "status": status, "headers": all_headers})
    await send({"type": f"{prefix}.body", "body": body})


def _bearers(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    values = [value for name, value in headers if name.lower() == b"authorization"]
    return [value[7:].strip() for value in values if value[:7].lower() == b"bearer "]


def _in_query(query: str) -> list[bytes]:
    values = [value for name, _, value in (part.partition("=") for part in query.split("&")) if _is_token(name)]
    return [reading.encode() for value in values for reading in (unquote(value), unquote_plus(value))]


def _without_token(query: str) -> str:
    return "&".join(part for part in query.split("&") if not _is_token(part.partition("=")[0]))


def _is_token(name: str) -> bool:
    return unquote_plus(name) == "token"
