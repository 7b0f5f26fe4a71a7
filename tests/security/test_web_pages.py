"""A web page that somebody on this host looks at: it drives no exchange, neither by its own name nor by a rebound one.

Raw requests stand for browsers of any age; then a real Chromium tries what its pages can.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.ensemble import Exchange
from tests.harness import run_service
from tests.interop.chromium import Page
from tests.peers.client import ApiClient

REBOUND = "rebound.example"
EVIL = "evil.example"
RESOLVER = "--host-resolver-rules=MAP *.example 127.0.0.1"
"""A stranger's names lead to this host, as after a rebinding."""

ROUTES = [
    ("GET", "/"), ("GET", "/console/call.js"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/list"),
    ("GET", "/kill/ID"), ("POST", "/kill/ID"), ("POST", "/command/ID"), ("GET", "/events/ID"), ("GET", "/iceservers"),
    ("POST", "/precache"), ("GET", "/api/records"), ("GET", "/api/descriptions"), ("GET", "/openapi.json"),
    ("GET", "/asyncapi.json"), ("GET", "/ami/v1/lists"), ("GET", "/ami/v1/dialogs"), ("POST", "/ami/v1/kill/ID"),
    ("POST", "/ami/v1/shutdown"), ("POST", "/llm/v1/chat/completions"), ("GET", "/nowhere"), ("OPTIONS", "/list"),
]  # fmt: skip
SOCKETS = ["/call/sip", "/call/webrtc", "/call", "/nowhere"]
PAGES = [
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Host": "rebound.example:8080"}, 421),
    ({"Host": "rebound.example:8080", "Origin": "http://rebound.example:8080"}, 421),
    ({"Host": "rebound.example", "Origin": "http://rebound.example", "Sec-Fetch-Site": "same-origin"}, 421),
    ({"Host": "203.0.113.9", "Origin": "http://203.0.113.9"}, 421),
]


@asynccontextmanager
async def a_call(exchange: Exchange) -> AsyncIterator[tuple[ApiClient, str]]:
    """A call in progress of an honest client: its audio is the socket's."""
    async with exchange.client(path="/call") as client:
        await client.send("invite", option={})
        answer = await client.expect("answer", 20)
        yield client, answer["trackId"]


async def unharmed(exchange: Exchange, client: ApiClient, call_id: str) -> None:
    """The call is still there, and nobody has spoken or played anything into it."""
    async with httpx.AsyncClient(base_url=exchange.http, trust_env=False) as api:
        calls = (await api.get("/list")).json()["active_calls"]
        assert [call["id"] for call in calls] == [call_id]
    await client.send("history", speaker="client", text="still here")
    await client.expect("addHistory", text="still here")
    assert {event["event"] for event in client.events} <= {"ringing", "answer", "addHistory", "silence", "trackStart"}


@pytest.mark.parametrize(("headers", "status"), PAGES)
async def test_every_route_and_socket_is_closed_to_foreign_pages_and_rebound_names(
    exchange: Exchange, headers: dict[str, str], status: int
) -> None:
    async with (
        a_call(exchange) as (client, call_id),
        httpx.AsyncClient(base_url=exchange.http, trust_env=False, timeout=20) as api,
    ):
        for method, path in ROUTES:
            body = json.dumps({"command": "hangup"}) if method == "POST" else None
            for content_type in ("text/plain", "application/json"):
                answer = await api.request(
                    method, path.replace("ID", call_id), content=body, headers={**headers, "Content-Type": content_type}
                )
                assert answer.status_code == status, (method, path)
                assert answer.json()["error"].endswith(("(see [gateway] hosts)", "(see [gateway] origins)"))
                assert "access-control-allow-origin" not in answer.headers
        for path in SOCKETS:
            assert await upgraded(exchange.http, path, headers) == status, path
        await unharmed(exchange, client, call_id)


async def test_page_of_our_own_sends_json_or_nothing(exchange: Exchange) -> None:
    own = {"Origin": exchange.http, "Sec-Fetch-Site": "same-origin"}
    async with (
        a_call(exchange) as (client, call_id),
        httpx.AsyncClient(base_url=exchange.http, trust_env=False, headers=own, timeout=20) as api,
    ):
        hangup = json.dumps({"command": "hangup"})
        for path in (f"/command/{call_id}", "/precache", f"/kill/{call_id}", "/llm/v1/x"):
            for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
                answer = await api.post(path, content=hangup, headers={"Content-Type": content_type})
                assert answer.status_code == 415, path
        await unharmed(exchange, client, call_id)
        sent = await api.post(f"/command/{call_id}", json={"command": "history", "speaker": "page", "text": "hello"})
        assert sent.status_code == 200
        await client.expect("addHistory", text="hello")
        assert (await api.post(f"/kill/{call_id}")).status_code == 200
        await client.expect("hangup")


async def test_program_that_sends_none_of_a_browsers_headers_notices_nothing(exchange: Exchange) -> None:
    async with (
        a_call(exchange) as (client, call_id),
        httpx.AsyncClient(base_url=exchange.http, trust_env=False, timeout=20) as api,
    ):
        sent = await api.post(
            f"/command/{call_id}",
            content=json.dumps({"command": "history", "speaker": "program", "text": "hello"}),
            headers={"Content-Type": "text/plain"},
        )
        assert sent.status_code == 200
        await client.expect("addHistory", text="hello")
        assert (await api.get(f"/kill/{call_id}")).status_code == 200
        await client.expect("hangup")


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "203.0.113.9"}, {"X-Real-IP": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}],
)
async def test_ami_believes_no_address_that_no_trusted_proxy_tells(exchange: Exchange, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=exchange.http, trust_env=False, headers=headers) as api:
        for method, path in (("GET", "/ami/v1/lists"), ("POST", "/ami/v1/shutdown")):
            answer = await api.request(method, path)
            assert (answer.status_code, answer.json()) == (403, {"error": "address not allowed"})


