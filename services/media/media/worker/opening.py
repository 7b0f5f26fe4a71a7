"""From `AllocateLeg` to the endpoint of its kind."""

import asyncio
import random
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, cast

from dialbus import telemetry
from dialbus.bus import Bus, Refused
from dialbus.config import Config
from dialbus.contracts.media import AllocateLeg, RemoteMedia
from media.audio.codec import UnknownCodecError
from media.endpoint.endpoint import Endpoint
from media.endpoint.rtp import RtpEndpoint, RtpTransport
from media.endpoint.rtp_sockets import NoPort, local_address, open_sockets
from media.endpoint.socket import SocketEndpoint
from media.rtp.source import MediaSource, ProvenSource, Source
from media.webrtc import sdp
from media.webrtc.ice import IceSettings, listening_addresses
from media.webrtc.servers import parse_servers
from media.webrtc.transport import PEER, NoCandidate, WebRtcTransport

_random = random.SystemRandom()
log = telemetry.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """An endpoint, and what the owner is told of it."""

    endpoint: Endpoint
    address: str = ""
    port: int = 0
    sdp: str | None = None
    webrtc: WebRtcTransport | None = None
    """To be run, so that it connects."""


class EndpointOpener:
    """Opens endpoints with this worker's settings; each kind of leg has its branch here."""

    def __init__(self, bus: Bus, config: Config) -> None:
        self._bus = bus
        self._config = config
        self._ice_servers, faults = parse_servers(config.ice_servers or ())
        for fault in faults:
            log.warning("ice.server_left_out", fault=fault)

    async def open(self, request: AllocateLeg) -> Opened:
        """The endpoint that a leg asks for. Raises Refused."""
        if request.kind == "rtp":
            return await self._rtp(request)
        if request.kind == "socket":
            return await self._socket(request)
        return await self._webrtc(request)

    async def _rtp(self, request: AllocateLeg) -> Opened:
        config = self._config
        is_v6 = request.remote_host is not None and ":" in request.remote_host
        host = config.rtp_bind_ip or ("::" if is_v6 else "0.0.0.0")
        try:
            sockets = open_sockets(host, config.rtp_start_port, config.rtp_end_port, _random.randrange)
        except NoPort as error:
            raise Refused(503, str(error)) from None
        endpoint = _rtp_endpoint(
            sockets, MediaSource(latching=config.enable_rtp_latching, strangers=config.rtp.latching == "any")
        )
        address = local_address(config.rtp_bind_ip, config.external_ip, await literal(request.remote_host))
        return Opened(endpoint, address, sockets.port)

    async def _webrtc(self, request: AllocateLeg) -> Opened:
        """The answer waits for the candidates that STUN and TURN servers give, at most 1.5 s."""
        codecs = {"opus", *self._config.codecs}
        try:
            offer = sdp.parse_offer(request.offer or "", codecs, ipv6=request.enable_ipv6)
        except sdp.NothingInCommon as error:
            raise Refused(488, str(error)) from None
        except sdp.OfferError as error:
            raise Refused(400, str(error)) from None
        transport = WebRtcTransport(offer, self._ice_settings(ipv6=request.enable_ipv6))
        endpoint = _rtp_endpoint(transport, ProvenSource(PEER))
        try:
            answer = await transport.answer(_random.randrange(1, 1 << 62), endpoint.ssrc)
        except NoCandidate as error:
            endpoint.close()
            raise Refused(503, str(error)) from None
        except BaseException:
            endpoint.close()
            raise
        endpoint.connect(
            RemoteMedia(
                address=PEER[0],
                port=PEER[1],
                codec=cast(Literal["pcmu", "pcma", "g722", "opus"], offer.codec.name),
                payload_type=offer.payload_type,
                telephone_event_pt=offer.telephone_event[0] if offer.telephone_event is not None else None,
                telephone_event_hz=offer.telephone_event[1] if offer.telephone_event is not None else None,
                direction=offer.direction,
            ),
            asyncio.get_running_loop().time(),
        )
        return Opened(endpoint, sdp=answer, webrtc=transport)

    def _ice_settings(self, *, ipv6: bool) -> IceSettings:
        config = self._config
        addresses = listening_addresses(config.rtp_bind_ip, config.http_addr.host, ipv6=ipv6)
        return IceSettings(
            addresses=addresses,
            first_port=config.rtp_start_port,
            last_port=config.rtp_end_port,
            servers=self._ice_servers,
            external_ip=config.external_ip,
            names=any(not ip_address(address).is_loopback for address in addresses),
        )

    async def _socket(self, request: AllocateLeg) -> Opened:
        ssrc = _random.randrange(1, 1 << 32)
        try:
            endpoint = SocketEndpoint(self._bus, request.call_id, request.codec, request.rate_hz, ssrc)
        except UnknownCodecError:
            raise Refused(400, f"unknown codec {request.codec!r}; known are pcm, pcmu, pcma, g722") from None
        await endpoint.open()
        return Opened(endpoint)


def _rtp_endpoint(transport: RtpTransport, source: Source) -> RtpEndpoint:
    return RtpEndpoint(
        transport,
        source,
        ssrc=_random.randrange(1, 1 << 32),
        sequence=_random.randrange(1 << 15),  # far from its wrap, as RFC 3711 has it
        timestamp=_random.randrange(1 << 32),
    )


async def literal(host: str | None) -> str | None:
    """The IP address of a host; None when there is none."""
    if host is None:
        return None
    with suppress(ValueError):
        return str(ip_address(host))
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 9, type=socket.SOCK_DGRAM, family=socket.AF_INET)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0]) if found else None
