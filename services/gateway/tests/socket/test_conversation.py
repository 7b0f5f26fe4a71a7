"""One client's conversation with one call, without a socket and without a bus (protocol sections 1.2 and 4)."""

import json
import math
from typing import Any

import pytest

from dialbus.contracts.commands import Invite, Pause, Tts
from dialbus.contracts.options import CallOption
from gateway.socket.conversation import Conversation
from gateway.socket.effects import (
    Attach,
    Audio,
    Close,
    Detach,
    Disown,
    Effect,
    End,
    Forget,
    Forward,
    Open,
    Ping,
    Record,
    Refusal,
    Reject,
    Report,
    Send,
    Subscribe,
)
from gateway.socket.keep_alive import KeepAlive
from gateway.socket.parsing import Sent

INVITE = Invite(option=CallOption(subscribe=True))
TTS = '{"command":"tts","text":"hi"}'


def idle() -> Conversation:
    return Conversation("s.1", pending=False)


def with_audio() -> Conversation:
    return Conversation("s.1", pending=False, carries_audio=True)


def pending() -> Conversation:
    return Conversation("s.1", pending=True)


def test_pending_call_is_attached_first_and_its_commands_go_to_the_owner() -> None:
    conversation = pending()
    assert conversation.connected() == [Attach()]
    assert conversation.taken() == []
    assert conversation.text(TTS) == [Record(TTS), Forward(Tts(text="hi"), None)]
    assert conversation.leave() == [Detach()]


def test_first_command_of_an_idle_session_opens_it_and_the_second_is_forwarded() -> None:
    conversation = idle()
    assert conversation.connected() == []
    assert conversation.text(TTS) == [Record(TTS), Open(Tts(text="hi"))]
    conversation.taken()
    assert conversation.owned
    assert conversation.text(TTS) == [Record(TTS), Forward(Tts(text="hi"), None)]


def test_session_that_found_no_owner_tries_again_with_the_next_command() -> None:
    conversation = idle()
    _, sent = conversation.text(TTS)
    assert conversation.not_taken(sent, Refusal.NO_RESPONDER) == [Report("no sip-ua has room for the call", 503)]
    assert conversation.text(TTS)[1] == Open(Tts(text="hi"))


NO_CALL = [Reject("no pending call", 486), Report("no pending call", 503, "accept"), End("failed", "system")]


@pytest.mark.parametrize(("why", "code"), [(Refusal.NO_RESPONDER, 0), (Refusal.REFUSED, 503)])
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            {"command": "invite", "option": {"caller": "sip:a@b", "callee": "sip:c@d"}},
            [Report("no sip-ua has room for the call", 503, "invite"), End("failed", "system", "sip:a@b", "sip:c@d")],
        ),
        ({"command": "accept", "option": {}}, NO_CALL),
        ({"command": "hangup"}, [End("bySystem", "system")]),
        ({"command": "hangup", "reason": "caller", "initiator": "me"}, [End("byCaller", "me")]),
    ],
)
def test_what_needs_an_owner_and_finds_none_ends_the_session_for_good(
    command: dict[str, Any], expected: list[Effect], why: Refusal, code: int
) -> None:
    conversation = idle()
    _, sent = conversation.text(json.dumps(command))
    assert conversation.not_taken(sent, why, code=code, reason="no sip-ua has room for the call") == expected
    assert conversation.owned, "its last events are awaited"
    assert conversation.text(TTS) == []
    assert conversation.leave() == [], "the id may be another's by now"
    last = conversation.event(2, "hangup", '{"event":"hangup","trackId":"s.1"}')
    assert last[1:] == [Close(1000)]


@pytest.mark.parametrize(("why", "code"), [(Refusal.TIMEOUT, 0), (Refusal.REFUSED, 400), (Refusal.REFUSED, 409)])
def test_invite_that_may_have_found_an_owner_or_is_wrong_is_reported_only(why: Refusal, code: int) -> None:
    conversation = idle()
    _, sent = conversation.text('{"command":"invite","option":{}}')
    (report,) = conversation.not_taken(sent, why, code=code, reason="x")
    assert isinstance(report, Report)
    assert report.sender == "command"


