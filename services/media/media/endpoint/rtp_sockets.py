"""The sockets of an RTP leg: a pair of ports from the configured range, and the address to tell the remote party."""

import random
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

from media.rtp.source import Address

_LARGEST_DATAGRAM = 2048
_BIND_ATTEMPTS = 200


class NoPort(Exception):
    """No free pair of ports in the configured range."""


class Sockets:
    """The RTP socket on an even port and the RTCP socket on the next one, non-blocking: an `RtpTransport`."""

    ready = True

    def __init__(self, rtp_socket: socket.socket, rtcp_socket: socket.socket) -> None:
        self.rtp = rtp_socket
        self.rtcp = rtcp_socket
        self.port: int = rtp_socket.getsockname()[1]
        self.dropped: Counter[str] = Counter()

    def receive(self) -> tuple[bytes, Address] | None:
        return _receive(self.rtp)

    def receive_control(self) -> tuple[bytes, Address] | None:
        return _receive(self.rtcp)

    def send(self, data: bytes, destination: Address) -> None:
        self.rtp.sendto(data, destination)

    def send_control(self, data: bytes, destination: Address) -> None:
        self.rtcp.sendto(data, destination)

    def close(self) -> None:
        """Give the ports back."""
        self.rtp.close()
        self.rtcp.close()


def open_sockets(
    host: str, first_port: int, last_port: int, choose: Callable[[int], int] = random.randrange
) -> Sockets:
    """A pair on a random even port of the range; 0 as the first lets the system choose.

    `choose(n)` gives a number below n. Raises NoPort.
    """
    first = first_port + first_port % 2
    pairs = max(0, (last_port - first + 1) // 2)
    ports = [first + 2 * choose(pairs) for _ in range(_BIND_ATTEMPTS)] if pairs and first else []
    if first and pairs <= _BIND_ATTEMPTS:
        ports += range(first, last_port, 2)
    for port in ports or ([0] * _BIND_ATTEMPTS if first_port == 0 else []):
        sockets = _bind_pair(host, port)
        if sockets is not None:
            return sockets
    raise NoPort(f"no free RTP port on {host} in {first_port}-{last_port}")


def local_address(bind_ip: str | None, external_ip: str | None, remote_host: str | None) -> str:
    """The address to tell the remote party; `remote_host` is a literal IP address or unknown."""
    if external_ip:
        return external_ip
    if bind_ip and not ip_address(bind_ip).is_unspecified:
        return bind_ip
    if remote_host:
        family = socket.AF_INET6 if ":" in remote_host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((remote_host, 9))  # sends nothing: asks the routing table
                return str(probe.getsockname()[0])
        except OSError:
            pass
    return "127.0.0.1"


def _receive(sock: socket.socket) -> tuple[bytes, Address] | None:
    """One datagram and its source, or None when there is none."""
    try:
        data, source = sock.recvfrom(_LARGEST_DATAGRAM)
    except BlockingIOError:
        return None
    except OSError:  # an ICMP error of something sent before; the next datagram comes with the next tick
        return None
    return data, (source[0], source[1])


def _bind_pair(host: str, port: int) -> Sockets | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened: list[socket.socket] = []
    try:
        for offset in (0, 1):
            sock = socket.socket(family, socket.SOCK_DGRAM)
            opened.append(sock)
            sock.setblocking(False)
            sock.bind((host, port + offset if port or not offset else opened[0].getsockname()[1] + 1))
    except (OSError, OverflowError):
        for sock in opened:
            sock.close()
        return None
    if opened[0].getsockname()[1] % 2:
        for sock in opened:
            sock.close()
        return None
    return Sockets(*opened)
