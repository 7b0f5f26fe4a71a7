"""What the gateway says of its interfaces against what it does: schemathesis for REST, real events for sockets."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks

from dialbus.bus import Bus
from dialbus.contracts.base import Contract
from dialbus.contracts.commands import COMMANDS
from dialbus.contracts.events import CLIENT_EVENT, EVENTS
from dialbus.contracts.session import CallState, CallType, Session
from dialbus.contracts.speech import Cached, CacheSpeech
from tests.contract.gateway.conftest import NOW, Owner, hangup, next_event, socket
from tests.harness import ServiceProcess, requests_to

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
NOT_TRIED = {"/ami/v1/shutdown"}
"""It does what it says; see test_rest.py."""
ENDLESS = {"/events/{call_id}"}
"""Of a live call, as long as that lives; see test_rest.py."""
EXAMPLES = 12

OPERATIONS = {
    ("GET", "/list"), ("GET", "/kill/{call_id}"), ("POST", "/kill/{call_id}"), ("POST", "/command/{call_id}"),
    ("GET", "/events/{call_id}"), ("POST", "/precache"), ("GET", "/api/records"), ("GET", "/api/descriptions"),
    ("GET", "/asyncapi.json"), ("GET", "/asyncapi.bus.json"), ("GET", "/ami/v1/lists"), ("GET", "/ami/v1/dialogs"),
    ("POST", "/ami/v1/kill/{call_id}"), ("POST", "/ami/v1/shutdown"), ("POST", "/llm/v1/{path}"), ("GET", "/health"),
    ("GET", "/metrics"), ("GET", "/iceservers"),
}  # fmt: skip


@pytest_asyncio.fixture
async def api(shared_gateway: ServiceProcess) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP to the module's gateway."""
    async with httpx.AsyncClient(base_url=shared_gateway.facts["http"], trust_env=False) as client:
        yield client


async def test_every_description_is_listed_and_served(api: httpx.AsyncClient) -> None:
    listed = (await api.get("/api/descriptions")).json()["descriptions"]
    assert [(item["kind"], item["url"]) for item in listed] == [
        ("openapi", "/openapi.json"), ("asyncapi", "/asyncapi.json"), ("asyncapi", "/asyncapi.bus.json")
    ]  # fmt: skip
    for item in listed:
        document = (await api.get(item["url"])).json()
        assert document[item["kind"]] == item["version"]
        assert document["info"]["title"]


# -- OpenAPI --------------------------------------------------------------------------------------


async def test_openapi_names_every_route_and_its_answers(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    described = {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert set(described) == OPERATIONS
    assert list(refs_that_lead_nowhere(document)) == []
    for (_, path), operation in described.items():
        assert operation["summary"], path
        assert operation["description"], path
        assert ("401" in operation["responses"]) == (path not in ("/health", "/metrics"))
    command = document["paths"]["/command/{call_id}"]["post"]["requestBody"]["content"]["application/json"]
    for name in COMMANDS:
        assert name in document["components"]["schemas"]["command"]["discriminator"]["mapping"]
    resolver = {"components": document["components"], **command["schema"]}
    for example in command["examples"].values():
        jsonschema.validate(example["value"], resolver)


async def test_every_answer_is_as_openapi_says(api: httpx.AsyncClient, bus: Bus, call_id: str) -> None:
    """Requests made from the description, at a live call and at none: no 5xx, and nothing that is not described."""
    owner = await Owner.serve(bus, call_id)
    await owner.sessions.create(
        Session(call_id=call_id, call_type=CallType.SIP, state=CallState.UP, owner="sip-ua-test", created_at=NOW)
    )

    def cache(request: CacheSpeech) -> Contract:
        return Cached(cache_key=request.cache_key or "k", size_bytes=2, existed=False)

    await requests_to(bus, CacheSpeech, cache, queue="tts")
    document = (await api.get("/openapi.json")).json()
    accepted = await asyncio.to_thread(exercise, document, str(api.base_url).rstrip("/"), call_id)
    assert accepted >= {("POST", "/command/{call_id}"), ("GET", "/kill/{call_id}"), ("POST", "/precache")}, accepted


def exercise(document: dict[str, Any], url: str, call_id: str) -> set[tuple[str, str]]:
    """Try every operation; those that were accepted (2xx) at least once."""
    accepted: set[tuple[str, str]] = set()
    with requests.Session() as session:
        session.trust_env = False
        for result in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = result.ok()
            if operation.path not in NOT_TRIED and any(_statuses(operation, url, session, call_id)):
                accepted.add((operation.method.upper(), operation.path))
    return accepted


def _statuses(operation: Any, url: str, session: requests.Session, call_id: str) -> list[bool]:
    """Try one operation; which of the answers were 2xx."""
    accepted: list[bool] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), alive=st.booleans())
    def attempt(case: Any, alive: bool) -> None:
        if alive and "{call_id}" in operation.path and operation.path not in ENDLESS:
            case.path_parameters["call_id"] = call_id
        response = case.call(base_url=url, session=session, timeout=10)
        case.validate_response(response, checks=CHECKS)
        accepted.append(200 <= response.status_code < 300)

    attempt()
    return accepted


# -- AsyncAPI -------------------------------------------------------------------------------------

