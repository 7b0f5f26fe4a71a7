"""Files that a client asks to be played: from below one root, or over http(s), within limits (protocol 2.6)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.config import Config
from media.files import decoding as files
from media.files import url_cache
from media.files.fetch import Fetched, Fetcher, FetchError, masked
from media.files.url_cache import UrlCache

log = telemetry.get_logger()

_AT_ONCE = 2  # decoded in threads, which share the machine with the 20 ms clock


class LoadError(Exception):
    """A file that can't be played; `str()` is the reason for the client, `code` as in HTTP."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Loader:
    """Gives files as PCM. Whoever asks for the same file at the same time shares one load of it."""

    def __init__(
        self,
        media_path: Path,
        fetcher: Fetcher,
        cache: UrlCache | None,
        *,
        max_bytes: int = 50 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_bytes` of a local file; `clock` is Unix time, for the freshness of the cache."""
        self._root = media_path
        self._fetcher = fetcher
        self._cache = cache
        self._max_bytes = max_bytes
        self._clock = clock
        self._loads: dict[tuple[str, int], asyncio.Task[Pcm]] = {}
        self._decoders = asyncio.Semaphore(_AT_ONCE)

    @classmethod
    def configured(cls, config: Config, fetcher: Fetcher) -> "Loader":
        """With `media_path`, `media_cache_path` and `[fetch]`."""
        cache = UrlCache(config.media_cache_path / "urls")
        return cls(config.media_path, fetcher, cache, max_bytes=config.fetch.max_bytes)

    async def load(self, url: str, rate_hz: int) -> Pcm:
        """The whole file as int16[n] mono at `rate_hz`, not to be written to. Raises LoadError."""
        wanted = url, rate_hz
        task = self._loads.get(wanted)
        if task is None:
            task = asyncio.create_task(self._load(url, rate_hz), name="load")
            self._loads[wanted] = task
            task.add_done_callback(lambda done: self._loaded(wanted, done))
        return await asyncio.shield(task)

    def _loaded(self, wanted: tuple[str, int], task: "asyncio.Task[Pcm]") -> None:
        del self._loads[wanted]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left

    async def _load(self, url: str, rate_hz: int) -> Pcm:
        try:
            if url.lower().startswith(("http://", "https://")):
                data, kind = await self._from_url(url)
            else:
                data, kind = await asyncio.to_thread(self._read, url)
            async with self._decoders:
                pcm = await asyncio.to_thread(files.decode, data, kind, rate_hz)
        except FetchError as error:
            raise LoadError(str(error), error.code) from None
        except files.UnplayableError as error:
            raise LoadError(f"can't be played: {error}", 415) from None
        pcm.setflags(write=False)
        return pcm

    # -- local files ------------------------------------------------------------------------------

    def _read(self, name: str) -> tuple[bytes, files.Kind]:
        if "://" in name or "\0" in name:
            raise LoadError("only http://, https:// and local paths can be played", 400)
        root = self._root.resolve()
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise LoadError("the path is outside of media_path", 403)
            if not path.is_file():
                raise LoadError("no such file", 404)
            kind = _required(files.kind_of([path.name]), path.suffix)
            if path.stat().st_size > self._max_bytes:
                raise LoadError(f"more than {self._max_bytes} bytes", 413)
            return path.read_bytes(), kind
        except (OSError, RuntimeError, ValueError) as error:
            raise LoadError(f"can't be read: {error}", 404) from None

    # -- URLs -------------------------------------------------------------------------------------

    async def _from_url(self, url: str) -> tuple[bytes, files.Kind]:
        kept = await asyncio.to_thread(self._cache.get, url) if self._cache is not None else None
        if kept is None or self._clock() >= kept.fresh_until:
            kept = await self._fetch(url, kept)
        kind = files.kind_of([_path(url), kept.path], kept.content_type)
        return kept.body, _required(kind, kept.content_type)

    async def _fetch(self, url: str, before: url_cache.Kept | None) -> url_cache.Kept:
        """What the URL gives now. What was kept of it serves while it can't be had."""
        try:
            answer = await self._fetcher.get(url, before.conditions if before is not None else None)
        except FetchError as error:
            if before is None or not error.temporary:
                raise
            log.warning("url.stale", url=masked(url), reason=str(error))
            return before
        if not isinstance(answer, Fetched):
            if before is None:
                raise FetchError("the server answered 304, unasked", 502)
            kept = replace(before, fresh_until=self._clock() + url_cache.FRESH_S)
        else:
            kept = url_cache.kept(answer, self._clock())
            if not url_cache.may_be_kept(answer.headers):
                return kept
        if self._cache is not None:
            await asyncio.to_thread(self._cache.put, url, kept)
        return kept


def _path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return ""


def _required(kind: files.Kind | None, named: str | None) -> files.Kind:
    if kind is None:
        raise LoadError(f"not a type that can be played: {named or 'unknown'}", 415)
    return kind
