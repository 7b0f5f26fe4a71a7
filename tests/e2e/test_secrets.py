"""Nothing that must stay secret is written down anywhere, and Ctrl-C lets the call in progress end (protocol X-20, 8).

One ensemble of its own, at the most talkative log level, gets every kind of secret there is: from its settings and from
a client. Then everything that it wrote, stored or told is searched for them.
"""

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dialbus.bus import Bus
from dialbus.bus.trace_store import TraceStore
from dialbus.config import NatsConfig
from dialbus.sessions import Sessions
from tests.ensemble import Exchange, running
from tests.harness import eventually, next_message
from tests.peers.client import ApiClient
from tests.peers.phone import Dialog, Message, Phone, is_authorized

NONCE = "84f1c1ae6cbe5ua9c8e88dfa3ecm3459"
CHALLENGE = ("WWW-Authenticate", f'Digest realm="there", nonce="{NONCE}"')
SECRETS = {
    name: f"hush-{name}-4711"
    for name in (
        "handler-secret", "handler-header", "http-token", "turn", "registration", "llm", "sip", "refer", "secret-key",
        "secret-id", "api-key", "tts-key", "malformed", "misplaced", "uri", "url-user",
        "url-query",
    )
}  # fmt: skip


def settings(registrar: Phone, folder: Path) -> dict[str, str]:
    """Every setting that is, or holds, a secret; nobody listens at the second webhook."""
    user = {
        "server": f"{registrar.host}:{registrar.port}",
        "username": "4000",
        "credential": {"username": "4000", "password": SECRETS["registration"]},
    }
    return {
        "DIALBUS_LOG_LEVEL": "debug",
        "DIALBUS_UA_HANDLER_SECRET": SECRETS["handler-secret"],
        "DIALBUS_UA_HANDLER_HEADERS": json.dumps([["X-Key", SECRETS["handler-header"]]]),
        "DIALBUS_UA_HANDLER_URLS": f"http://me:{SECRETS['url-user']}@127.0.0.1:1/hook?token={SECRETS['url-query']}",
        "DIALBUS_CALLRECORD_TYPE": "local",
        "DIALBUS_CALLRECORD_ROOT": str(folder / "cdr"),
        "DIALBUS_HTTP_TOKEN": SECRETS["http-token"],
        "DIALBUS_ICE_SERVERS": json.dumps([{"urls": ["turn:t"], "username": "u", "credential": SECRETS["turn"]}]),
        "DIALBUS_UA_REGISTER_USERS": json.dumps([user]),
        "DIALBUS_LLMPROXY": f"https://key:{SECRETS['llm']}@llm.example/v1",
        "DIALBUS_UA_GRACEFUL_SHUTDOWN_TIMEOUT": "30s",
    }


def option(phone: Phone) -> dict[str, Any]:
    """A CallOption with every secret that a client may send."""
    return {
        "callee": phone.uri,
        "caller": f"sip:7301:{SECRETS['uri']}@pbx.example",
        "sip": {"username": "7301", "password": SECRETS["sip"]},
        "asr": {"appId": "1", "secretId": SECRETS["secret-id"], "secretKey": SECRETS["secret-key"]},
        "tts": {"apiKey": SECRETS["tts-key"], "secret_id": SECRETS["secret-id"]},
        "realtime": {"provider": "openai", "apiKey": SECRETS["api-key"]},
        "recorder": {},
    }


def asked(url: str) -> bytes:
    """What the API tells somebody who has the token."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {SECRETS['http-token']}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return bytes(answer.read())


def bus_url(exchange: Exchange) -> str:
    """Where the ensemble's own bus is."""
    (ports,) = (exchange.run_dir / "nats").glob("*.ports")
    return str(json.loads(ports.read_text())["nats"][0])


@asynccontextmanager
async def embedded_bus(exchange: Exchange) -> AsyncIterator[Bus]:
    """The ensemble's own bus."""
    async with Bus.connect(NatsConfig(url=bus_url(exchange)), service="test", instance="test-secrets") as bus:
        yield bus


async def traced(exchange: Exchange) -> bytes:
    """All that `dialbus trace` can tell of the call."""
    async with TraceStore.connect(bus_url(exchange)) as store:
        lines = [line async for line in store.lines("s.secrets")]
    assert {"sip-in", "sip-out", "command", "event", "request", "log"} <= {line.kind for line in lines}
    return "\n".join(map(repr, lines)).encode()


async def registered(registrar: Phone, exchange: Exchange) -> None:
    """Challenge the registration, so that its password is used."""
    first = await next_message(registrar.strays)
    answer_register(registrar, exchange, first, 401, CHALLENGE)
    while not (second := await next_message(registrar.strays)).all("Authorization"):
        pass  # copies from while the ensemble started
    assert is_authorized(second, "4000", SECRETS["registration"], NONCE)
    answer_register(registrar, exchange, second, 200, ("Contact", second.header("Contact")), ("Expires", "3600"))


def answer_register(
    registrar: Phone, exchange: Exchange, request: Message, status: int, *headers: tuple[str, str]
) -> None:
    """As a registrar."""
    copied = [line for line in request.headers if line[0] in ("Via", "From", "Call-ID", "CSeq")]
    host, _, port = exchange.sip.rpartition(":")
    message = Message(f"SIP/2.0 {status} Told", (*copied, ("To", f"{request.header('To')};tag=r"), *headers), b"")
    registrar.send(message, (host, int(port)))


