"""Waits of a call: each is set up before its question is asked, none holds back what ends the call."""

from typing import Any

import pytest

from dialbus.contracts.commands import command_from
from dialbus.contracts.media import REFER_LEG, Playback, StopPlayback
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.effects import AllocateMedia, Announce, CloseMedia, Emit, Finish, SendAnswer, SendCancel, SendReject
from sip_ua.call.inputs import (
    AutoHangup,
    BridgeAgreed,
    ClientSaid,
    Detached,
    LegAnswered,
    LegCancelled,
    LegHungUp,
    MediaReady,
    Tick,
    WebhookOutcome,
)
from tests.peers.story import CALL, OFFER, REMOTE, Story


def waiting(call_type: CallType = CallType.SIP, **settings: Any) -> Story:
    """A call whose media worker takes its time."""
    story = Story(call_type, **settings)
    story.allocates_at_once = False
    return story


# -- the announcement ---------------------------------------------------------------------------------


def test_the_wait_for_the_webhook_stands_before_anybody_is_asked() -> None:
    story = Story(webhook_timeout_s=12.0)
    (incoming, announce) = story.machine.receive(OFFER, story.now)
    assert isinstance(incoming, Emit)
    assert announce == Announce()
    assert story.machine.deadline == story.now + 12


def test_an_outcome_that_overtakes_the_announcement_lets_the_call_ring_on() -> None:
    """It may come before the queue's acknowledgement does; the call that was accepted after 15 s died of it."""
    story = Story(webhook_timeout_s=12.0)
    story.machine.receive(OFFER, story.now)  # and Announce is still being performed
    story.do(WebhookOutcome(True))
    assert story.machine.deadline == story.now + 60, "only the accept timeout is left"

    story.after(15).do(Tick()).command("accept", option={})

    assert story.machine.state is CallState.UP
    assert story.machine.deadline is None


def test_a_webhook_nobody_tells_of_is_a_503_and_an_outcome_after_that_nothing() -> None:
    story = Story(webhook_timeout_s=12.0).offered().ticked()
    assert story.now == 112
    assert story.signalling == [SendReject(503, "webhook-dispatcher does not answer")]
    assert story.order == ["incoming", "hangup"]
    story.log.clear()
    story.do(WebhookOutcome(True)).do(WebhookOutcome(False, "late"))
    assert story.log == []


def test_an_accepted_call_needs_no_outcome_any_more() -> None:
    story = waiting(webhook_timeout_s=12.0).offered().command("accept", option={})
    assert story.machine.deadline is None
    story.do(WebhookOutcome(False, "HTTP 500")).allocated()
    assert story.order == ["incoming", "T(main)", "answer"]


# -- a media worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["command", "socket", "caller"])
def test_a_pending_call_ends_at_once_while_its_media_is_looked_for(how: str) -> None:
    story = waiting().offered().command("accept", option={}).command("tts", text="hello")
    match how:
        case "command":
            story.command("hangup")
        case "socket":
            story.do(Detached())
        case _:
            story.do(LegCancelled())
    assert story.order == ["incoming", "hangup"]
    assert story.signalling == ([] if how == "caller" else [SendReject(603, "handler disconnected")])
    assert isinstance(story.log[-1], Finish)
    assert not story.machine.finished, "the worker still answers"

    story.log.clear()
    story.allocated()

    assert story.log == [CloseMedia()], "and gets its leg back"
    assert story.machine.finished


def test_reject_does_not_wait_for_the_media_of_early_ringing() -> None:
    story = waiting().offered().command("ringing", earlyMedia=True).command("reject", code=486)
    assert story.signalling == [SendReject(486, None)]
    story.media = (503, "no room")
    story.log.clear()
    assert story.allocated().log == []
    assert story.machine.finished


def test_an_outbound_call_ends_at_once_while_its_media_is_looked_for() -> None:
    story = waiting().invited().command("hangup")
    assert story.order == ["hangup"]
    assert story.signalling == [SendCancel()]
    assert story.allocated().log[-1] == CloseMedia()


def test_what_comes_after_accept_is_done_after_the_answer_in_order() -> None:
    story = waiting().offered().command("accept", option={}).command("tts", text="hello", playId="p")
    story.command("history", speaker="bot", text="hello").command("bridge", targetSessionId="s.2")
    assert story.order == ["incoming"]

    story.allocated()

    assert story.order == ["incoming", "T(main)", "answer", "T(srv,p)", "addHistory"]
    assert story.index(SendAnswer) < story.index(Playback)


