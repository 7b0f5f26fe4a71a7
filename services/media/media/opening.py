"""From `AllocateLeg` to the endpoint of its kind."""

import asyncio
import random
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from dialbus.bus import Bus, Refused
from dialbus.config import Config
from dialbus.contracts.media import AllocateLeg
from media.audio.codec import UnknownCodecError
from media.endpoint import Endpoint, NoPort, RtpEndpoint, local_address, open_sockets
from media.socket_endpoint import SocketEndpoint

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Opened:
    """An endpoint, and what the owner is told of it."""

    endpoint: Endpoint
    address: str = ""
    port: int = 0
    sdp: str | None = None


class EndpointOpener:
    """Opens endpoints with this worker's settings; each kind of leg has its branch here."""

    def __init__(self, bus: Bus, config: Config) -> None:
        self._bus = bus
        self._config = config

    async def open(self, request: AllocateLeg) -> Opened:
        """The endpoint that a leg asks for. Raises Refused."""
        if request.kind == "rtp":
            return await self._rtp(request)
        if request.kind == "socket":
            return await self._socket(request)
        raise Refused(503, f"{request.kind}: not accepted here")

    async def _rtp(self, request: AllocateLeg) -> Opened:
        config = self._config
        is_v6 = request.remote_host is not None and ":" in request.remote_host
        host = config.rtp_bind_ip or ("::" if is_v6 else "0.0.0.0")
        try:
            sockets = open_sockets(host, config.rtp_start_port, config.rtp_end_port, _random.randrange)
        except NoPort as error:
            raise Refused(503, str(error)) from None
        endpoint = RtpEndpoint(
            sockets,
            latching=config.enable_rtp_latching,
            ssrc=_random.randrange(1, 1 << 32),
            sequence=_random.randrange(1 << 15),  # far from its wrap, as RFC 3711 has it
            timestamp=_random.randrange(1 << 32),
        )
        address = local_address(config.rtp_bind_ip, config.external_ip, await literal(request.remote_host))
        return Opened(endpoint, address, endpoint.port)

    async def _socket(self, request: AllocateLeg) -> Opened:
        ssrc = _random.randrange(1, 1 << 32)
        try:
            endpoint = SocketEndpoint(self._bus, request.call_id, request.codec, request.rate_hz, ssrc)
        except UnknownCodecError:
            raise Refused(400, f"unknown codec {request.codec!r}; known are pcm, pcmu, pcma, g722") from None
        await endpoint.open()
        return Opened(endpoint)


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
