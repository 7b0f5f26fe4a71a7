"""Recordings, dumps and call records (P-101 to P-104, protocol section 9)."""

import secrets
import tempfile
import wave
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.files import record, recording, tones_in
from tests.conformance.parties import SOON_S, client, fresh_id, inbound, outbound, second_phone
from tests.conformance.strict import is_rfc3339
from tests.conformance.test_transfer import pick_up, refer
from tests.ensemble import Exchange
from tests.harness import eventually

ABSOLUTE = Path(tempfile.gettempdir()) / f"dialbus-absolute-{secrets.token_hex(4)}"


def cdr(exchange: Exchange) -> Path:
    """Where the suite's ensemble keeps call records."""
    return exchange.run_dir.parent / "cdr"


@pytest.mark.row("P-102", "P-101")
@pytest.mark.fault("X-15", "X-20")
@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({}, "{id}.wav"),
        ({"recorderFile": "calls/{id}-left"}, "calls/{id}-left.wav"),
        ({"recorderFile": "named-{id}.wav"}, "named-{id}.wav"),
    ],
)
async def test_p102_names_of_recordings(exchange: Exchange, wanted: dict[str, Any], name: str) -> None:
    async with inbound(exchange) as call:
        await call.accept(recorder=wanted)
        async with call.speaking(500):
            await call.say_tone(700, 1.0, playId="p", endOfStream=True)
            await call.client.expect("trackEnd", SOON_S, playId="p")
            path = exchange.recordings / name.replace("{id}", call.client.main)
            await eventually(path.exists, SOON_S)
            with wave.open(str(path)) as file:  # the header is right while the call lasts
                assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 16000, 2)
        await call.hang_up()
        await call.client.until_closed(SOON_S)
        both, rate_hz = await recording(exchange, "", path=path)
        assert tones_in(both[:, 0], rate_hz, 500)
        assert tones_in(both[:, 1], rate_hz, 700)
        assert not tones_in(both[:, 1], rate_hz, 500)


@pytest.mark.row("P-102")
@pytest.mark.fault("X-20")
@pytest.mark.parametrize(
    "name",
    ["../escaped", f"{ABSOLUTE}-{{id}}", "a/../../escaped", "..\\escaped"],
    ids=["above", "absolute", "above in the middle", "backslash"],
)
async def test_p102_no_recording_outside_of_its_folder(exchange: Exchange, name: str) -> None:
    async with inbound(exchange) as call:
        await call.client.send("accept", option={"recorder": {"recorderFile": name}})
        await call.client.expect("error", SOON_S)
        assert not list(exchange.recordings.parent.glob("escaped*"))
        assert not list(ABSOLUTE.parent.glob(f"{ABSOLUTE.name}*"))
        await call.client.send("hangup")
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-102", "P-103")
@pytest.mark.fault("X-20")
async def test_p102_a_session_id_cannot_leave_the_folder(exchange: Exchange) -> None:
    for id in (f"../{fresh_id()}", f".{fresh_id()}", f"a/{fresh_id()}\\b"):
        async with outbound(exchange, call_id=id) as call:
            await call.up(recorder={})
            await call.say_tone(700, 0.3, playId="p", endOfStream=True)
            await call.client.expect("trackEnd", SOON_S, playId="p")
            await call.released()
            await call.client.until_closed(SOON_S)
        safe = id.replace("/", "_").replace("\\", "_")
        safe = "_" + safe[1:] if safe.startswith(".") else safe
        assert safe.rpartition("_")[2]
        tail = id.rpartition("/")[2].replace("\\", "_").lstrip(".")
        found = await eventually(partial(_named, exchange.recordings, tail), SOON_S)
        assert all(path.parent == exchange.recordings and not path.name.startswith(".") for path in found), found
        assert not list(exchange.recordings.parent.glob(f"*{tail}*"))


