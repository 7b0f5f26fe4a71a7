"""Whose address counts: the peer's, or what a proxy that is trusted says of it. Pure.

`Forwarded` (RFC 7239), `X-Forwarded-For` and `X-Real-IP` count only from `[gateway] trusted_proxies`. From anybody else
they tell that the peer is not the one who asks, and so that nobody knows who does.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from dialbus.config import ConfigError
from gateway.origin import Address, Headers, address_of

_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;\s]*))', re.IGNORECASE)
_HOP = re.compile(r"\[([^\]]+)\](?::[\w.-]+)?|([^:\[\]]+)(?::[\w.-]+)?|([^\[\]]+)")


class Proxies:
    """The list, understood. Raises ConfigError for an entry that is neither an address nor a network."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in trusted:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                raise ConfigError(
                    f"gateway.trusted_proxies: neither an address nor a network: {entry[:64]!r}"
                ) from None

    def client(self, peer: str | None, headers: Headers) -> str | None:
        """The address of whoever asks; None when nobody who is trusted tells it.

        Each header is read from its end, past the proxies that are trusted. When two of them disagree, one may be
        what the client itself wrote.
        """
        chains = [chain for chain in (_forwarded(headers), _x_forwarded_for(headers), _x_real_ip(headers)) if chain]
        if not chains:
            return peer
        address = address_of(peer or "")
        if address is None or not self._trusts(address):
            return None
        found = {self._first_stranger(chain) for chain in chains}
        return found.pop() if len(found) == 1 else None

    def _first_stranger(self, chain: Sequence[str]) -> str | None:
        address = None
        for hop in reversed(chain):
            address = _address_of_hop(hop)
            if address is None or not self._trusts(address):
                break
        return None if address is None else str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address_of_hop(hop: str) -> Address | None:
    """Of `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`; not of `unknown` or `_hidden`."""
    match = _HOP.fullmatch(hop.strip())
    return address_of(match[1] or match[2] or match[3]) if match else None


def _x_forwarded_for(headers: Headers) -> list[str]:
    return [hop for line in headers.get("x-forwarded-for", ()) for hop in line.split(",")]


def _x_real_ip(headers: Headers) -> list[str]:
    return list(headers.get("x-real-ip", ()))


def _forwarded(headers: Headers) -> list[str]:
    hops = []
    for element in (part for line in headers.get("forwarded", ()) for part in line.split(",")):
        match = _FOR.search(element)
        hops.append((match[1] or match[2] or "") if match else "")
    return hops
