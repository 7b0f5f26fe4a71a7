"""The client's socket: ids, queries, life cycle, bad input (P-01, P-04 to P-15)."""

import asyncio
import json
import re
import secrets
from functools import partial
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from tests.conformance.files import dump
from tests.conformance.parties import SOON_S, Client, client, fresh_id, inbound, outbound, ringing_phone
from tests.conformance.strict import is_rfc3339
from tests.ensemble import Exchange
from tests.harness import eventually

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.row("P-01", "P-04")
async def test_p004_a_session_without_id_gets_one(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        await call.invite()
        start = await call.client.expect("trackStart", SOON_S)
        assert re.fullmatch(rf"s\.{UUID}", start["trackId"])
        call.dialog.reject(486)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-04")
@pytest.mark.parametrize("reading", ["raw", "percent", "plus kept", "form"])
async def test_p004_the_dialog_id_in_four_spellings(exchange: Exchange, reading: str) -> None:
    strange = f"{secrets.token_hex(4)}+b%41[c]@127.0.0.1"
    number = exchange.number()
    async with ringing_phone(exchange, number, call_id=strange) as (_, _, dialog):
        body = await exchange.announcement(number)
        id = body["dialogId"]
        assert id.startswith(f"{strange}-")
        text = {
            "raw": id,
            "percent": quote(id, safe=""),
            "plus kept": quote(id, safe="+@"),
            "form": quote_plus(id),
        }[reading]
        url = f"{exchange.http.replace('http', 'ws')}/call/sip?id={text}&dump=true"
        async with connect(url, proxy=None) as socket:
            async with asyncio.timeout(SOON_S):
                incoming = json.loads(await socket.recv())
            assert (incoming["event"], incoming["trackId"]) == ("incoming", id)
            await socket.send('{"command":"reject"}')
            await dialog.expect_response(603, SOON_S)


@pytest.mark.row("P-05", "P-103")
@pytest.mark.parametrize("query", [{}, {"dump": "false"}, {"dump_events": "0"}, {"dumpEvents": "No"}, {"dump": "x"}])
async def test_p005_the_dump_is_written_unless_it_is_not_wanted(exchange: Exchange, query: dict[str, str]) -> None:
    id = fresh_id()
    async with client(exchange, id, **query) as socket:
        await socket.send("history", speaker="user", text="x")
        await socket.expect("addHistory", SOON_S)
        await socket.send("hangup")
        await socket.until_closed(SOON_S)
    if query in ({}, {"dump": "x"}):
        assert [line["type"] for line in await dump(exchange, id, last="addHistory")][:2] == ["command", "event"]
    else:
        assert not (exchange.recordings / f"{id}.events.jsonl").exists()


class Pinged(ClientConnection):
    """A connection that notes ping frames."""

    pings: list[bytes]

    def process_event(self, event: Any) -> None:
        """Of websockets."""
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings.append(bytes(event.data))
        super().process_event(event)


@pytest.mark.row("P-06", "P-09")
@pytest.mark.fault("X-27")
async def test_p009_pings_are_frames_and_events(exchange: Exchange) -> None:
    async def listen(query: str, seconds: float) -> tuple[list[dict[str, Any]], list[bytes], float]:
        pings: list[bytes] = []
        factory = type("Mine", (Pinged,), {"pings": pings})
        url = f"{exchange.http.replace('http', 'ws')}/call/sip?{query}"
        events: list[dict[str, Any]] = []
        first = 0.0
        async with connect(url, proxy=None, ping_interval=None, create_connection=factory) as socket:
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                async with asyncio.timeout(seconds):
                    while len(events) < 2:
                        events.append(json.loads(await socket.recv()))
                        first = first or loop.time() - began
            except TimeoutError:
                pass
        return events, pings, first

    spellings = ["ping=1", "pingInterval=1", "ping_interval=1"]
    *told, off = await asyncio.gather(*(listen(query, 10) for query in spellings), listen("ping=0", 3))
    for events, pings, first in told:
        assert [event["event"] for event in events] == ["ping", "ping"]
        assert all(is_rfc3339(event["payload"]) for event in events)
        assert 0.9 < first < 5, "none at time 0, then every second"
        assert pings
        assert all(is_rfc3339(payload.decode()) for payload in pings)
    assert off[:2] == ([], [])


@pytest.mark.row("P-07")
@pytest.mark.fault("X-25")
@pytest.mark.parametrize("name", ["serverSideTrack", "server_side_track", ""])
async def test_p007_the_server_side_track_has_the_name_asked_for(exchange: Exchange, name: str) -> None:
    async with outbound(exchange, **({name: "robot"} if name else {})) as call:
        await call.up()
        await call.say_tone(700, 0.2, playId="p", endOfStream=True)
        end = await call.client.expect("trackEnd", SOON_S, playId="p")
        assert end["trackId"] == ("robot" if name else "server-side-track")
        await call.released()


@pytest.mark.row("P-08")
async def test_p008_an_id_that_is_live_is_refused(exchange: Exchange) -> None:
    id = fresh_id()
    async with client(exchange, id) as first:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{exchange.http.replace('http', 'ws')}/call/sip?id={id}", proxy=None)
        assert refused.value.response.status_code == 409
        assert json.loads(refused.value.response.body or b"") == {"error": "session id in use", "id": id}
        await first.send("history", speaker="user", text="still here")
        await first.expect("addHistory", SOON_S)


@pytest.mark.row("P-10")
async def test_p010_bad_input_is_an_error_and_the_socket_stays(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        bad = [
            "{", "[]", '"hangup"', "7", "{}", '{"command":"fly"}', '{"command":"start"}', '{"command":7}',
            '{"command":"tts"}', '{"command":"play"}', '{"command":"accept"}', '{"command":"refer"}',
            '{"command":"history","text":"x"}', '{"command":"accept","option":{"vad":7}}', '{"command":"tts","text":5}',
        ]  # fmt: skip
        for count, text in enumerate(bad, 1):
            await call.client.send_text(text)
            await eventually(partial(_told, call.client, count), SOON_S, what=text)
        for error in call.client.of("error"):
            assert (error["sender"], error["code"]) == ("command", 400)
            assert error["trackId"] == call.client.main
        await call.client.send_text(b"\x00\x01binary")  # ignored
        await call.accept()
        await call.released()
        await call.client.until_closed(SOON_S)
        assert len(call.client.of("error")) == len(bad)


@pytest.mark.row("P-11", "G15")
async def test_p011_unknown_fields_nulls_and_numeric_strings_are_fine(exchange: Exchange) -> None:
    option = {
        "callType": "sip", "denoise": None, "recorder": None, "sip": None, "extra": None, "codec": None, "eou": None,
        "vad": {"type": None, "speechPadding": None, "silencePadding": "200", "ratio": None, "voiceThreshold": "0.5",
                "maxBufferDurationSecs": None, "silenceTimeout": None, "stray": [1, {"x": None}]},
        "asr": {"provider": None, "language": None, "sampleRate": 16000, "samplerate": None, "extra": None},
        "tts": {"provider": None, "speaker": None, "speed": None, "volume": None, "samplerate": "16000"},
        "handshakeTimeout": "30s", "enableIpv6": None, "inactivityTimeout": None, "subscribe": None, "stray": {"a": 1},
    }  # fmt: skip
    async with inbound(exchange) as call:
        await call.client.send("accept", option=option, callType="sip", stray=None)
        await call.client.expect("answer", SOON_S)
        await call.answered()
        fields = {"playId": None, "speaker": None, "streaming": None, "autoHangup": None, "endOfStream": None}
        await call.say_tone(700, 0.2, **fields, waitInputTimeout="300", option=None, cacheKey=None)
        await call.client.expect("silence", SOON_S, duration=300)
        await call.client.send("hangup", reason=None, initiator=None, headers=None, refer=None)
        await call.dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)
        assert not call.client.of("error")


@pytest.mark.row("P-12", "P-46")
@pytest.mark.fault("X-11")
async def test_p012_a_lost_socket_ends_the_call(exchange: Exchange) -> None:
    loop = asyncio.get_running_loop()
    async with inbound(exchange) as call:
        await call.accept()
        call.client.drop()
        lost = loop.time()
        await call.dialog.expect_bye(SOON_S)
        assert loop.time() - lost < 3
    async with inbound(exchange) as call:
        await call.client.close()
        refused = await call.dialog.expect_response(603, SOON_S)
        assert refused.header("Reason") == 'SIP;cause=603;text="handler disconnected"'


@pytest.mark.row("P-13", "G5", "P-01")
async def test_p013_the_end_of_a_session_that_never_called(exchange: Exchange) -> None:
    async with client(exchange, fresh_id()) as socket:
        await socket.send("hangup")
        assert await socket.until_closed(SOON_S) == 1000
    async with client(exchange, fresh_id()) as socket:
        await socket.send("tts", text="too early")
        await socket.expect("error", SOON_S, sender="command")
        await socket.send("hangup", reason="done")
        assert await socket.until_closed(SOON_S) == 1000


@pytest.mark.row("G18", "P-14")
@pytest.mark.fault("X-06")
async def test_x06_a_slow_reader_loses_no_event(exchange: Exchange) -> None:
    url = f"{exchange.http.replace('http', 'ws')}/call/sip?id={fresh_id()}"
    async with connect(url, proxy=None, max_queue=1) as socket:
        for number in range(1000):
            await socket.send(json.dumps({"command": "history", "speaker": "user", "text": f"{number} {'x' * 2000}"}))
        async with asyncio.timeout(60):
            for number in range(1000):
                event = json.loads(await socket.recv())
                assert (event["event"], event["text"].split()[0]) == ("addHistory", str(number))


@pytest.mark.row("P-76")
async def test_p076_history(exchange: Exchange) -> None:
    async with client(exchange, fresh_id()) as socket:
        await socket.send("history", speaker="bot", text="How can I help?")
        event = await socket.expect("addHistory", SOON_S)
        assert (event["speaker"], event["text"], event["sender"]) == ("bot", "How can I help?", socket.main)


@pytest.mark.row("P-99", "G9")
async def test_p099_custom(exchange: Exchange) -> None:
    async with client(exchange, fresh_id()) as socket:
        for data in ({"note": ["a", 1, {"b": True}]}, "text", 7):
            await socket.send("custom", data=data, sender="me")
            event = await socket.expect("custom", SOON_S)
            assert (event["data"], event["sender"]) == (data, "me")


@pytest.mark.row("P-14", "G10")
def test_p014_the_types_that_every_test_here_holds_events_against_catch_what_go_refuses() -> None:
    from tests.conformance.strict import assert_strict

    good = {"event": "trackEnd", "trackId": "s", "timestamp": 1, "duration": 2, "ssrc": 3}
    assert_strict(good)
    for change in (
        {"duration": 1.0},
        {"duration": -1},
        {"ssrc": 2**32},
        {"playId": None},
        {"timestamp": "1"},
        {"x": 1},
    ):
        with pytest.raises(AssertionError):
            assert_strict(good | change)


def _told(client: Client, errors: int) -> bool:
    return len(client.of("error")) == errors
