"""A media worker among others: room in the queue group, SIGTERM. Each test has a worker of its own."""

import signal

import pytest

from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.media import AllocateBeside, AllocateLeg, CloseLeg, LegLost, NoteInput
from dialbus.contracts.session import CallType, Heartbeat, Session
from dialbus.sessions import Sessions
from tests.contract.media.conftest import SERVER
from tests.harness import eventually, next_message, requests_to, run_service


async def test_a_full_worker_leaves_the_group_and_comes_back_with_room(
    bus: Bus, service_env: dict[str, str], call_id: str
) -> None:
    first, second = (
        AllocateLeg(call_id=f"{call_id}-{name}", main_track="m", server_track=SERVER) for name in ("a", "b")
    )
    async with run_service("media", {**service_env, "DIALBUS_MEDIA_MAX_CALLS": "1"}):
        await bus.request(first)
        await eventually(lambda: _is_refused(bus, second), what="nobody has room")
        await _close(bus, first.call_id)

        async def taken() -> bool:
            return not await _is_refused(bus, second)

        await eventually(taken, what="room again")


async def test_a_worker_takes_the_kinds_it_accepts_and_further_legs_of_its_calls_though_it_is_full(
    bus: Bus, service_env: dict[str, str], call_id: str
) -> None:
    socket, rtp = (
        AllocateLeg(call_id=f"{call_id}-{kind}", kind=kind, main_track="m", server_track=SERVER)
        for kind in ("socket", "rtp")
    )
    beside = AllocateBeside(
        call_id=socket.call_id, leg_id="refer", main_track=SERVER, server_track="m", remote_host="127.0.0.1"
    )
    environment = {**service_env, "DIALBUS_MEDIA_MAX_CALLS": "1", "DIALBUS_MEDIA_ACCEPT": "socket,webrtc"}
    async with run_service("media", environment) as service:
        with pytest.raises(NoResponder):
            await bus.request(rtp)
        with pytest.raises(NoResponder):
            await bus.request(beside)
        first = await bus.request(socket)
        second = await bus.request(beside)
        assert first.worker == second.worker == service.instance
        assert second.port > 0 == first.port
        with pytest.raises(Refused) as refused:
            await bus.request(beside)
        assert refused.value.code == 409

        lost = await requests_to(bus, LegLost, call_id=socket.call_id)
        service.process.send_signal(signal.SIGTERM)
        assert {(await next_message(lost)).leg_id for _ in range(2)} == {"main", "refer"}
        for leg_id in ("refer", "main"):
            await bus.request(CloseLeg(call_id=socket.call_id, leg_id=leg_id))
        assert await service.exited(1.5) == 0


async def test_a_leg_whose_owner_died_is_closed(bus: Bus, service_env: dict[str, str], call_id: str) -> None:
    orphan, other = (AllocateLeg(call_id=f"{call_id}-{name}", main_track="m", server_track=SERVER) for name in "ab")
    sessions = await Sessions.open(bus)
    for request, owner in ((orphan, "dead-ua"), (other, "living-ua")):
        await sessions.create(
            Session(call_id=request.call_id, call_type=CallType.SIP, owner=owner, created_at="2026-03-04T09:15:20Z")
        )
    async with run_service("media", service_env):
        await bus.request(orphan)
        await bus.request(other)

        await bus.publish(Heartbeat(service="sip-ua", instance="dead-ua", version="0", started_at="now"))
        await eventually(lambda: _is_closed(bus, orphan.call_id), what="the orphan is closed")

        assert not await _is_closed(bus, other.call_id)


async def test_sigterm_tells_the_owner_and_waits_for_the_legs_to_be_closed(
    bus: Bus, service_env: dict[str, str], call_id: str
) -> None:
    owned, orphan = (
        AllocateLeg(call_id=f"{call_id}-{name}", main_track="m", server_track=SERVER) for name in ("a", "b")
    )
    async with run_service("media", service_env) as service:
        lost = await requests_to(bus, LegLost, call_id=owned.call_id)
        await bus.request(owned)
        await bus.request(orphan)

        service.process.send_signal(signal.SIGTERM)
        assert (await next_message(lost)).reason == "the media worker stops"
        with pytest.raises(NoResponder):
            await bus.request(orphan)
        assert service.process.poll() is None
        await _close(bus, owned.call_id)

        assert await service.exited(1.5) == 0


async def _is_refused(bus: Bus, request: AllocateLeg) -> bool:
    try:
        await bus.request(request)
    except (NoResponder, Refused):
        return True
    return False


async def _is_closed(bus: Bus, call_id: str) -> bool:
    try:
        await bus.request(NoteInput(call_id=call_id))
    except NoResponder:
        return True
    except Refused:
        return False
    return False


async def _close(bus: Bus, call_id: str) -> None:
    await bus.request(CloseLeg(call_id=call_id))
