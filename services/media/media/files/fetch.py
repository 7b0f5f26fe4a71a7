"""The one place where URLs that clients name are fetched: play, ringtone, moh, ambiance, mediaPass.

A URL is fetched on a client's behalf, so it must not reach what only we can reach: its host is resolved once, each of
its addresses is judged, the connection goes to a judged address (with the name of the URL in TLS and in `Host`), every
redirect is judged again, and size and time are limited.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from ssl import SSLContext
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException

from dialbus.config import FetchConfig
from media.files.addresses import Address, Reach, reach

MAX_REDIRECTS = 5
_CONNECT_S = 3.0
"""For each address of a host; the whole has the configured limit."""
_LARGEST_MESSAGE = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class FetchError(Exception):
    """A URL that can't be had; `str()` is the reason for the client and names no part of the URL but its host.

    `code` is as in HTTP. `temporary`: it may be had another time, the server or the way to it has failed.
    """

    def __init__(self, reason: str, code: int, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with its body."""

    body: bytes
    path: str
    """Of the URL that was redirected to last, percent-decoded."""
    headers: Mapping[str, str]
    """Names are case-blind."""


class NotModified:
    """The server says that what we have is what it has."""


NOT_MODIFIED = NotModified()


class Fetcher:
    """Fetches for clients, within `limits`."""

    def __init__(self, limits: FetchConfig) -> None:
        self._limits = limits
        # The usual certificates, and those that this machine trusts besides.
        self._tls: SSLContext = httpx.create_ssl_context(trust_env=False)
        self._tls.load_default_certs()

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched | NotModified:
        """GET over http or https; NotModified answers a conditional request. Raises FetchError."""
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await self._get(_parsed(url), dict(headers or {}))
        except TimeoutError:
            raise self._too_slow() from None

    async def websocket(self, url: str) -> ClientConnection:
        """An open connection over ws or wss. Raises FetchError."""
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await self._open(_parsed(url))
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> FetchError:
        return FetchError(f"no answer within {self._limits.timeout:g} s", 504, temporary=True)

    # -- HTTP -------------------------------------------------------------------------------------

    async def _get(self, url: httpx.URL, headers: dict[str, str]) -> Fetched | NotModified:
        # Proxies of the environment are not used: they would resolve the name anew, out of our sight.
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client:
            for _ in range(MAX_REDIRECTS + 1):
                answer = await self._get_once(client, url, headers)
                if not isinstance(answer, httpx.URL):
                    return answer
                url = answer
        raise FetchError("too many redirects", 502)

    async def _get_once(
        self, client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str]
    ) -> Fetched | NotModified | httpx.URL:
        """The answer, or where a redirect leads."""
        answer = await self._send(client, url, headers)
        try:
            if answer.status_code in _REDIRECTS and "Location" in answer.headers:
                return _redirected(url, answer.headers["Location"])
            if answer.status_code == 304:
                return NOT_MODIFIED
            if answer.status_code != 200:
                raise FetchError(f"the server answered {answer.status_code}", 502, temporary=answer.status_code >= 500)
            return Fetched(await self._body(answer), url.path, answer.headers)
        except httpx.HTTPError as error:
            raise _unreachable(error) from None
        finally:
            await answer.aclose()

    async def _send(self, client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        addresses = await self._addresses(url, ("http", "https"))
        for address in addresses:
            request = client.build_request(
                "GET",
                url.copy_with(host=str(address)),
                # A packed body could unfold to any size.
                headers={**headers, "Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
                extensions={"sni_hostname": url.host} if url.scheme == "https" else {},
            )
            try:
                return await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure: httpx.HTTPError = error
            except httpx.HTTPError as error:
                raise _unreachable(error) from None
        raise _unreachable(failure)

    async def _body(self, answer: httpx.Response) -> bytes:
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("the server sends it packed, unasked", 502)
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > self._limits.max_bytes:
                raise FetchError(f"more than {self._limits.max_bytes} bytes", 413)
        return bytes(body)

    # -- WebSocket --------------------------------------------------------------------------------

    async def _open(self, url: httpx.URL) -> ClientConnection:
        for _ in range(MAX_REDIRECTS + 1):
            opened = await self._open_once(url)
            if not isinstance(opened, httpx.URL):
                return opened
            url = opened
        raise FetchError("too many redirects", 502)

    async def _open_once(self, url: httpx.URL) -> ClientConnection | httpx.URL:
        """The connection, or where a redirect leads."""
        failure: Exception | None = None
        for address in await self._addresses(url, ("ws", "wss")):
            try:
                async with asyncio.timeout(_CONNECT_S):
                    return await self._handshake(url, address)
            except InvalidStatus as error:
                answer = error.response
                if answer.status_code in _REDIRECTS and "Location" in answer.headers:
                    return _redirected(url, answer.headers["Location"])
                raise FetchError(f"the server answered {answer.status_code}", 502) from None
            except InvalidURI:
                raise FetchError("not a URL of a WebSocket", 400) from None
            # AssertionError: what websockets raises when the peer talks, and says nonsense, before it was asked.
            except (OSError, EOFError, WebSocketException, TimeoutError, AssertionError) as error:
                failure = error
        raise _unreachable(failure)

    async def _handshake(self, url: httpx.URL, address: Address) -> ClientConnection:
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": url.host} if url.scheme == "wss" else {}
        return await _ConnectOnce(
            str(url),
            host=str(address),
            port=url.port or _DEFAULT_PORTS[url.scheme],
            proxy=None,
            compression=None,
            max_size=_LARGEST_MESSAGE,
            open_timeout=None,  # ours is around it
            close_timeout=1.0,
            **tls,
        )

    # -- addresses --------------------------------------------------------------------------------

    async def _addresses(self, url: httpx.URL, schemes: tuple[str, ...]) -> list[Address]:
        """Where the host is; every one of its addresses must be allowed. Raises FetchError."""
        if url.scheme not in schemes or not url.host:
            raise FetchError(f"only {' and '.join(f'{scheme}://' for scheme in schemes)} URLs can be fetched", 400)
        port = url.port or _DEFAULT_PORTS[url.scheme]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise FetchError(f"host not found: {url.host}: {error}", 502, temporary=True) from None
        addresses = list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
        if not addresses:
            raise FetchError(f"host not found: {url.host}", 502, temporary=True)
        if not all(self._allowed(address) for address in addresses):
            raise FetchError(f"{url.host} is at an address that may not be fetched from", 403)
        return addresses

    def _allowed(self, address: Address) -> bool:
        match reach(address):
            case Reach.PUBLIC:
                return True
            case Reach.PRIVATE:
                return self._limits.allow_private
            case Reach.LOOPBACK:
                return self._limits.allow_loopback
            case Reach.NEVER:
                return False


class _ConnectOnce(connect):
    """Redirects are ours to judge."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def masked(url: str) -> str:
    """The URL as a log may have it: without its password and its query, where signatures are kept."""
    before, mark, _ = url.partition("?")
    scheme, colon, rest = before.partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    if at:
        authority = f"{userinfo.partition(':')[0]}:***@{host}"
    shown = f"{scheme}{colon}{authority}{slash}{path}" if colon else before
    return f"{shown}?…" if mark else shown


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise FetchError("not a URL", 400) from None
    if url.port is not None and url.port > 65535:
        raise FetchError("not a URL: the port is beyond 65535", 400)
    return url


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return _parsed(str(url.join(location)))
    except (httpx.InvalidURL, FetchError):
        raise FetchError("the server redirects to what is no URL", 502) from None


def _unreachable(error: Exception | None) -> FetchError:
    match error:
        case TimeoutError():
            why = "no answer in time"
        case AssertionError():
            why = "the server talks before it is asked"
        case _:
            why = str(error) or type(error).__name__
    return FetchError(f"can't be fetched: {why}", 502, temporary=True)
