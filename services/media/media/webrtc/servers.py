"""STUN and TURN servers by their URLs. Sources: RFC 7064, RFC 7065."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from dialbus.config import IceServer

_URL = re.compile(
    r"(?P<scheme>stuns?|turns?):(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE,
)


class ServerUrlError(ValueError):
    """A URL of a server that can't be used."""


@dataclass(frozen=True, slots=True)
class StunServer:
    """Tells what our address is outside."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"stun:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TurnServer:
    """Relays for us."""

    host: str
    port: int
    transport: Literal["udp", "tcp"]
    tls: bool
    username: str | None
    credential: str | None = field(repr=False)

    def __str__(self) -> str:
        return f"turn{'s' if self.tls else ''}:{self.host}:{self.port}?transport={self.transport}"


@dataclass(frozen=True, slots=True)
class IceServers:
    """All of them."""

    stun: tuple[StunServer, ...] = ()
    turn: tuple[TurnServer, ...] = ()


def parse_servers(configured: Iterable[IceServer]) -> tuple[IceServers, list[str]]:
    """The servers of the settings, and what is wrong with those that are left out."""
    stun: list[StunServer] = []
    turn: list[TurnServer] = []
    faults: list[str] = []
    for entry in configured:
        for url in entry.urls:
            try:
                server = _parse(url, entry.username, entry.credential)
            except ServerUrlError as error:
                faults.append(f"{url}: {error}")
                continue
            if isinstance(server, StunServer):
                stun.append(server)
            else:
                turn.append(server)
    return IceServers(tuple(dict.fromkeys(stun)), tuple(dict.fromkeys(turn))), faults


def _parse(url: str, username: str | None, credential: str | None) -> StunServer | TurnServer:
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise ServerUrlError("not a URL of a STUN or TURN server")
    scheme, host = match["scheme"].lower(), match["host"].strip("[]")
    tls = scheme in ("stuns", "turns")
    port = int(match["port"] or (5349 if tls else 3478))
    if not 0 < port < 65536:
        raise ServerUrlError("no such port")
    transport: Literal["udp", "tcp"] = (
        "tcp" if (match["transport"] or ("tcp" if tls else "udp")).lower() == "tcp" else "udp"
    )
    if scheme == "stuns":
        raise ServerUrlError("STUN over TLS is not supported")
    if scheme == "stun":
        return StunServer(host, port)
    if tls and transport == "udp":
        raise ServerUrlError("TURN over DTLS is not supported")
    return TurnServer(host, port, transport, tls, username, credential)
