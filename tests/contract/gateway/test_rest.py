"""REST of a real gateway over a real bus; owners and tts workers are played by the test (protocol section 7)."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from dialbus.bus import Bus, Refused
from dialbus.contracts.base import Contract
from dialbus.contracts.commands import Hangup, Pause, command_from
from dialbus.contracts.events import AddHistory
from dialbus.contracts.session import CallState, CallType, CommandSeen, Heartbeat, Session
from dialbus.contracts.speech import Cached, CacheSpeech
from dialbus.sessions import Sessions
from tests.contract.gateway.conftest import NOW, Owner, events_until_closed, sip_ua, socket
from tests.harness import (
    START_TIMEOUT_S,
    ServiceProcess,
    eventually,
    messages_of,
    next_message,
    requests_to,
    run_service,
    spawn,
)

Client = httpx.AsyncClient


@asynccontextmanager
async def client_of(gateway: ServiceProcess, **options: Any) -> AsyncIterator[Client]:
    async with Client(base_url=gateway.facts["http"], trust_env=False, timeout=10, **options) as client:
        yield client


@pytest_asyncio.fixture
async def api(shared_gateway: ServiceProcess) -> AsyncIterator[Client]:
    """HTTP to the module's gateway."""
    async with client_of(shared_gateway) as client:
        yield client


async def live(bus: Bus, call_id: str, **fields: Any) -> Owner:
    """A call that is up, and its owner."""
    owner = await Owner.serve(bus, call_id)
    first = await bus.last_sequence() + 1
    facts: dict[str, Any] = {
        "call_type": CallType.SIP, "state": CallState.UP, "direction": "outbound", "owner": "sip-ua-test",
        "first_sequence": first, "created_at": NOW,
    }  # fmt: skip
    await owner.sessions.create(Session(call_id=call_id, **(facts | fields)))
    return owner


def history(text: str) -> AddHistory:
    return AddHistory(timestamp=5, speaker="bot", text=text)


# -- /list ----------------------------------------------------------------------------------------


async def test_list_has_every_session_with_nulls_and_masked_secrets(api: Client, bus: Bus, call_id: str) -> None:
    option = {"callee": "sip:7455@b", "sip": {"username": "u", "password": "s3cr3t"}, "asr": {"secretKey": "k3y"}}
    answered = "2026-03-04T09:15:27.418225+00:00"
    await live(bus, call_id, option=option, answered_at=answered, callee="sip:7455:pw@b")
    idle = f"idle-{call_id}"
    await (await Sessions.open(bus)).create(Session(call_id=idle, call_type=CallType.WEBSOCKET, created_at=NOW))
    response = await api.get("/list")
    found = {call["id"]: call for call in response.json()["active_calls"]}
    shown = {**option, "sip": {"username": "u", "password": "***"}, "asr": {"secretKey": "***"}}
    assert found[call_id] == {
        "id": call_id, "callType": "sip", "cs.option": shown, "option": shown, "createdAt": NOW, "ringTime": None,
        "startTime": answered, "answerTime": answered, "state": "up", "direction": "outbound", "caller": None,
        "callee": "sip:7455:***@b",
    }  # fmt: skip
    assert found[idle]["callType"] == "webSocket"
    assert found[idle]["cs.option"] is None
    assert "s3cr3t" not in response.text
    assert "k3y" not in response.text


# -- /kill, /command ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("written", [quote, lambda text: text, lambda text: quote(text, safe="")])
async def test_kill_hangs_up_by_system_whichever_way_the_id_is_written(
    api: Client, bus: Bus, call_id: str, method: str, written: Any
) -> None:
    call_id = f"a+b/{call_id}"
    owner = await live(bus, call_id)
    response = await api.request(method, f"/kill/{written(call_id)}")
    assert (response.status_code, response.json()) == (200, {"status": "killed", "id": call_id})
    sent = await next_message(owner.commands)
    assert sent.command == Hangup(reason="bySystem")


@pytest.mark.parametrize(("method", "path"), [("GET", "kill"), ("POST", "kill"), ("POST", "command")])
async def test_unknown_id_is_404(api: Client, method: str, path: str, call_id: str) -> None:
    response = await api.request(method, f"/{path}/{quote(call_id)}", json={"command": "pause"})
    assert (response.status_code, response.json()) == (404, {"status": "not_found", "id": call_id})


