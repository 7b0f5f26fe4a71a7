"""ICE for one leg: aioice's agent on our ports and addresses, with its data handed over as it comes. Source: RFC 8445.

What is ours: which addresses and ports are used, several STUN and TURN servers within a time limit, and datagrams that
go straight to and from the leg instead of through a queue and a task.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import aioice.ice
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.stun import TransactionError

from dialbus import telemetry
from dialbus.tasks import TaskSet
from media.webrtc.candidate import Candidate
from media.webrtc.servers import IceServers, StunServer, TurnServer

GATHER_LIMIT_S = 1.5
"""How long STUN and TURN servers may take; the answer waits for them."""

_BIND_ATTEMPTS = 50
_RECEIVE_BUFFER_BYTES = 1 << 18
_MAX_PEERS = 64
_MAX_REMOTE = 100

_random = random.SystemRandom()
log = telemetry.get_logger()


@dataclass(frozen=True, slots=True)
class IceSettings:
    """Where an agent listens, whom it asks for its addresses, and what it tells of them."""

    addresses: tuple[str, ...]
    """Local ones to bind to."""
    first_port: int
    last_port: int
    servers: IceServers
    external_ip: str | None = None
    """What the first address of its family is known as outside (one-to-one NAT)."""
    names: bool = True
    """Whether `.local` names are looked up, by multicast."""


class IceAgent(aioice.ice.Connection):
    """The agent of one leg. `on_data` gets each datagram of the peer that is no STUN, as it arrives."""

    def __init__(self, settings: IceSettings, on_data: Callable[[bytes], None], *, controlling: bool) -> None:
        super().__init__(ice_controlling=controlling)
        self._settings = settings
        self._on_data = on_data
        self._peers: set[tuple[str, int]] = set()
        self._remote_ended = False
        self._lookups = TaskSet()

    # -- our candidates ---------------------------------------------------------------------------

    async def gather(self) -> tuple[Candidate, ...]:
        """Every candidate of ours, once; servers that don't answer within `GATHER_LIMIT_S` are left out."""
        await self.gather_candidates()
        found = [_ours(item) for item in self.local_candidates]
        return tuple(found + self._external(found))

    async def gather_candidates(self) -> None:
        """Of aioice: marks the gathering as done."""
        if not self._local_candidates_start:
            self._local_candidates_start = True
            self._local_candidates += await self._find_candidates()
            self._local_candidates_end = True

    async def _find_candidates(self) -> list[aioice.Candidate]:
        hosts = [protocol for address in self._settings.addresses if (protocol := await self._bind(address))]
        candidates = [protocol.local_candidate for protocol in hosts]
        queries = [self._ask_stun(protocol, server) for server in self._settings.servers.stun for protocol in hosts]
        queries += [self._ask_turn(server) for server in self._settings.servers.turn]
        tasks = [asyncio.create_task(query, name="ice query") for query in queries]
        try:
            answered = (await asyncio.wait(tasks, timeout=GATHER_LIMIT_S))[0] if tasks else set()
        finally:
            for task in tasks:
                task.cancel()
        known = {(item.host, item.port) for item in candidates}
        for task in tasks:
            found = task.result() if task in answered else None
            if found is not None and (found.host, found.port) not in known:
                known.add((found.host, found.port))
                candidates.append(found)
        return candidates

    async def _bind(self, address: str) -> "_Protocol | None":
        """A socket on a free port of the range; None when the address can't be used."""
        loop = asyncio.get_running_loop()
        first, last = self._settings.first_port, self._settings.last_port
        for _ in range(_BIND_ATTEMPTS):
            port = _random.randrange(first, last + 1) if first else 0
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: _Protocol(self), local_addr=(address, port)
                )
            except OSError as error:
                log.debug("ice.bind_failed", address=address, port=port, error=str(error))
                continue
            self._protocols.append(protocol)
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            host, port = transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = aioice.Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=1,
                transport="udp",
                priority=candidate_priority(1, "host"),
                host=host,
                port=port,
                type="host",
            )
            return protocol
        log.warning("ice.no_port", address=address)
        return None

    async def _ask_stun(self, protocol: "_Protocol", server: StunServer) -> aioice.Candidate | None:
        if ip_address(protocol.local_candidate.host).version != 4:
            return None
        try:
            candidate, _ = await aioice.ice.server_reflexive_candidate(protocol, (server.host, server.port))
        except (OSError, TransactionError, KeyError) as error:
            log.warning("ice.stun_failed", server=str(server), error=str(error))
            return None
        return candidate

    async def _ask_turn(self, server: TurnServer) -> aioice.Candidate | None:
        try:
            candidate, protocol = await aioice.ice.relayed_candidate(
                component=1,
                hide_related_address=False,
                protocol_factory=lambda: _Protocol(self),
                turn_server=(server.host, server.port),
                turn_username=server.username,
                turn_password=server.credential,
                turn_ssl=server.tls,
                turn_transport=server.transport,
            )
        except (OSError, TransactionError, KeyError) as error:
            log.warning("ice.turn_failed", server=str(server), error=str(error))
            return None
        self._protocols.append(protocol)
        return candidate

    def _external(self, found: Sequence[Candidate]) -> list[Candidate]:
        external = self._settings.external_ip
        if external is None or any(item.address == external for item in found):
            return []
        inside = [item for item in found if item.kind == "host" and item.is_ipv6 == (":" in external)]
        foundation = candidate_foundation("host", "udp", external)
        return [
            Candidate(foundation, 1, "udp", item.priority - 256, external, item.port, "host") for item in inside[:1]
        ]

    # -- the peer's -------------------------------------------------------------------------------

    def add_remote(self, candidate: Candidate | None) -> None:
        """One more candidate of the peer; None says that there will be none. What we can't use is ignored."""
        if self._remote_ended:
            return
        if candidate is None:
            self._remote_ended = True
            self._in_background(None)
        elif candidate.is_usable and candidate.kind != "prflx" and len(self.remote_candidates) < _MAX_REMOTE:
            if candidate.is_mdns and (not self._settings.names or len(self._lookups) >= _MAX_PEERS):
                return  # the peer's own checks will show its address
            if not candidate.is_mdns and not _is_address(candidate.address):
                return  # names other than mDNS are not looked up on a stranger's behalf (RFC 8839 §5.1)
            self._in_background(_theirs(candidate))

    def _in_background(self, candidate: aioice.Candidate | None) -> None:
        self._lookups.start(self._add_remote(candidate), name="ice candidate")

    async def _add_remote(self, candidate: aioice.Candidate | None) -> None:
        with suppress(ValueError, OSError):  # after the end; no multicast here
            await self.add_remote_candidate(candidate)

    def check_incoming(self, message: Any, addr: tuple[str, int], protocol: aioice.ice.StunProtocol) -> None:
        """Of aioice: an authenticated check came from `addr`, which may send data from now on."""
        if addr not in self._peers and len(self._peers) >= _MAX_PEERS:
            return  # nobody has so many addresses
        self._peers.add(addr)
        super().check_incoming(message, addr, protocol)

    # -- data -------------------------------------------------------------------------------------

    def data_from(self, data: bytes, source: tuple[str, int]) -> None:
        """A datagram that is no STUN; strangers, who have passed no check, are not listened to."""
        if source in self._peers or any(pair.remote_addr == source for pair in self._nominated.values()):
            self._on_data(data)

    def data_received(self, data: bytes, component: int) -> None:
        """Of aioice: what only looks like STUN. It would wait in a queue that nobody empties."""

    def send_now(self, data: bytes) -> bool:
        """Send a datagram to the peer without waiting; False while there is no way to it."""
        pair = self._nominated.get(1)
        if pair is None:
            return False
        pair.protocol.transport.sendto(data, pair.remote_addr)
        return True

    @property
    def path(self) -> str:
        """The pair of candidates in use, for people; empty while there is none."""
        pair = self._nominated.get(1)
        if pair is None:
            return ""
        ours, theirs = pair.local_candidate, pair.remote_candidate
        return f"{ours.type} {ours.host}:{ours.port} - {theirs.type} {theirs.host}:{theirs.port}"

    async def lost(self) -> None:
        """Wait until the agent is closed: by us, or because the peer no longer consents (RFC 7675)."""
        await self.get_event()

    async def close(self) -> None:
        """Give back ports and relays."""
        self._lookups.cancel()
        await super().close()


