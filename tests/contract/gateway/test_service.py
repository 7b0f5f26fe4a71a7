"""The gateway as a service: addresses, health, metrics, event dump, starts that must fail."""

import asyncio
import json
import socket as sockets
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dialbus.bus import Bus
from dialbus.contracts.session import CallType, Heartbeat, Session
from dialbus.liveness import HEARTBEAT_S
from dialbus.sessions import Sessions
from dialbus.tasks import cancel_all
from tests.contract.gateway.conftest import Owner, events_until_closed, next_event, socket
from tests.harness import START_TIMEOUT_S, ServiceProcess, eventually, messages_of, next_message, run_service, spawn


async def test_health_metrics_and_404_are_served_where_announced(gateway: ServiceProcess, bus: Bus) -> None:
    http = gateway.facts["http"]
    assert gateway.facts["health"] == f"{http}/health"
    assert gateway.facts["ws"] == http.replace("http:", "ws:")
    async with httpx.AsyncClient(trust_env=False) as client:
        health = await client.get(f"{gateway.facts['health']}?service=gateway")
        assert health.status_code == 200
        report = health.json()
        assert (report["service"], report["instance"], report["live"]) == ("gateway", gateway.instance, True)
        assert report["checks"] == {"nats": True}
        async with socket(gateway, "id=metrics-test"):
            metrics = await client.get(f"{http}/metrics")
            assert "dialbus_gateway_sockets 1.0" in metrics.text
        missing = await client.get(f"{http}/nowhere")
        assert (missing.status_code, missing.json()) == (404, {"error": "not found"})
        assert (await client.post(f"{http}/health")).json() == {"error": "method not allowed"}


async def test_health_is_starting_until_each_service_has_a_ready_worker(gateway: ServiceProcess, bus: Bus) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:

        async def report(query: str = "") -> tuple[int, dict[str, Any]]:
            answer = await client.get(gateway.facts["health"] + query)
            return answer.status_code, answer.json()

        async def waits_for(*services: str) -> bool:
            status, body = await report()
            starting = (status, body["status"], body["ready"]) == (503, "starting", False)
            return starting and body["waiting_for"] == list(services)

        await eventually(lambda: waits_for("sip-ua", "media", "asr", "tts", "webhook-dispatcher"))
        beating = [
            asyncio.create_task(beats_of(bus, service)) for service in ("sip-ua", "media", "tts", "webhook-dispatcher")
        ]
        await eventually(lambda: waits_for("asr"), what="all but asr")
        alone = await report("?service=gateway")
        assert (alone[0], alone[1]["status"]) == (200, "running"), "the process alone is well"
        assert "waiting_for" not in alone[1]
        beating.append(asyncio.create_task(beats_of(bus, "asr")))

        async def runs() -> bool:
            status, body = await report()
            return (status, body["status"], body["ready"], "waiting_for" in body) == (200, "running", True, False)

        await eventually(runs, what="running")
        await cancel_all(beating)
        assert (await report("?service=asr")) == (404, {"error": "this is the gateway"})


async def beats_of(bus: Bus, service: str) -> None:
    """The heartbeats of a worker that is ready."""
    while True:
        await bus.publish(Heartbeat(service=service, instance=f"{service}-test", version="x", started_at="then"))
        await asyncio.sleep(HEARTBEAT_S)


async def test_health_waits_only_for_the_services_that_are_expected(service_env: dict[str, str]) -> None:
    env = service_env | {"DIALBUS_HEALTH_EXPECTS": "gateway"}
    async with run_service("gateway", env) as service, httpx.AsyncClient(trust_env=False) as client:

        async def runs() -> bool:
            return (await client.get(service.facts["health"])).status_code == 200

        await eventually(runs, what="its own heartbeat")


