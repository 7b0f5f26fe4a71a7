"""`http_token`: the whole API is closed without it, and it is repeated nowhere."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from dialbus.bus import Bus
from tests.contract.gateway.conftest import next_event, socket
from tests.harness import ServiceProcess, run_service

TOKEN = "sesame+0pen"


@pytest_asyncio.fixture
async def closed_gateway(service_env: dict[str, str]) -> AsyncIterator[ServiceProcess]:
    """A gateway with a token."""
    async with run_service("gateway", service_env | {"DIALBUS_HTTP_TOKEN": TOKEN}) as service:
        yield service
        assert "Traceback" not in service.log


def dumped(folder: Path) -> str:
    """Every dump there."""
    return "".join(path.read_text() for path in folder.rglob("*.jsonl"))


async def test_sockets_and_routes_need_the_token_which_is_never_repeated(
    closed_gateway: ServiceProcess, service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    for query in ("", "&token=wrong", "&token="):
        with pytest.raises(InvalidStatus) as refused:
            async with socket(closed_gateway, f"id={call_id}{query}"):
                pass
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body) == {"error": "token missing or wrong"}

    async with socket(closed_gateway, f"id={call_id}", additional_headers={"Authorization": f"Bearer {TOKEN}"}):
        pass
    async with socket(closed_gateway, f"token={TOKEN}&id=2{call_id}&dump=1") as client:
        await client.send("{}")
        assert TOKEN not in json.dumps(await next_event(client))

    async with httpx.AsyncClient(base_url=closed_gateway.facts["http"], trust_env=False) as http:
        denied = await http.get("/nowhere")
        assert (denied.status_code, denied.headers["www-authenticate"]) == (401, "Bearer")
        assert (await http.get("/nowhere", params={"token": TOKEN})).status_code == 404
        assert (await http.get("/health?service=gateway")).status_code == 200

    await closed_gateway.stop()
    assert TOKEN not in closed_gateway.log
    assert TOKEN not in dumped(Path(service_env["DIALBUS_RECORDER_PATH"]))
