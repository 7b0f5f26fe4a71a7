"""Files that a client asks to be played: from below one root, or over http(s), within limits (protocol 2.6).

A URL is fetched on a client's behalf, so it must not reach what only we can reach: its host is resolved once, each of
its addresses is judged, the connection goes to a judged address, and every redirect is judged again.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import httpx
import numpy as np
import numpy.typing as npt

from media import wav
from media.audio.resample import resample

Pcm = npt.NDArray[np.int16]

TIME_LIMIT_S = 10.0
SIZE_LIMIT_BYTES = 50 << 20
_MOST_REDIRECTS = 5
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_WAV_TYPES = {"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}


class LoadError(Exception):
    """A file that can't be played; `str()` is the reason for the client, `code` as in HTTP."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Loader:
    """Gives files as PCM."""

    def __init__(self, media_path: Path, *, allow_loopback: bool = False) -> None:
        self._root = media_path
        self._allow_loopback = allow_loopback

    async def load(self, url: str, rate_hz: int) -> Pcm:
        """The whole file as int16[n] mono at `rate_hz`. Raises LoadError."""
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                if url.lower().startswith(("http://", "https://")):
                    data = await self._fetch(url)
                else:
                    data = await asyncio.to_thread(self._read, url)
                return await asyncio.to_thread(_decode, data, rate_hz)
        except TimeoutError:
            raise LoadError(f"not loaded within {TIME_LIMIT_S:.0f} s", 504) from None
        except wav.WavError as error:
            raise LoadError(f"can't be played: {error}", 415) from None

    # -- local files ------------------------------------------------------------------------------

    def _read(self, name: str) -> bytes:
        if "://" in name or "\0" in name:
            raise LoadError("only http://, https:// and local paths can be played", 400)
        root = self._root.resolve()
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise LoadError("the path is outside of media_path", 403)
            if not path.is_file():
                raise LoadError("no such file", 404)
            _require_wav(path.name, None)
            if path.stat().st_size > SIZE_LIMIT_BYTES:
                raise LoadError(f"more than {SIZE_LIMIT_BYTES >> 20} MiB", 413)
            return path.read_bytes()
        except (OSError, RuntimeError) as error:
            raise LoadError(f"can't be read: {error}", 404) from None

    # -- URLs -------------------------------------------------------------------------------------

    async def _fetch(self, text: str) -> bytes:
        try:
            url = httpx.URL(text)
            # Proxies of the environment are not used: they would resolve the name anew, out of our sight.
            async with httpx.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
                for _ in range(_MOST_REDIRECTS + 1):
                    answer = await self._get(client, url)
                    if isinstance(answer, bytes):
                        return answer
                    url = answer
        except httpx.InvalidURL as error:
            raise LoadError(f"not a URL: {error}", 400) from None
        except httpx.HTTPError as error:
            raise LoadError(f"can't be fetched: {error or type(error).__name__}", 502) from None
        raise LoadError("too many redirects", 502)

    async def _get(self, client: httpx.AsyncClient, url: httpx.URL) -> bytes | httpx.URL:
        """The body, or where a redirect leads."""
        if url.scheme not in ("http", "https") or not url.host:
            raise LoadError("only http:// and https:// URLs can be fetched", 400)
        address = await self._address(url)
        request = client.build_request(
            "GET",
            url.copy_with(host=str(address)),
            headers={"Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": url.host} if url.scheme == "https" else {},
        )
        answer = await client.send(request, stream=True)
        try:
            if answer.is_redirect:
                return url.join(answer.headers["Location"])
            if answer.status_code != 200:
                raise LoadError(f"the server answered {answer.status_code}", 502)
            _require_wav(unquote(url.path), answer.headers.get("Content-Type"))
            return await _limited(answer)
        finally:
            await answer.aclose()

    async def _address(self, url: httpx.URL) -> IPv4Address | IPv6Address:
        """The address to connect to; every address of the name must be allowed."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise LoadError(f"host not found: {url.host}: {error}", 502) from None
        addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        if not addresses:
            raise LoadError(f"host not found: {url.host}", 502)
        for address in addresses:
            if not self._allowed(address):
                raise LoadError(f"{url.host} is at an address that may not be fetched from", 403)
        return addresses[0]

    def _allowed(self, address: IPv4Address | IPv6Address) -> bool:
        if isinstance(address, IPv6Address):
            address = _inner(address)
        if address.is_loopback:
            return self._allow_loopback
        return address.is_global and not address.is_multicast


def _inner(address: IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), else the address."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


async def _limited(answer: httpx.Response) -> bytes:
    data = bytearray()
    async for part in answer.aiter_bytes():
        data += part
        if len(data) > SIZE_LIMIT_BYTES:
            raise LoadError(f"more than {SIZE_LIMIT_BYTES >> 20} MiB", 413)
    return bytes(data)


def _require_wav(path: str, content_type: str | None) -> None:
    """The type is told by the path's extension, else by Content-Type. Raises LoadError."""
    suffix = PurePosixPath(path).suffix.lower()
    declared = (content_type or "").partition(";")[0].strip().lower()
    if suffix == ".wav" or (not suffix and declared in _WAV_TYPES):
        return
    raise LoadError(f"not a type that can be played: {suffix or declared or 'unknown'}", 415)


def _decode(data: bytes, rate_hz: int) -> Pcm:
    sound = wav.decode(data)
    return resample(sound.pcm, sound.rate_hz, rate_hz)
