"""Write docs/schemas, docs/subjects.md and the served AsyncAPI documents from the contracts; `--check` only compares.

The contracts are declared once, in shared/dialbus/contracts; what stands there is never edited by hand.
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

import dialbus.contracts
from dialbus import __version__
from dialbus.contracts.audio import SUBJECT as AUDIO_SUBJECT
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Contract, Request
from dialbus.contracts.commands import COMMANDS
from dialbus.contracts.events import EVENT_SUBJECT, EVENTS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SERVED = ROOT / "services/gateway/gateway/descriptions"


def contracts() -> list[type[Contract]]:
    """Every contract of the bus, by name."""
    found: dict[str, type[Contract]] = {}
    for module in pkgutil.iter_modules(dialbus.contracts.__path__):
        importlib.import_module(f"dialbus.contracts.{module.name}")
    waiting: list[type[Contract]] = [Contract]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if "SUBJECT" in kind.__dict__:
                found[kind.__name__] = kind
    return [found[name] for name in sorted(found)]


def first_line(kind: type) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def schema(kind: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of what is sent."""
    mode: JsonSchemaMode = "serialization" if kind in EVENTS.values() else "validation"
    return kind.model_json_schema(by_alias=True, mode=mode)


def on_the_wire(kind: type[Contract]) -> bool:
    """Whether a contract has a subject of its own (parts, replies and KV values have none)."""
    return not kind.SUBJECT.startswith("_")


def bus_document() -> dict[str, Any]:
    """AsyncAPI 3 of the bus."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for kind in contracts():
        messages[kind.__name__] = {
            "name": kind.__name__,
            "summary": first_line(kind),
            "contentType": "application/json",
            "payload": {"$ref": f"schemas/bus/{kind.__name__}.json"},
        }
        if not on_the_wire(kind):
            continue
        channels[kind.__name__] = _channel(kind.SUBJECT, first_line(kind), [kind.__name__])
        operation: dict[str, Any] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{kind.__name__}"},
            "summary": first_line(kind),
            "messages": [{"$ref": f"#/channels/{kind.__name__}/messages/{kind.__name__}"}],
        }
        if issubclass(kind, Request):
            answers = (kind.reply_type().__name__, "Refusal")
            channels[f"{kind.__name__}Reply"] = {
                "address": None,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in answers},
            }
            operation["reply"] = {"channel": {"$ref": f"#/channels/{kind.__name__}Reply"}}
        operations[kind.__name__] = operation
    channels["events"] = _channel(EVENT_SUBJECT, "The stream of a call's client events.", [])
    channels["events"]["messages"] = {
        name: {"name": name, "summary": first_line(kind), "payload": {"$ref": f"schemas/client/event.{name}.json"}}
        for name, kind in sorted(EVENTS.items())
    }
    channels["audio"] = _channel(AUDIO_SUBJECT, first_line(AudioFrame), [])
    channels["audio"]["messages"] = {
        "AudioFrame": {"name": "AudioFrame", "summary": first_line(AudioFrame), "contentType": "audio/L16"}
    }
    return _document("dialbus bus", "Messages between the services, over NATS.", channels, operations, messages)


def client_document() -> dict[str, Any]:
    """AsyncAPI 3 of the clients' WebSocket."""
    messages = {
        f"command.{name}": {"name": name, "summary": first_line(kind), "payload": _client_ref("command", name)}
        for name, kind in sorted(COMMANDS.items())
    } | {
        f"event.{name}": {"name": name, "summary": first_line(kind), "payload": _client_ref("event", name)}
        for name, kind in sorted(EVENTS.items())
    }
    audio = {
        "audio.subscribed": _audio(
            "With `subscribe`: one byte of track index (0 server side, 1 main), then 16 kHz s16le mono."
        ),
        "audio.call": _audio("Audio in `option.codec`: pcm (s16le mono, 16 kHz unless told), pcmu, pcma or g722."),
    }
    commands = [name for name in messages if name.startswith("command.")]
    events = [name for name in messages if name.startswith("event.")]
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, (address, summary, heard, said) in CLIENT_CHANNELS.items():
        channels[name] = _channel(address, summary, [*messages, *dict.fromkeys([*heard, *said])])
        channels[name]["bindings"] = {"ws": {"method": "GET", "query": SOCKET_QUERY}}
        for action, carried in (("receive", [*commands, *heard]), ("send", [*events, *said])):
            operations[f"{name}.{action}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in carried],
            }
    return _document(
        "dialbus client API", "Commands and events on the sockets.", channels, operations, messages | audio
    )


CLIENT_CHANNELS: dict[str, tuple[str, str, list[str], list[str]]] = {
    "sip": ("/call/sip", "One SIP call: commands in, events out.", [], ["audio.subscribed"]),
    "webrtc": ("/call/webrtc", "One call of a browser: its SDP goes over the socket.", [], ["audio.subscribed"]),
    "webSocket": ("/call", "One call whose audio is the socket's binary frames.", ["audio.call"], ["audio.call"]),
}
"""The clients' sockets: path, what it is, binary messages from and to the client."""