async def test_settings_name_hosts_pages_and_proxies(service_env: dict[str, str]) -> None:
    env = service_env | {
        "DIALBUS_HEALTH_EXPECTS": "[]",
        "DIALBUS_GATEWAY_HOSTS": "pbx.example.org",
        "DIALBUS_GATEWAY_ORIGINS": "https://app.example.org",
        "DIALBUS_GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
    }
    app = {"Host": "pbx.example.org", "Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"}
    async with (
        run_service("gateway", env) as gateway,
        httpx.AsyncClient(base_url=gateway.facts["http"], trust_env=False) as api,
    ):
        listed = await api.get("/list", headers=app)
        assert listed.status_code == 200
        assert listed.headers["access-control-allow-origin"] == "https://app.example.org"
        assert await upgraded(gateway.facts["http"], "/call", app) == 101
        assert (await api.get("/list", headers={"Host": "other.example.org"})).status_code == 421
        for forwarded, status in (("127.0.0.1", 200), ("203.0.113.9", 403), ("127.0.0.1, 203.0.113.9", 403)):
            answer = await api.get("/ami/v1/lists", headers={"X-Forwarded-For": forwarded})
            assert answer.status_code == status, forwarded


async def upgraded(http: str, path: str, headers: dict[str, str]) -> int:
    """The status of a socket's upgrade request with exactly these headers."""
    address = httpx.URL(http)
    try:
        url = f"ws://{headers.get('Host', address.netloc.decode())}{path}"
        others = {name: value for name, value in headers.items() if name != "Host"}
        async with connect(url, host=address.host, port=address.port, additional_headers=others, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


# -- a real browser -------------------------------------------------------------------------------

TRY = """
(async ({http, id}) => {
  const ws = http.replace("http:", "ws:");
  const opened = (path) => new Promise((resolve) => {
    const socket = new WebSocket(ws + path);
    socket.onopen = () => { socket.send('{"command":"invite","option":{}}'); resolve("open"); };
    socket.onerror = () => resolve("refused");
  });
  const loaded = (path) => new Promise((resolve) => {
    const image = new Image();
    image.onload = image.onerror = () => resolve("asked");
    image.src = http + path;
  });
  const fetched = async (path, options) => {
    try {
      const answer = await fetch(http + path, options);
      return answer.type === "opaque" ? "opaque" : answer.status;
    } catch { return "refused"; }
  };
  const body = '{"command":"hangup"}';
  const plain = { method: "POST", body, headers: { "Content-Type": "text/plain" } };
  const json = { method: "POST", body, headers: { "Content-Type": "application/json" } };
  const form = document.createElement("form");
  form.method = "post"; form.enctype = "text/plain"; form.action = `${http}/kill/${id}`; form.target = "frame";
  const frame = document.createElement("iframe");
  frame.name = "frame";
  document.body.append(frame, form);
  const framed = new Promise((resolve) => { frame.onload = () => resolve("asked"); });
  form.submit();
  return {
    frame: await framed,
    image: await loaded(`/kill/${id}`),
    sockets: [await opened("/call"), await opened("/call/sip"), await opened(`/call?id=${id}`)],
    read: [await fetched("/list"), await fetched("/ami/v1/lists"), await fetched("/health")],
    json: [await fetched(`/command/${id}`, json), await fetched("/ami/v1/shutdown", json)],
    plain: [
      await fetched(`/command/${id}`, plain), await fetched(`/kill/${id}`, { method: "POST" }),
      await fetched("/ami/v1/shutdown", { method: "POST" }),
    ],
    blind: [
      await fetched(`/command/${id}`, { ...plain, mode: "no-cors" }), await fetched(`/kill/${id}`, { mode: "no-cors" }),
      await fetched("/ami/v1/shutdown", { method: "POST", mode: "no-cors" }),
    ],
  };
})(%s)
"""


@pytest.fixture
def strangers_port() -> Iterator[int]:
    """A stranger's web server, whose pages are empty."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>stranger</title><body></body>")

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


async def attack(page: Page, http: str, call_id: str) -> dict[str, Any]:
    """What the page that is open got by all that a page can do."""
    async with asyncio.timeout(60):
        found: dict[str, Any] = await page.evaluate(TRY % json.dumps({"http": http, "id": call_id}))
    return found


@pytest.mark.timeout(240)
async def test_pages_in_chromium_reach_nothing(exchange: Exchange, strangers_port: int, tmp_path: Path) -> None:
    port = httpx.URL(exchange.http).port
    async with (
        a_call(exchange) as (client, call_id),
        Page.open(tmp_path, None, RESOLVER) as page,
    ):
        for stranger in (
            EVIL,
            "127.0.0.1",
        ):  # another site; another port of this one, which browsers call the same site
            await page.goto(f"http://{stranger}:{strangers_port}/")
            found = await attack(page, exchange.http, call_id)
            assert found["sockets"] == ["refused"] * 3
            assert {*found["read"], *found["json"], *found["plain"]} == {"refused"}, "and nothing to read"
            await unharmed(exchange, client, call_id)

        # The name of the page now leads to the exchange: to the browser all is of one origin.
        await page.goto(f"http://{REBOUND}:{port}/")
        assert "host not ours: rebound.example" in await page.evaluate("document.body.textContent")
        found = await attack(page, f"http://{REBOUND}:{port}", call_id)
        assert found["sockets"] == ["refused"] * 3
        assert {*found["read"], *found["json"], *found["plain"], *found["blind"]} == {421}
        await unharmed(exchange, client, call_id)


@pytest.mark.timeout(240)
async def test_page_that_is_listed_works_in_chromium(
    service_env: dict[str, str], strangers_port: int, tmp_path: Path
) -> None:
    origin = f"http://app.example:{strangers_port}"
    env = service_env | {"DIALBUS_HEALTH_EXPECTS": "[]", "DIALBUS_GATEWAY_ORIGINS": origin}
    async with run_service("gateway", env) as gateway, Page.open(tmp_path, None, RESOLVER) as page:
        await page.goto(f"{origin}/")
        found = await attack(page, gateway.facts["http"], "nobody")
        assert found["sockets"] == ["open"] * 3
        assert found["read"] == [200, 200, 200]
        assert found["json"] == [404, 200], "the preflight requests were consented to"