REF = {"type": "object", "required": ["$ref"], "properties": {"$ref": {"type": "string", "pattern": "^#/"}}}
ASYNCAPI_3 = {
    "type": "object",
    "required": ["asyncapi", "info", "channels", "operations", "components"],
    "propertyNames": {
        "enum": ["asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"]
    },
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {"title": {"type": "string"}, "version": {"type": "string"}},
        },
        "channels": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": r"^[A-Za-z0-9_\-]+$"},
            "additionalProperties": {
                "type": "object",
                "required": ["address", "messages"],
                "properties": {
                    "address": {"type": ["string", "null"]},
                    "messages": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "object"}},
                    "parameters": {"type": "object", "additionalProperties": {"type": "object"}},
                    "bindings": {"type": "object"},
                },
            },
        },
        "operations": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["action", "channel"],
                "properties": {
                    "action": {"enum": ["send", "receive"]},
                    "channel": REF,
                    "messages": {"type": "array", "items": REF, "minItems": 1},
                    "reply": {"type": "object", "properties": {"channel": REF}},
                },
            },
        },
        "components": {
            "type": "object",
            "propertyNames": {"enum": ["messages", "schemas"]},
            "additionalProperties": {"type": "object", "propertyNames": {"pattern": r"^[A-Za-z0-9.\-_]+$"}},
        },
    },
}
"""The parts of the AsyncAPI 3.0.0 specification that our documents use."""


@pytest.mark.parametrize("path", ["/asyncapi.json", "/asyncapi.bus.json"])
async def test_asyncapi_is_complete_and_valid(api: httpx.AsyncClient, path: str) -> None:
    document = (await api.get(path)).json()
    jsonschema.validate(document, ASYNCAPI_3)
    assert list(refs_that_lead_nowhere(document)) == []
    for name, channel in document["channels"].items():
        placeholders = set(re.findall(r"{(\w+)}", channel["address"] or ""))
        assert placeholders == set(channel.get("parameters", {})), name
    for name, operation in document["operations"].items():
        owned = f"{operation['channel']['$ref']}/messages/"
        assert all(item["$ref"].startswith(owned) for item in operation.get("messages", [])), name
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert "$defs" not in json.dumps(schema), name


def refs_that_lead_nowhere(document: Any) -> Iterator[str]:
    """References that no part of the document answers."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            target = value.get("$ref")
            if isinstance(target, str) and not leads_somewhere(document, target):
                yield target
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def leads_somewhere(document: Any, target: str) -> bool:
    value = document
    for part in target.removeprefix("#/").split("/"):
        if not target.startswith("#/") or not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


TRACK = {"trackId": "s.1"}
SAMPLES: dict[str, dict[str, Any]] = {
    "incoming": {**TRACK, "caller": "sip:a@b", "callee": "sip:c@d", "sdp": "v=0", "headers": {"Subject": "Grüße"}},
    "trackStart": TRACK,
    "trackEnd": {**TRACK, "duration": 1, "ssrc": 4294967295, "playId": "p"},
    "ringing": {**TRACK, "earlyMedia": True},
    "answer": {**TRACK, "sdp": "v=0"},
    "reject": {**TRACK, "reason": "Busy Here", "code": 486},
    "interruption": {**TRACK, "playId": "p", "subtitle": "Hel", "position": 3, "totalDuration": 9, "current": 4},
    "asrFinal": {**TRACK, "index": 0, "text": "hello", "startTime": 1, "endTime": 2, "confidence": 0.5},
    "asrDelta": {**TRACK, "index": 0, "text": "", "startTime": 1, "endTime": 2},
    "speaking": {**TRACK, "startTime": 1},
    "silence": {**TRACK, "startTime": 1, "duration": 2},
    "dtmf": {**TRACK, "digit": "#"},
    "error": {**TRACK, "sender": "command", "error": "no", "code": 400},
    "metrics": {"key": "ttfb.tts.piper", "duration": 1, "data": {"index": 0}},
    "addHistory": {"speaker": "bot", "text": "hi"},
    "mediaReady": TRACK,
    "hold": {**TRACK, "onHold": True},
    "inactivity": TRACK,
    "transferRequest": {**TRACK, "referTo": "sip:x@y"},
    "message": {**TRACK, "body": "hi", "contentType": "text/plain"},
    "custom": {"data": [1, {"a": None}]},
}  # fmt: skip


async def test_every_event_that_a_client_gets_fits_the_served_schema(
    shared_gateway: ServiceProcess, api: httpx.AsyncClient, bus: Bus, call_id: str
) -> None:
    document = (await api.get("/asyncapi.json")).json()
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    got: dict[str, Any] = {}
    async with socket(shared_gateway, f"id={call_id}&ping=1") as client:
        for name, fields in SAMPLES.items():
            if name != "incoming":
                event = CLIENT_EVENT.validate_python({"event": name, "timestamp": 1772615727418, **fields})
                await bus.emit(call_id, event)
        while set(got) < {*SAMPLES, "ping"}:
            event = await next_event(client)
            got[event["event"]] = event
        async with api.stream("GET", f"/events/{quote(call_id)}") as watching:
            await owner.end(from_={"username": "a", "realm": "b", "source": "sip:a@b"}, extra={"X": "1"})
            data = [line async for line in watching.aiter_lines() if line.startswith("data: ")]
        got["hangup"] = json.loads(data[-1].removeprefix("data: "))
    assert set(got) == set(EVENTS), set(EVENTS) - set(got)
    for name, event in got.items():
        jsonschema.validate(event, schema_of(document, f"event.{name}"))
        assert isinstance(event["timestamp"], int)
    wrong = {**got["trackEnd"], "ssrc": -1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema_of(document, "event.trackEnd"))
    assert hangup(call_id).event == "hangup"


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """One message's schema, with the components that it refers to."""
    return {"components": document["components"], **document["components"]["schemas"][name]}