SOCKET_QUERY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {
            "type": "string",
            "maxLength": 512,
            "description": "Session id; for an inbound call its dialogId (on /call/sip only). Absent: one is made.",
        },
        "dump": {
            "type": "boolean",
            "default": True,
            "description": "Write the event dump; also dump_events and dumpEvents.",
        },
        "ping": {
            "type": "integer",
            "minimum": 0,
            "default": 20,
            "description": "Seconds between keep-alives, 0 is off; also pingInterval and ping_interval.",
        },
        "serverSideTrack": {
            "type": "string",
            "default": "server-side-track",
            "description": "Id of the server's own track; also server_side_track.",
        },
        "token": {
            "type": "string",
            "description": "The API's token, where one is configured and no header can be set.",
        },
    },
}


def _audio(summary: str) -> dict[str, Any]:
    return {
        "name": "audio",
        "summary": summary,
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    }


def _client_ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"schemas/client/{kind}.{name}.json"}


def _channel(address: str, summary: str, messages: list[str]) -> dict[str, Any]:
    channel: dict[str, Any] = {"address": address, "summary": summary}
    names = [part[1:-1] for part in address.split(".") if part.startswith("{")]
    if names:
        channel["parameters"] = {name: {} for name in names}
    channel["messages"] = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    return channel


def _document(
    title: str, about: str, channels: dict[str, Any], operations: dict[str, Any], messages: dict[str, Any]
) -> dict[str, Any]:
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": __version__, "description": about},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def bundled(document: dict[str, Any]) -> dict[str, Any]:
    """A document that is complete in itself: the schemas that it refers to are among its components, each once.

    What events are made of has names of its own, since what is sent is described otherwise than what is taken.
    """
    schemas: dict[str, Any] = {}

    def place(name: str, schema: dict[str, Any]) -> dict[str, str]:
        definitions = schema.pop("$defs", {})
        parts = {part: f"event.{part}" if name.startswith("event.") else part for part in definitions}
        for key, definition in [*((parts[part], definitions[part]) for part in parts), (name, schema)]:
            renamed = _renamed(definition, parts)
            assert schemas.setdefault(key, renamed) == renamed, f"two schemas are called {key}"
        return {"$ref": f"#/components/schemas/{name}"}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            target = value.get("$ref", "")
            if isinstance(target, str) and target.startswith("schemas/"):
                path = target.removeprefix("schemas/").removesuffix(".json")
                return place(path.rpartition("/")[2], _schema_of(path))
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    whole: dict[str, Any] = walk(document)
    whole["components"]["schemas"] = schemas
    return whole


def _schema_of(path: str) -> dict[str, Any]:
    """The schema that docs/schemas has under this path."""
    kind, _, name = path.rpartition("/")[2].partition(".")
    if path.startswith("client/"):
        return schema({"command": COMMANDS, "event": EVENTS}[kind][name])
    return schema(next(found for found in contracts() if found.__name__ == kind))


def _renamed(value: Any, parts: dict[str, str]) -> Any:
    """A schema whose references to parts of its own are references to components."""
    if isinstance(value, dict):
        return {
            key: f"#/components/schemas/{parts[item.removeprefix('#/$defs/')]}"
            if isinstance(item, str) and item.startswith("#/$defs/")
            else _renamed(item, parts)
            for key, item in value.items()
        }
    return [_renamed(item, parts) for item in value] if isinstance(value, list) else value


def subjects() -> str:
    """docs/subjects.md."""
    lines = [
        "# Subjects",
        "",
        "Generated from `shared/dialbus/contracts` by `make contracts`; not edited by hand.",
        "`{call}` is the session id as one token: every byte but `A-Z a-z 0-9 _ -` is written `=XX`.",
        "",
        "| Subject | Message | Reply | What |",
        "|---|---|---|---|",
    ]
    for kind in sorted(filter(on_the_wire, contracts()), key=lambda kind: kind.SUBJECT):
        reply = kind.reply_type().__name__ if issubclass(kind, Request) else ""
        lines.append(f"| `{kind.SUBJECT}` | {kind.__name__} | {reply} | {first_line(kind)} |")
    lines.append(f"| `{EVENT_SUBJECT}` | client event | stream CALLS | {len(EVENTS)} events, see `schemas/client` |")
    lines.append(f"| `{AUDIO_SUBJECT}` | AudioFrame | | {first_line(AudioFrame)} |")
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    texts: dict[Path, str] = {DOCS / "subjects.md": subjects()}
    documents: dict[str, Any] = {f"schemas/bus/{kind.__name__}.json": schema(kind) for kind in contracts()}
    documents |= {f"schemas/client/command.{name}.json": schema(kind) for name, kind in COMMANDS.items()}
    documents |= {f"schemas/client/event.{name}.json": schema(kind) for name, kind in EVENTS.items()}
    for name, document in documents.items():
        texts[DOCS / name] = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    for name, document in (("asyncapi.bus.json", bus_document()), ("asyncapi.client.json", client_document())):
        texts[SERVED / name] = json.dumps(bundled(document), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return texts


def stale() -> list[str]:
    """Paths (from the project's root) whose text differs, is missing, or that nothing generates any more."""
    wanted = files()
    found = set((DOCS / "schemas").rglob("*.json"))
    odd = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return sorted(str(path.relative_to(ROOT)) for path in [*odd, *(found - set(wanted))])


def main() -> None:
    """Write the files, or with `--check` exit 1 when they are not fresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        odd = stale()
        sys.stdout.write("".join(f"stale: {path}\n" for path in odd))
        raise SystemExit(1 if odd else 0)
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in (DOCS / "schemas").rglob("*.json"):
        if path not in files():
            path.unlink()


if __name__ == "__main__":
    main()
