"""Which Host is ours, which pages may ask, and whose address counts: tables."""

from typing import Any

import pytest

from dialbus.config import ConfigError
from gateway.entrance import Entrance
from gateway.origin import Doors, Refused, by_name
from gateway.proxies import Proxies

Asked = dict[str, list[str]]


def doors(http_host: str = "0.0.0.0", **settings: Any) -> Doors:
    return Doors(http_host, **settings)


def asked(host: str = "127.0.0.1:8080", **headers: str) -> Asked:
    return {"host": [host]} | {name.replace("_", "-"): [value] for name, value in headers.items()}


def status(refused: Refused | None) -> int | None:
    return refused.status if refused else None


# -- Host -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:1", "localhost.:8080", "127.0.0.1", "127.9.8.7:8080", "[::1]:8080", "[::1]",
        "[::ffff:127.0.0.1]:80", "0.0.0.0:8080",
        "192.0.2.7:8080",  # where the connection came to
        "203.0.113.7",  # external_ip
        "pbx.example.org", "PBX.example.org:443", "10.1.2.3:8080", "[2001:db8::7]:8080", "gateway:8080",
    ],
)  # fmt: skip
def test_host_that_is_ours_may_come_in(host: str) -> None:
    hosts = ["pbx.example.org", "10.0.0.0/8", "[2001:db8::7]", "gateway"]
    ours = doors(external_ip="203.0.113.7", hosts=hosts)
    assert ours.judge("GET", "/list", asked(host), reached="192.0.2.7") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.example", "x.localhost",
        "192.0.2.8:8080", "203.0.113.8", "[2001:db8::8]", "2130706433", "127.1", "", "a b", "localhost@evil.example",
        "localhost:80:80", "localhost/", "[::1", "127.0.0.1:8080, evil.example",
    ],
)  # fmt: skip
def test_other_host_is_421_with_a_reason_for_sockets_too(host: str) -> None:
    for socket in (False, True):
        refused = doors().judge("GET", "/health", asked(host), reached="192.0.2.7", socket=socket)
        assert refused == Refused(421, f"host not ours: {host} (see [gateway] hosts)")


def test_every_host_header_must_be_ours_and_a_client_without_one_is_no_browser() -> None:
    assert status(doors().judge("GET", "/list", {"host": ["localhost", "evil.example"]})) == 421
    assert doors().judge("GET", "/list", {}) is None
    assert status(doors().judge("GET", "/list", {"origin": ["http://localhost"]})) == 403


def test_name_in_http_addr_is_ours() -> None:
    assert doors("pbx").judge("GET", "/list", asked("pbx:8080")) is None
    assert doors("192.0.2.9").judge("GET", "/list", asked("192.0.2.9:8080"), reached="10.0.0.1") is None


@pytest.mark.parametrize("entry", ["pbx.example.org:8080", "http://pbx", "a b", "*", ""])
def test_listed_host_that_is_none_is_a_fault_of_the_settings(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.hosts"):
        doors(hosts=[entry])


# -- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("LocalHost:8080", "http://localhost:8080", None),
        ("localhost", "http://localhost", None),
        ("localhost:443", "https://localhost", None),
        ("localhost", "https://localhost", None),  # a proxy ends TLS
        ("[::1]:8080", "http://[::1]:8080", None),
        ("127.0.0.1:8080", "http://127.0.0.1:8081", 403),
        ("127.0.0.1:8080", "http://127.0.0.1", 403),
        ("127.0.0.1:8080", "http://localhost:8080", 403),
        ("127.0.0.1:8080", "https://evil.example", 403),
        ("127.0.0.1:8080", "null", 403),
        ("127.0.0.1:8080", "", 403),
        ("127.0.0.1:8080", "file://", 403),
        ("127.0.0.1:8080", "chrome-extension://127.0.0.1:8080", 403),
        ("127.0.0.1:8080", "http://127.0.0.1:8080.evil.example", 403),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/", 403),
        ("127.0.0.1:8080", "https://app.example.org", None),
        ("127.0.0.1:8080", "https://APP.example.org", None),
        ("127.0.0.1:8080", "http://app.example.org", 403),
        ("evil.example:8080", "http://evil.example:8080", 421),  # a name rebound to our address
        ("evil.example:8080", "https://app.example.org", 421),
    ],
)
@pytest.mark.parametrize("socket", [False, True])
def test_page_may_ask_the_server_it_came_from_and_those_that_list_it(
    host: str, origin: str, expected: int | None, socket: bool
) -> None:
    judged = doors(origins=["https://app.example.org"])
    assert status(judged.judge("GET", "/list", asked(host, origin=origin), socket=socket)) == expected
    assert status(judged.judge("POST", "/kill/a", asked(host, origin=origin), socket=socket)) == expected


