"""The gateway's routes: client sockets, REST, the test page, `/iceservers`, `/health`, `/metrics`; else JSON 404."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import WebSocketRoute

from dialbus import __version__
from dialbus.bus import BusError
from dialbus.contracts.session import CallType
from gateway.access import Access, Guard
from gateway.entrance import Entrance
from gateway.origin import Doors
from gateway.proxies import Proxies
from gateway.rest.answers import bad_parameter, bus_is_away, nobody_waits
from gateway.rest.api import Rest
from gateway.rest.descriptions import openapi
from gateway.rest.service_routes import ServiceRoutes
from gateway.socket.registry import CallSockets
from gateway.testpage import page_routes

CALL_PATHS = {"/call/sip": CallType.SIP, "/call/webrtc": CallType.WEBRTC, "/call": CallType.WEBSOCKET}
"""Where calls of which type come in (protocol section 1)."""


def create_app(
    access: Access, doors: Doors, proxies: Proxies, sockets: CallSockets, rest: Rest, service: ServiceRoutes
) -> FastAPI:
    """The ASGI application.

    Sockets are plain ASGI endpoints, not FastAPI's: Starlette's WebSocket class refuses the messages for control
    pings (see `control_frames.py`).
    """
    app = FastAPI(title="dialbus gateway", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, access=access)
    app.add_middleware(Entrance, doors=doors, proxies=proxies)  # the last one added is the first one asked
    for path, call_type in CALL_PATHS.items():
        app.router.routes.append(WebSocketRoute(path, sockets.endpoint(call_type), name=call_type.value))
    app.router.routes.append(WebSocketRoute("/{path:path}", _no_such_socket, name="not_found"))
    app.router.routes.extend(page_routes())

    service.add_to(rest.router)
    app.include_router(rest.router)
    app.add_exception_handler(BusError, bus_is_away)
    app.add_exception_handler(RequestValidationError, bad_parameter)
    app.add_exception_handler(ClientDisconnect, nobody_waits)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail).lower()}, status_code=error.status_code, headers=error.headers)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


class _NoSuchSocket:
    """Answers the upgrade of an unknown path with 404."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()  # websocket.connect
        headers = [(b"content-type", b"application/json")]
        await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": json.dumps({"error": "not found"}).encode()})


_no_such_socket: Any = _NoSuchSocket()
