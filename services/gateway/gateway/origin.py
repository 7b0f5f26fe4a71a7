"""Whom a browser speaks for: which `Host` is ours, and which pages may ask (protocol section 1, SECURITY.md).

A browser lends every page its place in the network. Two headers that no page can forge tell of it: `Host` is the name
under which the browser looked us up, so that a name which was rebound to our address shows; `Origin` (and
`Sec-Fetch-Site`, RFC 6454 and the Fetch standard) is where the page came from. Programs send no more than `Host`. Pure.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from dialbus.config import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Headers = Mapping[str, Sequence[str]]
"""Values by the name in lower case, in the order in which they came."""

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CHANGING_PATHS: Final = ("/kill/",)
"""Beginnings of paths that change something although they are asked for by GET."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to a request that may not come in."""

    status: int
    reason: str


class Doors:
    """The settings, understood. Raises ConfigError for a host or an origin that is none."""

    def __init__(
        self, http_host: str, *, external_ip: str | None = None, hosts: Sequence[str] = (), origins: Sequence[str] = ()
    ) -> None:
        """`http_host`: where `http_addr` listens. `hosts`, `origins`: those of `[gateway]`."""
        self._names = {"localhost"}
        self._networks: list[Network] = []
        for entry in (http_host, *((external_ip,) if external_ip else ()), *hosts):
            self._learn(entry)
        self._origins = {_listed_origin(origin) for origin in origins}

    def judge(
        self, method: str, path: str, headers: Headers, *, reached: str | None = None, socket: bool = False
    ) -> Refused | None:
        """None: come in. `reached` is the address of ours that the connection came to."""
        for host in headers.get("host", ()):
            if not self._is_ours(host, reached):
                return Refused(421, f"host not ours: {host[:_SHOWN]} (see [gateway] hosts)")
        if self.admits_page(headers):
            return None if socket else _judge_body(method, headers)
        if "origin" in headers:
            if not _is_same_origin(headers):
                return Refused(403, f"not for pages of {headers['origin'][0][:_SHOWN]} (see [gateway] origins)")
            # Browsers do not agree on what the site of a ws: URL is; what they say of its page's origin is enough.
            foreign = not socket and "cross-site" in headers.get("sec-fetch-site", ())
        else:
            foreign = not {"cross-site", "same-site"}.isdisjoint(headers.get("sec-fetch-site", ()))
        if foreign:
            return Refused(403, "not for pages of other servers (see [gateway] origins)")
        if method == "GET" and path.startswith(CHANGING_PATHS) and _may_be_any_page(headers):
            return Refused(403, "not by GET from a browser: use POST")
        return None if socket else _judge_body(method, headers)

    def admits_page(self, headers: Headers) -> bool:
        """Whether it is a page of another server that asks, and `[gateway] origins` names that server."""
        origins = headers.get("origin", ())
        return len(origins) == 1 and origins[0].lower() in self._origins

    def _learn(self, entry: str) -> None:
        bare = entry.strip("[]")
        try:
            self._networks.append(ip_network(bare.partition("%")[0], strict=False))
        except ValueError:
            if _NAME.fullmatch(bare) is None:
                raise ConfigError(
                    f"gateway.hosts: a name, an address or a network, without a port: {entry[:64]!r}"
                ) from None
            self._names.add(_plain(bare))

    def _is_ours(self, text: str, reached: str | None) -> bool:
        match = _HOST.fullmatch(text.strip())
        if match is None:
            return False
        address = address_of(match[1].strip("[]"))
        if address is None:
            return _plain(match[1]) in self._names
        if address.is_loopback or address == address_of(reached or ""):
            return True
        return any(address in network for network in self._networks)


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """Headers as ASGI has them, by their names."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def address_of(text: str) -> Address | None:
    """The address that a text is, IPv4 also when it is written as IPv6."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _listed_origin(origin: str) -> str:
    parts = urlsplit(origin)
    if not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
        raise ConfigError(f"gateway.origins: an origin is scheme://host[:port] and no more: {origin[:64]!r}")
    return origin.lower()


def _is_same_origin(headers: Headers) -> bool:
    """Whether the page came from the very host and port that it asks.

    The scheme may differ: who ends TLS in front of us is a proxy.
    """
    origins, hosts = headers.get("origin", ()), headers.get("host", ())
    if len(origins) != 1 or len(hosts) != 1:
        return False
    scheme, separator, authority = origins[0].lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    if not separator or default is None:
        return False
    page, asked = _HOST.fullmatch(authority), _HOST.fullmatch(hosts[0].lower())
    if page is None or asked is None:
        return False
    return _plain(page[1]) == _plain(asked[1]) and int(page[2] or default) == int(asked[2] or default)


def _may_be_any_page(headers: Headers) -> bool:
    """Whether this is a browser that does not say for whom.

    An image of any page is asked for without an `Origin`, over plain HTTP from another machine without a
    `Sec-Fetch-Site`, too. What a browser is, a page can change as little: its agent, and that it has a language.
    """
    is_browser = "accept-language" in headers and any("Mozilla/" in agent for agent in headers.get("user-agent", ()))
    return is_browser and "origin" not in headers and "sec-fetch-site" not in headers


def _judge_body(method: str, headers: Headers) -> Refused | None:
    """A page can send any body as text/plain without being asked; JSON needs our consent first."""
    if method in READING or "origin" not in headers:
        return None
    if "transfer-encoding" not in headers and headers.get("content-length", ["0"]) == ["0"]:
        return None
    types = {value.partition(";")[0].strip().lower() for value in headers.get("content-type", ())}
    return None if types == {"application/json"} else Refused(415, "pages send application/json")