def test_hangup_of_a_second_leg_that_nobody_has_leaves_the_session_alone() -> None:
    conversation = idle()
    _, sent = conversation.text('{"command":"hangup","refer":true}')
    assert conversation.not_taken(sent, Refusal.NO_RESPONDER) == [Report("no sip-ua has room for the call", 503)]


def test_command_id_travels_with_the_command() -> None:
    conversation = pending()
    command = {"command": "pause", "commandId": "c-1"}
    assert conversation.text(json.dumps(command))[1] == Forward(Pause(), "c-1")


@pytest.mark.parametrize("command_id", [7, "", "x" * 129, ["a"]])
def test_unusable_command_id_is_reported(command_id: object) -> None:
    text = json.dumps({"command": "pause", "commandId": command_id})
    assert pending().text(text) == [Report("commandId: a text of 1 to 128 characters", 400)]


def test_what_is_no_command_is_reported_and_neither_recorded_nor_sent() -> None:
    assert pending().text("{}") == [Report("missing field: command", 400)]


@pytest.mark.parametrize(
    ("why", "code", "reason", "expected"),
    [
        (Refusal.REFUSED, 409, "wrong state", Report("wrong state", 409)),
        (Refusal.NO_RESPONDER, 0, "", Report("the worker that owns the call is gone", 503)),
        (Refusal.TIMEOUT, 0, "x", Report("the worker that owns the call did not answer: x", 503)),
    ],
)
def test_refused_command_is_reported_unless_the_call_is_over(
    why: Refusal, code: int, reason: str, expected: Report
) -> None:
    sent = Forward(Pause(), None)
    assert pending().not_taken(sent, why, code=code, reason=reason) == [expected]
    assert pending().not_taken(sent, why, code=code, reason=reason, call_is_over=True) == []


def test_pending_call_without_its_owner_becomes_an_idle_session() -> None:
    conversation = pending()
    assert conversation.not_taken(Attach(), Refusal.NO_RESPONDER) == [Disown(), Report("the call is gone", 503)]
    assert conversation.text(TTS)[1] == Open(Tts(text="hi"))


def test_idle_session_is_forgotten_and_an_owned_one_detached_once() -> None:
    assert idle().leave() == [Forget()]
    owned = pending()
    assert owned.leave() == [Detach()]
    assert owned.leave() == []
    assert owned.text(TTS) == []
    assert owned.not_taken(Detach(), Refusal.NO_RESPONDER) == [Forget()]
    assert not owned.owned


def test_leaving_while_the_first_command_is_unanswered_detaches() -> None:
    conversation = idle()
    conversation.text(TTS)
    assert conversation.leave() == [Detach()]


def test_events_go_out_numbered_and_hangup_of_the_main_track_closes_with_1000() -> None:
    conversation = pending()
    assert conversation.event(1, "answer", '{"event":"answer"}') == [Send('{"event":"answer","seq":1}')]
    other = '{"event":"hangup","trackId":"server-side-track"}'
    assert conversation.event(2, "hangup", other) == [Send(other[:-1] + ',"seq":2}')]
    transfer = '{"event":"hangup","trackId":"s.1","refer":true}'
    assert conversation.event(2, "hangup", transfer) == [Send(transfer[:-1] + ',"seq":2}')]
    last = '{"event":"hangup","trackId":"s.1"}'
    assert conversation.event(3, "hangup", last) == [Send(last[:-1] + ',"seq":3}', last=True), Close(1000)]
    assert conversation.ended
    assert conversation.event(4, "error", "{}") == []
    assert conversation.text(TTS) == []
    assert conversation.leave() == []


def test_binary_frames_mean_nothing_up_to_64_kib_and_close_with_1009_above() -> None:
    assert idle().binary(bytes(1 << 16)) == []
    assert idle().binary(bytes((1 << 16) + 1)) == [Close(1009, "binary frame above 64 KiB")]
    assert with_audio().binary(bytes((1 << 16) + 1)) == [Close(1009, "binary frame above 64 KiB")]