async def answered_after_a_challenge(phone: Phone) -> Dialog:
    """The phone's side of a call with credentials."""
    dialog = await phone.expect_call()
    dialog.reject(401, [CHALLENGE])
    await dialog.expect_request("ACK")
    assert is_authorized(await dialog.expect_request("INVITE"), "7301", SECRETS["sip"], NONCE)
    dialog.answer()
    await dialog.expect_request("ACK")
    return dialog


async def announced(phone: Phone, exchange: Exchange) -> None:
    """A caller who gives up as soon as a webhook was told; of two calls one begins at the one that is not there."""
    number = exchange.number()
    dialog = phone.call(exchange.address(number))
    await exchange.announcement(number)
    dialog.cancel()
    await dialog.expect_response(200, method="CANCEL")
    await dialog.expect_response(487)


async def transfer(client: ApiClient, phone: Phone) -> None:
    """A transfer that fails at its credentials."""
    sip, asr = {"username": "7301", "password": SECRETS["refer"]}, {"apiKey": SECRETS["api-key"]}
    await client.send("refer", callee=phone.uri, options={"sip": sip, "asr": asr})
    dialog = await phone.expect_call()
    dialog.reject(401, [CHALLENGE])
    await dialog.expect_request("ACK")
    assert is_authorized(await dialog.expect_request("INVITE"), "7301", SECRETS["refer"], NONCE)
    dialog.reject(403)
    await client.expect("reject", code=403, refer=True)
    await client.expect("hangup", refer=True)


async def misbehave(client: ApiClient) -> None:
    """Commands that are refused, and hold secrets none the less."""
    await client.send_text(f'{{"command":"invite","option":{{"sip":{{"password":"{SECRETS["malformed"]}"')
    await client.expect("error", code=400)
    await client.send("accept", option={"sip": {"password": SECRETS["malformed"], "headers": 5}})
    await client.expect("error", code=400)
    await client.send("accept", option=SECRETS["misplaced"])
    await client.expect("error", code=400)
    await client.send("accept", option={"recorder": {"samplerate": SECRETS["misplaced"]}})
    await client.expect("error", code=400)


def written_below(folder: Path) -> dict[str, bytes]:
    """Every file, by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found_in(places: dict[str, bytes], *, but: tuple[str, ...] = ()) -> list[str]:
    """`secret in place`, for each that is where it must not be."""
    return [
        f"{name} in {place}"
        for name, secret in SECRETS.items()
        for place, content in places.items()
        if name not in but and secret.encode() in content
    ]


@pytest.mark.e2e
async def test_no_secret_is_written_down_and_the_last_call_may_end(tmp_path: Path) -> None:
    places: dict[str, bytes] = {}
    async with Phone.open() as registrar, Phone.open() as phone:
        with running(tmp_path, settings=settings(registrar, tmp_path)) as exchange:
            await registered(registrar, exchange)
            base = exchange.http.replace("http://", "ws://")
            async with (
                embedded_bus(exchange) as bus,
                ApiClient.connect(base, call_id="s.secrets", token=SECRETS["http-token"]) as client,
            ):
                await client.send("invite", option=option(phone))
                dialog = await answered_after_a_challenge(phone)
                await client.expect("answer")
                await misbehave(client)
                await asyncio.gather(announced(phone, exchange), announced(phone, exchange))
                session = await (await Sessions.open(bus)).get("s.secrets")
                assert session is not None
                assert session.option is not None
                assert session.option["asr"]["secretKey"] == "***"
                places["the books"] = session.model_dump_json().encode()
                watcher = asyncio.create_task(asyncio.to_thread(asked, f"{exchange.http}/events/s.secrets"))
                for path in ("/list", "/ami/v1/lists", "/api/records", "/health"):
                    places[path] = await asyncio.to_thread(asked, exchange.http + path)
                assert b"s.secrets" in places["/list"]
                await transfer(client, phone)

                exchange.process.send_signal(signal.SIGINT)
                log = tmp_path / "supervisor.log"
                await eventually(lambda: b"waiting for 1 call" in log.read_bytes(), what="the wait for the call")
                await client.send("tts", text="Still here.", option={"secretKey": SECRETS["tts-key"]})
                await client.expect("trackStart", trackId="server-side-track")
                dialog.bye()
                await dialog.expect_response(200, method="BYE")
                await client.expect("hangup", reason="byCallee")
                assert await client.until_closed() == 1000
                places["what the client was told"] = json.dumps(client.events).encode()
                places["what a watcher was told"] = await watcher
                places["the trace"] = await traced(exchange)
                assert b"Authorization: ***" in places["the trace"]
                assert b"event: command" in places["what a watcher was told"]
            assert await asyncio.to_thread(exchange.process.wait, 15) == 0

        places |= written_below(tmp_path)
    logs = [name for name in places if name.endswith(".log")]
    assert len(logs) == 8, logs
    assert b"config" in places["run/gateway-1.log"], "debug lines are there"
    assert b"sip.sent" in places["run/sip-ua-1.log"]
    assert b"webhook.attempt_failed" in places["run/webhook-dispatcher-1.log"]
    assert b"http://***@127.0.0.1:1/hook?***" in places["supervisor.log"]
    assert b"***" in places["recorders/s.secrets.events.jsonl"]
    (record,) = [content for name, content in places.items() if name.startswith("cdr/") and b'"s.secrets"' in content]
    assert b"***" in record
    assert found_in({name: places[name] for name in (*logs, "the trace")}) == []
    # A password inside a SIP URI is on the wire for everybody to read; a call's parties are told as they are.
    assert found_in(places, but=("uri",)) == []
