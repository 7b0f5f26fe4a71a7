"""Time, stops and lost neighbours: each test has a sip-ua of its own."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import httpx
import pytest

from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.commands import Pause, Tts
from dialbus.contracts.events import TrackStart
from dialbus.contracts.media import Playback
from dialbus.contracts.session import Heartbeat, OpenSession, WebhookOutcome
from tests.harness import eventually, messages_of, run_service
from tests.peers.exchange import GATEWAY, WORKER, Exchange
from tests.peers.phone import Phone


@asynccontextmanager
async def _exchange(bus: Bus, env: dict[str, str], **settings: str) -> AsyncIterator[Exchange]:
    async with run_service("sip_ua", env | settings) as ua, Exchange.open(bus, ua) as exchange:
        yield exchange


async def test_nobody_accepts_in_time(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """O14; `ringing` does not stop the clock."""
    async with _exchange(bus, service_env, DIALBUS_UA_ACCEPT_TIMEOUT="300ms") as exchange:
        dialog = phone.call(exchange.uri)
        call = await exchange.taken(dialog)
        await call.send("ringing")
        await dialog.expect_response(180)
        refusal = await dialog.expect_response(408)
        assert refusal.header("Reason") == 'SIP;cause=408;text="accept timeout"'
        await call.expect_end("noAnswer", "system")


async def test_accept_stops_the_clock(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    async with _exchange(bus, service_env, DIALBUS_UA_ACCEPT_TIMEOUT="700ms") as exchange:
        first, second = phone.call(exchange.uri), phone.call(exchange.uri)
        call = await exchange.accepted(first)
        await second.expect_response(408)  # began later, ended by the clock
        first.assert_silent()
        await call.send("hangup")
        await first.expect_bye()


async def test_a_full_sip_ua_takes_no_call_until_one_ends(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """5.6: the call limit; pending calls count, so that a flood of INVITEs is a flood of 503s."""
    async with _exchange(bus, service_env, DIALBUS_UA_MAX_CALLS="1") as exchange:
        first = phone.call(exchange.uri)
        call = await exchange.taken(first)
        refusal = await phone.call(exchange.uri).expect_response(503)
        assert refusal.header("Reason") == 'SIP;cause=503;text="call limit reached"'
        with pytest.raises(Refused, match="call limit reached"):
            await exchange.opened("invite", option={"callee": phone.uri})

        await call.send("reject")
        await first.expect_response(603)
        await call.expect_end("rejected", "callee")
        await eventually(partial(_has_no_call, exchange), what="room")  # made when the last event is out
        await exchange.taken(phone.call(exchange.uri))


async def _has_no_call(exchange: Exchange) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return bool((await client.get(exchange.ua.facts["health"])).json()["calls"] == 0)


async def test_heartbeats_count_calls_dialogs_and_transactions(
    bus: Bus, service_env: dict[str, str], phone: Phone
) -> None:
    async with _exchange(bus, service_env, DIALBUS_UA_ACCEPT_TIMEOUT="300ms") as exchange:
        beats = await messages_of(bus, Heartbeat, service="sip-ua")
        await exchange.accepted(phone.call(exchange.uri))
        unanswered = phone.call(exchange.uri)
        await unanswered.expect_response(408)
        async with asyncio.timeout(10):
            while (facts := (await beats.get()).facts).get("failed") != 1:
                pass
        assert (facts["total"], facts["pending"], facts["dialogs"]) == (2, 0, 1)
        assert facts["transactions_running"] + facts["transactions_finished"] >= 2


async def test_webhook_dispatcher_that_never_answers_is_a_503(
    bus: Bus, service_env: dict[str, str], phone: Phone
) -> None:
    """Its word is waited for two seconds longer than the handler."""
    async with _exchange(bus, service_env, DIALBUS_UA_HANDLER_TIMEOUT="100ms") as exchange:
        dialog = phone.call(exchange.uri)
        await exchange.announced(dialog)
        await dialog.expect_response(503)


async def test_a_delivered_webhook_is_waited_for_no_more(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """However early its outcome comes; the second call, which nobody tells of, is the clock."""
    async with _exchange(bus, service_env, DIALBUS_UA_HANDLER_TIMEOUT="100ms") as exchange:
        told = phone.call(exchange.uri)
        call = await exchange.taken(told)
        await exchange.bus.request(WebhookOutcome(call_id=call.call_id, delivered=True, status=200))
        untold = phone.call(exchange.uri)
        await untold.expect_response(503)
        assert told.count("INVITE", 503) == 0
        await call.send("accept", option={})
        await told.expect_response(200)
        told.ack()


async def test_stop_in_the_middle_of_calls(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """Everybody is told, everything is stored, and the process ends with 0."""
    async with _exchange(bus, service_env) as exchange:
        up = phone.call(exchange.uri)
        call = await exchange.accepted(up)
        pending = phone.call(exchange.uri)
        waiting = await exchange.taken(pending)
        dialing = await exchange.opened("invite", option={"callee": phone.uri})
        rung = await phone.expect_call()
        rung.ringing()
        for name in ("trackStart", "ringing"):
            await dialing.expect(name)

        stopping = asyncio.create_task(exchange.ua.stop())
        bye = await up.expect_request("BYE")  # lost; its copy is answered
        await eventually(lambda: up.count("BYE") == 2, what="the second BYE")
        up.reply(bye, 200)
        await pending.expect_response(603)
        rung.reply(await rung.expect_request("CANCEL"), 200)
        rung.reject(487)
        await rung.expect_request("ACK")
        await call.expect("trackEnd")
        await call.expect_end("bySystem", "system")
        await waiting.expect_end("bySystem", "system")
        await dialing.expect("trackEnd")
        await dialing.expect_end("bySystem", "system")
        await stopping
        with pytest.raises(NoResponder):
            await bus.request(OpenSession(call_id="x", created_at="", gateway="g", command=Pause()))


async def test_stop_lets_calls_in_progress_end(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """`graceful_shutdown`: nothing new is taken, what is there goes on as if nothing were."""
    async with _exchange(bus, service_env, DIALBUS_UA_GRACEFUL_SHUTDOWN="true") as exchange:
        idle = await exchange.opened("history", speaker="user", text="only looking")
        await idle.expect("addHistory")
        up = phone.call(exchange.uri)
        call = await exchange.accepted(up)

        exchange.ua.process.send_signal(signal.SIGTERM)
        await idle.expect_end("bySystem", "system")
        refusal = await phone.call(exchange.uri).expect_response(503)
        assert refusal.header("Reason") == 'SIP;cause=503;text="stopping"'
        with pytest.raises(NoResponder):
            await bus.request(OpenSession(call_id="x", created_at="", gateway="g", command=Pause()))
        await call.send("tts", text="still here")
        assert (await exchange.media.expect(Playback)).command == Tts(text="still here")

        up.bye()
        await up.expect_response(200, method="BYE")
        await call.expect("trackEnd")
        await call.expect_end("byCaller", "caller")
        assert await exchange.ua.exited() == 0


@pytest.mark.parametrize("again", [True, False])
async def test_stop_waits_for_calls_only_so_long(
    bus: Bus, service_env: dict[str, str], phone: Phone, again: bool
) -> None:
    """Until the limit, or until it is told a second time."""
    limit = "60s" if again else "200ms"
    settings = {"DIALBUS_UA_GRACEFUL_SHUTDOWN": "true", "DIALBUS_UA_GRACEFUL_SHUTDOWN_TIMEOUT": limit}
    async with _exchange(bus, service_env, **settings) as exchange:
        up = phone.call(exchange.uri)
        call = await exchange.accepted(up)
        exchange.ua.process.send_signal(signal.SIGTERM)
        if again:
            await eventually(lambda: "service.draining" in exchange.ua.log, what="the log")
            up.assert_silent()
            exchange.ua.process.send_signal(signal.SIGTERM)
        await up.expect_bye()
        await call.expect("trackEnd")
        await call.expect_end("bySystem", "system")
        assert await exchange.ua.exited() == 0


async def test_gateway_that_falls_silent_ends_its_calls(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    async with _exchange(bus, service_env) as exchange:
        dialog = phone.call(exchange.uri)
        call = await exchange.accepted(dialog)
        await exchange.heartbeat("gateway", GATEWAY)
        await dialog.expect_request("BYE", timeout_s=10)
        await call.expect("trackEnd")
        await call.expect_end("bySystem", "system")


async def test_media_worker_that_falls_silent_ends_its_calls(
    bus: Bus, service_env: dict[str, str], phone: Phone
) -> None:
    async with _exchange(bus, service_env) as exchange:
        dialog = phone.call(exchange.uri)
        call = await exchange.accepted(dialog)
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        await bus.emit(call.call_id, TrackStart(timestamp=now_ms, track_id="srv", play_id="p"))
        await call.expect("trackStart")
        await exchange.heartbeat("media", WORKER)
        await dialog.expect_request("BYE", timeout_s=10)
        await call.expect("error", sender="media", error="the media worker is gone")
        spoken = await call.expect("trackEnd", trackId="srv", playId="p")
        assert 1_000 < spoken["duration"] <= spoken["timestamp"] - now_ms
        await call.expect("trackEnd", trackId=call.call_id)
        await call.expect_end("failed", "system")


async def test_no_media_worker(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """Nobody takes legs: an error and the end, in both directions."""
    async with run_service("sip_ua", service_env) as ua, Exchange.open(bus, ua, with_media=False) as exchange:
        dialog = phone.call(exchange.uri)
        call = await exchange.taken(dialog)
        await call.send("accept", option={})
        await dialog.expect_response(503)
        await call.expect("error", sender="accept", error="no media worker has room")
        await call.expect_end("failed", "system")

        outbound = await exchange.opened("invite", option={"callee": phone.uri})
        await outbound.expect("error", sender="invite", error="no media worker has room")
        await outbound.expect_end("failed", "system")
        assert phone.calls.empty()


async def test_external_ip_stands_in_contact_and_via(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    async with _exchange(bus, service_env, DIALBUS_EXTERNAL_IP="192.0.2.20") as exchange:
        port = exchange.address[1]
        call = await exchange.opened("invite", option={"callee": phone.uri})
        dialog = await phone.expect_call()
        assert dialog.invite is not None
        assert dialog.invite.header("From").startswith(f"<sip:192.0.2.20:{port}>;tag=")
        assert dialog.invite.header("Contact") == f"<sip:192.0.2.20:{port}>"
        assert dialog.invite.header("Via").startswith(f"SIP/2.0/UDP 192.0.2.20:{port};")
        dialog.reject(486)
        for name in ("trackStart", "reject", "trackEnd"):
            await call.expect(name)
        await call.expect_end("rejected", "callee")


async def test_options_may_be_left_unanswered(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    async with _exchange(bus, service_env, DIALBUS_ENABLE_OPTIONS_RESPONSE="false") as exchange:
        silent = phone.ask("OPTIONS", exchange.uri)
        await phone.ask("MESSAGE", exchange.uri).expect_response(405)
        silent.assert_silent()


async def test_worker_that_vanishes_without_a_word(bus: Bus, service_env: dict[str, str], phone: Phone) -> None:
    """A command finds nobody: the call ends at once instead of going on mute."""
    async with run_service("sip_ua", service_env) as ua, Exchange.open(bus, ua) as exchange:
        dialog = phone.call(exchange.uri)
        call = await exchange.accepted(dialog)
        await exchange.media.vanish()
        await call.send("tts", text="anyone?")
        await dialog.expect_bye()
        await call.expect("error", sender="media")
        await call.expect("trackEnd")
        await call.expect_end("failed", "system")
