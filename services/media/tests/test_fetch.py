"""URLs that clients name: only from allowed addresses, within limits, over HTTP and WebSocket."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve

from dialbus.config import FetchConfig
from media.files.fetch import NOT_MODIFIED, Fetched, Fetcher, FetchError, masked

Answer = Callable[[str, dict[str, str]], bytes]


def _fetcher(**limits: Any) -> Fetcher:
    return Fetcher(FetchConfig(**{"allow_loopback": True, **limits}))


@asynccontextmanager
async def _server(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """An HTTP server whose whole answers are given by path and headers; its port."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        writer.write(answer(first.split()[1], headers))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def _ok(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "Connection: close", "", ""]).encode() + body


def _redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def _refusal(work: Any) -> FetchError:
    with pytest.raises(FetchError) as refused:
        await work
    return refused.value


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `localhost`, by nobody's authority; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    Path(f"{path}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    return context


# -- HTTP -----------------------------------------------------------------------------------------


async def test_the_name_of_the_url_is_asked_for_at_the_address_that_was_judged() -> None:
    asked: list[dict[str, str]] = []

    def answer(path: str, headers: dict[str, str]) -> bytes:
        asked.append(headers)
        return _ok(b"body", "Content-Type: audio/wav", 'ETag: "1"')

    async with _server(answer) as port:
        got = await _fetcher().get(f"http://joe:secret@localhost:{port}/a%20b.wav?x=1")

    assert isinstance(got, Fetched)
    assert (got.body, got.path, got.headers["etag"]) == (b"body", "/a b.wav", '"1"')
    assert asked[0]["host"] == f"localhost:{port}"
    assert asked[0]["authorization"] == "basic " + b64encode(b"joe:secret").decode().lower()
    assert asked[0]["accept-encoding"] == "identity"


async def test_redirects_are_followed_without_credentials_for_another_host() -> None:
    asked: list[tuple[str, str | None]] = []

    def answer(path: str, headers: dict[str, str]) -> bytes:
        asked.append((path, headers.get("authorization")))
        elsewhere = f"http://127.0.0.1:{port}/end.mp3"
        return {"/a": _redirect("/b"), "/b": _redirect(elsewhere)}.get(path, _ok(b"body"))

    async with _server(answer) as port:
        got = await _fetcher().get(f"http://joe:secret@localhost:{port}/a")

    assert isinstance(got, Fetched)
    assert (got.body, got.path) == (b"body", "/end.mp3")
    assert [path for path, _ in asked] == ["/a", "/b", "/end.mp3"]
    assert asked[0][1] == asked[1][1]
    assert asked[2][1] is None


async def test_a_condition_can_be_met() -> None:
    def answer(path: str, headers: dict[str, str]) -> bytes:
        return b"HTTP/1.1 304 Not Modified\r\n\r\n" if headers.get("if-none-match") == '"1"' else _ok(b"new")

    async with _server(answer) as port:
        url = f"http://127.0.0.1:{port}/a.wav"
        assert await _fetcher().get(url, {"If-None-Match": '"1"'}) is NOT_MODIFIED
        assert isinstance(await _fetcher().get(url, {"If-None-Match": '"2"'}), Fetched)


@pytest.mark.parametrize(
    ("answer", "code", "temporary"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 502, False),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 502, True),
        (_redirect("/a.wav"), 502, False),
        (_redirect("file:///etc/passwd"), 400, False),
        (_redirect("ws://127.0.0.1/"), 400, False),
        (_redirect("http://192.168.1.1/a.wav"), 403, False),
        (_redirect("http://[::1"), 502, True),
        (_ok(b"x" * 2000), 413, False),
        (_ok(b"x" * 10, "Content-Encoding: gzip"), 502, False),
        (b"no HTTP at all\r\n\r\n", 502, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut short", 502, True),
    ],
    ids=["not found", "busy", "endless", "to a file", "to a WebSocket", "to a private address", "to no URL",
         "too large", "packed", "no HTTP", "cut short"],
)  # fmt: skip
async def test_answers_that_cannot_be_used_are_errors(answer: bytes, code: int, temporary: bool) -> None:
    async with _server(lambda *_: answer) as port:
        error = await _refusal(_fetcher(max_bytes=1024).get(f"http://joe:secret@127.0.0.1:{port}/a.wav"))

    assert (error.code, error.temporary) == (code, temporary)
    assert "secret" not in str(error)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    released = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    errors = [
        await _refusal(_fetcher(timeout=0.05).get(f"http://{address}/a.wav")),
        await _refusal(_fetcher(timeout=0.05).websocket(f"ws://{address}/")),
    ]
    released.set()
    server.close()
    await server.wait_closed()

    assert [(error.code, error.temporary) for error in errors] == [(504, True)] * 2


