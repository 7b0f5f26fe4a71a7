"""The gateway as a process, a client's socket to it, and the owner of a call as the test plays it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from dialbus.bus import Bus
from dialbus.contracts.events import CLIENT_EVENT, HangupEvent, Incoming
from dialbus.contracts.session import (
    Attach,
    CallState,
    CallType,
    ClientCommandSent,
    Detach,
    OpenSession,
    Session,
)
from dialbus.sessions import Sessions
from tests.harness import ServiceProcess, requests_to, run_service

NOW = "2026-03-04T09:15:20.101733+00:00"


@pytest_asyncio.fixture
async def gateway(service_env: dict[str, str]) -> AsyncIterator[ServiceProcess]:
    """A running gateway."""
    async with run_service("gateway", service_env) as service:
        yield service
        assert "Traceback" not in service.log


@asynccontextmanager
async def socket(
    gateway: ServiceProcess, query: str, path: str = "/call/sip", **options: Any
) -> AsyncIterator[ClientConnection]:
    """A client's socket; its own keep-alive is off."""
    url = f"{gateway.facts['ws']}{path}?{query}"
    async with connect(url, ping_interval=None, proxy=None, **options) as client:
        yield client


async def next_event(client: ClientConnection, timeout_s: float = 5.0) -> dict[str, Any]:
    """The next text frame, which must fit the schema of its event."""
    async with asyncio.timeout(timeout_s):
        event: dict[str, Any] = json.loads(await client.recv())
    CLIENT_EVENT.validate_python(event)
    return event


async def events_until_closed(client: ClientConnection, timeout_s: float = 5.0) -> list[dict[str, Any]]:
    """Every further event, until the gateway closes the socket."""
    events = []
    async with asyncio.timeout(timeout_s):
        async for text in client:
            events.append(json.loads(text))
            CLIENT_EVENT.validate_python(events[-1])
    return events


def hangup(call_id: str, **fields: Any) -> HangupEvent:
    """The last event of a call."""
    facts = {"timestamp": 2, "start_time": NOW, "hangup_time": NOW, "reason": "byCaller", "initiator": "caller"}
    return HangupEvent(track_id=call_id, **(facts | fields))


@dataclass
class Owner:
    """A sip-ua that owns one call, played by the test."""

    bus: Bus
    sessions: Sessions
    call_id: str
    commands: "asyncio.Queue[ClientCommandSent]"
    attached: "asyncio.Queue[Attach]"
    detached: "asyncio.Queue[Detach]"

    @classmethod
    async def serve(cls, bus: Bus, call_id: str, **answers: Any) -> "Owner":
        """Listen to the call's requests; `command=…` answers the client's commands."""
        return cls(
            bus,
            await Sessions.open(bus),
            call_id,
            await requests_to(bus, ClientCommandSent, answers.get("command"), call_id=call_id),
            await requests_to(bus, Attach, answers.get("attach"), call_id=call_id),
            await requests_to(bus, Detach, call_id=call_id),
        )

    async def offer(self) -> None:
        """A pending inbound call: `incoming` is stored, then the session is there to be taken."""
        incoming = Incoming(timestamp=1, track_id=self.call_id, caller="sip:a@b", callee="sip:c@d", sdp="")
        first = await self.bus.emit(self.call_id, incoming)
        await self.sessions.create(
            Session(
                call_id=self.call_id, call_type=CallType.SIP, state=CallState.PENDING, direction="inbound",
                owner="sip-ua-test", first_sequence=first, created_at=NOW,
            )
        )  # fmt: skip

    async def end(self, **fields: Any) -> None:
        """End the call as an owner does: the session first, then `hangup`."""
        await self.sessions.delete(self.call_id)
        await self.bus.emit(self.call_id, hangup(self.call_id, **fields))


async def sip_ua(bus: Bus) -> "asyncio.Queue[OpenSession]":
    """A sip-ua with room for calls that begin here."""
    return await requests_to(bus, OpenSession, queue="sip-ua")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gateway(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceProcess]:
    """One gateway for the tests of a module that leave it as they found it."""
    env = {
        "DIALBUS_NATS_URL": nats_url,
        "DIALBUS_HTTP_ADDR": "127.0.0.1:0",
        "DIALBUS_HEALTH_EXPECTS": "[]",  # it is alone, and well
        "DIALBUS_RECORDER_PATH": str(tmp_path_factory.mktemp("recorders")),
    }
    async with run_service("gateway", env) as service:
        yield service
        assert "Traceback" not in service.log
