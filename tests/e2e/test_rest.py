"""REST against everything that is real: a phone's call watched, commanded and killed by somebody without its socket."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx

from tests.e2e.conftest import Exchange, StartPhone
from tests.e2e.test_outbound_call import listening
from tests.harness import eventually


async def watched(api: httpx.AsyncClient, call_id: str, begun: asyncio.Event) -> list[tuple[str, dict[str, Any]]]:
    """What `/events` tells until the call is over."""
    found: list[tuple[str, dict[str, Any]]] = []
    kind = ""
    async with api.stream("GET", f"/events/{quote(call_id)}", timeout=60) as response:
        async for line in response.aiter_lines():
            begun.set()
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                found.append((kind, json.loads(value)))
    return found


async def test_a_call_is_watched_spoken_into_and_killed_over_rest(exchange: Exchange, phone: StartPhone) -> None:
    _, address = await listening(phone)
    async with httpx.AsyncClient(base_url=exchange.http, trust_env=False, timeout=60) as api:
        text = {"text": "You are speaking with an exchange.", "playId": "greeting", "endOfStream": True}
        cached = (await api.post("/precache", json=text)).json()
        assert (cached["status"], cached["cacheKey"]) == ("cached", cached["key"]), cached
        assert cached["bytes"] > 16000
        assert (await api.post("/precache", json=text)).json() == {**cached, "status": "exists"}

        before = (await api.get("/health")).json()["total"]
        async with exchange.client() as client:
            await client.send("invite", option={"callee": address, "sip": {"username": "u", "password": "s3cr3t"}})
            await client.expect("answer", timeout_s=20)
            call_id = client.events[0]["trackId"]

            async def listed() -> Any:  # the owner writes it down just after the answer
                calls = (await api.get("/list")).json()["active_calls"]
                return next((call for call in calls if call["id"] == call_id and call["startTime"]), None)

            call = await eventually(listed)
            assert (call["callType"], call["state"], call["direction"]) == ("sip", "up", "outbound")
            assert call["cs.option"]["sip"] == {"username": "u", "password": "***"}
            begun = asyncio.Event()
            watching = asyncio.create_task(watched(api, call_id, begun))
            async with asyncio.timeout(10):
                await begun.wait()
            sent = await api.post(f"/command/{quote(call_id)}", json={"command": "tts", **text})
            assert sent.json() == {"status": "sent", "id": call_id}
            metrics = await client.expect("metrics", key="completed.tts.piper", timeout_s=20)
            assert metrics["data"]["cached"] is True, metrics
            await client.expect("trackEnd", playId="greeting", timeout_s=20)
            assert (await api.get(f"/kill/{quote(call_id)}")).json() == {"status": "killed", "id": call_id}
            hangup = await client.expect("hangup")
            assert (hangup["reason"], hangup["initiator"]) == ("bySystem", "system")
            assert await client.until_closed() == 1000
        seen = await watching
        assert [item["command"] for kind, item in seen if kind == "command"] == ["tts", "hangup"]
        events = [item for kind, item in seen if kind == "event"]
        assert events == client.events[-len(events) :]
        assert events[-1]["event"] == "hangup"

        async def recorded() -> Any:
            records = (await api.get("/api/records")).json()
            return next((item for item in records if item["id"] == call_id and item["status"] == "completed"), None)

        assert (await eventually(recorded))["reason"] == "bySystem"
        assert (await api.get(f"/kill/{quote(call_id)}")).status_code == 404

        async def counted() -> bool:
            return bool((await api.get("/health")).json()["total"] > before)

        await eventually(counted)


async def test_an_idle_session_is_killed_too(exchange: Exchange) -> None:
    async with httpx.AsyncClient(base_url=exchange.http, trust_env=False) as api, exchange.client("idle-one") as client:
        assert (await api.post("/kill/idle-one")).json() == {"status": "killed", "id": "idle-one"}
        await client.expect("hangup", reason="bySystem")
        assert await client.until_closed() == 1000
