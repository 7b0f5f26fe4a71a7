"""Whoever a client's call is with, others can be brought in: a phone by `refer`, another call by `bridge`.

The parties speak tones; what each hears is measured. Transfers between two phones are the conformance suite's,
that of a browser is in test_webrtc_call.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import numpy as np

from dialbus.bus import Bus
from dialbus.config import NatsConfig
from dialbus.sessions import Sessions
from dialbus_cli import embedded_nats
from tests.conformance.parties import amplitude, description, hears, media_of, second_phone, speaking
from tests.e2e.conftest import DATA, Exchange
from tests.harness import eventually, run_service
from tests.peers.client import ApiClient
from tests.peers.phone import Dialog, Phone
from tests.peers.rtp import RtpPeer, tone

SERVER = "server-side-track"
RATE_HZ = 16000
LEVEL = 0.05
FIRST, SECOND = 700, 1100
WITHIN_S = 15.0


async def _transferred(client: ApiClient, target: Phone, rtp: RtpPeer) -> Dialog:
    """The call goes to a phone, which answers."""
    await client.send("refer", callee=target.uri)
    dialog = await target.expect_call(WITHIN_S)
    assert dialog.invite is not None
    rtp.remote = media_of(dialog.invite.text)
    dialog.answer(description(rtp))
    await dialog.expect_request("ACK")
    await client.expect("trackStart", trackId=SERVER)
    await client.expect("answer", trackId=SERVER, refer=True)
    return dialog


async def _ended_by_the_target(client: ApiClient, dialog: Dialog) -> None:
    """The target hangs up, and the call goes with it (autoHangup)."""
    dialog.bye()
    await dialog.expect_response(200, method="BYE")
    await client.expect("hangup", trackId=SERVER, refer=True, reason="byCallee")
    await client.expect("hangup", refer=False, reason="byRefer", initiator="system")
    assert await client.until_closed() == 1000
    assert client.names[-4:] == ["trackEnd", "hangup", "trackEnd", "hangup"]


def _heard(frames: list[bytes], frequency_hz: float) -> bool:
    """Whether a socket hears a tone now."""
    return amplitude(np.frombuffer(b"".join(frames[-15:]), "<i2"), RATE_HZ, frequency_hz) > LEVEL


async def _speak(client: ApiClient, frequency_hz: float) -> None:
    """Ten seconds of a tone, faster than it sounds, in frames that are not too long."""
    for _ in range(10):
        await client.send_text(tone(frequency_hz, 1.0, RATE_HZ, 0.3).tobytes())


async def test_q14_a_program_is_transferred_to_a_phone(exchange: Exchange) -> None:
    async with second_phone() as (target, rtp), exchange.client(path="/call") as client:
        await client.send("invite", option={})
        await client.expect("answer", timeout_s=WITHIN_S)
        dialog = await _transferred(client, target, rtp)
        await _speak(client, FIRST)
        async with speaking(rtp, SECOND):
            await hears(rtp, FIRST)
            await eventually(lambda: _heard(client.binary, SECOND), WITHIN_S, what="the phone on the socket")
        await _ended_by_the_target(client, dialog)


@asynccontextmanager
async def _second_worker(exchange: Exchange) -> AsyncIterator[Callable[[str], Awaitable[str | None]]]:
    """One more media worker in the ensemble; gives the worker of a call."""
    folder = exchange.run_dir / "nats"
    pids = [int(path.stem.rpartition("_")[2]) for path in folder.glob("*.ports")]
    (port,) = {port for pid in pids if (port := embedded_nats.announced_port(folder, pid))}
    url = f"nats://{embedded_nats.HOST}:{port}"
    env = {
        "DIALBUS_NATS_URL": url,
        "DIALBUS_HEALTH_ADDR": "127.0.0.1:0",
        "DIALBUS_HTTP_ADDR": "127.0.0.1:0",
        "DIALBUS_RECORDER_PATH": str(exchange.recordings),
        "DIALBUS_MEDIA_PATH": str(DATA),
    }
    async with (
        run_service("media", env),
        Bus.connect(NatsConfig(url=url), service="test", instance="test-bridge") as bus,
    ):
        sessions = await Sessions.open(bus)

        async def worker_of(call_id: str) -> str | None:
            found = await sessions.get(call_id)
            return found.media_worker if found is not None else None

        yield worker_of


async def test_p97_calls_on_two_media_workers_are_bridged(exchange: Exchange) -> None:
    async with _second_worker(exchange) as worker_of, AsyncExitStack() as sockets:
        by_worker: dict[str, ApiClient] = {}
        opened: list[ApiClient] = []
        while len(by_worker) < 2:
            assert len(opened) < 16, "the other worker never gets a call"
            client = await sockets.enter_async_context(exchange.client(path="/call"))
            opened.append(client)
            await client.send("invite", option={})
            main = (await client.expect("answer", timeout_s=WITHIN_S))["trackId"]

            worker = await eventually(partial(worker_of, main), what="the worker in the books")
            by_worker.setdefault(worker, client)
        one, two = by_worker.values()
        a, b = (client.events[0]["trackId"] for client in (one, two))
        await one.send("bridge", targetSessionId=b)
        await one.expect("trackStart", trackId=f"bridge:{a}:to:{b}")
        await two.expect("trackStart", trackId=f"bridge:{b}:to:{a}")

        await _speak(one, FIRST)
        await _speak(two, SECOND)
        await asyncio.gather(
            eventually(lambda: _heard(two.binary, FIRST), WITHIN_S, what="the first one"),
            eventually(lambda: _heard(one.binary, SECOND), WITHIN_S, what="the second one"),
        )
        assert not _heard(one.binary, FIRST), "nobody hears himself"

        await one.send("hangup")
        await one.expect("hangup")
        assert one.names[-3:] == ["trackEnd", "trackEnd", "hangup"]
        await two.expect("trackEnd", trackId=f"bridge:{b}:to:{a}")
        for client in opened:
            if client is not one:
                await client.send("hangup")
                await client.expect("hangup")