def test_two_origins_are_foreign() -> None:
    headers = asked() | {"origin": ["http://127.0.0.1:8080", "http://127.0.0.1:8080"]}
    assert status(doors().judge("GET", "/list", headers)) == 403


@pytest.mark.parametrize(
    ("site", "origin", "socket", "expected"),
    [
        ("none", "", False, None),
        ("same-origin", "", False, None),
        ("same-site", "", False, 403),  # another port, or another name below one domain
        ("cross-site", "", False, 403),
        ("cross-site", "", True, 403),
        ("cross-site", "http://127.0.0.1:8080", False, 403),
        ("cross-site", "http://127.0.0.1:8080", True, None),
        ("cross-site", "https://app.example.org", False, None),
        ("cross-site", "https://app.example.org", True, None),
        ("same-origin", "http://127.0.0.1:8080", False, None),
        ("same-origin", "https://evil.example", False, 403),
    ],
)
def test_request_of_another_site_is_refused_without_an_origin_too(
    site: str, origin: str, socket: bool, expected: int | None
) -> None:
    headers = asked(sec_fetch_site=site) | ({"origin": [origin]} if origin else {})
    for path in ("/", "/kill/a", "/list", "/call"):
        judged = doors(origins=["https://app.example.org"]).judge("GET", path, headers, socket=socket)
        assert status(judged) == expected


def test_browser_that_says_nothing_of_its_page_kills_no_call_by_get() -> None:
    agent = {"user_agent": "Mozilla/5.0 (Linux)", "accept_language": "en"}
    assert status(doors().judge("GET", "/kill/a", asked(**agent))) == 403
    assert doors().judge("GET", "/list", asked(**agent)) is None
    assert doors().judge("POST", "/kill/a", asked(**agent)) is None
    assert doors().judge("GET", "/kill/a", asked(**agent, sec_fetch_site="none")) is None
    assert doors().judge("GET", "/kill/a", asked(user_agent="curl/8.0")) is None
    assert doors().judge("GET", "/kill/a", asked(user_agent="Mozilla/5.0 WindowsPowerShell/5.1")) is None


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "https://app.example.org"])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content_type": "application/json", "content_length": "2"}, None),
        ({"content_type": "Application/JSON; charset=utf-8", "content_length": "2"}, None),
        ({"content_type": "text/plain", "content_length": "2"}, 415),
        ({"content_type": "application/x-www-form-urlencoded", "transfer_encoding": "chunked"}, 415),
        ({"content_length": "2"}, 415),
        ({"content_length": "0"}, None),
        ({}, None),
    ],
)
def test_pages_send_json_or_nothing_and_programs_what_they_like(
    origin: str, headers: dict[str, str], expected: int | None
) -> None:
    judged = doors(origins=["https://app.example.org"])
    assert status(judged.judge("POST", "/command/a", asked(origin=origin, **headers))) == expected
    assert judged.judge("POST", "/command/a", asked(**headers)) is None


