"""Bridges between calls of different types and different sip-ua instances (P-97, protocol 2.13)."""

import asyncio
from functools import partial

from dialbus.bus import Bus
from dialbus.contracts import media, session
from dialbus.contracts.session import CallType
from tests.harness import ServiceProcess, eventually, run_service
from tests.peers.exchange import GATEWAY, SSRC, Call, Exchange
from tests.peers.phone import Phone


def _track(own: Call, other: Call) -> str:
    return f"bridge:{own.call_id}:to:{other.call_id}"


def _has(call: Call, name: str, times: int) -> bool:
    return call.names.count(name) == times


async def _socket_call(exchange: Exchange) -> Call:
    call = await exchange.opened("invite", call_type=CallType.WEBSOCKET, option={})
    await call.expect("trackStart")
    await call.expect("answer")
    return call


async def test_p97_two_calls_of_two_owners(bus: Bus, ua: ServiceProcess, service_env: dict[str, str]) -> None:
    async with (
        run_service("sip_ua", service_env) as other_ua,
        Exchange.open(bus, ua) as exchange,
        Exchange.open(bus, other_ua, with_media=False) as other,
        Phone.open() as phone,
    ):
        first_dialog, second_dialog = phone.call(exchange.uri), phone.call(other.uri)
        a, b = await exchange.accepted(first_dialog), await other.accepted(second_dialog)
        owners = {(await a.session()).owner, (await b.session()).owner}
        assert owners == {ua.instance, other_ua.instance}

        await a.send("bridge", targetSessionId=b.call_id)
        await a.expect("trackStart", trackId=_track(a, b))
        await b.expect("trackStart", trackId=_track(b, a))
        halves = [await exchange.media.expect(media.BridgeLeg), await exchange.media.expect(media.BridgeLeg)]
        assert {(half.call_id, half.other) for half in halves} == {
            (a.call_id, b.call_id), (b.call_id, a.call_id),
        }  # fmt: skip

        await b.send("bridge", targetSessionId=a.call_id)  # again: replaced
        for one, two in ((a, b), (b, a)):
            await one.expect("trackEnd", trackId=_track(one, two), ssrc=SSRC)
            await one.expect("trackStart", trackId=_track(one, two))

        first_dialog.bye()
        await first_dialog.expect_response(200)
        await a.expect("trackEnd", trackId=_track(a, b))
        await a.expect("trackEnd", trackId=a.call_id)
        await a.expect_end("byCaller", "caller")
        await b.expect("trackEnd", trackId=_track(b, a))
        await b.send("unbridge", targetSessionId=a.call_id)
        await b.send("history", speaker="x", text="it lives")
        await b.expect("addHistory")
        await b.send("hangup")
        await second_dialog.expect_bye()


async def test_p97_both_at_once_wait_for_nobody(exchange: Exchange) -> None:
    a, b = await _socket_call(exchange), await _socket_call(exchange)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(a.send("bridge", targetSessionId=b.call_id))
        tasks.create_task(b.send("bridge", targetSessionId=a.call_id))
    for one, two in ((a, b), (b, a)):
        track = _track(one, two)
        await eventually(partial(_has, one, "trackStart", 3), what="a track for each wish")
        assert [event["event"] for event in one.events if event.get("trackId") == track] == [
            "trackStart", "trackEnd", "trackStart",
        ]  # fmt: skip
    for one in (a, b):
        await one.send("hangup")
        await eventually(partial(_has, one, "hangup", 1), what="hangup")


async def test_p97_what_cannot_be_bridged(exchange: Exchange, phone: Phone) -> None:
    call = await _socket_call(exchange)
    pending = await exchange.taken(phone.call(exchange.uri))
    for target, code in [("s.nobody", 404), (call.call_id, 409), (pending.call_id, 409)]:
        await call.send("bridge", targetSessionId=target)
        await call.expect("error", sender="command", code=code)
    await call.send("unbridge", targetSessionId="s.nobody")
    await call.send("unbridge", targetSessionId=pending.call_id)
    wanted = session.BridgeWanted(call_id=call.call_id, other="s.9", on=False)
    await exchange.bus.request(wanted)
    await call.send("hangup")
    await call.expect("trackEnd", trackId=call.call_id)
    await call.expect_end("bySystem", "system")
    await exchange.bus.request(session.Detach(call_id=pending.call_id, gateway=GATEWAY))
    await pending.expect("hangup")
