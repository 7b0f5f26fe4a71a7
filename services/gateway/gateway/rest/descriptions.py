"""The descriptions of all interfaces: OpenAPI made from the routes, AsyncAPI made from the contracts.

`make contracts` writes the AsyncAPI documents. They lie in the package `gateway.descriptions`, complete in themselves.
"""

import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dialbus import __version__
from dialbus.contracts.commands import CLIENT_COMMAND, Tts
from gateway.rest.models import Description

ASYNCAPI = {
    "/asyncapi.json": ("asyncapi.client.json", "client", "The clients' sockets: commands, events, audio"),
    "/asyncapi.bus.json": ("asyncapi.bus.json", "bus", "Messages between the services, over NATS"),
}
"""Path → file, name, title."""
OPEN = frozenset({"/health", "/metrics"})
COMMAND = {"$ref": "#/components/schemas/command"}
SPEECH = {"$ref": "#/components/schemas/precache"}


def asyncapi(file: str) -> bytes:
    """A document as it is served."""
    return files("gateway.descriptions").joinpath(file).read_bytes()


def descriptions() -> list[Description]:
    """All that is described, and where."""
    rest = Description(name="rest", kind="openapi", version="3.1.0", title="REST", url="/openapi.json")
    return [rest] + [
        Description(name=name, kind="asyncapi", version="3.0.0", title=title, url=path)
        for path, (_, name, title) in ASYNCAPI.items()
    ]


def openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of the routes, with the clients' commands as schemas of request bodies."""
    document = get_openapi(
        title="dialbus REST",
        version=__version__,
        description="Calls, records and descriptions. Sockets are described at /asyncapi.json.",
        routes=app.routes,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= _schemas()
    document["components"]["securitySchemes"] = {
        "header": {"type": "http", "scheme": "bearer", "description": "`http_token`, when one is configured."},
        "query": {"type": "apiKey", "in": "query", "name": "token", "description": "The same where no header can be."},
    }
    for path, item in document["paths"].items():
        for operation in item.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # path ids can't be wrong, and bodies are judged by the route
            if path not in OPEN:
                operation["security"] = [{"header": []}, {"query": []}, {}]
                operation["responses"]["401"] = _denied("The token is missing or wrong.")
    return document


def _denied(about: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Denied"}}}
    return {"description": about, "content": content}


def _schemas() -> dict[str, Any]:
    """The union of commands, each command, and what they are made of; and `tts` as /precache takes it."""
    template = "#/components/schemas/command.{model}"
    union = CLIENT_COMMAND.json_schema(by_alias=True, ref_template=template)
    parts = {f"command.{name}": schema for name, schema in union.pop("$defs").items()}
    speech = Tts.model_json_schema(by_alias=True, ref_template=template)
    speech.pop("$defs", None)
    speech["description"] = "A `tts` command; `command` may be left out."
    copied: dict[str, Any] = json.loads(json.dumps({**parts, "command": union, "precache": speech}))
    return copied