@pytest.mark.parametrize("entry", ["app.example.org", "https://app.example.org/", "null", "*", "https://"])
def test_listed_origin_that_is_none_is_a_fault_of_the_settings(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.origins"):
        doors(origins=[entry])


# -- whose address --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("192.0.2.1", {}, "192.0.2.1"),
        ("10.0.0.2", {}, "10.0.0.2"),
        (None, {}, None),
        ("192.0.2.1", {"x_forwarded_for": "127.0.0.1"}, None),
        ("127.0.0.1", {"x_forwarded_for": "203.0.113.9"}, None),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, None),
        ("127.0.0.1", {"x_real_ip": "127.0.0.1"}, None),
        ("10.0.0.2", {"x_forwarded_for": "203.0.113.9"}, "203.0.113.9"),
        ("::ffff:10.0.0.2", {"x_forwarded_for": "203.0.113.9:4711"}, "203.0.113.9"),
        ("10.0.0.2", {"x_forwarded_for": "127.0.0.1, 203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.2", {"x_forwarded_for": "127.0.0.1, 203.0.113.9, 10.0.0.3"}, "203.0.113.9"),
        ("10.0.0.2", {"x_forwarded_for": "10.0.0.4, 10.0.0.3"}, "10.0.0.4"),
        ("10.0.0.2", {"x_forwarded_for": "127.0.0.1, unknown"}, None),
        ("10.0.0.2", {"x_forwarded_for": ""}, None),
        ("10.0.0.2", {"x_real_ip": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.2", {"forwarded": 'for=192.0.2.60;by=203.0.113.43, For="[2001:db8::17]:47"'}, "2001:db8::17"),
        ("10.0.0.2", {"forwarded": "proto=https"}, None),
        ("10.0.0.2", {"forwarded": "for=_hidden"}, None),
        ("10.0.0.2", {"x_forwarded_for": "203.0.113.9", "x_real_ip": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.2", {"x_forwarded_for": "203.0.113.9", "forwarded": "for=127.0.0.1"}, None),
    ],
)  # fmt: skip
def test_address_is_what_a_trusted_proxy_says_and_nobody_else(
    peer: str | None, headers: dict[str, str], client: str | None
) -> None:
    assert Proxies(["10.0.0.0/24"]).client(peer, asked(**headers)) == client


def test_proxy_that_is_no_address_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.trusted_proxies.*'proxy'"):
        Proxies(["proxy"])


# -- the middleware -------------------------------------------------------------------------------

Raw = list[tuple[bytes, bytes]]
OURS: Raw = [(b"Host", b"127.0.0.1:8080")]
APP: Raw = [*OURS, (b"Origin", b"https://app.example.org")]


async def through(kind: str, headers: Raw, method: str = "GET") -> tuple[list[Any], list[Any]]:
    """What the application behind the middleware saw, and what was sent."""
    seen: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    entrance = Entrance(app, doors(origins=["https://app.example.org"]), Proxies([]))
    scope = {"type": kind, "path": "/list", "headers": headers, "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 1)}
    await entrance(scope | ({"method": method} if kind == "http" else {}), receive, send)
    return seen, sent


@pytest.mark.parametrize(("kind", "prefix"), [("http", "http.response"), ("websocket", "websocket.http.response")])
async def test_refusal_is_a_status_and_json_and_nobody_behind_sees_the_request(kind: str, prefix: str) -> None:
    seen, sent = await through(kind, [(b"host", b"evil.example")])
    assert not seen
    assert [message["type"] for message in sent] == [f"{prefix}.start", f"{prefix}.body"]
    assert sent[0]["status"] == 421
    assert sent[1]["body"] == b'{"error": "host not ours: evil.example (see [gateway] hosts)"}'
    _, sent = await through(kind, [*OURS, (b"origin", b"https://evil.example")])
    assert sent[0]["status"] == 403


async def test_listed_page_reads_answers_and_gets_consent_for_json() -> None:
    seen, sent = await through("http", APP)
    assert (b"access-control-allow-origin", b"https://app.example.org") in sent[0]["headers"]
    assert len(seen) == 1
    seen, sent = await through("http", [*APP, (b"access-control-request-method", b"POST")], "OPTIONS")
    assert not seen
    assert sent[0]["status"] == 204
    assert {b"access-control-allow-headers", b"access-control-allow-origin"} <= {name for name, _ in sent[0]["headers"]}
    _, sent = await through("http", OURS)
    assert sent[0]["headers"] == []


async def test_address_that_no_trusted_proxy_tells_is_taken_away() -> None:
    seen, _ = await through("http", OURS)
    assert seen[0]["client"] == ("127.0.0.1", 9)
    seen, _ = await through("http", [*OURS, (b"X-Forwarded-For", b"127.0.0.1")])
    assert seen[0]["client"] is None


def test_headers_are_found_by_name_in_their_order() -> None:
    assert by_name([(b"X-A", b" 1 "), (b"x-a", b"2"), (b"Host", b"a")]) == {"x-a": ["1", "2"], "host": ["a"]}
