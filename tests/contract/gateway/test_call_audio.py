"""The three sockets and what is binary on them (protocol sections 1, 10.1 and 10.2); owner and media are played."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from dialbus.bus import Bus, NoResponder
from dialbus.contracts.audio import FROM_CLIENT, TO_CLIENT
from dialbus.contracts.commands import Hangup, command_from
from dialbus.contracts.events import AnswerEvent, CustomEvent, TrackStart
from dialbus.contracts.session import CallState, CallType, OpenSession, SocketCommand
from dialbus.sessions import Sessions
from tests.contract.gateway.conftest import Owner, events_until_closed, next_event, sip_ua, socket
from tests.harness import ServiceProcess, eventually, next_message, refused_raw

INVITE: dict[str, Any] = {"command": "invite", "option": {}}
ACCEPT: dict[str, Any] = {"command": "accept", "option": {"subscribe": True}}


async def heard_by_media(bus: Bus, call_id: str) -> "asyncio.Queue[bytes]":
    """The client's binary frames as a media worker gets them."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(data: bytes) -> None:
        heard.put_nowait(data)

    await bus.subscribe_raw(call_id, FROM_CLIENT, hear)
    await bus.flush()
    return heard


async def next_binary(client: ClientConnection) -> bytes:
    """The next frame, which must be binary."""
    async with asyncio.timeout(5):
        frame = await client.recv()
    assert isinstance(frame, bytes), frame
    return frame


@asynccontextmanager
async def opened(
    gateway: ServiceProcess, bus: Bus, call_id: str, path: str, invite: dict[str, Any] = INVITE
) -> AsyncIterator[tuple[ClientConnection, Owner, OpenSession]]:
    """A socket whose invite has found an owner."""
    requests = await sip_ua(bus)
    owner = await Owner.serve(bus, call_id)
    async with socket(gateway, f"id={quote(call_id)}", path) as client:
        await client.send(json.dumps(invite))
        yield client, owner, await next_message(requests)


@pytest.mark.parametrize(
    ("path", "call_type"),
    [("/call/sip", CallType.SIP), ("/call/webrtc", CallType.WEBRTC), ("/call", CallType.WEBSOCKET)],
)
async def test_each_path_has_its_call_type_and_closes_with_1000_after_the_hangup(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, path: str, call_type: CallType
) -> None:
    async with opened(shared_gateway, bus, call_id, path) as (client, owner, request):
        assert (request.call_type, request.command) == (call_type, command_from(INVITE))
        session = await owner.sessions.get(call_id)
        assert session is not None
        assert session.call_type is call_type
        await owner.end()
        assert [event["event"] for event in await events_until_closed(client)] == ["hangup"]
        assert client.close_code == 1000


@pytest.mark.parametrize("path", ["/call", "/call/webrtc"])
async def test_pending_call_is_not_for_another_path_and_stays_pending(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, path: str
) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    with pytest.raises(InvalidStatus) as refused:
        async with socket(shared_gateway, f"id={call_id}", path):
            pass
    assert refused.value.response.status_code == 409
    assert json.loads(refused.value.response.body) == {
        "error": "a pending call is answered on /call/sip", "id": call_id
    }  # fmt: skip
    session = await owner.sessions.get(call_id)
    assert session is not None
    assert (session.state, session.gateway) == (CallState.PENDING, None)
    async with socket(shared_gateway, f"id={call_id}") as client:
        assert (await next_event(client))["event"] == "incoming"
        await owner.end()
        await events_until_closed(client)


