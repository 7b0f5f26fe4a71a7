"""Files to play: only below the root, by URL with a cache, one load for all who want the same."""

import asyncio
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialbus.config import FetchConfig
from media.files.fetch import Fetcher
from media.files.loader import Loader, LoadError
from media.files.url_cache import UrlCache
from tests.peers.audio_files import audio_file
from tests.peers.rtp import tone


def _write(path: Path, samples: int = 800, rate_hz: int = 8000) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(np.full(samples, 1000, np.int16).tobytes())
    return path.read_bytes()


def _loader(root: Path, *, cached: bool = False, clock: Callable[[], float] = lambda: 0.0, **limits: Any) -> Loader:
    config = FetchConfig(allow_loopback=True, **limits)
    cache = UrlCache(root / "cache") if cached else None
    return Loader(root, Fetcher(config), cache, max_bytes=config.max_bytes, clock=clock)


class Site:
    """An HTTP server; `files` by path, `headers` for all of them, every request is kept."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers = ""
        self.status: int | None = None
        self.asked: list[tuple[str, str | None]] = []
        """Path and If-None-Match."""
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        path, known = first.split()[1], headers.get("if-none-match")
        self.asked.append((path, known))
        body = self.files.get(path)
        status = self.status or (404 if body is None else 304 if known and known in self.headers.lower() else 200)
        writer.write(f"HTTP/1.1 {status} X\r\n{self.headers}Connection: close\r\n\r\n".encode())
        writer.write(body if body is not None and status == 200 else b"")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        server.close()
        await server.wait_closed()


async def _code(load: Loader, url: str) -> int:
    with pytest.raises(LoadError) as error:
        await load.load(url, 8000)
    return error.value.code


# -- local files ----------------------------------------------------------------------------------


async def test_a_local_file_is_resampled(tmp_path: Path) -> None:
    _write(tmp_path / "sub" / "a.wav", samples=1600, rate_hz=16000)

    pcm = await _loader(tmp_path).load("sub/a.wav", 8000)

    assert len(pcm) == 800
    assert pcm[400] == pytest.approx(1000, abs=3)
    assert len(await _loader(tmp_path).load(str(tmp_path / "sub" / "a.wav"), 8000)) == 800


async def test_nothing_outside_of_the_root_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "secret.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.wav").symlink_to(tmp_path / "secret.wav")
    load = _loader(root)

    for url in ("../secret.wav", "x/../../secret.wav", str(tmp_path / "secret.wav"), "link.wav"):
        assert await _code(load, url) == 403
    assert await _code(load, "file:///etc/passwd") == 400
    assert await _code(load, "ws://127.0.0.1/a.wav") == 400
    assert await _code(load, "a\0b.wav") == 400
    assert await _code(load, ".") == 404


async def test_what_cannot_be_played_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "b.wav").write_bytes(b"ID3")
    (tmp_path / "c.mp3").write_bytes(b"hello")
    _write(tmp_path / "large.wav", samples=2000)

    load = _loader(tmp_path, max_bytes=2000)
    assert [await _code(load, name) for name in ("a.txt", "b.wav", "c.mp3", "large.wav")] == [415, 415, 415, 413]


# -- URLs -----------------------------------------------------------------------------------------


async def test_the_kind_is_told_by_the_extension_else_by_the_content_type(tmp_path: Path) -> None:
    mp3 = audio_file("mp3", [tone(700, 0.5, 48000)], 48000)
    async with _site() as site:
        site.files = {"/a.mp3": mp3, "/b": mp3, "/c.wav": mp3}
        load = _loader(tmp_path)
        assert len(await load.load(site.url + "/a.mp3", 8000)) > 3000
        site.headers = "Content-Type: audio/mpeg\r\n"
        assert len(await load.load(site.url + "/b", 8000)) > 3000
        assert await _code(load, site.url + "/c.wav") == 415
        site.headers = "Content-Type: text/html\r\n"
        assert await _code(load, site.url + "/b") == 415
        assert await _code(load, site.url + "/missing.mp3") == 502


async def test_a_url_is_fetched_once_and_kept_for_all_workers(tmp_path: Path) -> None:
    async with _site() as site:
        site.files["/a.wav"] = _write(tmp_path / "a.wav")
        for _ in range(2):
            assert len(await _loader(tmp_path, cached=True).load(site.url + "/a.wav", 16000)) == 1600

    assert len(site.asked) == 1
    assert len(await _loader(tmp_path, cached=True).load(site.url + "/a.wav", 8000)) == 800, "the server is gone"


async def test_a_validator_is_shown_again_after_a_minute(tmp_path: Path) -> None:
    now = 0.0
    async with _site() as site:
        site.files["/a.wav"], site.headers = _write(tmp_path / "a.wav"), 'ETag: "one"\r\n'
        load = _loader(tmp_path, cached=True, clock=lambda: now)

        async def length_at(moment: float) -> int:
            nonlocal now
            now = moment
            return len(await load.load(site.url + "/a.wav", 8000))

        lengths = [await length_at(moment) for moment in (0.0, 59.0, 61.0, 100.0)]
        assert site.asked == [("/a.wav", None), ("/a.wav", '"one"')]
        site.files["/a.wav"], site.headers = _write(tmp_path / "a.wav", samples=400), 'ETag: "two"\r\n'
        lengths.append(await length_at(200.0))

    assert lengths == [800, 800, 800, 800, 400]


async def test_a_kept_answer_serves_while_the_server_fails_but_not_when_the_file_is_gone(tmp_path: Path) -> None:
    now = 0.0
    async with _site() as site:
        site.files["/a.wav"], site.headers = _write(tmp_path / "a.wav"), 'ETag: "one"\r\n'
        load = _loader(tmp_path, cached=True, clock=lambda: now)
        await load.load(site.url + "/a.wav", 8000)
        now, site.status = 100.0, 503
        assert len(await load.load(site.url + "/a.wav", 8000)) == 800
        site.status = 410
        assert await _code(load, site.url + "/a.wav") == 502


async def test_a_cache_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    async with _site() as site:
        site.files["/a.wav"] = _write(tmp_path / "a.wav")
        load = _loader(tmp_path, cached=True)
        assert [len(await load.load(site.url + "/a.wav", 8000)) for _ in range(2)] == [800, 800]

    assert len(site.asked) == 2


async def test_those_who_want_the_same_at_once_share_one_load_and_outlive_each_other(tmp_path: Path) -> None:
    async with _site() as site:
        site.files["/a.wav"] = _write(tmp_path / "a.wav")
        load = _loader(tmp_path)
        first, *others = [asyncio.create_task(load.load(site.url + "/a.wav", 8000)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        heard = await asyncio.gather(*others)

    assert len(site.asked) == 1
    assert {len(pcm) for pcm in heard} == {800}
    assert not heard[0].flags.writeable