def listening_addresses(bind_ip: str | None, api_host: str, *, ipv6: bool) -> tuple[str, ...]:
    """Where agents listen: at `bind_ip`, else at every address of this machine that others may know.

    Loopback is among them only when the API (`api_host`) is on loopback itself: everything is on one machine then.
    """
    if bind_ip is not None and not ip_address(bind_ip).is_unspecified:
        return (bind_ip,)
    found = aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=ipv6)
    if _is_loopback(api_host):
        found += ["127.0.0.1", "::1"] if ipv6 else ["127.0.0.1"]
    return tuple(found)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


class _Protocol(aioice.ice.StunProtocol):
    """Tells STUN from data by the first octet (RFC 7983) and hands data over at once."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        assert isinstance(data, bytes)
        if data and data[0] > 3:
            agent = self.receiver
            assert isinstance(agent, IceAgent)
            agent.data_from(data, (addr[0], addr[1]))
            return
        try:
            super().datagram_received(data, addr)
        except Exception as error:  # the boundary of a datagram: anybody may send STUN that aioice stumbles over
            log.debug("ice.bad_stun", source=f"{addr[0]}:{addr[1]}", error=repr(error))


def _ours(item: aioice.Candidate) -> Candidate:
    related = None
    if item.related_address is not None and item.related_port is not None:
        related = (item.related_address, item.related_port)
    return Candidate(
        item.foundation, item.component, item.transport, item.priority, item.host, item.port, item.type, related
    )


def _theirs(item: Candidate) -> aioice.Candidate:
    return aioice.Candidate(
        foundation=item.foundation,
        component=item.component,
        transport=item.transport,
        priority=item.priority,
        host=item.address,
        port=item.port,
        type=item.kind,
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
