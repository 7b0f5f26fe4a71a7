"""The record of a call (protocol 9.4), as the machine knows it."""

from collections.abc import Callable
from typing import Any

import pytest

from dialbus.contracts.media import RecordedFile
from dialbus.contracts.records import CallRecord
from dialbus.contracts.session import CallType
from sip_ua.call.inputs import (
    AutoHangup,
    Detached,
    LegAnswered,
    LegCancelled,
    LegHungUp,
    LegProgressed,
    LegRefused,
    WebhookOutcome,
)
from tests.peers.story import CALL, REMOTE, Story


def record(story: Story, dump: str | None = None) -> dict[str, Any]:
    """As JSON, checked against its own schema."""
    files = [RecordedFile(track_id=CALL, path="/r/s.wav", size_bytes=4711)]
    made = story.machine.record(files, dump).to_fields()
    CallRecord.model_validate(made)
    return made


def test_an_answered_call() -> None:
    story = Story().invited(
        caller="sip:7301@10.20.0.4",
        extra={"order": "17", "_trace": "x"},
        sip={"username": "7301", "password": "s3cr3t"},
    )
    story.after(1).do(LegProgressed()).after(1).answered().after(10)
    made = record(story.do(LegHungUp()), "/r/s.events.jsonl")

    assert (made["callType"], made["callId"]) == ("sip", CALL)
    assert (made["caller"], made["callee"]) == ("sip:7301@10.20.0.4", "sip:7455@10.20.0.9")
    assert made["startTime"] == "2026-03-04T09:15:20+00:00"
    assert made["ringTime"] == "2026-03-04T09:15:21+00:00"
    assert made["answerTime"] == "2026-03-04T09:15:22+00:00"
    assert made["endTime"] == "2026-03-04T09:15:32+00:00"
    assert (made["statusCode"], made["hangupReason"], made["hangupMessages"]) == (200, "byCallee", [])
    assert made["recorder"] == [{"trackId": CALL, "path": "/r/s.wav", "size": 4711}]
    assert made["dumpEventFile"] == "/r/s.events.jsonl"
    assert made["extras"]["order"] == "17"
    assert "_trace" not in made["extras"]
    assert made["option"]["sip"] == {"username": "7301", "password": "***"}
    assert (made["offer"], made["answer"]) == ("our sdp", "their sdp")
    assert "referCallrecord" not in made


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (lambda: Story().invited().do(LegRefused(486, "Busy Here")), 486, "rejected"),
        (lambda: Story().invited().do(LegRefused(407, "Proxy")), 407, "rejected"),
        (lambda: Story().invited().do(LegRefused(408, "T", timed_out=True)), 408, "noAnswer"),
        (lambda: Story().invited().command("hangup"), 487, "bySystem"),
        (lambda: Story().command("invite", option={}), 400, "failed"),
        (lambda: Story().offered().command("reject"), 603, "rejected"),
        (lambda: Story().offered().command("reject", code=486, reason="busy"), 486, "busy"),
        (lambda: Story().offered().do(LegCancelled()), 487, "canceled"),
        (lambda: Story().offered().after(60).ticked(), 408, "noAnswer"),
        (lambda: Story().offered().do(Detached()), 603, "bySystem"),
        (lambda: Story().offered().do(WebhookOutcome(False, "HTTP 500")), 503, "failed"),
        (lambda: Story().command("accept", option={}), 486, "failed"),
        (lambda: Story().invited().answered().command("hangup", initiator="caller"), 200, "byCaller"),
        (lambda: Story().invited().answered().command("hangup", reason="callee"), 200, "byCallee"),
        (lambda: Story().invited().answered().command("hangup", reason="sold", initiator="callee"), 200, "sold"),
        (lambda: Story().invited().answered().do(AutoHangup()), 200, "autohangup"),
    ],
)
def test_x14_x19_status_and_reason_of_every_end(end: Callable[[], Story], status: int, reason: str) -> None:
    made = record(end())
    assert (made["statusCode"], made["hangupReason"]) == (status, reason)
    if status != 200 and made["callee"]:
        assert made["hangupMessages"][0]["code"] == status


def test_an_inbound_call_keeps_offer_and_answer() -> None:
    made = record(Story().offered().command("accept", option={}).do(LegHungUp()))
    assert (made["offer"], made["answer"]) == ("v=0\r\n", "our sdp")
    assert (made["caller"], made["callee"]) == ("sip:7455@192.0.2.15", "sip:4000@192.0.2.20")


def test_a_webrtc_call_keeps_its_offer_once() -> None:
    made = record(Story(call_type=CallType.WEBRTC).invited(offer="their offer").command("hangup"))
    assert (made["callType"], made["offer"], made["answer"]) == ("webrtc", "their offer", "our sdp")
    assert "offer" not in made["option"]


def test_the_second_leg_of_a_transfer_is_nested() -> None:
    story = Story().invited(caller="sip:7301@10.20.0.4").answered().after(1)
    story.command("refer", callee="sip:8100@h", options={"sip": {"username": "u", "password": "s3cr3t"}})
    story.after(1).told(LegProgressed()).after(2).told(LegAnswered("sdp", REMOTE)).after(3)
    made = record(story.told(LegHungUp()))

    second = made["referCallrecord"]
    assert (second["callType"], second["callId"], second["callee"]) == ("b2bua", CALL, "sip:8100@h")
    assert second["caller"] == "sip:7301@10.20.0.4"
    assert second["startTime"] == "2026-03-04T09:15:21+00:00"
    assert second["ringTime"] == "2026-03-04T09:15:22+00:00"
    assert second["answerTime"] == "2026-03-04T09:15:24+00:00"
    assert second["endTime"] == "2026-03-04T09:15:27+00:00"
    assert (second["statusCode"], second["hangupReason"]) == (200, "byCallee")
    assert second["option"]["sip"]["password"] == "***"
    assert made["hangupReason"] == "byRefer"


def test_a_transfer_that_failed_is_kept_too_and_one_that_never_began_does_not_replace_it() -> None:
    story = Story().invited().answered().command("refer", callee="sip:8100@h").told(LegRefused(486, "Busy Here"))
    story.unreachable = (400, "not a SIP URI")
    story.command("refer", callee="nonsense")
    made = record(story.command("hangup"))
    second = made["referCallrecord"]
    assert (second["statusCode"], second["hangupReason"]) == (486, "rejected")
    assert second["hangupMessages"] == [{"code": 486, "reason": "Busy Here", "target": "sip:8100@h"}]
    assert made["statusCode"] == 200
