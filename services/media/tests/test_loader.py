"""Files to play: only below the root, only from allowed addresses, within limits."""

import asyncio
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from media import loader
from media.loader import Loader, LoadError


def _write(path: Path, samples: int = 800, rate_hz: int = 8000) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(np.full(samples, 1000, np.int16).tobytes())
    return path.read_bytes()


@asynccontextmanager
async def _server(answer: Callable[[str], bytes]) -> AsyncIterator[int]:
    """An HTTP server whose whole answers are given by path; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(answer(request.split()[1]))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def _ok(body: bytes, content_type: str = "application/octet-stream") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n".encode() + body


async def _code(load: Loader, url: str) -> int:
    with pytest.raises(LoadError) as error:
        await load.load(url, 8000)
    return error.value.code


async def test_a_local_file_is_resampled(tmp_path: Path):
    _write(tmp_path / "sub" / "a.wav", samples=1600, rate_hz=16000)

    pcm = await Loader(tmp_path).load("sub/a.wav", 8000)

    assert len(pcm) == 800
    assert pcm[400] == pytest.approx(1000, abs=3)
    assert len(await Loader(tmp_path).load(str(tmp_path / "sub" / "a.wav"), 8000)) == 800


async def test_nothing_outside_of_the_root_is_read(tmp_path: Path):
    _write(tmp_path / "secret.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.wav").symlink_to(tmp_path / "secret.wav")
    load = Loader(root)

    for url in ("../secret.wav", "x/../../secret.wav", str(tmp_path / "secret.wav"), "link.wav"):
        assert await _code(load, url) == 403
    assert await _code(load, "file:///etc/passwd") == 400
    assert await _code(load, "a\0b.wav") == 400
    assert await _code(load, ".") == 404


async def test_other_types_are_refused(tmp_path: Path):
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    (tmp_path / "b.wav").write_bytes(b"ID3")

    assert await _code(Loader(tmp_path), "a.mp3") == 415
    assert await _code(Loader(tmp_path), "b.wav") == 415


async def test_a_url_is_fetched_and_redirects_are_followed(tmp_path: Path):
    data = _write(tmp_path / "a.wav")
    answers = {
        "/bell.wav": _ok(data),
        "/bell": _ok(data, "audio/x-wav; q=1"),
        "/there": b"HTTP/1.1 302 Found\r\nLocation: /bell.wav\r\nContent-Length: 0\r\n\r\n",
    }
    async with _server(answers.__getitem__) as port:
        load = Loader(tmp_path, allow_loopback=True)
        for path in answers:
            assert len(await load.load(f"http://localhost:{port}{path}", 8000)) == 800


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 302 Found\r\nLocation: /a.wav\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", 400),
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.168.1.1/a.wav\r\nContent-Length: 0\r\n\r\n", 403),
        (b"no HTTP at all\r\n\r\n", 502),
    ],
    ids=["not found", "endless", "to a file", "to a private address", "no HTTP"],
)
async def test_answers_that_cannot_be_used_are_errors(tmp_path: Path, answer: bytes, code: int):
    async with _server(lambda _: answer) as port:
        assert await _code(Loader(tmp_path, allow_loopback=True), f"http://127.0.0.1:{port}/a.wav") == code


async def test_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = _write(tmp_path / "a.wav")
    monkeypatch.setattr(loader, "SIZE_LIMIT_BYTES", 1000)

    assert await _code(Loader(tmp_path), "a.wav") == 413
    async with _server(lambda _: _ok(data)) as port:
        assert await _code(Loader(tmp_path, allow_loopback=True), f"http://127.0.0.1:{port}/a.wav") == 413


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "TIME_LIMIT_S", 0.05)
    released = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = await _code(Loader(tmp_path, allow_loopback=True), f"http://127.0.0.1:{port}/a.wav")
    released.set()
    server.close()
    await server.wait_closed()

    assert code in (502, 504)  # ours, or the HTTP client's own limit


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "192.168.0.1", "172.16.0.1", "169.254.169.254", "[::1]", "[fe80::1]", "[fc00::1]",
     "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "0.0.0.0", "224.0.0.1",
     "100.64.0.1"],
)  # fmt: skip
async def test_addresses_that_only_we_can_reach_are_not_fetched_from(tmp_path: Path, host: str):
    assert await _code(Loader(tmp_path), f"http://{host}:9/a.wav") == 403