@pytest.mark.row("P-104", "P-101", "P-52")
async def test_p104_the_record_of_a_call(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept(recorder={}, extra={"order": "47"}, asr={"secretKey": "s3cr3t"})
        await call.say_tone(700, 0.5, playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.hang_up()
        await call.client.until_closed(SOON_S)
    found = await record(cdr(exchange), call.client.main)
    assert (found["callType"], found["callId"]) == ("sip", call.client.main)
    assert (found["caller"], found["callee"]) == (call.body["caller"], call.body["callee"])
    assert found["statusCode"] == 200
    assert found["hangupReason"] == "byCaller"
    assert all(is_rfc3339(found[key]) for key in ("startTime", "endTime", "answerTime"))
    [file] = found["recorder"]
    assert file["trackId"] == call.client.main
    assert file["path"] == str(exchange.recordings / f"{call.client.main}.wav")
    both, _ = await recording(exchange, call.client.main)
    assert file["size"] == len(both.tobytes()) + 44
    assert found["dumpEventFile"].endswith(".events.jsonl")
    assert found["extras"]["order"] == "47"
    assert "option" in found
    assert "s3cr3t" not in str(found)
    [path] = cdr(exchange).rglob(f"*_{call.client.main}.json")
    day, moment = path.parent.name, path.name.partition("_")[0]
    assert datetime.strptime(moment, "%Y%m%d-%H%M%S").strftime("%Y%m%d") == day  # noqa: DTZ007 (local time)


@pytest.mark.row("P-104")
@pytest.mark.fault("X-01")
async def test_p104_records_of_calls_that_failed(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        (await call.invite()).reject(486)
        await call.client.until_closed(SOON_S)
    refused = await record(cdr(exchange), call.client.main)
    assert (refused["statusCode"], refused["hangupReason"]) == (486, "rejected")
    assert "answerTime" not in refused
    async with inbound(exchange) as call:
        call.dialog.cancel()
        await call.client.until_closed(SOON_S)
    canceled = await record(cdr(exchange), call.client.main)
    assert (canceled["statusCode"], canceled["hangupReason"]) == (487, "canceled")
    async with inbound(exchange) as call:
        await call.client.send("reject", reason="not today")
        await call.client.until_closed(SOON_S)
    declined = await record(cdr(exchange), call.client.main)
    assert (declined["statusCode"], declined["hangupReason"]) == (603, "not today")
    async with inbound(exchange) as call:
        await call.accept()
        await call.released()
        await call.client.until_closed(SOON_S)
    ours = await record(cdr(exchange), call.client.main)
    assert (ours["statusCode"], ours["hangupReason"]) == (200, "bySystem")


@pytest.mark.row("P-104", "P-77")
async def test_p104_the_record_of_a_transfer_holds_the_second_leg(exchange: Exchange) -> None:
    async with inbound(exchange) as call, second_phone() as (target, rtp):
        await call.accept()
        dialog = await refer(call, target)
        await pick_up(call, dialog, rtp)
        await call.hang_up()
        await dialog.expect_bye(SOON_S)
        await call.client.until_closed(SOON_S)
    found = await record(cdr(exchange), call.client.main)
    second = found["referCallrecord"]
    assert second["callType"] == "b2bua"
    assert second["callee"] == target.uri
    assert is_rfc3339(second["answerTime"])


@pytest.mark.row("P-104", "P-03")
async def test_p104_the_record_of_a_socket_call(exchange: Exchange) -> None:
    async with client(exchange, fresh_id(), path="/call") as socket:
        await socket.send("invite", option={})
        await socket.expect("answer", SOON_S)
        await socket.send("hangup")
        await socket.until_closed(SOON_S)
    found = await record(cdr(exchange), socket.call_id)
    assert (found["callType"], found["hangupReason"]) == ("webSocket", "bySystem")


def _named(folder: Path, tail: str) -> list[Path]:
    return sorted(folder.glob(f"*{tail}*"))