@pytest.mark.parametrize("call_type", [CallType.WEBRTC, CallType.WEBSOCKET])
def test_what_comes_after_invite_is_done_after_the_answer_in_order(call_type: CallType) -> None:
    """Without SIP the call is up with its media; what needs an answered call was never refused before."""
    story = waiting(call_type).invited(offer="v=0").command("refer", callee="sip:8100@h")
    story.command("tts", text="hello", playId="p")
    story.allocated()
    assert story.order == ["T(main)", "answer"], "now the transfer waits"
    story.allocated(REFER_LEG)
    assert story.order == ["T(main)", "answer", "T(srv,p)"]
    assert "error" not in story.order


def test_what_waits_is_dropped_when_nobody_has_room() -> None:
    story = waiting().offered().command("accept", option={}).command("tts", text="hello")
    story.media = (503, "no media worker has room")
    story.allocated()
    assert story.order == ["incoming", "error", "hangup"]
    assert story.event("error").sender == "accept"


def test_accept_right_after_early_ringing_waits_for_its_media() -> None:
    story = waiting().offered().command("ringing", ringtone="ring.wav").command("accept", option={})
    story.allocated()
    assert len([effect for effect in story.log if isinstance(effect, AllocateMedia)]) == 1
    assert story.order == ["incoming", "T(main)", "T(srv,ring.wav)", "E(srv,ring.wav)", "answer"]


def test_interrupt_does_not_wait_for_the_media_of_a_transfer() -> None:
    story = Story().invited().answered().command("tts", text="hello", playId="p")
    story.allocates_at_once = False
    story.command("refer", callee="sip:8100@h").command("tts", text="later", playId="q")
    story.log.clear()

    story.command("interrupt")

    (asked,) = story.log
    assert isinstance(asked, Playback)
    assert asked.command.command == "interrupt"

    story.log.clear()
    story.allocated(REFER_LEG)
    played = [effect.command.command for effect in story.log if isinstance(effect, Playback)]
    assert played == ["tts", "interrupt"], "it stops what was said before it, too"


def test_a_transfer_ends_at_once_while_its_media_is_looked_for() -> None:
    story = Story().invited().answered()
    story.allocates_at_once = False
    story.command("refer", callee="sip:8100@h").command("hangup", refer=True)
    assert story.order == ["T(main)", "answer", "hangup{refer}"]

    story.log.clear()
    story.command("refer", callee="sip:8200@h")
    assert not [effect for effect in story.log if isinstance(effect, AllocateMedia)], "one leg of that id at a time"
    story.allocated(REFER_LEG)
    assert story.log[-2:] == [CloseMedia(REFER_LEG), AllocateMedia(REFER_LEG)]
    story.allocated(REFER_LEG).told(LegAnswered("target sdp", REMOTE))
    assert story.order[-2:] == ["T(srv)", "answer{refer}"]


def test_a_call_that_ends_gives_back_both_legs_that_are_found_too_late() -> None:
    story = Story().invited().answered()
    story.allocates_at_once = False
    story.command("refer", callee="sip:8100@h").do(LegHungUp())
    assert story.order == ["T(main)", "answer", "hangup{refer}", "E(main)", "hangup"]
    assert not story.machine.finished
    assert story.allocated(REFER_LEG).log[-1] == CloseMedia(REFER_LEG)
    assert story.machine.finished


# -- others, that overtake ----------------------------------------------------------------------------


def test_the_end_of_a_playback_may_come_before_the_request_for_it_is_answered() -> None:
    """An empty file with autoHangup: the worker's word arrives while its reply is under way."""
    story = Story().invited().answered()
    effects = story.machine.receive(ClientSaid(command_from({"command": "play", "url": "a", "autoHangup": True})), 101)
    assert [type(effect) for effect in effects] == [type(effects[0])], "one request, not performed yet"
    story.do(AutoHangup())
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("autohangup", "system")


def test_an_agreement_that_comes_before_the_question_is_out_switches_the_bridge_on() -> None:
    story = Story().invited().answered()
    story.machine.receive(ClientSaid(command_from({"command": "bridge", "targetSessionId": "s.2"})), 101)
    story.do(BridgeAgreed("s.2"))
    assert story.order[-1] == f"T(bridge:{CALL}:to:s.2)"


def test_late_words_of_a_leg_that_another_has_replaced_are_nobodys() -> None:
    story = Story().invited().answered().command("refer", callee="sip:8100@h").command("hangup", refer=True)
    first = LegAnswered("late", REMOTE, leg=REFER_LEG, generation=0)
    story.command("refer", callee="sip:8200@h").do(first)
    assert "answer{refer}" not in story.order
    story.told(LegAnswered("target sdp", REMOTE))
    assert story.order[-1] == "answer{refer}"


def test_media_that_is_ready_twice_changes_nothing() -> None:
    story = Story().invited()
    story.log.clear()
    assert story.do(MediaReady(1, "again", REMOTE)).log == []
    assert not [effect for effect in story.log if isinstance(effect, StopPlayback)]