async def test_command_is_queued_at_the_owner_and_shown_without_its_secrets(
    api: Client, bus: Bus, call_id: str
) -> None:
    owner = await live(bus, call_id)
    seen = await messages_of(bus, CommandSeen, call_id=call_id)
    command = {"command": "refer", "callee": "sip:x@y", "options": {"sip": {"password": "s3cr3t"}}, "commandId": "7"}
    response = await api.post(f"/command/{quote(call_id)}", json=command)
    assert (response.status_code, response.json()) == (200, {"status": "sent", "id": call_id})
    sent = await next_message(owner.commands)
    assert (sent.command, sent.command_id) == (command_from(command), "7")
    shown = await next_message(seen)
    assert shown.via == "rest"
    assert shown.command["options"] == {"sip": {"password": "***"}}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "malformed JSON"),
        (b"\xff\xfe", "utf-8"),
        (b'{"command":"dance"}', "unknown command: dance"),
        (b'{"command":"tts"}', "tts: missing field: text"),
        (b'{"command":"pause","commandId":""}', "commandId"),
        (b'{"command":"custom","data":"\\ud800"}', "surrogate"),
    ],
)
async def test_what_is_no_command_is_400(api: Client, bus: Bus, call_id: str, body: bytes, error: str) -> None:
    owner = await live(bus, call_id)
    response = await api.post(f"/command/{quote(call_id)}", content=body)
    assert (response.status_code, response.json()["status"]) == (400, "error")
    assert error in response.json()["error"]
    assert owner.commands.empty()


async def test_command_beyond_a_mebibyte_is_413(api: Client, call_id: str) -> None:
    response = await api.post(f"/command/{quote(call_id)}", content=b" " * (1 << 20) + b"{}")
    assert (response.status_code, response.json()["status"]) == (413, "error")


async def test_owner_that_refuses_is_400_and_one_that_is_not_there_503(api: Client, bus: Bus, call_id: str) -> None:
    def refuse(_: Any) -> Contract:
        raise Refused(400, "not now")

    await live(bus, call_id)
    lonely = f"lonely-{call_id}"
    sessions = await Sessions.open(bus)
    await sessions.create(Session(call_id=lonely, call_type=CallType.SIP, owner="sip-ua-gone", created_at=NOW))
    refusing = f"refusing-{call_id}"
    await Owner.serve(bus, refusing, command=refuse)
    await sessions.create(Session(call_id=refusing, call_type=CallType.SIP, owner="sip-ua-test", created_at=NOW))
    response = await api.post(f"/command/{quote(refusing)}", json={"command": "pause"})
    assert (response.status_code, response.json()) == (400, {"status": "error", "error": "not now"})
    response = await api.post(f"/command/{quote(lonely)}", json={"command": "pause"})
    assert (response.status_code, response.json()["status"]) == (503, "error")


async def test_kill_forgets_a_call_that_nobody_serves_any_more(
    shared_gateway: ServiceProcess, api: Client, bus: Bus, call_id: str
) -> None:
    sessions = await Sessions.open(bus)
    await sessions.create(Session(call_id=call_id, call_type=CallType.SIP, owner="sip-ua-gone", created_at=NOW))

    async def killed() -> bool:  # at first the gateway has not listened long enough to know who is gone
        answer = (await api.post(f"/kill/{quote(call_id)}")).json()
        return bool(answer == {"status": "killed", "id": call_id})

    await eventually(killed, 15.0)
    assert await sessions.get(call_id) is None


async def test_idle_socket_gets_the_command_from_another_gateway_and_its_dump_has_it_once(
    gateway: ServiceProcess, shared_gateway: ServiceProcess, api: Client, service_env: dict[str, str], bus: Bus,
    call_id: str,
) -> None:  # fmt: skip
    opened = await sip_ua(bus)
    owner = await Owner.serve(bus, call_id)
    seen = await messages_of(bus, CommandSeen, call_id=call_id)
    invite = {"command": "invite", "option": {"callee": "sip:a@b", "sip": {"password": "s3cr3t"}}}
    async with socket(gateway, f"id={call_id}") as client:
        assert (await api.post(f"/command/{quote(call_id)}", json=invite)).json()["status"] == "sent"
        assert (await next_message(opened)).command == command_from(invite)
        assert (await next_message(seen)).via == "socket"

        def own(session: Session) -> Session:
            return session.model_copy(update={"owner": "sip-ua-test", "state": CallState.UP})

        await owner.sessions.change(call_id, own)
        assert (await api.post(f"/command/{quote(call_id)}", json={"command": "pause"})).status_code == 200
        assert (await next_message(owner.commands)).command == Pause()
        await client.send('{"command":"resume"}')
        await next_message(owner.commands)
        await owner.end()
        await events_until_closed(client)
    path = Path(service_env["DIALBUS_RECORDER_PATH"]) / f"{call_id}.events.jsonl"

    def dumped() -> list[dict[str, Any]] | None:
        lines = path.read_text().splitlines()
        return [json.loads(json.loads(line)["content"]) for line in lines] if "hangup" in lines[-1] else None

    lines = await eventually(dumped)
    assert [item.get("command") or item["event"] for item in lines] == ["invite", "pause", "resume", "hangup"]
    assert "s3cr3t" not in path.read_text()


