"""Which addresses a URL of a client's may lead to: a list of our own, by the IANA special-purpose registries.

Python's `is_global` is not asked: what it lets through differs between versions (192.0.0.0/24, NAT64), and it does not
know the addresses at which clouds tell their machines secrets. IPv4: RFC 6890 and its registry; IPv6: only what lies in
2000::/3 is global unicast (RFC 4291 §2.4), so that all else is refused unless it is listed.
"""

from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address


class Reach(Enum):
    """From where an address is reached, and so who may be sent there."""

    PUBLIC = auto()
    """From anywhere: a client could go there itself."""
    PRIVATE = auto()
    """From a network that its operator chose."""
    LOOPBACK = auto()
    """From this machine."""
    NEVER = auto()
    """No server of prompts is there: multicast, reserved, link-local, the protocols' own, clouds' metadata."""


def _v4(*networks: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, networks))


def _v6(*networks: str) -> tuple[IPv6Network, ...]:
    return tuple(map(IPv6Network, networks))


# The first list that has the address decides; NEVER first, since some of it lies within what is private.
_NEVER_4 = _v4(
    "0.0.0.0/8",  # this network, RFC 791; Linux connects 0.0.0.0 to itself
    "100.100.100.200/32",  # Alibaba Cloud: metadata, within the shared addresses
    "168.63.129.16/32",  # Azure: its host agent, a public address that every machine there reaches
    "169.254.0.0/16",  # link-local, RFC 3927; metadata and credentials of most clouds
    "192.0.0.0/24",  # IETF protocol assignments, RFC 6890; 192.0.0.192: Oracle Cloud, metadata
    "192.88.99.0/24",  # 6to4 relays, RFC 7526: withdrawn
    "224.0.0.0/4",  # multicast, RFC 5771
    "240.0.0.0/4",  # reserved, RFC 1112; the limited broadcast
)
_PRIVATE_4 = _v4(
    "10.0.0.0/8",  # RFC 1918
    "100.64.0.0/10",  # shared by carriers, RFC 6598
    "172.16.0.0/12",  # RFC 1918
    "192.0.2.0/24",  # documentation, RFC 5737
    "192.168.0.0/16",  # RFC 1918
    "198.18.0.0/15",  # benchmarks, RFC 2544
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
)
_LOOPBACK_4 = _v4("127.0.0.0/8")

_NEVER_6 = _v6(
    "2001::/23",  # IETF protocol assignments, RFC 2928: Teredo, whose addresses hide IPv4 ones, ORCHID, benchmarks, …
    "fd00:ec2::/32",  # AWS: metadata
    "fd20:ce::254/128",  # Google Cloud: metadata
)
_PRIVATE_6 = _v6(
    "64:ff9b:1::/48",  # NAT64 into a network that its operator chose, RFC 8215
    "2001:db8::/32",  # documentation, RFC 3849
    "3fff::/20",  # documentation, RFC 9637
    "fc00::/7",  # unique local, RFC 4193
    "fec0::/10",  # site-local, RFC 3879: deprecated, but private where it is still in use
)
_LOOPBACK_6 = _v6("::1/128")
_UNICAST_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052


def reach(address: Address) -> Reach:
    """Where an address lies; one that stands for an IPv4 address lies where that does."""
    if isinstance(address, IPv4Address):
        return _listed(address, _NEVER_4, _PRIVATE_4, _LOOPBACK_4) or Reach.PUBLIC
    if (mapped := address.ipv4_mapped) is not None:
        return reach(mapped)  # the system itself takes it for that
    if (beyond := _translated(address)) is not None:
        found = reach(beyond)
        return Reach.NEVER if found is Reach.LOOPBACK else found  # of the translator, not ours
    found_6 = _listed(address, _NEVER_6, _PRIVATE_6, _LOOPBACK_6)
    return found_6 or (Reach.PUBLIC if address in _UNICAST_6 else Reach.NEVER)


def _listed(
    address: Address,
    never: tuple[IPv4Network, ...] | tuple[IPv6Network, ...],
    private: tuple[IPv4Network, ...] | tuple[IPv6Network, ...],
    loopback: tuple[IPv4Network, ...] | tuple[IPv6Network, ...],
) -> Reach | None:
    for networks, found in ((never, Reach.NEVER), (private, Reach.PRIVATE), (loopback, Reach.LOOPBACK)):
        if any(address in network for network in networks):
            return found
    return None


def _translated(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator sends to in place of this one (NAT64, 6to4), if any."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour
