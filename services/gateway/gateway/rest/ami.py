"""Who may use `/ami/v1`: loopback addresses, and those that `[ami] allows` names (protocol 7.8). Pure."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from dialbus.config import ConfigError
from gateway.origin import address_of

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
        address = address_of(client or "")
        if address is None:
            return False
        return address.is_loopback or any(address in network for network in self._networks)
