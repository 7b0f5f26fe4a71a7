"""SIP over UDP: datagrams and addresses, no SIP. Source: RFC 3261 §18."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import cast

from dialbus.config import HostPort
from dialbus.health import PortInUse
from sip_ua.errors import Unresolvable
from sip_ua.sip.transaction_layer import Address

DEFAULT_PORT = 5060
_RECEIVE_BUFFER_BYTES = 4 << 20
"""A burst of INVITEs waits in the kernel instead of being dropped."""


class UdpTransport(asyncio.DatagramProtocol):
    """One bound UDP socket. `on_datagram` is called for each datagram with its source."""

    def __init__(self, on_datagram: Callable[[bytes, Address], None]) -> None:
        self._on_datagram = on_datagram
        self._transport: asyncio.DatagramTransport | None = None
        self.host = ""
        self.port = 0

    @classmethod
    async def bind(cls, address: HostPort, on_datagram: Callable[[bytes, Address], None]) -> "UdpTransport":
        """Bind; port 0 takes a free one. Raises PortInUse naming `ua.udp_port`."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            sock.bind((address.host, address.port))
        except OSError as error:
            sock.close()
            raise PortInUse("ua.udp_port", address, error.strerror or str(error)) from None
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(lambda: cls(on_datagram), sock=sock)
        protocol.host, protocol.port = sock.getsockname()[:2]
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Called by the event loop."""
        self._on_datagram(data, Address(addr[0], addr[1]))

    def send(self, data: bytes, destination: Address) -> None:
        """Send a datagram. Raises OSError when the system refuses it at once, or the address is of no use."""
        if self._transport is None or self._transport.is_closing():
            raise OSError("the SIP socket is closed")
        try:
            self._transport.sendto(data, (destination.host, destination.port))
        except (ValueError, OverflowError) as error:  # the other address family; a port above 65535
            raise OSError(str(error)) from None

    def close(self) -> None:
        """Stop receiving; what was sent leaves."""
        if self._transport is not None:
            self._transport.close()


def local_address_towards(host: str) -> str:
    """The local IP address from which packets to this IP address leave; the loopback address if there is no route."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return "::1" if family == socket.AF_INET6 else "127.0.0.1"
        return str(probe.getsockname()[0])


def is_ip(host: str) -> bool:
    """Whether a URI's host needs no lookup."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def resolve(host: str, port: int | None, *, ipv6: bool = False) -> Address:
    """The address of a host: itself, or its first A (AAAA with `ipv6`) record. Raises Unresolvable."""
    where = port or DEFAULT_PORT
    if is_ip(host):
        return Address(host, where)
    family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, where, family=family, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise Unresolvable(f"{host}: {error.strerror or error}") from None
    if not found:
        raise Unresolvable(f"{host}: no address")
    return Address(str(found[0][4][0]), where)
