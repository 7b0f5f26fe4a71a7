"""The record of each call, once its recordings are closed (P-104, protocol 9.4)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dialbus.bus import Bus
from dialbus.contracts import media
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.records import WriteRecord
from dialbus.contracts.session import Attach
from tests.harness import messages_of, next_message, run_service
from tests.peers.exchange import GATEWAY, Call, Exchange
from tests.peers.phone import Phone

Records = asyncio.Queue[WriteRecord]


@pytest_asyncio.fixture
async def recording(bus: Bus, service_env: dict[str, str], tmp_path: Path) -> AsyncIterator[tuple[Exchange, Records]]:
    """A sip-ua that keeps records, and what it wants to be written."""
    settings = {"DIALBUS_CALLRECORD_TYPE": "local", "DIALBUS_RECORDER_PATH": str(tmp_path)}
    records = await messages_of(bus, WriteRecord)
    async with run_service("sip_ua", service_env | settings) as ua, Exchange.open(bus, ua) as exchange:
        yield exchange, records


async def _record_of(records: Records, call: Call) -> dict[str, Any]:
    """The call's only record."""
    while (written := await next_message(records)).call_id != call.call_id:
        pass
    assert records.empty()
    return written.record.to_fields()


async def test_p104_of_a_call_with_recording_dump_and_transfer(
    recording: tuple[Exchange, Records], phone: Phone, tmp_path: Path
) -> None:
    exchange, records = recording

    async def closing(command: media.LegRequest[Any]) -> Contract:
        if isinstance(command, media.CloseLeg) and command.leg_id == media.MAIN_LEG:
            file = media.RecordedFile(track_id=command.call_id, path="/r/a.wav", size_bytes=48044)
            return media.LegClosed(recordings=(file,))
        return media.LegClosed() if isinstance(command, media.CloseLeg) else Taken()

    exchange.media.answer = closing
    dialog = phone.call(exchange.uri)
    call = await exchange.taken(dialog)
    await call.send("ringing")
    await dialog.expect_response(180)
    await call.send("accept", option={"recorder": {}, "asr": {"secretKey": "s3cr3t"}, "extra": {"order": "17"}})
    for name in ("trackStart", "answer"):
        await call.expect(name)
    await dialog.expect_response(200)
    dialog.ack()
    async with Phone.open() as target:
        await call.send("refer", callee=target.uri)
        second = await target.expect_call()
        second.reject(603)
        await second.expect_request("ACK")
        await call.expect("reject", refer=True)
        await call.expect("hangup", refer=True)
    await call.send("hangup", reason="callee")
    await dialog.expect_bye()
    record = await _record_of(records, call)
    assert (record["callType"], record["callId"], record["statusCode"]) == ("sip", call.call_id, 200)
    assert record["hangupReason"] == "byCallee"
    assert record["recorder"] == [{"trackId": call.call_id, "path": "/r/a.wav", "size": 48044}]
    assert record["dumpEventFile"] == str(tmp_path / f"{call.call_id}.events.jsonl")
    assert record["startTime"] <= record["ringTime"] <= record["answerTime"] <= record["endTime"]
    assert record["extras"]["order"] == "17"
    assert record["option"]["asr"]["secretKey"] == "***"
    assert record["offer"] == phone.sdp()
    assert (record["referCallrecord"]["callType"], record["referCallrecord"]["statusCode"]) == ("b2bua", 603)


@pytest.mark.parametrize("how", ["refused", "cancelled", "rejected"])
async def test_p104_of_a_call_that_failed(recording: tuple[Exchange, Records], phone: Phone, how: str) -> None:
    exchange, records = recording
    if how == "refused":
        call = await exchange.opened("invite", option={"callee": phone.uri})
        dialog = await phone.expect_call()
        dialog.reject(486)
    else:
        dialog = phone.call(exchange.uri)
        call = exchange.follow((await exchange.announced(dialog)).call_id)
        await exchange.bus.request(Attach(call_id=call.call_id, gateway=GATEWAY, dump=False))
        await call.expect("incoming")
        if how == "cancelled":
            dialog.cancel()
        else:
            await call.send("reject", code=480, reason="not now")
    record = await _record_of(records, call)
    expected = {"refused": (486, "rejected"), "cancelled": (487, "canceled"), "rejected": (480, "not now")}
    assert (record["statusCode"], record["hangupReason"]) == expected[how]
    assert record["hangupMessages"][0]["code"] == record["statusCode"]
    assert ("dumpEventFile" in record) is (how == "refused")
    assert "answerTime" not in record