def test_audio_is_held_until_the_answer_of_the_main_leg_and_then_goes_out_in_order() -> None:
    conversation = with_audio()
    assert conversation.connected() == [Subscribe()]
    assert conversation.binary(b"ab") == []
    conversation.text('{"command":"invite","option":{}}')
    conversation.taken()
    assert conversation.binary(b"cd") == []
    conversation.event(1, "trackStart", '{"event":"trackStart","trackId":"s.1"}')
    transfer = '{"event":"answer","trackId":"server-side-track","refer":true}'
    assert [type(effect) for effect in conversation.event(2, "answer", transfer)] == [Send]
    answer = '{"event":"answer","trackId":"s.1"}'
    assert conversation.event(3, "answer", answer) == [Audio(b"abcd"), Send(answer[:-1] + ',"seq":3}')]
    assert conversation.binary(b"ef") == [Audio(b"ef")]
    conversation.event(4, "hangup", '{"event":"hangup","trackId":"s.1"}')
    assert conversation.binary(b"gh") == []


def test_the_invite_says_how_much_a_second_of_audio_is() -> None:
    conversation = with_audio()
    conversation.binary(bytes(32_000) + b"late")
    conversation.text('{"command":"invite","option":{"codec":"pcmu"}}')
    held = conversation.event(1, "answer", '{"trackId":"s.1"}')[0]
    assert isinstance(held, Audio)
    assert (len(held.data), held.data[-4:]) == (8000, b"late")


def test_subscribe_is_asked_for_once_before_the_command_and_not_on_call() -> None:
    invite = '{"command":"invite","option":{"subscribe":true}}'
    conversation = idle()
    assert conversation.text(invite) == [Record(invite), Subscribe(), Open(INVITE)]
    conversation.taken()
    assert conversation.text(invite) == [Record(invite), Forward(INVITE, None)]
    assert Subscribe() not in with_audio().text(invite)


def test_ping_has_both_forms_from_the_first_interval_on() -> None:
    keep_alive = KeepAlive(20, now=100.0)
    assert keep_alive.deadline == 120.0
    assert keep_alive.tick(100.0, 1, "now") == []
    frame, event = keep_alive.tick(120.0, 1772615727418, "2026-03-04T09:15:27+00:00")
    assert frame == Ping(b"2026-03-04T09:15:27+00:00")
    assert isinstance(event, Send)
    assert not event.recorded
    assert json.loads(event.text) == {
        "event": "ping", "timestamp": 1772615727418, "payload": "2026-03-04T09:15:27+00:00"
    }  # fmt: skip
    assert keep_alive.deadline == 140.0


def test_three_pings_without_a_pong_close_with_1001_and_a_pong_starts_the_count_anew() -> None:
    keep_alive = KeepAlive(1, now=0.0)
    for second in range(1, 4):
        assert len(keep_alive.tick(float(second), 0, "t")) == 2
    keep_alive.pong()
    for second in range(4, 7):
        assert len(keep_alive.tick(float(second), 0, "t")) == 2
    assert keep_alive.tick(7.0, 0, "t") == [Close(1001, "no pong")]
    assert keep_alive.deadline == math.inf


def test_interval_of_zero_is_off() -> None:
    assert KeepAlive(0, now=0.0).deadline == math.inf


def test_late_ticks_do_not_bunch_up() -> None:
    keep_alive = KeepAlive(1, now=0.0)
    keep_alive.tick(10.0, 0, "t")
    assert keep_alive.deadline == 11.0


def test_command_from_elsewhere_is_handled_as_if_the_client_had_sent_it() -> None:
    sent = Sent.by_us(Tts(text="hi"), "c-1")
    conversation = pending()
    assert conversation.command(sent) == [Record(TTS), Forward(Tts(text="hi"), "c-1")]
    conversation.leave()
    assert conversation.command(sent) == []


def test_status_line_says_where_the_conversation_stands() -> None:
    conversation = idle()
    assert repr(conversation) == "<Conversation s.1 idle>"
    conversation.text(TTS)
    assert repr(conversation) == "<Conversation s.1 opening>"
    conversation.taken()
    conversation.leave()
    assert repr(conversation) == "<Conversation s.1 leaving>"
