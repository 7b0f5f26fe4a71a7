"""Other configurations: the flat layout, no handler, registrars, records over HTTP (P-21, P-30, P-104 to P-111)."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.conformance.config import BARE, FLAT
from tests.conformance.files import recording, tones_in
from tests.conformance.parties import SOON_S, SPOKEN_S, hears, inbound, media_of, outbound, ringing_phone, speaking
from tests.conformance.servers import Receiver, Registrar, calls_of
from tests.ensemble import Exchange, running
from tests.harness import eventually
from tests.peers.phone import Phone
from tests.peers.rtp import open_peer


@dataclass
class Flat:
    """The ensemble of the flat layout and its servers."""

    exchange: Exchange
    registrar: Registrar
    records: Receiver


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flat]:
    """The ensemble of the flat layout."""
    registrar = Registrar()
    try:
        with Receiver.serve() as records:
            config = FLAT.replace("REGISTRAR", registrar.address).replace("RECORDS", f"{records.url}/records")
            folder = tmp_path_factory.mktemp("flat")
            with running(folder, config=config, settings={"DIALBUS_ICE_SERVERS": ""}) as exchange:
                yield Flat(exchange, registrar, records)
        last = registrar.seen[-1]
        assert last.header("Expires") == "0" or "expires=0" in last.header("Contact"), "it says goodbye on shutdown"
    finally:
        registrar.close()


@dataclass
class Bare:
    """The ensemble without a handler, and its language model."""

    exchange: Exchange
    model: Receiver


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """The ensemble without a handler."""
    reply = b'data: {"delta":"Hel"}\n\ndata: {"delta":"lo"}\n\ndata: [DONE]\n\n'
    with Receiver.serve(reply, "text/event-stream") as model:
        config = BARE.replace("LLM", f"{model.url}/v9")
        folder = tmp_path_factory.mktemp("bare")
        with running(folder, config=config, settings={"DIALBUS_ICE_SERVERS": ""}) as exchange:
            yield Bare(exchange, model)


@pytest.mark.row("P-105", "P-106", "P-30")
async def test_p105_the_flat_layout_and_its_handlers_in_turn(flat: Flat) -> None:
    numbers = [flat.exchange.number() for _ in range(4)]
    for number in numbers:
        async with inbound(flat.exchange, number=number) as call:
            await call.client.send("reject")
            refused = await call.dialog.expect_response(603, SOON_S)
            agent = refused.header("Server") or refused.header("User-Agent")
            assert agent in ("flat/1", "")
    requests = [flat.exchange.webhook.requests[number] for number in numbers]
    assert all(len(each) == 1 for each in requests)
    paths = [each[0][1] for each in requests]
    assert set(paths) == {"/webhook/one", "/webhook/two"}
    assert all(before != after for before, after in pairwise(paths)), "round-robin per call"
    assert {each[0][0] for each in requests} == {"PUT"}
    assert all(each[0][2]["x-table"] == "yes" for each in requests)


@pytest.mark.row("P-105", "P-17")
async def test_p105_the_user_agent(flat: Flat, exchange: Exchange) -> None:
    for ensemble, name in ((flat.exchange, "flat/1"), (exchange, "conformance/1")):
        async with outbound(ensemble) as call:
            dialog = await call.invite()
            assert dialog.invite is not None
            assert dialog.invite.header("User-Agent") == name
            dialog.reject(486)


@pytest.mark.row("P-107")
@pytest.mark.fault("X-18")
async def test_p107_registration(flat: Flat) -> None:
    registrar = flat.registrar
    await eventually(lambda: registrar.authorized, SOON_S)
    first = registrar.seen[0]
    host = registrar.address.partition(":")[0]
    assert first.uri == f"sip:{registrar.address}"
    for name in ("From", "To"):
        assert re.search(rf"sip:7301@{host}", first.header(name)), first.header(name)
    assert "sip:7301@" in first.header("Contact")
    # It is refreshed at 75 % of the 4 s that were granted.
    await eventually(lambda: len(registrar.authorized) >= 3, SOON_S)
    assert not [m for m in registrar.seen if "nobody" in m.header("From")], "a disabled entry registers nobody"


@pytest.mark.row("P-21", "P-19")
async def test_p021_credentials_are_borrowed_from_a_registration(flat: Flat) -> None:
    async with outbound(flat.exchange) as call:  # the registrar's host is the callee's
        dialog = await call.invite(caller="sip:7301@127.0.0.1")
        dialog.reject(407, [("Proxy-Authenticate", 'Digest realm="registrar", nonce="1"')])
        await dialog.expect_request("ACK", SOON_S)
        again = await dialog.expect_request("INVITE", SOON_S)
        assert 'username="7301"' in again.header("Proxy-Authorization")
        dialog.reject(486)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-108", "P-109")
async def test_p108_ports_address_codecs_and_latching(flat: Flat) -> None:
    async with outbound(flat.exchange) as call:
        dialog = await call.invite()
        assert dialog.invite is not None
        text = dialog.invite.text
        assert re.search(r"m=audio \d+ RTP/AVP 8 0 101\r\n", text), "the configured codecs in their order"
        host, port = media_of(text)
        assert host == "127.0.0.1"
        assert 21000 <= port <= 21999
        assert port % 2 == 0
        await call.answer()
        # The phone sends from elsewhere than it said: it is answered there.
        behind_nat = await open_peer()
        behind_nat.remote = call.rtp.remote
        try:
            await call.say_tone(700, 20.0)
            await call.hears(700)
            async with speaking(behind_nat, 500):
                await hears(behind_nat, 700)
        finally:
            behind_nat.close()
        await call.released()


@pytest.mark.row("P-101", "P-105")
@pytest.mark.fault("X-18", "X-15")
async def test_p101_every_call_is_recorded_when_the_configuration_says_so(flat: Flat) -> None:
    async with inbound(flat.exchange) as call:
        await call.accept()
        await call.say_tone(700, 0.5, playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hang_up()
        await call.client.until_closed(SOON_S)
    both, rate_hz = await recording(flat.exchange, call.client.main)
    assert rate_hz == 8000
    assert tones_in(both[:, 1], rate_hz, 700)


@pytest.mark.row("P-104")
async def test_p104_records_over_http_with_their_media(flat: Flat) -> None:
    async with inbound(flat.exchange) as call:
        await call.accept()
        await call.say_tone(700, 0.5, playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hang_up()
        await call.client.until_closed(SOON_S)
    parts = await eventually(lambda: calls_of(flat.records).get(call.client.main), SOON_S, what="the record")
    record = json.loads(parts["calllog.json"])
    assert record["hangupReason"] == "byCaller"
    assert parts[f"media_{call.client.main}"].startswith(b"RIFF")
    [dump] = [content for name, content in parts.items() if name.startswith("dump_events_")]
    assert b'"type":"event"' in dump.replace(b" ", b"")
    assert flat.records.got[0][0] == "/records"
    assert flat.records.got[0][1]["x-record"] == "yes"


@pytest.mark.row("P-111", "G6")
async def test_p111_ice_servers(flat: Flat, bare: Bare, exchange: Exchange) -> None:
    async def told(ensemble: Exchange) -> Any:
        async with httpx.AsyncClient(trust_env=False) as web:
            return (await web.get(f"{ensemble.http}/iceservers")).json()

    assert await told(flat.exchange) == [
        {"urls": ["stun:127.0.0.1:9"]},
        {"urls": ["turn:127.0.0.1:9"], "username": "u", "credential": "p"},
    ]
    [public] = await told(bare.exchange)
    assert set(public) == {"urls"}
    assert public["urls"][0].startswith("stun:")
    assert await told(exchange) == []


@pytest.mark.row("P-34", "P-105")
@pytest.mark.fault("X-11")
async def test_p034_no_handler_is_503(bare: Bare) -> None:
    async with ringing_phone(bare.exchange, "4000") as (_, _, dialog):
        refused = await dialog.expect_response(503, SOON_S)
        assert refused.header("Reason") == 'SIP;cause=503;text="No invite handler configured"'


@pytest.mark.row("P-115", "G17")
async def test_p115_the_proxy_of_a_language_model(bare: Bare) -> None:
    async with httpx.AsyncClient(trust_env=False) as web:
        answer = await web.post(
            f"{bare.exchange.http}/llm/v1/chat/completions",
            json={"model": "m", "stream": True},
            headers={"Authorization": "Bearer mine"},
        )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    [(path, headers, body)] = bare.model.got
    assert path == "/v9/chat/completions"
    assert headers["authorization"] == "Bearer mine"
    assert json.loads(body) == {"model": "m", "stream": True}


@pytest.mark.row("P-65")
async def test_p065_a_synthesiser_that_dies_is_an_error_and_the_call_goes_on(bare: Bare) -> None:
    async with outbound(bare.exchange) as call:
        await call.up(tts={})
        text = "One, two, three, four, five, six, seven, eight, nine, ten. " * 20
        await call.client.send("tts", text=text, playId="p", endOfStream=True)
        await call.client.expect("trackStart", SOON_S, playId="p")
        os.kill(int(bare.exchange.announced()["tts"]["pid"]), signal.SIGKILL)
        error = await call.client.expect("error", SPOKEN_S)
        assert (error["sender"], error["code"], error["trackId"]) == ("tts", 500, "server-side-track")
        await call.client.expect("trackEnd", SPOKEN_S, playId="p")
        await call.say_tone(700, 1.0)
        await call.hears(700)
        await call.released()
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-110", "P-108")
async def test_p110_options_are_answered_in_every_configuration(flat: Flat) -> None:
    async with Phone.open() as phone:
        await phone.ask("OPTIONS", flat.exchange.address("x")).expect_response(200, SOON_S)
