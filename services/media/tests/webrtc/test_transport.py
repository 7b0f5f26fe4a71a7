"""A WebRTC leg's transport against aiortc: ways to the peer, servers that answer or don't, and how it is lost."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aioice import stun

from media.webrtc.ice import GATHER_LIMIT_S, IceSettings, listening_addresses
from media.webrtc.sdp import parse_offer
from media.webrtc.servers import IceServers, StunServer, TurnServer
from media.webrtc.transport import Lost, NoCandidate, WebRtcTransport
from tests.harness import eventually
from tests.peers.webrtc import WebRtcPeer, addresses, candidates, webrtc_peer

LOOPBACK = IceSettings(addresses=("127.0.0.1",), first_port=20000, last_port=29999, servers=IceServers(), names=False)
Make = Callable[..., WebRtcTransport]


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[WebRtcPeer]:
    async with webrtc_peer() as peer:
        yield peer


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    """`make(offer, **settings)` gives a transport that is closed in the end."""
    made: list[WebRtcTransport] = []

    def transport(offer: str, **changes: Any) -> WebRtcTransport:
        fields = {name: getattr(LOOPBACK, name) for name in LOOPBACK.__slots__} | changes
        made.append(WebRtcTransport(parse_offer(offer, {"opus", "pcmu"}, ipv6=True), IceSettings(**fields)))
        return made[-1]

    yield transport
    for one in made:
        one.close()
    await eventually(lambda: len(asyncio.all_tasks()) == 1 or None, what="tasks left behind")


async def test_a_port_of_the_range_is_taken_and_given_back(peer: WebRtcPeer, make: Make) -> None:
    transport = make(await peer.offer())

    answer = await transport.answer(1, 2)

    port = int(candidates(answer)[0].split()[5])
    assert 20000 <= port <= 29999
    running = asyncio.create_task(transport.run(5))
    await peer.answer(answer)
    await eventually(lambda: transport.ready, what="the transport")
    transport.close()
    assert await running is None
    await eventually(lambda: _is_free(port), what="the port")


async def test_no_address_is_said(peer: WebRtcPeer, make: Make) -> None:
    with pytest.raises(NoCandidate):
        await make(await peer.offer(), addresses=()).answer(1, 2)
    with pytest.raises(NoCandidate):
        await make(await peer.offer(), addresses=("192.0.2.77",)).answer(1, 2)


async def test_a_stun_server_tells_an_address_to_offer(peer: WebRtcPeer, make: Make) -> None:
    server, port = await _stun_server(("203.0.113.5", 4000))
    transport = make(await peer.offer(), servers=IceServers(stun=(StunServer("127.0.0.1", port),)))

    answer = await transport.answer(1, 2)

    assert addresses(answer) == [("host", "127.0.0.1"), ("srflx", "203.0.113.5")]
    inside = candidates(answer)[0].split()[5]
    assert f" 203.0.113.5 4000 typ srflx raddr 127.0.0.1 rport {inside}" in answer
    assert "m=audio 4000 " in answer
    server.close()


async def test_servers_that_are_dead_delay_the_answer_little(peer: WebRtcPeer, make: Make) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        servers = IceServers((StunServer("127.0.0.1", port),), (TurnServer("127.0.0.1", port, "udp", False, "u", "p"),))
        transport = make(await peer.offer(), servers=servers)
        loop = asyncio.get_running_loop()
        started = loop.time()

        answer = await transport.answer(1, 2)

        assert loop.time() - started < GATHER_LIMIT_S + 2.0
        assert addresses(answer) == [("host", "127.0.0.1")]


async def test_the_external_address_is_offered_besides(peer: WebRtcPeer, make: Make) -> None:
    answer = await make(await peer.offer(), external_ip="198.51.100.1").answer(1, 2)

    (inside, outside) = (line.split() for line in candidates(answer))
    assert (inside[4], outside[4]) == ("127.0.0.1", "198.51.100.1")
    assert inside[5] == outside[5]
    assert int(inside[3]) > int(outside[3])


async def test_ipv6_alone_is_a_way(make: Make) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    async with webrtc_peer("::1") as peer:
        transport = make(await peer.offer(), addresses=("::1",))
        answer = await transport.answer(1, 2)
        assert re.search(r"c=IN IP6 ::1\r\n", answer)
        running = asyncio.create_task(transport.run(5))
        await peer.answer(answer)
        await eventually(lambda: transport.ready, what="the transport")
        transport.close()
        await running


async def test_a_peer_that_vanishes_is_noticed_by_its_consent(
    peer: WebRtcPeer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.05)
    monkeypatch.setattr("aioice.ice.CONSENT_FAILURES", 2)
    transport = make(await peer.offer("pcmu"))
    answer = await transport.answer(1, 2)
    running = asyncio.create_task(transport.run(5))
    await peer.answer(answer)
    await eventually(lambda: transport.ready, what="the transport")
    assert not running.done()

    peer.vanish()

    assert await running == Lost("the peer is no longer reached")


async def test_a_stranger_is_not_listened_to(peer: WebRtcPeer, make: Make) -> None:
    bad_stun = bytes.fromhex("000100042112a442") + bytes(12) + bytes.fromhex("00240000")  # PRIORITY without a value
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    transport = make(await peer.offer("pcmu"))
    answer = await transport.answer(1, 2)
    running = asyncio.create_task(transport.run(5))
    await peer.answer(answer)
    await eventually(lambda: transport.ready, what="the transport")
    port = int(candidates(answer)[0].split()[5])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (
            b"\x80\x00" + bytes(170),
            b"\x16\xfe\xfd" + bytes(50),
            b"\x00\x01" + bytes(30),
            b"",
            b"\x80",
            bad_stun,
        ):
            stranger.sendto(data, ("127.0.0.1", port))
    await eventually(lambda: transport.receive(), what="the peer's audio")

    assert not transport.dropped
    assert not running.done()
    assert not raised


@pytest.mark.parametrize(
    ("bind_ip", "api_host", "ipv6", "expected"),
    [
        (None, "0.0.0.0", False, ("192.0.2.1",)),
        (None, "0.0.0.0", True, ("192.0.2.1", "2001:db8::1")),
        ("0.0.0.0", "192.0.2.1", False, ("192.0.2.1",)),
        (None, "127.0.0.1", False, ("192.0.2.1", "127.0.0.1")),
        (None, "localhost", True, ("192.0.2.1", "2001:db8::1", "127.0.0.1", "::1")),
        ("192.0.2.9", "127.0.0.1", True, ("192.0.2.9",)),
        ("127.0.0.1", "192.0.2.1", False, ("127.0.0.1",)),
    ],
)
def test_loopback_is_offered_only_where_the_api_is_on_loopback(
    monkeypatch: pytest.MonkeyPatch, bind_ip: str | None, api_host: str, ipv6: bool, expected: tuple[str, ...]
) -> None:
    def found(*, use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return ["192.0.2.1"] * use_ipv4 + ["2001:db8::1"] * use_ipv6

    monkeypatch.setattr("aioice.ice.get_host_addresses", found)

    assert listening_addresses(bind_ip, api_host, ipv6=ipv6) == expected


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _stun_server(mapped: tuple[str, int]) -> tuple[asyncio.DatagramTransport, int]:
    """Answers every Binding request with the same address."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
            request = stun.parse_message(data)
            response = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
            response.attributes["XOR-MAPPED-ADDRESS"] = mapped
            self.transport.sendto(bytes(response), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    return transport, transport.get_extra_info("sockname")[1]