async def test_a_peer_that_talks_before_it_is_asked_is_a_failure_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What websockets then raises depends on which came first, and can be a bare AssertionError."""

    async def handshake(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Fetcher, "_handshake", handshake)
    error = await _refusal(_fetcher().websocket("ws://127.0.0.1:9/"))
    assert (error.code, str(error)) == (502, "can't be fetched: the server talks before it is asked")


@pytest.mark.parametrize("url", ["http://", "http://a:b:c/", "http://127.0.0.1:99999/a.wav", "ftp://127.0.0.1/a.wav"])
async def test_what_is_no_url_is_told(url: str) -> None:
    assert (await _refusal(_fetcher().get(url))).code == 400


async def test_tls_checks_the_name_of_the_url(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _server(lambda *_: _ok(b"body"), _tls(certificate)) as port:
        assert (await _refusal(_fetcher().get(f"https://localhost:{port}/a.wav"))).code == 502, "unknown authority"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert isinstance(await _fetcher().get(f"https://localhost:{port}/a.wav"), Fetched)
        assert (await _refusal(_fetcher().get(f"https://127.0.0.1:{port}/a.wav"))).code == 502, "another name"


# -- addresses ------------------------------------------------------------------------------------

LOOPBACK = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"]
PRIVATE = ["10.0.0.1", "100.64.0.1", "[fc00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]"]
NEVER = ["0.0.0.0", "[::]", "169.254.169.254", "168.63.129.16", "192.0.0.192", "[fe80::1]", "[::ffff:168.63.129.16]"]


@pytest.mark.parametrize("host", LOOPBACK + PRIVATE + NEVER)
async def test_addresses_that_only_we_can_reach_are_not_fetched_from(host: str) -> None:
    fetcher = Fetcher(FetchConfig())

    assert (await _refusal(fetcher.get(f"http://{host}:9/a.wav"))).code == 403
    assert (await _refusal(fetcher.websocket(f"ws://{host}:9/"))).code == 403


@pytest.mark.parametrize("host", NEVER)
async def test_some_addresses_are_never_fetched_from(host: str) -> None:
    assert (await _refusal(_fetcher(allow_private=True).get(f"http://{host}:9/a.wav"))).code == 403


@pytest.mark.parametrize(
    ("limits", "loopback", "private"),
    [
        ({}, False, False),
        ({"allow_loopback": True}, True, False),
        ({"allow_private": True}, False, True),
        ({"allow_private": True, "allow_loopback": True}, True, True),
    ],
)
async def test_private_and_loopback_addresses_have_a_setting_each(
    limits: dict[str, bool], loopback: bool, private: bool
) -> None:
    fetcher = Fetcher(FetchConfig(**limits))

    assert {host: await _judged(fetcher, host) for host in LOOPBACK} == dict.fromkeys(LOOPBACK, loopback)
    assert {host: await _judged(fetcher, host) for host in PRIVATE} == dict.fromkeys(PRIVATE, private)


async def _judged(fetcher: Fetcher, host: str) -> bool:
    """Whether the fetcher would connect to the host, without doing so."""
    try:
        return bool(await fetcher._addresses(httpx.URL(f"http://{host}:9/"), ("http",)))
    except FetchError as error:
        return error.code != 403


async def test_every_address_of_a_name_must_be_allowed_and_is_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(None, None, 0, "", (address, port)) for address in found]

    async with _server(lambda _, headers: _ok(headers["host"].encode())) as port:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        found[:] = ["127.0.0.1", "192.168.0.1"]
        assert (await _refusal(_fetcher().get(f"http://prompts.test:{port}/"))).code == 403
        found[:] = ["127.9.9.9", "127.0.0.1"]  # nobody listens at the first
        got = await _fetcher().get(f"http://prompts.test:{port}/")

    assert isinstance(got, Fetched)
    assert got.body == f"prompts.test:{port}".encode()


# -- WebSocket ------------------------------------------------------------------------------------


@asynccontextmanager
async def _socket_server(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[tuple[int, list[Any]]]:
    """A WebSocket server; its port and the requests that it accepted."""
    accepted: list[Any] = []

    async def greet(connection: ServerConnection) -> None:
        accepted.append(connection.request)
        await connection.send(b"hello")
        await connection.wait_closed()

    async with serve(greet, "127.0.0.1", 0, ssl=tls, **options) as server:
        yield next(iter(server.sockets)).getsockname()[1], accepted


async def test_a_socket_is_opened_at_the_address_that_was_judged_with_the_name_of_the_url() -> None:
    async with _socket_server() as (port, accepted):
        connection = await _fetcher().websocket(f"ws://joe:secret@localhost:{port}/pass?sample_rate=8000")
        assert await connection.recv() == b"hello"
        await connection.close()

    request = accepted[0]
    assert request.path == "/pass?sample_rate=8000"
    assert request.headers["Host"] == f"localhost:{port}"
    assert request.headers["Authorization"] == "Basic " + b64encode(b"joe:secret").decode()


async def test_a_socket_over_tls_checks_the_name_of_the_url(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with _socket_server(_tls(certificate)) as (port, _):
        connection = await _fetcher().websocket(f"wss://localhost:{port}/")
        assert await connection.recv() == b"hello"
        await connection.close()
        assert (await _refusal(_fetcher().websocket(f"wss://127.0.0.1:{port}/"))).code == 502, "another name"


async def test_redirects_of_a_socket_are_judged_again() -> None:
    async with _socket_server() as (end, _):
        answers = {
            "/there": f"ws://localhost:{end}/",
            "/private": "ws://192.168.1.1/",
            "/file": "file:///etc/passwd",
            "/endless": "/endless",
        }
        async with _server(lambda path, _: _redirect(answers[path])) as port:
            connection = await _fetcher().websocket(f"ws://127.0.0.1:{port}/there")
            assert await connection.recv() == b"hello"
            await connection.close()
            codes = {
                path: (await _refusal(_fetcher().websocket(f"ws://127.0.0.1:{port}{path}"))).code for path in answers
                if path != "/there"
            }  # fmt: skip

    assert codes == {"/private": 403, "/file": 400, "/endless": 502}


async def test_a_socket_that_cannot_be_opened_is_an_error(unused_tcp_port: int) -> None:
    async with _server(lambda *_: b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n") as port:
        refused = await _refusal(_fetcher().websocket(f"ws://127.0.0.1:{port}/"))
    nobody = await _refusal(_fetcher().websocket(f"ws://127.0.0.1:{unused_tcp_port}/"))
    other = await _refusal(_fetcher().websocket("http://127.0.0.1:9/"))

    assert (refused.code, str(refused)) == (502, "the server answered 403")
    assert (nobody.code, nobody.temporary) == (502, True)
    assert other.code == 400


# -- logs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://joe:p@ss@h.test:8443/a/b.wav?sig=1", "https://joe:***@h.test:8443/a/b.wav?…"),
        ("wss://joe@h.test", "wss://joe:***@h.test"),
        ("http://h.test/a@b:c.wav", "http://h.test/a@b:c.wav"),
        ("prompts/a.wav", "prompts/a.wav"),
    ],
)
def test_a_log_has_no_password_and_no_signature(url: str, shown: str) -> None:
    assert masked(url) == shown
