"""What the routes share: bounded bodies, paths as they were written, answers that say no."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import unquote, unquote_plus

from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

from dialbus import telemetry
from dialbus.contracts.options import masked
from gateway.rest import models
from gateway.socket.ids import is_possible

log = telemetry.get_logger()

Responses = dict[int | str, dict[str, Any]]

UNKNOWN: Responses = {404: {"model": models.NotFound}}
AWAY: Responses = {503: {"model": models.Trouble, "description": "It can't be reached now."}}
BUSY: Responses = {
    503: {
        "model": models.Trouble,
        "description": "Nobody is there to do it, or too many wait: then `Retry-After` says when to ask again.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    }
}
BAD: Responses = {400: {"model": models.Trouble, "description": "It is no such command."}}
LARGE: Responses = {413: {"model": models.Trouble, "description": "The body is too large."}}
CallPath = Annotated[str, Path(description="Session id; for an inbound call the dialogId.", examples=["s.9a0e0ce4"])]


class TooLarge(Exception):
    """A body above its limit."""


def add(router: APIRouter, path: str, endpoint: Callable[..., Any], *methods: str, **options: Any) -> None:
    """A route, its operation named after the endpoint."""
    for method in methods:
        name = f"{endpoint.__name__}_{method.lower()}" if len(methods) > 1 else endpoint.__name__
        router.add_api_route(path, endpoint, methods=[method], operation_id=name, **options)


def call_ids(request: Request, prefix: str) -> Sequence[str]:
    """The session ids that a path can mean, in the order in which they are looked up (protocol section 7)."""
    raw = raw_path(request, prefix)
    readings = dict.fromkeys((unquote(raw), raw, unquote_plus(raw)))
    return [reading for reading in readings if is_possible(reading)]


def raw_path(request: Request, prefix: str) -> str:
    """What follows the prefix in the path, as the client wrote it."""
    raw = bytes(request.scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    return raw.removeprefix(prefix) if raw.startswith(prefix) else str(request.scope["path"]).removeprefix(prefix)


async def body_of(request: Request, max_bytes: int) -> bytes:
    """The body. Raises TooLarge as soon as it is."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    """How OpenAPI tells of a body that the route judges itself."""
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def not_found(call_id: str) -> JSONResponse:
    """There is no live session of this id."""
    return JSONResponse(models.NotFound(id=call_id).model_dump(), status_code=404)


def trouble(status: int, error: str) -> JSONResponse:
    """It was not done, because; secrets are masked."""
    return JSONResponse(models.Trouble(error=str(masked(error))).model_dump(), status_code=status)


async def bus_is_away(request: Request, error: Exception) -> JSONResponse:
    """Handler of BusError: sessions can't be looked up now."""
    log.warning("rest.bus_away", path=request.url.path, error=str(error)[:200])
    return trouble(503, "bus not reachable")


async def nobody_waits(request: Request, error: Exception) -> Response:
    """Handler of ClientDisconnect: whoever sent half a body is gone, and the answer goes nowhere."""
    log.debug("rest.half_sent", path=request.url.path)
    return Response(status_code=400)


async def bad_parameter(request: Request, error: Exception) -> JSONResponse:
    """Handler of RequestValidationError: a parameter of the query that is none."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    return trouble(422, f"{fault['loc'][-1]}: {fault['msg']}")