async def test_ice_servers_are_told_as_the_go_sdk_needs_them(service_env: dict[str, str]) -> None:
    env = service_env | {"DIALBUS_ICE_SERVERS": '[{"urls":"turn:192.0.2.1","username":"u","credential":"c"}]'}
    async with run_service("gateway", env) as service, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{service.facts['http']}/iceservers")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == [{"urls": ["turn:192.0.2.1"], "username": "u", "credential": "c"}]


async def test_heartbeats_name_the_instance(gateway: ServiceProcess, bus: Bus) -> None:
    beats = await messages_of(bus, Heartbeat, service="gateway", instance=gateway.instance)
    assert (await next_message(beats, 3.0)).instance == gateway.instance


async def test_port_in_use_is_one_line_and_exit_code_2(service_env: dict[str, str], tmp_path: Path) -> None:
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        service = spawn("gateway", service_env | {"DIALBUS_HTTP_ADDR": address}, tmp_path)
        assert await service.exited(START_TIMEOUT_S) == 2
    lines = [line for line in service.log.splitlines() if line.startswith("dialbus:")]
    assert lines == [f"dialbus: gateway: http_addr: can't listen on {address}: Address already in use"]


async def test_dump_holds_commands_and_events_in_order_with_secrets_masked(
    gateway: ServiceProcess, service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    accept = {"command": "accept", "option": {"sip": {"username": "u", "password": "s3cr3t"}}}
    async with socket(gateway, f"id={call_id}&ping=1") as client:
        await next_event(client)
        await client.send(json.dumps(accept))
        await next_message(owner.commands)
        assert (await next_event(client))["event"] == "ping"
        await owner.end()
        await events_until_closed(client)
    path = Path(service_env["DIALBUS_RECORDER_PATH"]) / f"{call_id}.events.jsonl"

    def written() -> list[str]:
        lines = path.read_text().splitlines() if path.exists() else []
        return lines if len(lines) >= 3 else []

    items = [json.loads(line) for line in await eventually(written)]
    contents = [json.loads(item["content"]) for item in items]
    assert [item["type"] for item in items] == ["event", "command", "event"]
    assert [content.get("event") or content["command"] for content in contents] == ["incoming", "accept", "hangup"]
    assert contents[1]["option"]["sip"] == {"username": "u", "password": "***"}
    assert contents[2]["seq"] == 2
    assert items[2]["timestamp"] == contents[2]["timestamp"]
    assert "s3cr3t" not in gateway.log


async def test_dump_has_the_last_events_after_the_client_is_gone(
    gateway: ServiceProcess, service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(gateway, f"id={call_id}") as client:
        await next_event(client)
    await next_message(owner.detached)
    await owner.end(reason="bySystem", initiator="system")
    path = Path(service_env["DIALBUS_RECORDER_PATH"]) / f"{call_id}.events.jsonl"
    await eventually(lambda: path.exists() and "bySystem" in path.read_text())


async def test_dump_false_writes_nothing(
    gateway: ServiceProcess, service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    recorders = Path(service_env["DIALBUS_RECORDER_PATH"])
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(gateway, f"id={call_id}&dump=false") as client:
        await next_event(client)
        await owner.end()
        await events_until_closed(client)
    await gateway.stop()
    assert not await asyncio.to_thread(recorders.exists)


async def test_an_idle_id_of_a_gateway_that_is_gone_is_free_again(
    bus: Bus, call_id: str, service_env: dict[str, str]
) -> None:
    sessions = await Sessions.open(bus)
    left_behind = Session(call_id=call_id, call_type=CallType.SIP, gateway="gateway-killed", created_at="then")
    await sessions.create(left_behind)
    async with run_service("gateway", service_env) as service:
        url = f"{str(service.facts['http']).replace('http', 'ws')}/call/sip?id={call_id}"

        async def taken() -> bool:
            try:
                async with connect(url):
                    found = await sessions.get(call_id)
                    return found is not None and found.gateway == service.instance
            except InvalidStatus:
                return False

        assert not await taken(), "whoever has just begun to listen can't tell"
        assert await eventually(taken, 10.0, what="the id")