async def test_audio_on_call_waits_for_the_answer_then_flows_both_ways_and_ends_before_the_hangup(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    heard = await heard_by_media(bus, call_id)
    async with opened(shared_gateway, bus, call_id, "/call") as (client, owner, _):
        early = [bytes([index]) * 640 for index in range(60)]  # 1.2 s: the first 0.2 s is too much
        for frame in early:
            await client.send(frame)
        await client.send(json.dumps({"command": "history", "speaker": "a", "text": "b"}))
        await next_message(owner.commands)  # so the gateway has read all of it
        assert heard.empty()

        await bus.emit(call_id, TrackStart(timestamp=1, track_id=call_id))
        await bus.emit(call_id, AnswerEvent(timestamp=1, track_id=call_id, sdp=""))
        assert await next_message(heard) == b"".join(early[10:])
        assert [(await next_event(client))["event"] for _ in range(2)] == ["trackStart", "answer"]
        for frame in (b"x", b"yz" * 320, b"w" * 65_536):
            await client.send(frame)
            assert await next_message(heard) == frame

        for frame in (b"\1" * 640, b"\2" * 640):
            await bus.publish_raw(call_id, TO_CLIENT, frame)
            assert await next_binary(client) == frame

        await owner.end()
        for _ in range(50):
            await bus.publish_raw(call_id, TO_CLIENT, b"too late")
        async with asyncio.timeout(5):
            frames = [frame async for frame in client]
        assert [json.loads(frame)["event"] for frame in frames if isinstance(frame, str)] == ["hangup"]
        assert isinstance(frames[-1], str), "audio after the last event"
        assert client.close_code == 1000


async def test_audio_too_large_for_a_frame_closes_call_with_1009(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    async with opened(shared_gateway, bus, call_id, "/call") as (client, owner, _):
        await client.send(bytes(65_537))
        async with asyncio.timeout(5):
            await client.wait_closed()
        assert client.close_code == 1009
        await next_message(owner.detached)
        await owner.end()


@pytest.mark.parametrize("subscribe", [True, False])
@pytest.mark.parametrize("path", ["/call/sip", "/call/webrtc"])
async def test_binary_frames_come_only_to_subscribers_and_what_they_send_is_ignored(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, path: str, subscribe: bool
) -> None:
    heard = await heard_by_media(bus, call_id)
    invite = {"command": "invite", "option": {"subscribe": subscribe}}
    async with opened(shared_gateway, bus, call_id, path, invite) as (client, owner, _):
        await bus.emit(call_id, AnswerEvent(timestamp=1, track_id=call_id, sdp=""))
        await client.send(b"ignored")
        await client.send(json.dumps({"command": "pause"}))
        await next_message(owner.commands)  # so the gateway has read the frame before
        await bus.publish_raw(call_id, TO_CLIENT, b"\0audio")
        if subscribe:
            frames = {type(frame): frame for frame in [await client.recv(), await client.recv()]}
            assert frames[bytes] == b"\0audio"
        await owner.end()
        names = [event["event"] for event in await events_until_closed(client)]
        assert names == (["hangup"] if subscribe else ["answer", "hangup"])
    assert heard.empty()


async def test_accept_may_subscribe_too(shared_gateway: ServiceProcess, bus: Bus, call_id: str) -> None:
    owner = await Owner.serve(bus, call_id)
    await owner.offer()
    async with socket(shared_gateway, f"id={call_id}") as client:
        await next_event(client)
        await client.send(json.dumps(ACCEPT))
        await next_message(owner.commands)
        await bus.publish_raw(call_id, TO_CLIENT, b"\1audio")
        assert await next_binary(client) == b"\1audio"
        await owner.end()
        await events_until_closed(client)


async def test_slow_client_loses_the_oldest_audio_and_no_event(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str
) -> None:
    frames, events = 900, 20
    requests = await sip_ua(bus)
    owner = await Owner.serve(bus, call_id)
    async with socket(shared_gateway, f"id={quote(call_id)}&dump=0", "/call", max_queue=1) as client:
        await client.send(json.dumps(INVITE))
        await next_message(requests)
        for number in range(frames):  # 28 MB that nobody reads
            await bus.publish_raw(call_id, TO_CLIENT, number.to_bytes(4, "big") * 8_000)
            if number % (frames // events) == 0:
                await bus.emit(call_id, CustomEvent(timestamp=1, data=number))
        await bus.emit(call_id, CustomEvent(timestamp=1, data="end"))

        audio: list[int] = []
        seen: list[Any] = []
        async with asyncio.timeout(20):
            while "end" not in seen or not audio or audio[-1] != frames - 1:
                match await client.recv():
                    case str(text):
                        seen.append(json.loads(text)["data"])
                    case bytes(data):
                        audio.append(int.from_bytes(data[:4], "big"))
        assert seen == [*range(0, frames, frames // events), "end"]
        assert audio == sorted(set(audio))
        assert len(audio) < frames, "the client was not slow"
        assert audio[-100:] == list(range(frames - 100, frames)), "the newest are kept"
        await owner.end()
        await events_until_closed(client)


async def test_command_from_elsewhere_is_handled_as_if_the_idle_socket_had_sent_it(
    gateway: ServiceProcess, service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    requests = await sip_ua(bus)
    owner = await Owner.serve(bus, call_id)
    command = {"command": "invite", "option": {"callee": "sip:a@b", "sip": {"password": "s3cr3t"}}}
    with pytest.raises(NoResponder):
        await bus.request(SocketCommand(call_id=call_id, command=command_from(command)))
    async with socket(gateway, f"id={call_id}") as client:
        refusal = await refused_raw(bus, SocketCommand, call_id, {"command": "dance"})
        assert refusal.code == 400
        assert "dance" in refusal.reason
        await bus.request(SocketCommand(call_id=call_id, command=command_from(command)))
        request = await next_message(requests)
        assert (request.call_id, request.command) == (call_id, command_from(command))
        await owner.end()
        await events_until_closed(client)
    dump = Path(service_env["DIALBUS_RECORDER_PATH"]) / f"{call_id}.events.jsonl"

    def lines() -> list[str]:
        return dump.read_text().splitlines() if dump.exists() else []

    await eventually(lambda: len(lines()) == 2)
    assert json.loads(lines()[0])["type"] == "command"
    assert "s3cr3t" not in "".join(lines())


@pytest.mark.parametrize("path", ["/call/sip", "/call/webrtc", "/call"])
async def test_idle_session_is_ended_by_hangup_over_the_socket_or_from_elsewhere(
    shared_gateway: ServiceProcess, bus: Bus, call_id: str, path: str
) -> None:
    requests = await sip_ua(bus)
    owner = await Owner.serve(bus, call_id)
    async with socket(shared_gateway, f"id={quote(call_id)}", path) as client:
        await eventually(lambda: owner.sessions.get(call_id))
        await bus.request(SocketCommand(call_id=call_id, command=Hangup()))
        assert (await next_message(requests)).command == Hangup()
        await owner.end(reason="bySystem", initiator="system")
        assert [event["event"] for event in await events_until_closed(client)] == ["hangup"]
        assert client.close_code == 1000


async def test_other_spellings_and_strange_parameters_of_the_url(
    gateway: ServiceProcess, service_env: dict[str, str], bus: Bus, call_id: str
) -> None:
    requests = await sip_ua(bus)
    sessions = await Sessions.open(bus)
    query = f"forward=1&id={quote(call_id)}&visited=a,b&ping_interval=1&dump_events=No&server_side_track=srv&x"
    async with socket(gateway, query) as client:
        assert (await next_event(client, 3.0))["event"] == "ping"
        await client.send(json.dumps({**INVITE, "callType": "sip", "commandId": None}))
        assert (await next_message(requests)).server_side_track == "srv"
        await eventually(lambda: sessions.get(call_id))
    await gateway.stop()
    assert not await asyncio.to_thread(Path(service_env["DIALBUS_RECORDER_PATH"]).exists)
