"""Trace lines: what is masked, that nothing waits, and the order in which they are told."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from dialbus.bus.trace_store import HOLD_S, CallLine, Sorter, in_order
from dialbus.contracts.media import CloseLeg
from dialbus.contracts.options import CallOption
from dialbus.contracts.session import CommandSeen
from dialbus.contracts.speech import CancelSpeech
from dialbus.contracts.trace import TraceKind, TraceLine, TraceLines
from dialbus.trace import MAX_LINES, MAX_TEXT, MAX_WAITING, Tracer, masked_message, plain

INVITE = """INVITE sip:7301:hush@pbx.example SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r
Authorization: Digest username="7301", realm="there",\r
  response="hush-response"\r
Proxy-authorization : Digest response="hush-response"\r
X-Api-Key: hush\r
Contact: <sips:7301:hush@192.0.2.1>\r
Subject: Authorization: please\r
\r
v=0\r
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:hush|2^20\r
a=ice-ufrag:seen\r
a=ice-pwd:hush\r
a=fmtp:101 0-15\r
"""


class Sent:
    """What a tracer sends; `accepts` says whether the bus is there."""

    def __init__(self) -> None:
        self.messages: list[TraceLines] = []
        self.accepts = True
        self.came = asyncio.Event()

    async def __call__(self, lines: TraceLines) -> bool:
        if self.accepts:
            self.messages.append(TraceLines.from_bytes(lines.to_bytes()))
            self.came.set()
        return self.accepts

    @property
    def lines(self) -> list[TraceLine]:
        return [line for message in self.messages for line in message.lines]


def test_a_message_loses_its_credentials_and_nothing_else() -> None:
    shown = masked_message(INVITE)
    assert "hush" not in shown
    kept = ("INVITE sip:7301:***@pbx.example SIP/2.0\r\n", "Authorization: ***\r\n", "X-Api-Key: ***\r\n",
            "Contact: <sips:7301:***@192.0.2.1>\r\n", "Subject: Authorization: please\r\n", "a=ice-ufrag:seen\r\n",
            "a=ice-pwd:***\r\n", "a=fmtp:101 0-15\r\n")  # fmt: skip
    for line in kept:
        assert line in shown
    assert len(shown.splitlines()) == len(INVITE.splitlines()) - 1, "only the folded header became one line"


async def test_what_is_noted_arrives_masked_in_order_and_by_call() -> None:
    @dataclass(frozen=True)
    class Accepted:
        option: CallOption
        body: bytes

    sent = Sent()
    tracer = Tracer("sip-ua", "sip-ua-1", sent)
    tracer.note("s.1", TraceKind.SIP_IN, "INVITE sip:a:hush@b SIP/2.0", leg_id="main", text=INVITE, at=7.25)
    tracer.note("s.2", TraceKind.INPUT, "Tick")
    option = CallOption.model_validate({"sip": {"username": "7", "password": "hush"}})
    tracer.note("s.1", TraceKind.INPUT, "Accepted", facts=Accepted(option, b"\xff"))
    await tracer.flush()

    first, second = sent.messages
    assert (first.call_id, first.service, first.instance, first.subject) == (
        "s.1",
        "sip-ua",
        "sip-ua-1",
        "trace.s=2E1.sip-ua",
    )
    assert second.call_id == "s.2"
    invite, accepted = first.lines
    assert (invite.at, invite.leg_id, invite.name) == (7.25, "main", "INVITE sip:a:***@b SIP/2.0")
    assert accepted.facts["option"]["sip"] == {"username": "7", "password": "***"}
    assert accepted.facts["body"] == "�"
    assert "hush" not in first.to_bytes().decode()


async def test_requests_say_how_they_were_answered_and_messages_are_noted_once() -> None:
    sent = Sent()
    tracer = Tracer("sip-ua", "sip-ua-1", sent)
    tracer.request(CloseLeg(call_id="s.1", leg_id="refer"), 5.0, TimeoutError("no answer"))
    tracer.message(CancelSpeech(call_id="s.1", utterance_id="u"))
    tracer.message(CommandSeen(call_id="s.1", at_ms=1, via="rest", command={}))  # the stream has it from its subject
    await tracer.flush()
    request, message = sent.lines
    assert (request.at, request.kind, request.name, request.leg_id) == (5.0, TraceKind.REQUEST, "CloseLeg", "refer")
    assert request.facts["answer"] == "TimeoutError: no answer"
    assert (message.kind, message.name, message.facts) == (TraceKind.MESSAGE, "CancelSpeech", {"utterance_id": "u"})


async def test_what_the_bus_does_not_take_is_counted_and_told_by_the_next_message() -> None:
    sent = Sent()
    tracer = Tracer("media", "media-1", sent)
    sent.accepts = False
    for number in range(MAX_WAITING + 5):
        tracer.note("s.1", TraceKind.LOG, f"line {number}")
    await tracer.flush()
    sent.accepts = True
    tracer.note("s.1", TraceKind.LOG, "here again")
    tracer.note("s.2", TraceKind.LOG, "nothing is missing any more")
    await tracer.flush()
    assert [(message.dropped, message.lines[0].name) for message in sent.messages] == [
        (MAX_WAITING + 5, "here again"),
        (0, "nothing is missing any more"),
    ]


async def test_lines_are_cut_and_messages_have_a_bound() -> None:
    sent = Sent()
    tracer = Tracer("media", "media-1", sent)
    for _ in range(MAX_LINES + 1):
        tracer.note("s.1", TraceKind.SIP_IN, "x", text="y" * MAX_TEXT * 2, facts={"long": "z" * MAX_TEXT * 2})
    await tracer.flush()
    assert [len(message.lines) for message in sent.messages] == [MAX_LINES, 1]
    assert len(sent.lines[0].text or "") == MAX_TEXT
    assert len(json.dumps(sent.lines[0].facts)) < MAX_TEXT * 1.1


async def test_a_line_that_cannot_be_told_ends_nothing() -> None:
    sent = Sent()
    tracer = Tracer("media", "media-1", sent)
    tracer.note("s.1", TraceKind.LOG, "half a surrogate pair: \ud800")
    await tracer.flush()
    tracer.note("s.1", TraceKind.LOG, "fine")
    await tracer.flush()
    assert [(message.dropped, message.lines[0].name) for message in sent.messages] == [(1, "fine")]


async def test_the_task_sends_by_itself_also_what_threads_note() -> None:
    sent = Sent()
    tracer = Tracer("tts", "tts-1", sent)
    task = asyncio.create_task(tracer.run(), name="trace")
    await asyncio.to_thread(tracer.log, {"call_id": "s.1", "event": "speech.done", "level": "error", "length": 12})
    await asyncio.wait_for(sent.came.wait(), 5)
    task.cancel()
    (line,) = sent.lines
    assert (line.kind, line.name, line.facts) == (TraceKind.LOG, "speech.done", {"level": "error", "length": 12})


async def test_without_a_bus_to_tell_nothing_is_kept() -> None:
    tracer = Tracer("tts", "tts-1", None)
    tracer.note("s.1", TraceKind.LOG, "x")
    tracer.request(CloseLeg(call_id="s.1"), 0.0, CloseLeg(call_id="s.1"))
    assert not tracer.enabled
    await tracer.flush()  # would send


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        (TraceKind.LOG, "log"),
        ((1, {"b": b"x"}, {3}), [1, {"b": "x"}, [3]]),
        (CancelSpeech(call_id="s.1"), {"call_id": "s.1"}),
        (ValueError("odd"), "odd"),
    ],
)
def test_anything_becomes_json(value: object, as_json: object) -> None:
    assert plain(value) == as_json


def line(at: float, name: str) -> CallLine:
    return CallLine(at, "media", "media-1", "log", name)


def names(lines: list[CallLine]) -> list[str]:
    return [line.name for line in lines]


def test_stored_lines_are_told_by_time_and_at_the_same_time_as_they_came() -> None:
    assert names(in_order([line(3, "c"), line(1, "a"), line(3, "d"), line(2, "b")])) == ["a", "b", "c", "d"]


def test_a_line_of_a_live_call_waits_for_those_that_happened_before_it() -> None:
    sorter = Sorter()
    sorter.add(line(10.02, "second"), now=0.0)
    sorter.add(line(10.01, "first"), now=0.1)
    sorter.add(line(10.03, "third"), now=0.2)
    assert sorter.ready(HOLD_S - 0.01) == []
    assert names(sorter.ready(HOLD_S)) == ["first", "second"]
    assert names(sorter.ready(HOLD_S)) == []
    assert names(sorter.rest()) == ["third"]
    assert sorter.rest() == []


def test_only_the_hangup_of_the_main_leg_ends_a_call() -> None:
    assert CallLine(1, "", "", "event", "hangup").ends_call
    assert not CallLine(1, "", "", "event", "hangup", facts={"refer": True}).ends_call
    assert not CallLine(1, "", "", "command", "hangup").ends_call
