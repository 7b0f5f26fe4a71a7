"""The gateway's routes: client sockets, `/health`, `/metrics`; everything else is 404 with a JSON body."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute

from dialbus import __version__
from dialbus.health import Health
from gateway.access import Access, AsgiApp, Guard


def create_app(health: Health, access: Access, sip_sockets: AsgiApp) -> FastAPI:
    """The ASGI application.

    Sockets are plain ASGI endpoints, not FastAPI's: Starlette's WebSocket class refuses the messages for control
    pings (see `protocol.py`).
    """
    app = FastAPI(title="dialbus gateway", version=__version__, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, access=access)
    app.router.routes.append(WebSocketRoute("/call/sip", sip_sockets, name="call_sip"))
    app.router.routes.append(WebSocketRoute("/{path:path}", _no_such_socket, name="not_found"))

    @app.get("/health")
    async def report() -> JSONResponse:
        status, body = health.report()
        return JSONResponse(body, status_code=status)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail).lower()}, status_code=error.status_code, headers=error.headers)

    return app


class _NoSuchSocket:
    """Answers the upgrade of an unknown path with 404."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()  # websocket.connect
        headers = [(b"content-type", b"application/json")]
        await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": json.dumps({"error": "not found"}).encode()})


_no_such_socket: Any = _NoSuchSocket()
