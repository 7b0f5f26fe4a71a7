"""`/call/sip` of a real gateway over a real bus; the owner of the call is played by the test (protocol section 1)."""

import asyncio
import json
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from dialbus.bus import Bus, Refused
from dialbus.contracts.base import Contract
from dialbus.contracts.commands import Hangup, Pause, Tts, command_from
from dialbus.contracts.events import AnswerEvent, CustomEvent, RejectEvent, TrackStart
from dialbus.contracts.session import CallState, ClientCommandSent, Heartbeat
from dialbus.sessions import Sessions
from tests.contract.gateway.conftest import NOW, Owner, events_until_closed, next_event, sip_ua, socket
from tests.harness import ServiceProcess, eventually, next_message

ACCEPT = {"command": "accept", "option": {}}
INVITE = {"command": "invite", "option": {"callee": "sip:7455@192.0.2.9", "sip": {"password": "s3cr3t"}}}


async def test_pending_call_is_taken_replayed_commanded_and_closed_with_1000_after_its_hangup(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()

    async with socket(gateway, f"id={call_id}&serverSideTrack=srv") as client:
        incoming = await next_event(client)
        assert (incoming["event"], incoming["trackId"], incoming["seq"]) == ("incoming", call_id, 1)
        attach = await next_message(owner.attached)
        assert (attach.gateway, attach.server_side_track) == (gateway.instance, "srv")

        await client.send(json.dumps({**ACCEPT, "commandId": "first"}))
        await client.send(json.dumps({"command": "tts", "text": "hi"}))
        accept, tts = await next_message(owner.commands), await next_message(owner.commands)
        assert (accept.command, accept.command_id) == (command_from(ACCEPT), "first")
        assert (tts.command, tts.command_id) == (Tts(text="hi"), None)

        await owner.end()
        (last,) = await events_until_closed(client)
        assert (last["event"], last["seq"]) == ("hangup", 2)
        assert client.close_code == 1000
    assert owner.detached.empty()


async def test_a_hangup_leaves_the_reject_before_it_a_moment_of_its_own(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    """G3, G18: the Go SDK handles events in goroutines, and the first of the two tells why the call failed."""
    owner = await Owner.serve(bus, call_id)
    await owner.offer()

    async with socket(gateway, f"id={call_id}") as client:
        await next_message(owner.attached)
        clock = asyncio.get_running_loop().time
        emitted_at = clock()
        await bus.emit(call_id, RejectEvent(timestamp=2, track_id=call_id, code=486, reason="Busy Here"))
        await owner.end()
        events = await events_until_closed(client)

    assert [event["event"] for event in events] == ["incoming", "reject", "hangup"]
    assert clock() >= emitted_at + 0.1


@pytest.mark.parametrize("written", [lambda text: text, quote, quote_plus, lambda text: quote(text, safe="+@")])
async def test_dialog_id_is_found_however_it_is_escaped(
    gateway: ServiceProcess, bus: Bus, call_id: str, written: Callable[[str], str]
) -> None:
    call_id = f"a+b%41/?:[x]{call_id}"
    owner = await Owner.serve(bus, call_id)
    await owner.offer()

    async with socket(gateway, f"id={written(call_id)}&dump=true") as client:
        assert (await next_event(client))["trackId"] == call_id
        await owner.end()
        await events_until_closed(client)


async def test_fresh_id_is_an_idle_session_whose_first_command_finds_an_owner(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    opened = await sip_ua(bus)
    owner = await Owner.serve(bus, call_id)

    async with socket(gateway, f"id={call_id}") as client:
        session = await eventually(lambda: owner.sessions.get(call_id))
        assert session is not None
        assert (session.state, session.gateway, session.owner) == (CallState.IDLE, gateway.instance, None)

        await client.send(json.dumps(INVITE))
        await client.send(json.dumps({"command": "hangup"}))
        request = await next_message(opened)
        assert (request.call_id, request.command, request.gateway) == (call_id, command_from(INVITE), gateway.instance)
        assert (await next_message(owner.commands)).command == Hangup()

        await owner.end()
        assert [event["event"] for event in await events_until_closed(client)] == ["hangup"]
        assert client.close_code == 1000


async def test_without_an_id_the_session_is_named_s_and_a_uuid(gateway: ServiceProcess, bus: Bus) -> None:
    opened = await sip_ua(bus)
    async with socket(gateway, "") as client:
        await client.send(json.dumps(INVITE))
        request = await next_message(opened)
    assert re.fullmatch(r"s\.[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", request.call_id)


async def test_id_in_use_is_refused_with_409_and_the_first_socket_lives_on(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(gateway, f"id={call_id}") as client:
        await next_event(client)
        with pytest.raises(InvalidStatus) as refused:
            async with socket(gateway, f"id={quote(call_id)}"):
                pass
        assert refused.value.response.status_code == 409
        assert json.loads(refused.value.response.body) == {"error": "session id in use", "id": call_id}

        await client.send(json.dumps({"command": "hangup"}))
        assert (await next_message(owner.commands)).command == Hangup()
        await owner.end()
        await events_until_closed(client)


async def test_lost_socket_detaches_from_the_owner_within_a_second_after_what_was_sent(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(gateway, f"id={call_id}") as client:
        await next_event(client)
        await client.send(json.dumps({"command": "history", "speaker": "a", "text": "b"}))
        client.transport.abort()
        detach = await next_message(owner.detached, 1.0)
    assert detach.gateway == gateway.instance
    assert owner.commands.get_nowait().command.command == "history"
    await owner.end()


async def test_idle_socket_that_closes_leaves_no_session(gateway: ServiceProcess, bus: Bus, call_id: str) -> None:
    sessions = await Sessions.open(bus)
    async with socket(gateway, f"id={call_id}"):
        await eventually(lambda: sessions.get(call_id))

    async def forgotten() -> bool:
        return await sessions.get(call_id) is None

    await eventually(forgotten)
    async with socket(gateway, f"id={call_id}"):
        pass


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("{nope", "malformed JSON"),
        ("[1]", "JSON object"),
        ("{}", "missing field: command"),
        ('{"command":"dance"}', "unknown command: dance"),
        ('{"command":"tts"}', "missing field: text"),
        ('{"command":"tts","text":7}', "text"),
        ('{"command":"tts","text":"\\ud800"}', "surrogate"),
        ('{"command":"pause","commandId":' + json.dumps("x" * 129) + "}", "commandId"),
        ('{"command":"custom","data":' + "[" * 900 + "]" * 900 + "}", "command"),
        ("[" * 100_000, "malformed JSON"),
    ],
)
async def test_what_is_no_command_is_an_error_event_and_the_socket_lives_on(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, frame: str, words: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}&ping=0&dump=1") as client:
        await next_event(client)
        await client.send(frame)
        error = await next_event(client)
        assert (error["event"], error["sender"], error["code"], error["trackId"]) == ("error", "command", 400, call_id)
        assert words in error["error"]
        await client.send(json.dumps({"command": "hangup"}))
        assert (await next_message(owner.commands)).command == Hangup()
        await owner.end()
        assert [event["seq"] for event in await events_until_closed(client)] == [3]


async def test_binary_frames_are_ignored(shared_gateway: ServiceProcess, bus: Bus, call_id: str) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await next_event(client)
        await client.send(bytes(64 << 10))
        await client.send(json.dumps({"command": "pause"}))
        assert (await next_message(owner.commands)).command == Pause()
        await owner.end()
        assert len(await events_until_closed(client)) == 1


@pytest.mark.parametrize("frame", [bytes((64 << 10) + 1), '"' + "x" * (1 << 20) + '"'], ids=["binary", "text"])
async def test_frames_above_the_limits_close_with_1009_and_detach(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, frame: str | bytes
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await next_event(client)
        with suppress(ConnectionClosed):  # it may be closed before the whole frame is out
            await client.send(frame)
        async with asyncio.timeout(5):
            await client.wait_closed()
        assert client.close_code == 1009
        await next_message(owner.detached)
    await owner.end()


async def test_refused_command_is_an_error_event_with_the_owners_code(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    def refuse(_: ClientCommandSent) -> Contract:
        raise Refused(409, "accept: the call is up")

    owner = await Owner.serve(bus, call_id, command=refuse)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await next_event(client)
        await client.send(json.dumps(ACCEPT))
        error = await next_event(client)
        assert (error["error"], error["code"]) == ("accept: the call is up", 409)
        await owner.end()
        await events_until_closed(client)


async def test_without_a_responder_the_client_is_told_at_once(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    tts = json.dumps({"command": "tts", "text": "hi"})
    async with socket(shared_gateway, f"id={call_id}") as client:
        await client.send(tts)
        error = await next_event(client, 1.5)
        assert (error["event"], error["sender"], error["code"]) == ("error", "command", 503)
        assert error["error"] == "no sip-ua has room for the call"
        opened = await sip_ua(bus)  # room appears: the session is still idle and tries again
        await client.send(tts)
        assert (await next_message(opened)).call_id == call_id


@pytest.mark.parametrize(
    ("command", "told", "ended"),
    [
        (INVITE, [("error", "invite", 503)], ("failed", "system")),
        (ACCEPT, [("reject", None, 486), ("error", "accept", 503)], ("failed", "system")),
        ({"command": "hangup"}, [], ("bySystem", "system")),
        ({"command": "hangup", "reason": "enough", "initiator": "me"}, [], ("enough", "me")),
    ],
    ids=["invite", "accept", "hangup", "hangup with words"],
)
async def test_without_a_responder_the_session_ends_as_an_owner_would_end_it(
    shared_gateway: ServiceProcess,
    call_id: str,
    command: dict[str, Any],
    told: list[tuple[str, str | None, int]],
    ended: tuple[str, str],
) -> None:
    for _ in range(2):  # the id is free again at once
        async with socket(shared_gateway, f"id={call_id}") as client:
            await client.send(json.dumps(command))
            *before, last = await events_until_closed(client)
            assert [(event["event"], event.get("sender"), event["code"]) for event in before] == told
            assert (last["event"], last["trackId"], last["refer"]) == ("hangup", call_id, False)
            assert (last["reason"], last["initiator"]) == ended
            assert client.close_code == 1000
            if command is INVITE:
                assert last["to"]["username"] == "7455"


async def test_owner_that_falls_silent_is_stood_in_for_with_the_second_leg_ended_first(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await bus.publish(Heartbeat(service="sip-ua", instance="sip-ua-test", version="x", in_use=1, started_at=NOW))
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        for event in (
            TrackStart(timestamp=now_ms, track_id=call_id),
            AnswerEvent(timestamp=now_ms, track_id=call_id, sdp=""),
            TrackStart(timestamp=now_ms, track_id="srv"),
            AnswerEvent(timestamp=now_ms, track_id="srv", sdp="", refer=True),
        ):
            await bus.emit(call_id, event)
        events = await events_until_closed(client, 15)  # it is silent from now on
        assert [(event["event"], event["trackId"], event.get("refer")) for event in events[-5:]] == [
            ("error", call_id, None),
            ("trackEnd", "srv", None),
            ("hangup", "srv", True),
            ("trackEnd", call_id, None),
            ("hangup", call_id, False),
        ]
        assert min(event["duration"] for event in events if event["event"] == "trackEnd") > 1_000
        assert all("answerTime" in event for event in events if event["event"] == "hangup")
        assert client.close_code == 1000


async def test_command_for_a_call_that_has_just_ended_is_ignored(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()

    def ended(_: ClientCommandSent) -> Contract:
        raise Refused(409, "ended")

    async with socket(shared_gateway, f"id={call_id}") as client:
        await next_event(client)
        await owner.sessions.delete(call_id)
        await client.send(json.dumps({"command": "hangup"}))
        await next_message(owner.commands)
        await owner.end()
        assert [event["event"] for event in await events_until_closed(client)] == ["hangup"]


async def test_pings_come_as_control_frame_and_event_from_the_first_interval_on(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    payloads: list[bytes] = []
    async with socket(shared_gateway, f"id={call_id}&pingInterval=1") as client:
        process_frame = client.protocol.recv_frame

        def watched(frame: Frame) -> None:
            if frame.opcode is Opcode.PING:
                payloads.append(bytes(frame.data))
            process_frame(frame)

        client.protocol.recv_frame = watched  # type: ignore[method-assign]  # what arrives is watched
        with pytest.raises(TimeoutError):
            await next_event(client, 0.5)
        for _ in range(5):  # more than the three that may be missed: pongs are seen
            ping = await next_event(client, 2.0)
            assert ping["event"] == "ping"
            assert datetime.fromisoformat(ping["payload"]).utcoffset() is not None
            assert "seq" not in ping
            assert payloads[-1].decode() == ping["payload"]


async def test_client_that_never_answers_pings_is_closed_with_1001_and_detached(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}&ping=1") as client:
        client.protocol.send_pong = lambda data: None  # type: ignore[method-assign]  # a client that answers no ping
        process_frame = client.protocol.recv_frame

        def deaf(frame: Frame) -> None:
            if frame.opcode is not Opcode.PING:
                process_frame(frame)

        client.protocol.recv_frame = deaf  # type: ignore[method-assign]  # a client that reads nothing
        events = await events_until_closed(client, 8.0)
        assert [event["event"] for event in events] == ["incoming", "ping", "ping", "ping"]
        assert client.close_code == 1001
        await next_message(owner.detached)
    await owner.end()


async def test_slow_client_gets_every_event_in_order(shared_gateway: ServiceProcess, bus: Bus, call_id: str) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}&ping=0&dump=false", max_queue=1) as client:
        for number in range(60):  # 3.8 MB: more than the buffers of both sockets and of the client
            await bus.emit(call_id, CustomEvent(timestamp=1, data={"n": number, "filler": "x" * 64_000}))
        async with socket(shared_gateway, f"id=other-{call_id}") as neighbour:  # the gateway serves others meanwhile
            await neighbour.send("{}")
            assert (await next_event(neighbour))["code"] == 400
        await owner.end()
        events = await events_until_closed(client)
        assert [event["seq"] for event in events] == list(range(1, 63))
        assert [event["data"]["n"] for event in events if event["event"] == "custom"] == list(range(60))


async def test_shutdown_ends_the_call_delivers_its_last_events_and_closes_with_1001(
    service_env: dict[str, str], gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    idle_id = f"idle-{call_id}"
    async with socket(gateway, f"id={call_id}") as client, socket(gateway, f"id={idle_id}") as idle:
        await next_event(client)
        await eventually(lambda: owner.sessions.get(idle_id))
        gateway.process.send_signal(signal.SIGINT)  # as Ctrl-C does, from the terminal and from a supervisor
        stopped = asyncio.create_task(gateway.stop(5.0))
        await next_message(owner.detached)
        await owner.end(reason="bySystem", initiator="system")
        assert [event["event"] for event in await events_until_closed(client)] == ["hangup"]
        assert await events_until_closed(idle) == []
        await stopped
        assert client.close_code == 1001
        assert idle.close_code == 1001
    assert await owner.sessions.get(idle_id) is None


async def test_unknown_paths_are_404_with_json_for_sockets_too(shared_gateway: ServiceProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{shared_gateway.facts['ws']}/call/nowhere", proxy=None):
            pass
    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body) == {"error": "not found"}


async def test_overlong_id_is_refused_with_400(shared_gateway: ServiceProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(shared_gateway, "id=" + "x" * 513):
            pass
    assert refused.value.response.status_code == 400


async def test_pending_call_whose_owner_is_gone_becomes_an_idle_session_with_an_error(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    async def offer_and_die() -> Any:
        owner = Owner(bus, await Sessions.open(bus), call_id, *(asyncio.Queue() for _ in range(3)))
        await owner.offer()
        return owner

    owner = await offer_and_die()
    opened = await sip_ua(bus)
    async with socket(shared_gateway, f"id={call_id}") as client:
        kinds = {(await next_event(client))["event"] for _ in range(2)}
        assert kinds == {"incoming", "error"}
        session = await owner.sessions.get(call_id)
        assert (session.state, session.owner) == (CallState.IDLE, None)
        await client.send(json.dumps(INVITE))
        assert (await next_message(opened)).command == command_from(INVITE)


async def flooded(owner: Owner, bus: Bus, count: int = 100) -> None:
    """More events than the buffers between the gateway and a client that reads nothing can hold."""
    await owner.offer()
    for number in range(count):
        await bus.emit(owner.call_id, CustomEvent(timestamp=1, data={"n": number, "filler": "x" * 100_000}))


async def test_client_that_reads_nothing_is_dropped_and_detached(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await flooded(owner, bus)
    async with socket(shared_gateway, f"id={call_id}&ping=1", max_queue=1, close_timeout=1):
        await next_message(owner.detached, 8.0)
    await owner.end()


async def test_client_that_reads_nothing_does_not_hold_up_shutdown(
    gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await flooded(owner, bus)
    async with socket(gateway, f"id={call_id}", max_queue=1, close_timeout=1):
        await next_message(owner.attached)
        await gateway.stop(5.5)
        await next_message(owner.detached)
    await owner.end()


async def test_command_that_the_bus_cannot_carry_is_an_error_event(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await next_event(client)
        await client.send(json.dumps({"command": "custom", "data": "x" * ((1 << 20) - 40)}))
        error = await next_event(client)
        assert (error["event"], error["sender"]) == ("error", "command")
        await client.send(json.dumps({"command": "pause"}))
        assert (await next_message(owner.commands)).command == Pause()
        await owner.end()
        await events_until_closed(client)


@pytest.mark.parametrize("path", [b"/call/sip?id=\xc3\xa4", b'/call/sip?id=<"a">[b]{c}\\^`|', b"/call/sip?id=%ff%00"])
async def test_odd_bytes_in_the_url_harm_nobody(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, path: bytes
) -> None:
    host, port = shared_gateway.facts["ws"].removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with asyncio.timeout(5):
        status = await reader.readline()
    assert status.split()[1] == (b"400" if b"\xc3" in path or b"%00" in path else b"101")
    writer.close()
    await writer.wait_closed()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await client.send("{}")
        assert (await next_event(client))["code"] == 400
