"""The test page: connect, talk, see the events (`GET /`). Static files of this package, without a build step."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    # Everything the page needs comes from the gateway that served it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def page_routes() -> list[BaseRoute]:
    """`/` and the files that it refers to, below `/console/`."""
    folder = files("gateway") / "console"
    content = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
    page = content.pop("index.html")
    return [
        _route("/", "index.html", page),
        *(_route(f"/console/{name}", name, body) for name, body in content.items()),
    ]


def _route(path: str, name: str, body: bytes) -> Route:
    async def answer(_: Request) -> Response:
        return Response(body, media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    return Route(path, answer, methods=["GET"], name=name)
