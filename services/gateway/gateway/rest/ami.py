"""Who may use `/ami/v1`: loopback addresses, and those that `[ami] allows` names (protocol 7.8). Pure."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from dialbus.config import ConfigError

EVERYBODY = "*"


class Allowed:
    """The list, understood. Raises ConfigError for an entry that is neither an address nor a network nor `*`."""

    def __init__(self, allows: Sequence[str]) -> None:
        self._everybody = EVERYBODY in allows
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in allows:
            if entry == EVERYBODY:
                continue
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                raise ConfigError(f"ami.allows: neither an address nor a network: {entry[:64]!r}") from None

    def admits(self, client: str | None) -> bool:
        """Whether a client of this address may come in."""
        if self._everybody:
            return True
        address = _address(client or "")
        if address is None:
            return False
        return address.is_loopback or any(address in network for network in self._networks)


def is_foreign_page(origin: str | None, host: str | None) -> bool:
    """Whether a browser says that a page of another server asks.

    Such a page must not end calls only because the person who looks at it sits at an address that is allowed.
    """
    return origin is not None and urlsplit(origin).netloc.lower() != (host or "").lower()


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
