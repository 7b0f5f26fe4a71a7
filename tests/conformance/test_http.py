"""REST (P-112 to P-115, protocol section 7)."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.conformance.parties import SOON_S, SPOKEN_S, client, fresh_id, inbound, outbound
from tests.conformance.strict import is_rfc3339
from tests.ensemble import Exchange
from tests.harness import eventually


def http(exchange: Exchange) -> httpx.AsyncClient:
    """A client of the REST interface."""
    return httpx.AsyncClient(base_url=exchange.http, trust_env=False, timeout=30)


async def listed(web: httpx.AsyncClient, id: str) -> dict[str, Any] | None:
    """A call in `/list`."""
    calls = (await web.get("/list")).json()["active_calls"]
    return next((call for call in calls if call["id"] == id), None)


@pytest.mark.row("P-112")
@pytest.mark.fault("X-20")
async def test_p112_list(exchange: Exchange) -> None:
    async with http(exchange) as web, outbound(exchange) as call:
        dialog = await call.invite(
            caller="sip:7301@10.20.0.4",
            sip={"username": "7301", "password": "s3cr3t-1"},
            asr={"secretKey": "s3cr3t-2", "secretId": "s3cr3t-3"},
            tts={"apiKey": "s3cr3t-4"},
        )
        dialog.ringing()
        id = (await call.client.expect("ringing", SOON_S))["trackId"]
        entry = await eventually(lambda: listed(web, id), SOON_S)
        assert entry["callType"] == "sip"
        assert entry["startTime"] is None, "the time of the answer"
        await call.answer()

        async def answered() -> dict[str, Any] | None:
            found = await listed(web, id)
            return found if found and found["startTime"] else None

        entry = await eventually(answered, SOON_S)
        assert is_rfc3339(entry["startTime"])
        assert is_rfc3339(entry["ringTime"])
        assert is_rfc3339(entry["createdAt"])
        assert entry["cs.option"]["callee"] == call.phone.uri
        assert entry["option"] == entry["cs.option"]
        assert entry["direction"] == "outbound"
        assert entry["callee"] == call.phone.uri
        assert "answerTime" in entry
        assert "state" in entry
        assert "s3cr3t" not in (await web.get("/list")).text
        await call.released()
        await call.client.until_closed(SOON_S)

        async def gone() -> bool:
            return await listed(web, id) is None

        await eventually(gone, SOON_S)


@pytest.mark.row("P-112")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_p112_kill(exchange: Exchange, method: str) -> None:
    async with http(exchange) as web, inbound(exchange) as call:
        await call.accept()
        id = call.client.main
        answer = await web.request(method, f"/kill/{id.replace('@', '%40')}")
        assert (answer.status_code, answer.json()) == (200, {"status": "killed", "id": id})
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(r"incoming T\(main\) answer E\(main\) hangup\{bySystem,system\}")
        answer = await web.request(method, "/kill/nobody")
        assert (answer.status_code, answer.json()) == (404, {"status": "not_found", "id": "nobody"})


@pytest.mark.row("P-112")
async def test_p112_command(exchange: Exchange) -> None:
    async with http(exchange) as web, inbound(exchange) as call:
        id = call.client.main
        answer = await web.post(f"/command/{id}", json={"command": "accept", "option": {}})
        assert (answer.status_code, answer.json()) == (200, {"status": "sent", "id": id})
        await call.client.expect("answer", SOON_S)
        await call.answered()
        for bad in (b"{", b'{"command":"fly"}', b'{"command":"tts"}'):
            answer = await web.post(f"/command/{id}", content=bad)
            assert (answer.status_code, answer.json()["status"]) == (400, "error")
            assert answer.json()["error"]
        answer = await web.post("/command/nobody", json={"command": "hangup"})
        assert (answer.status_code, answer.json()) == (404, {"status": "not_found", "id": "nobody"})
        await web.post(f"/command/{id}", json={"command": "hangup", "reason": "by REST"})
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(r"incoming T\(main\) answer E\(main\) hangup\{by REST,system\}")
    async with http(exchange) as web, client(exchange, fresh_id()) as socket:  # a session that has not called yet
        answer = await web.post(f"/command/{socket.call_id}", json={"command": "history", "speaker": "a", "text": "b"})
        assert answer.status_code == 200
        await socket.expect("addHistory", SOON_S)


@pytest.mark.row("P-112", "P-99", "P-76")
@pytest.mark.fault("X-20")
async def test_p112_events(exchange: Exchange) -> None:
    async with http(exchange) as web, inbound(exchange) as call:
        id = call.client.main
        await call.accept(subscribe=True)  # binary audio is not for watchers
        seen: list[tuple[str, dict[str, Any]]] = []
        subscribed = asyncio.Event()

        async def watch() -> None:
            async with web.stream("GET", f"/events/{id}") as stream:
                assert stream.status_code == 200
                kind = stream.headers["content-type"].replace(" ", "").lower()
                assert kind == "text/event-stream;charset=utf-8"
                subscribed.set()
                name = ""
                async for line in stream.aiter_lines():
                    if line.startswith("event:"):
                        name = line.removeprefix("event:").strip()
                    elif line.startswith("data:"):
                        seen.append((name, json.loads(line.removeprefix("data:"))))

        watcher = asyncio.create_task(watch())
        await asyncio.wait_for(subscribed.wait(), SOON_S)
        await call.client.send("custom", data={"note": 1}, sender="me")
        await call.client.send("history", speaker="user", text="hello")
        await call.client.expect("addHistory", SOON_S)
        await call.hang_up()
        await call.client.until_closed(SOON_S)
        await asyncio.wait_for(watcher, SOON_S)  # it ends with the call
        events = [data["event"] for name, data in seen if name == "event"]
        assert events == ["custom", "addHistory", "trackEnd", "hangup"], "from the subscription on"
        assert [data["command"] for name, data in seen if name == "command"] == ["custom", "history"]
        assert (await web.get("/events/nobody")).status_code == 404


@pytest.mark.row("P-113")
async def test_p113_health_and_ami(exchange: Exchange) -> None:
    async with http(exchange) as web, inbound(exchange) as call:
        await call.accept()
        health = (await web.get("/health")).json()
        assert health["status"] == "running"
        for key in ("uptime", "version", "total", "failed", "runnings"):
            assert key in health, key
        assert {"pending", "dialogs", "transactions"} <= set(health["useragent"])
        calls = (await web.get("/ami/v1/lists")).json()
        entry = next(item for item in calls["calls"] if item["id"] == call.client.main)
        assert calls["total"] == len(calls["calls"])
        assert {"id", "callType", "startTime"} <= set(entry)
        assert (await web.get("/ami/v1/dialogs")).status_code == 200
        assert (await web.post(f"/ami/v1/kill/{call.client.main}")).json() is True
        await call.dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-114")
@pytest.mark.fault("X-25")
async def test_p114_precache(exchange: Exchange) -> None:
    text = f"This was said before, {fresh_id()}."
    async with http(exchange) as web:
        first = await web.post("/precache", json={"text": text, "option": {"speed": 1.0}}, timeout=SPOKEN_S)
        assert first.status_code == 200
        facts = first.json()
        assert facts["status"] == "cached"
        assert facts["bytes"] > 1000
        assert facts["key"] == facts["cacheKey"]
        again = await web.post("/precache", json={"command": "tts", "text": text, "option": {"speed": 1.0}})
        assert (again.json()["status"], again.json()["cacheKey"]) == ("exists", facts["cacheKey"])
        wrong = await web.post("/precache", json={"command": "play", "url": "x"})
        assert (wrong.status_code, wrong.json()["status"]) == (400, "error")
        failed = await web.post("/precache", json={"text": "x", "speaker": "nobody", "option": {}}, timeout=SPOKEN_S)
        assert failed.status_code >= 400
    async with inbound(exchange) as call:
        await call.accept(tts={"speed": 1.0})
        await call.client.send("tts", text=text, playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SPOKEN_S, playId="p")
        assert call.client.of("metrics", key="completed.tts.piper")[0]["data"]["cached"] is True
        await call.released()


@pytest.mark.row("P-114")
async def test_p114_records(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        await call.hang_up()
        await call.client.until_closed(SOON_S)

    async with http(exchange) as web:

        async def entry() -> dict[str, Any] | None:
            records = (await web.get("/api/records")).json()
            assert records == sorted(records, key=lambda item: item["date"], reverse=True), "newest first"
            return next((item for item in records if item["id"] == call.client.main), None)

        found = await eventually(entry, SOON_S)
        assert set(found) >= {"id", "date", "duration", "status"}
        assert found["status"] == "completed"


@pytest.mark.row("P-115", "G17")
async def test_p115_the_llm_proxy_is_off_unless_configured(exchange: Exchange) -> None:
    async with http(exchange) as web:
        answer = await web.post("/llm/v1/chat/completions", json={})
        assert answer.status_code == 404
