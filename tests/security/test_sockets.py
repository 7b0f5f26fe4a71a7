"""Sockets that do nothing and requests that never end keep nobody else out (issue 8, item 7)."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from dialbus.bus import Bus
from dialbus.bus.streams import CALLS_STREAM
from dialbus.contracts.events import HangupEvent, Incoming
from dialbus.contracts.session import OpenSession
from dialbus.sessions import Sessions
from tests.harness import ServiceProcess, eventually, next_message, requests_to, run_service

IDLE = 1_500
READERS = 1_100
"""More than nats-server lets a stream have unless it is told otherwise."""
AT_ONCE = 50
NOW = "2026-03-04T09:15:20.101733+00:00"


@asynccontextmanager
async def running_gateway(env: dict[str, str], **settings: str) -> AsyncIterator[ServiceProcess]:
    async with run_service("gateway", env | {"DIALBUS_HEALTH_EXPECTS": "[]"} | settings) as service:
        yield service
        assert "Traceback" not in service.log


def url(gateway: ServiceProcess, query: str = "") -> str:
    return f"{gateway.facts['ws']}/call/sip?{query}"


async def consumers(bus: Bus) -> int:
    """Of the events' stream."""
    return int((await bus._js.stream_info(CALLS_STREAM)).state.consumer_count)


async def open_idle(gateway: ServiceProcess, count: int, held: AsyncExitStack) -> list[ClientConnection]:
    """That many sockets of a stranger, `AT_ONCE` being opened at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def open_one() -> ClientConnection:
        async with turns:
            return await connect(
                url(gateway, "ping=0&dump=false"), proxy=None, ping_interval=None, open_timeout=60, close_timeout=1
            )

    sockets = await asyncio.gather(*(open_one() for _ in range(count)))
    for socket in sockets:
        held.callback(socket.transport.abort)
    return sockets


async def test_a_call_gets_its_events_beside_thousands_of_idle_sockets(
    service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * IDLE:
        pytest.skip(f"no more than {hard} files may be open")
    if soft < 2 * IDLE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * IDLE, hard))
    opened = await requests_to(bus, OpenSession, queue="sip-ua")
    async with running_gateway(service_env) as gateway, AsyncExitStack() as held:
        idle = await open_idle(gateway, IDLE, held)
        assert await consumers(bus) == 0

        await asyncio.gather(*(socket.send("no command") for socket in idle[:AT_ONCE]))
        for socket in idle[:AT_ONCE]:
            assert (await heard(socket))["event"] == "error"
        assert await consumers(bus) == 0, "what is no command takes none either"

        async with connect(url(gateway, f"id={call_id}"), proxy=None) as client:
            await client.send("no command")
            await client.send(json.dumps({"command": "invite", "option": {"callee": "sip:b@127.0.0.1"}}))
            assert (await next_message(opened, 30)).call_id == call_id
            await tell(bus, call_id)
            events = [await heard(client) for _ in range(3)]
        assert [event["event"] for event in events] == ["error", "incoming", "hangup"]
        assert [event["seq"] for event in events] == [1, 2, 3]
        await eventually(lambda: gone(bus), what="the consumer of a call that is over")


async def test_more_than_a_thousand_calls_have_readers(service_env: dict[str, str], bus: Bus, call_id: str) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with running_gateway(service_env), AsyncExitStack() as held:
        await bus.emit(call_id, Incoming(timestamp=1, track_id=call_id, caller="sip:a@b", callee="sip:c@d", sdp=""))

        async def first() -> str:
            async with turns:
                events = await held.enter_async_context(aclosing(bus.events(call_id)))
                return (await anext(events)).name

        assert await asyncio.gather(*(first() for _ in range(READERS))) == ["incoming"] * READERS
        assert await consumers(bus) == READERS


async def heard(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        event: dict[str, Any] = json.loads(await socket.recv())
    return event


async def gone(bus: Bus) -> bool:
    return await consumers(bus) == 0


async def tell(bus: Bus, call_id: str) -> None:
    """The events of a short call, as its owner appends them."""
    await bus.emit(call_id, Incoming(timestamp=1, track_id=call_id, caller="sip:a@b", callee="sip:c@d", sdp=""))
    await (await Sessions.open(bus)).delete(call_id)
    end = HangupEvent(
        timestamp=2, track_id=call_id, start_time=NOW, hangup_time=NOW, reason="byCaller", initiator="caller"
    )
    await bus.emit(call_id, end)


async def test_sockets_beyond_the_bound_get_503_until_there_is_room(service_env: dict[str, str]) -> None:
    async with running_gateway(service_env, DIALBUS_GATEWAY_MAX_SOCKETS="3") as gateway, AsyncExitStack() as held:
        first, *_ = await open_idle(gateway, 3, held)

        with pytest.raises(InvalidStatus) as refused:
            await connect(url(gateway), proxy=None)
        response = refused.value.response
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert json.loads(response.body or b"") == {"error": "too many sockets"}

        await first.close()
        await eventually(lambda: may_open(gateway), what="a place")


async def may_open(gateway: ServiceProcess) -> bool:
    try:
        async with connect(url(gateway), proxy=None):
            return True
    except InvalidStatus:
        return False


async def test_a_request_that_is_not_complete_within_ten_seconds_loses_its_connection(
    service_env: dict[str, str],
) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    post = (
        b"POST /command/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    async with running_gateway(service_env) as gateway, asyncio.TaskGroup() as strangers:
        ends = [
            strangers.create_task(lasts(gateway, began), name=f"stranger {began!r}") for began in (b"", head, post)
        ] + [
            strangers.create_task(lasts(gateway, began, drip), name=f"stranger who drips {drip!r}")
            for began, drip in ((head, b"X-Drip: 1\r\n"), (head + b"\r\n", b"GET"))
        ]
        served = strangers.create_task(complete(gateway, head + b"\r\n"), name="honest client")

    assert all(9 < end.result() < 15 for end in ends), [end.result() for end in ends]
    assert served.result().startswith(b"HTTP/1.1 200")


async def lasts(gateway: ServiceProcess, began: bytes, drip: bytes = b"") -> float:
    """Seconds until a connection ends on which a request began, and `drip` goes on coming."""
    reader, writer = await connection(gateway)
    loop = asyncio.get_running_loop()
    at = loop.time()
    writer.write(began)
    try:
        while loop.time() < at + 20:
            try:
                async with asyncio.timeout(1):
                    if not await reader.read(4096):
                        break
            except TimeoutError:
                writer.write(drip)
    except ConnectionError:
        pass
    finally:
        writer.close()
    return loop.time() - at


async def complete(gateway: ServiceProcess, request: bytes) -> bytes:
    """The first line of the answer to a request that comes in two parts."""
    reader, writer = await connection(gateway)
    writer.write(request[:20])
    await writer.drain()
    writer.write(request[20:])
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    return line


async def connection(gateway: ServiceProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(gateway.facts["http"])
    return await asyncio.open_connection(address.hostname, address.port)
