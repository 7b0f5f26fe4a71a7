"""Free ports for programs that cannot take port 0."""

import itertools
import random
import socket
from collections.abc import Iterator

_RANGE = range(10_000, 12_000)
"""Below what the system gives for port 0, and below the RTP ports of the ensemble, so that hardly anybody takes a port
between the check and its use."""
_START = random.randrange(len(_RANGE))
_ports: Iterator[int] = itertools.cycle([*_RANGE[_START:], *_RANGE[:_START]])
"""Each is given out once before any comes again, so that two asked for together are never the same."""


def free_port(span: int = 1) -> int:
    """The first of `span` ports of 127.0.0.1 in a row that nobody listens on, over UDP or TCP."""
    while True:
        ports = [next(_ports) for _ in range(span)]
        if ports[-1] - ports[0] == span - 1 and all(_is_free(port) for port in ports):
            return ports[0]


def is_bound(port: int) -> bool:
    """Whether somebody listens on a UDP port of 127.0.0.1. It does not take the port to find out, not for a moment."""
    with open("/proc/net/udp") as sockets:
        return any(line.split()[1] == f"0100007F:{port:04X}" for line in sockets)


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
