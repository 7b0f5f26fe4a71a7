"""WebRTC through coturn, a TURN server of the wild: the only way between a worker and a peer is its relay."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dialbus.bus import Bus
from dialbus.contracts.events import CLIENT_EVENT
from dialbus.contracts.media import AllocateLeg, CloseLeg, ConfigureLeg
from tests.ensemble import read_wav
from tests.harness import START_TIMEOUT_S, STOP_TIMEOUT_S, ServiceProcess, eventually, spawn
from tests.interop.ports import free_port, is_bound
from tests.peers.rtp import loud
from tests.peers.webrtc import addresses, webrtc_peer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed (apt-get install coturn)"),
]

RELAYS = range(49_200, 49_400)


@pytest.fixture
async def turn_port(tmp_path: Path) -> AsyncIterator[int]:
    """coturn on a port of 127.0.0.1, which relays between loopback addresses."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers", "--lt-cred-mech",
        "--fingerprint", "--realm=test", "--user=bus:s3cret", "--listening-ip=127.0.0.1", f"--listening-port={port}",
        "--relay-ip=127.0.0.1", f"--min-port={RELAYS.start}", f"--max-port={RELAYS.stop}", "--log-file=stdout",
        f"--pidfile={tmp_path / 'turn.pid'}", f"--userdb={tmp_path / 'turn.db'}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await eventually(lambda: is_bound(port), what="coturn's port")
        yield port
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture(params=["udp", "tcp"])
def media(
    request: pytest.FixtureRequest, turn_port: int, service_env: dict[str, str], tmp_path: Path
) -> Iterator[ServiceProcess]:
    """A media worker that has no address of its own to offer: nobody can bind 192.0.2.1 (RFC 5737)."""
    servers = [
        {"urls": f"turn:127.0.0.1:{turn_port}?transport={request.param}", "username": "bus", "credential": "s3cret"}
    ]
    service = spawn(
        "media",
        service_env | {"DIALBUS_RTP_BIND_IP": "192.0.2.1", "DIALBUS_ICE_SERVERS": json.dumps(servers)},
        tmp_path,
    )
    try:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not (tmp_path / f"media-{service.instance}.json").exists():
            assert service.process.poll() is None, service.log
            assert time.monotonic() < give_up_at, service.log
            time.sleep(0.02)
        yield service
        service.process.terminate()
        assert service.process.wait(STOP_TIMEOUT_S) == 0, service.log
        assert "Traceback" not in service.log, service.log
    finally:
        service.kill()


async def test_audio_goes_through_the_relay(bus: Bus, media: ServiceProcess, service_env: dict[str, str]) -> None:
    call_id = f"turn-{media.instance}"
    async with webrtc_peer() as peer:
        request = AllocateLeg(
            call_id=call_id, kind="webrtc", main_track=call_id, server_track="s", offer=await peer.offer("opus")
        )
        allocated = await bus.request(request, timeout_s=5.0)
        assert allocated.sdp is not None
        assert addresses(allocated.sdp) == [("relay", "127.0.0.1")]
        await bus.request(ConfigureLeg(call_id=call_id, recorder={"samplerate": 16000}))

        peer.say(440, 1.0)
        await peer.answer(allocated.sdp)
        async with asyncio.timeout(10):
            async for stored in bus.events(call_id):
                if CLIENT_EVENT.validate_json(stored.data).event == "mediaReady":
                    break
        await eventually(lambda: len(peer.audio()) > 48000, what="samples heard")
        closed = await bus.request(CloseLeg(call_id=call_id), timeout_s=5.0)

    pcm, rate_hz = read_wav(Path(closed.recordings[0].path))
    seconds, frequency = loud(pcm[:, 0], rate_hz)
    assert seconds == pytest.approx(1.0, abs=0.15)
    assert frequency == pytest.approx(440, abs=2)