# -- /events --------------------------------------------------------------------------------------


async def frames(response: httpx.Response) -> list[tuple[str, Any]]:
    """Every further frame until the stream ends: ("event", JSON), ("command", JSON)."""
    found = []
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


async def test_events_and_commands_of_a_call_are_streamed_from_now_to_its_end(
    api: Client, bus: Bus, call_id: str
) -> None:
    owner = await live(bus, call_id)
    await bus.emit(call_id, history("before"))
    async with api.stream("GET", f"/events/{quote(call_id)}") as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream;charset=utf-8"
        reading = asyncio.create_task(frames(response))
        await bus.publish_raw(call_id, "to-client", b"\x00\x01")
        await api.post(f"/command/{quote(call_id)}", json={"command": "history", "speaker": "a", "text": "x\ny"})
        await next_message(owner.commands)
        await bus.emit(call_id, history("now"))
        await owner.end()
        async with asyncio.timeout(10):
            found = await reading
    assert [(kind, item.get("event") or item["command"], item.get("seq")) for kind, item in found] == [
        ("command", "history", None), ("event", "addHistory", 2), ("event", "hangup", 3)
    ]  # fmt: skip
    assert found[1][1]["text"] == "now"


async def test_events_of_an_unknown_call_are_404_text(api: Client, call_id: str) -> None:
    response = await api.get(f"/events/{quote(call_id)}")
    assert response.status_code == 404
    assert response.headers["content-type"].startswith("text/plain")


