"""How calls end: tracks, hangup and its words, BYE (P-47 to P-54, O15, O16)."""

import json
from datetime import datetime

import pytest

from tests.conformance.files import dump
from tests.conformance.parties import SOON_S, inbound, outbound
from tests.ensemble import Exchange


@pytest.mark.row("P-47", "P-48", "P-49", "P-52", "O15", "P-13", "G5")
@pytest.mark.fault("X-01", "X-04", "X-26")
async def test_p049_the_caller_hangs_up(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept(extra={"order": "47", "_internal": "x"})
        await call.say_tone(700, 20.0, playId="p")
        await call.client.expect("trackStart", SOON_S, playId="p")
        await call.hears(700)
        await call.hang_up()
        await call.client.ended(
            r"incoming T\(main\) answer T\(srv,p\) (interruption\{p\} )?E\(srv,p\) E\(main\) hangup\{byCaller,caller\}"
        )
        hangup = call.client.events[-1]
        user = call.exchange.address("x").partition("@")[2].partition(":")[0]
        assert hangup["from"] == {"username": "phone", "realm": "127.0.0.1", "source": call.phone.uri}
        assert hangup["to"]["realm"] == user
        assert hangup["to"]["source"] == call.body["callee"]
        assert hangup["extra"]["order"] == "47"
        assert hangup["extra"]["session_id"] == call.client.main
        assert hangup["extra"]["call_type"] == "sip"
        assert "start_time" in hangup["extra"]
        assert not [key for key in hangup["extra"] if key.startswith("_")]
        assert hangup["refer"] is False
        times = [datetime.fromisoformat(hangup[key]) for key in ("startTime", "answerTime", "hangupTime")]
        assert times == sorted(times)
        answered = next(event["timestamp"] for event in call.client.events if event["event"] == "answer")
        [end] = call.client.of("trackEnd", trackId=call.client.main)
        assert abs(end["duration"] - (end["timestamp"] - answered)) < 1000, "milliseconds since the answer"


@pytest.mark.row("P-49", "P-52", "O15")
async def test_p049_the_callee_hangs_up(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite(caller="sip:7301@10.20.0.4:13050")
        dialog.ringing()
        await call.client.told(r"T\(main\) ringing")
        await call.answer()
        await call.hang_up()
        await call.client.ended(r"T\(main\) ringing answer E\(main\) hangup\{byCallee,callee\}")
        hangup = call.client.events[-1]
        assert hangup["from"] == {"username": "7301", "realm": "10.20.0.4", "source": "sip:7301@10.20.0.4:13050"}
        assert hangup["to"] == {"username": "phone", "realm": "127.0.0.1", "source": call.phone.uri}
        names = ("startTime", "ringingTime", "answerTime", "hangupTime")
        times = [datetime.fromisoformat(hangup[name]) for name in names]
        assert times == sorted(times)


@pytest.mark.row("P-50", "P-53", "P-54", "O16")
@pytest.mark.fault("X-01", "X-02", "X-19")
@pytest.mark.parametrize(
    ("fields", "reason", "initiator"),
    [
        ({}, "bySystem", "system"),
        ({"reason": "Normal clearing"}, "Normal clearing", "system"),
        ({"reason": "noAnswer", "initiator": "callee"}, "noAnswer", "callee"),
        ({"reason": "byCaller", "initiator": "caller"}, "byCaller", "caller"),
        ({"reason": "sold", "initiator": "the boss"}, "sold", "the boss"),
    ],
)
async def test_p050_the_client_hangs_up(
    exchange: Exchange, fields: dict[str, str], reason: str, initiator: str
) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        await call.client.send("hangup", **fields)
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(rf"incoming T\(main\) answer E\(main\) hangup\{{{reason},{initiator}\}}")


@pytest.mark.row("P-54")
async def test_p054_headers_on_the_bye(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        await call.up(sip={"hangup_headers": {"X-Cause": "call", "X-Kept": "1"}, "headers": {"X-Invite": "1"}})
        headers = {"X-Cause": "command", "Call-ID": "mine", "CSeq": "7 BYE"}
        await call.client.send("hangup", headers=headers)
        bye = await call.dialog.expect_bye(SOON_S)
        assert (bye.header("X-Cause"), bye.header("X-Kept"), bye.header("X-Invite")) == ("command", "1", "")
        assert bye.all("Call-ID") == [call.dialog.call_id]
        assert len(bye.all("CSeq")) == 1
    async with outbound(exchange) as call:
        await call.up(sip={"hangupHeaders": {"X-Cause": "camel"}})
        assert (await call.released()).header("X-Cause") == "camel"
    async with outbound(exchange) as call:
        dialog = await call.invite(sip={"hangup_headers": {"X-Cause": "call"}})
        dialog.ringing()
        await call.client.told(r"T\(main\) ringing")
        await call.client.send("hangup", headers={"X-Cause": "x"})
        cancel = await dialog.expect_request("CANCEL", SOON_S)
        assert not cancel.header("X-Cause")
        dialog.reply(cancel, 200)
        dialog.reject(487)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-13", "P-53")
async def test_commands_after_the_end_are_ignored(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        for _ in range(3):
            await call.client.send("hangup", reason="first")
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(r"incoming T\(main\) answer E\(main\) hangup\{first,system\}")


@pytest.mark.row("P-103")
@pytest.mark.fault("X-20")
async def test_p103_the_dump_has_everything_in_order_and_no_secret(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        await call.up(
            sip={"username": "7301", "password": "s3cr3t-1"},
            asr={"secretKey": "s3cr3t-2", "secretId": "s3cr3t-3"},
            tts={"apiKey": "s3cr3t-4"},
        )
        await call.client.send("history", speaker="user", text="hello")
        await call.client.expect("addHistory", SOON_S)
        await call.released()
        await call.client.until_closed(SOON_S)
        lines = await dump(exchange, call.client.main)
    assert all(set(line) == {"type", "timestamp", "content"} and isinstance(line["timestamp"], int) for line in lines)
    events = [json.loads(line["content"]) for line in lines if line["type"] == "event"]
    assert events == [event for event in call.client.events if event["event"] != "ping"]
    commands = [json.loads(line["content"])["command"] for line in lines if line["type"] == "command"]
    assert commands == ["invite", "history", "hangup"]
    assert "s3cr3t" not in json.dumps(lines)