async def test_events_end_when_an_idle_session_is_forgotten_or_the_gateway_stops(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    async with client_of(gateway) as api:
        async with socket(gateway, f"id={call_id}"):
            watching = api.stream("GET", f"/events/{quote(call_id)}")
            response = await watching.__aenter__()
        async with asyncio.timeout(10):
            assert await frames(response) == []
        await watching.__aexit__(None, None, None)
        await live(bus, f"other-{call_id}")
        async with api.stream("GET", f"/events/{quote(f'other-{call_id}')}") as response:
            stopping = asyncio.create_task(gateway.stop(5.0))
            async with asyncio.timeout(5):
                assert await frames(response) == []
            await stopping


# -- /precache, /api/records ----------------------------------------------------------------------


async def test_precache_asks_a_tts_worker_and_reports_what_it_has(api: Client, bus: Bus) -> None:
    existing: set[str] = set()

    def cache(request: CacheSpeech) -> Contract:
        if request.text == "broken":
            raise Refused(500, "engine failed")
        if request.speaker == "nobody":
            raise Refused(404, "no voice nobody")
        key = request.cache_key or f"{request.text}-{request.rate_hz}"
        existed = key in existing
        existing.add(key)
        return Cached(cache_key=key, size_bytes=request.rate_hz * 2, existed=existed)

    asked = await requests_to(bus, CacheSpeech, cache, queue="tts")
    command = {"text": "Hello.", "speaker": "joe", "option": {"speed": 1.5, "speaker": "amy"}}
    answer = {"cacheKey": "Hello.-16000", "key": "Hello.-16000", "bytes": 32000}
    for body, status in ((command, "cached"), ({"command": "tts", **command}, "exists")):
        response = await api.post("/precache", json=body)
        assert (response.status_code, response.json()) == (200, {"status": status, **answer})
        speech = await next_message(asked)
        assert (speech.speaker, speech.speed, speech.rate_hz, speech.other_rates_hz) == ("joe", 1.5, 16000, (8000,))
    one: dict[str, object] = {"text": "Hi.", "cacheKey": "mine", "option": {"samplerate": 8000}}
    assert (await api.post("/precache", json=one)).json()["cacheKey"] == "mine"
    assert (await next_message(asked)).rate_hz == 8000
    wrong: object
    for wrong, code in (
        ({"text": "broken"}, 500), ({"text": "x", "speaker": "nobody"}, 400), ({"command": "play", "url": "x"}, 400),
        ({"text": " "}, 400), ({"text": "x", "option": {"provider": "acme"}}, 400), ([], 400), ({}, 400),
    ):  # fmt: skip
        response = await api.post("/precache", json=wrong)
        assert (response.status_code, response.json()["status"]) == (code, "error"), wrong


async def test_records_are_the_dumps_newest_first(gateway: ServiceProcess, bus: Bus, call_id: str) -> None:
    async with client_of(gateway) as api:
        assert (await api.get("/api/records")).json() == []
        for number, answered in ((1, "2026-03-04T09:15:20+00:00"), (2, None)):
            owner = await Owner.serve(bus, f"{number}{call_id}")
            await owner.offer()
            async with socket(gateway, f"id={number}{call_id}") as client:
                await owner.end(answer_time=answered, hangup_time="2026-03-04T09:15:54.4+00:00")
                await events_until_closed(client)
        await live(bus, f"3{call_id}")

        async def all_there() -> Any:
            found = (await api.get("/api/records")).json()
            return found if len(found) == 2 and all(item["status"] != "incomplete" for item in found) else None

        found = await eventually(all_there)
        assert [(item["id"], item["duration"], item["status"]) for item in found] == [
            (f"2{call_id}", "0s", "unanswered"), (f"1{call_id}", "34s", "completed")
        ]  # fmt: skip
        assert datetime.fromisoformat(found[0]["date"]) > datetime.fromisoformat(found[1]["date"]) - timedelta(1)
        assert len((await api.get("/api/records?limit=1")).json()) == 1
        assert (await api.get("/api/records?limit=0")).status_code == 422


# -- /health, AMI ---------------------------------------------------------------------------------


async def test_health_sums_what_the_sip_workers_count(api: Client, bus: Bus) -> None:
    facts = {"total": 7, "failed": 2, "pending": 1, "dialogs": 3, "transactions_running": 4}
    for number in (1, 2):
        await bus.publish(
            Heartbeat(service="sip-ua", instance=f"sip-ua-{number}", version="x", in_use=3, started_at=NOW, facts=facts)
        )

    async def counted() -> Any:
        report = (await api.get("/health?service=gateway")).json()
        return report if report["total"] == 14 else None

    report = await eventually(counted)
    assert (report["status"], report["failed"], report["runnings"]) == ("running", 4, 6)
    transactions = {"running": 8, "finished": 0, "waiting_ack": 0}
    assert report["useragent"] == {"pending": 2, "dialogs": 6, "transactions": transactions}
    assert datetime.fromisoformat(report["uptime"]) < datetime.now(UTC)


async def test_ami_lists_dialogs_and_kills_for_loopback(api: Client, bus: Bus, call_id: str) -> None:
    answered = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()
    owner = await live(bus, call_id, answered_at=answered, caller="sip:a:pw@b", callee="sip:c@d")
    lists = (await api.get("/ami/v1/lists")).json()
    assert lists["total"] == len(lists["calls"])
    (call,) = [item for item in lists["calls"] if item["id"] == call_id]
    assert 88 < call.pop("duration") < 100
    assert call == {
        "id": call_id, "callType": "sip", "startTime": NOW, "ringTime": None, "answerTime": answered
    }  # fmt: skip
    dialogs = (await api.get("/ami/v1/dialogs")).json()
    assert {"id": call_id, "state": "up", "from": "sip:a:***@b", "to": "sip:c@d"} in dialogs
    killed = await api.post(f"/ami/v1/kill/{quote(call_id)}")
    assert (killed.status_code, killed.json()) == (200, True)
    assert (await next_message(owner.commands)).command == Hangup(reason="bySystem")
    unknown = await api.post("/ami/v1/kill/nobody")
    assert (unknown.status_code, unknown.json()) == (404, False)


async def test_ami_is_not_for_pages_of_other_servers_nor_other_addresses(api: Client) -> None:
    own = str(api.base_url).rstrip("/")
    assert (await api.get("/ami/v1/lists", headers={"Origin": own})).status_code == 200
    for headers in ({"Origin": "https://example.org"}, {"Origin": "null"}, {"X-Forwarded-For": "203.0.113.9"}):
        response = await api.post("/ami/v1/shutdown", headers=headers)
        assert response.status_code == 403, headers


async def test_ami_shutdown_ends_the_gateway_in_order(gateway: ServiceProcess) -> None:
    async with client_of(gateway) as api:
        response = await api.post("/ami/v1/shutdown")
        assert response.json() == {"status": "shutdown initiated", "what": "gateway"}
    assert await gateway.exited(5.0) == 0


async def test_ami_shutdown_tells_the_supervisor_that_started_the_gateway(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    script = "export DIALBUS_SUPERVISOR_PID=$$; trap 'kill $!; wait; exit 7' TERM; \"$0\" -m gateway & wait"
    env = os.environ | service_env | {"DIALBUS_RUN_DIR": str(tmp_path), "DIALBUS_INSTANCE": "gateway-1"}
    supervisor = await asyncio.create_subprocess_exec("sh", "-c", script, sys.executable, env=env)
    try:
        announcement = tmp_path / "gateway-gateway-1.json"
        facts = json.loads(await eventually(lambda: announcement.read_text() if announcement.exists() else None, 30.0))
        async with Client(base_url=facts["http"], trust_env=False) as api:
            assert (await api.post("/ami/v1/shutdown")).json()["what"] == "dialbus"
        async with asyncio.timeout(10):
            assert await supervisor.wait() == 7
    finally:
        if supervisor.returncode is None:
            supervisor.terminate()
            await supervisor.wait()


# -- /llm -----------------------------------------------------------------------------------------


@asynccontextmanager
async def upstream(answer: bytes) -> AsyncIterator[tuple[str, "asyncio.Queue[tuple[str, bytes]]"]]:
    """A server behind the proxy: its URL, and the heads and bodies of the requests it got."""
    received: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-len"))
        received.put_nowait((head, await reader.readexactly(length)))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", received


async def test_llm_requests_are_passed_on_with_the_servers_key_and_without_our_token(
    service_env: dict[str, str],
) -> None:
    body = b"data: one\n\n"
    answer = (
        b"HTTP/1.1 201 Created\r\nContent-Type: text/event-stream\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        b"Set-Cookie: a=b\r\nX-Request-Id: 7\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + body + b"\r\n0\r\n\r\n"
    )
    async with upstream(answer) as (base, received):
        env = service_env | {"DIALBUS_LLMPROXY": base, "DIALBUS_HTTP_TOKEN": "t0ken", "OPENAI_API_KEY": "sk-1"}
        async with run_service("gateway", env) as gateway, client_of(gateway) as api:
            headers = {"Authorization": "Bearer t0ken", "Connection": "X-Mine", "X-Mine": "1", "Cookie": "c=d"}
            response = await api.post("/llm/v1/chat/completions?x=%2F&y", json={"stream": True}, headers=headers)
            assert (response.status_code, response.content) == (201, body)
            assert response.headers["x-request-id"] == "7"
            assert "set-cookie" not in response.headers
            assert "x-hop" not in response.headers
            head, sent = await next_message(received)
            assert head.startswith("POST /v1/chat/completions?x=%2F&y HTTP/1.1")
            assert json.loads(sent) == {"stream": True}
            assert "authorization: Bearer sk-1" in head
            for hidden in ("t0ken", "X-Mine", "x-mine", "c=d"):
                assert hidden not in head
            theirs = {"Authorization": "Bearer theirs"}
            await api.post("/llm/v1/models?token=t0ken", json={}, headers=theirs)
            head, _ = await next_message(received)
            assert head.startswith("POST /v1/models HTTP/1.1")
            assert "authorization: Bearer theirs" in head
            token = {"Authorization": "Bearer t0ken"}
            assert (await api.post("/llm/v1/%2e%2e/admin", json={}, headers=token)).status_code == 404
            large = b"x" * ((16 << 20) + 1)
            assert (await api.post("/llm/v1/chat", content=large, headers=token)).status_code == 413
            assert (await api.post("/llm/v1/chat", json={})).status_code == 401
            assert "sk-1" not in gateway.log
            assert "t0ken" not in gateway.log


async def test_llm_is_off_unless_configured_and_502_when_nobody_is_behind(
    api: Client, service_env: dict[str, str]
) -> None:
    response = await api.post("/llm/v1/chat/completions", json={})
    assert (response.status_code, response.json()) == (404, {"error": "llmproxy is not configured"})
    async with upstream(b"nonsense\r\n\r\n") as (base, _):
        gateway = run_service("gateway", service_env | {"DIALBUS_LLMPROXY": base})
        async with gateway as service, client_of(service) as local:
            assert (await local.post("/llm/v1/chat", json={})).status_code == 502


async def test_bad_ami_list_is_one_line_and_exit_code_2(service_env: dict[str, str], tmp_path: Any) -> None:
    service = spawn("gateway", service_env | {"DIALBUS_AMI_ALLOWS": "10.0.0.0/8,home"}, tmp_path)
    assert await service.exited(START_TIMEOUT_S) == 2
    assert "dialbus: gateway: ami.allows: neither an address nor a network: 'home'" in service.log
