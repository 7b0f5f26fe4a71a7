"""Transfers: orders O23 to O26 and the rules of protocol section 6, for the machine."""

from typing import Any

import pytest

from dialbus.contracts.media import REFER_LEG, ConfigureLeg, ConnectLeg, JoinLegs, NoteInput, Playback, StopPlayback
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.effects import (
    AllocateMedia,
    CloseMedia,
    EndLostTracks,
    FindCallee,
    SendBye,
    SendCancel,
    SendInvite,
    SendMessage,
)
from sip_ua.call.inputs import (
    AutoHangup,
    CalleeFound,
    CommandRefused,
    Detached,
    Inactive,
    LegAnswered,
    LegDigit,
    LegHungUp,
    LegImpossible,
    LegMessage,
    LegProgressed,
    LegRefused,
    LegTransferAsked,
    MediaChanged,
    MediaLost,
    MessageRefused,
    Offered,
)
from tests.peers.story import CALL, REMOTE, SERVER, Story

CONNECT = ConnectLeg(call_id=CALL, leg_id=REFER_LEG, remote=REMOTE)
JOIN = JoinLegs(call_id=CALL, other_leg=REFER_LEG)
TARGET = "sip:8100@10.20.0.30"
MOH = "T(srv,hold.wav)"
MOH_ENDS = "E(srv,hold.wav)"


def up(**options: Any) -> Story:
    """A call that is up, and nothing in its books."""
    story = Story(**options).invited(caller="sip:7301@10.20.0.4").answered().after(5)
    story.log.clear()
    story.order.clear()
    return story


def referred(moh: str | None = "hold.wav", **options: Any) -> Story:
    """A transfer whose INVITE is out."""
    return up().command("refer", callee=TARGET, options={**options, **({"moh": moh} if moh else {})})


def joined(**options: Any) -> Story:
    """A transfer whose target has answered, with empty books."""
    story = referred(**options).told(LegProgressed()).after(4).told(LegAnswered("target sdp", REMOTE))
    assert story.event("answer").refer is True
    story.after(6).log.clear()
    story.order.clear()
    return story


def test_o23_answered() -> None:
    story = up().command("play", url="menu.wav").command("refer", callee=TARGET, options={"moh": "hold.wav"})
    story.told(LegProgressed()).told(LegProgressed())
    story.after(3).told(LegAnswered("target sdp", REMOTE))

    assert story.order == [
        "T(srv,menu.wav)", "interruption", "E(srv,menu.wav)", MOH, "ringing{refer}", "ringing{refer}", MOH_ENDS,
        "T(srv)", "answer{refer}",
    ]  # fmt: skip
    answer = story.event("answer")
    assert (answer.track_id, answer.sdp) == (SERVER, "target sdp")
    after = story.log[story.index("answer") + 1 :]
    assert after == [CONNECT, JOIN]


def test_o23_without_music() -> None:
    story = referred(moh=None).told(LegAnswered("target sdp", REMOTE))
    assert story.order == ["T(srv)", "answer{refer}"]


def test_o23_early_media_takes_the_place_of_the_music() -> None:
    story = referred().told(LegProgressed(REMOTE))
    assert story.order == [MOH, "ringing{refer}", MOH_ENDS, "T(srv)"]
    assert story.log[-2:] == [CONNECT, JOIN.model_copy(update={"one_way": True})]

    story.told(LegProgressed(REMOTE)).told(LegAnswered("target sdp", REMOTE))

    assert story.order[4:] == ["ringing{refer}", "answer{refer}"], "one pair for the leg"
    assert story.log[-1] == JOIN


def test_the_invite_says_who_is_transferred_and_the_music_is_looped() -> None:
    story = referred(sip={"username": "7301"}, callId="my-id")
    (found,) = [effect for effect in story.log if isinstance(effect, FindCallee)]
    dial = found.dial
    assert (dial.caller, dial.callee, dial.sip_call_id) == ("sip:7301@10.20.0.4", TARGET, "my-id")
    assert dial.headers == {
        "X-Referred-To": "sip:7455@10.20.0.9", "X-Referred-From": "sip:7301@10.20.0.4", "X-Referred-Id": CALL,
    }  # fmt: skip
    (music,) = [effect for effect in story.log if isinstance(effect, Playback)]
    assert music.loop is True
    assert story.index(AllocateMedia) < story.index(StopPlayback) < story.index(Playback)
    assert story.index(Playback) < story.index(SendInvite)


@pytest.mark.parametrize(
    ("inbound_from", "given", "expected"),
    [
        ("sip:7455@192.0.2.15", None, "sip:7455@192.0.2.15"),
        ("sip:7455@192.0.2.15", "sip:me@here", "sip:me@here"),
        ("tel:+431234", None, None),
    ],
)
def test_the_caller_of_an_inbound_call_calls_the_target(
    inbound_from: str, given: str | None, expected: str | None
) -> None:
    story = Story().do(Offered(inbound_from, "sip:4000@h", "v=0"))
    story.command("accept", option={"caller": "sip:other@h"}).command("refer", callee=TARGET, caller=given or "")
    (dial,) = [effect.dial for effect in story.log if isinstance(effect, FindCallee)]
    assert dial.caller == expected


@pytest.mark.parametrize("early", [False, True])
def test_o24_refused(early: bool) -> None:
    story = referred().told(LegProgressed(REMOTE if early else None))
    story.told(LegRefused(486, "Busy Here"))

    before = ["ringing{refer}", MOH_ENDS, "T(srv)"] if early else ["ringing{refer}", MOH_ENDS]
    assert story.order == [MOH, *before, "reject{refer}", *(["E(srv)"] if early else []), "hangup{refer}"]
    reject, hangup = story.event("reject"), story.event("hangup")
    assert (reject.code, reject.reason, reject.track_id) == (486, "Busy Here", SERVER)
    assert (hangup.reason, hangup.initiator, hangup.track_id) == ("rejected", "callee", SERVER)
    assert hangup.start_time == "2026-03-04T09:15:25+00:00", "of the leg"
    assert hangup.to.source == TARGET


def test_x10_a_failed_transfer_never_ends_the_call() -> None:
    story = referred(autoHangup=True).told(LegRefused(486, "Busy Here"))
    assert story.machine.state is CallState.UP
    assert not [effect for effect in story.log if isinstance(effect, SendBye)]
    assert "error" not in story.order
    story.command("tts", text="sorry", playId="p")
    assert story.order[-1] == "T(srv,p)"


@pytest.mark.parametrize(("options", "seconds"), [({}, 30), ({"timeout": 7}, 7)])
def test_o24_timeout_cancels_and_says_408(options: dict[str, Any], seconds: int) -> None:
    story = referred(**options).told(LegProgressed())
    started = story.now
    story.ticked()
    assert story.now == started + seconds
    assert story.signalling[-1] == SendCancel(REFER_LEG)
    assert story.order == [MOH, "ringing{refer}", MOH_ENDS, "reject{refer}", "hangup{refer}"]
    assert (story.event("reject").code, story.event("reject").reason) == (408, "Timeout when refer")
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("noAnswer", "system")
    assert story.machine.deadline is None


def test_no_other_limit_than_timeout_ends_the_ringing() -> None:
    (found,) = [effect for effect in referred(timeout=3600).log if isinstance(effect, FindCallee)]
    assert found.dial.ringing_limit_s is not None
    assert found.dial.ringing_limit_s > 3600


def test_o24_an_answer_that_crosses_the_cancel_changes_nothing() -> None:
    story = referred().ticked()
    story.log.clear()
    story.told(LegAnswered("late", REMOTE)).told(LegRefused(487, "Request Terminated")).told(LegHungUp())
    assert story.log == []


@pytest.mark.parametrize("auto", [True, False])
def test_o25_the_target_hangs_up(auto: bool) -> None:
    story = joined(autoHangup=auto).told(LegHungUp())

    ended = ["E(srv)", "hangup{refer}"]
    assert story.order == [*ended, *(["E(main)", "hangup"] if auto else [])]
    hangup = story.event("hangup", refer=True)
    assert (hangup.reason, hangup.initiator) == ("byCallee", "callee")
    assert hangup.answer_time is not None
    if auto:
        main = story.event("hangup", refer=False)
        assert (main.reason, main.initiator) == ("byRefer", "system")
        assert story.signalling == [SendBye({})]
    else:
        assert story.machine.state is CallState.UP


def test_o25_the_track_lasts_from_its_start() -> None:
    story = joined(autoHangup=False).told(LegHungUp())
    (end,) = [e.event for e in story.log if getattr(getattr(e, "event", None), "event", "") == "trackEnd"]
    assert (end.duration, end.ssrc, end.play_id) == (6000, 4712, None)


@pytest.mark.parametrize("how", ["hang up", "command", "socket", "autohangup", "inactivity"])
@pytest.mark.parametrize("is_joined", [True, False])
def test_o26_the_first_party_or_the_client_ends(how: str, is_joined: bool) -> None:
    story = joined() if is_joined else referred().told(LegProgressed())
    if not is_joined:
        story.log.clear()
        story.order.clear()
    match how:
        case "hang up":
            story.do(LegHungUp())
        case "command":
            story.command("hangup")
        case "socket":
            story.do(Detached())
        case "autohangup":
            story.do(AutoHangup())
        case _:
            story.do(Inactive())

    begun = ["inactivity"] if how == "inactivity" else []
    second = ["E(srv)", "hangup{refer}"] if is_joined else [MOH_ENDS, "hangup{refer}"]
    assert story.order == [*begun, *second, "E(main)", "hangup"]
    expected = SendBye({}, REFER_LEG) if is_joined else SendCancel(REFER_LEG)
    assert story.signalling[-1] == expected
    closed = [effect.leg for effect in story.log if isinstance(effect, CloseMedia)]
    assert closed == [REFER_LEG, "main"]
    last_signal = story.log.index(expected)
    assert last_signal < story.index(CloseMedia), "signalling waits for nobody"
    hangup = story.event("hangup", refer=True)
    assert (hangup.reason, hangup.initiator) == ("bySystem", "system")


@pytest.mark.parametrize("is_joined", [True, False])
def test_p83_hangup_of_the_second_leg_only(is_joined: bool) -> None:
    sip = {"hangup_headers": {"X-A": "1", "X-B": "1"}}
    story = joined(sip=sip) if is_joined else referred(sip=sip)
    story.command("hangup", refer=True, reason="callee", initiator="bot", headers={"X-B": "2"})

    assert story.machine.state is CallState.UP, "autoHangup is for the target's own hang-up"
    if is_joined:
        assert story.order == ["E(srv)", "hangup{refer}"]
        assert story.signalling == [SendBye({"X-A": "1", "X-B": "2"}, REFER_LEG)]
    else:
        assert story.order == [MOH, MOH_ENDS, "hangup{refer}"]
        assert story.signalling[-1] == SendCancel(REFER_LEG)
    hangup = story.event("hangup")
    assert (hangup.reason, hangup.initiator) == ("byCallee", "bot")
    story.command("hangup", refer=True)
    assert story.event("error").code == 409


def test_a_second_transfer_waits_for_the_end_of_the_first() -> None:
    story = joined().command("refer", callee="sip:8200@h")
    assert story.order == ["error"]
    assert story.event("error").code == 409

    story.command("hangup", refer=True).command("refer", callee="sip:8200@h").told(LegAnswered("sdp 2", REMOTE))

    assert story.order == ["error", "E(srv)", "hangup{refer}", "T(srv)", "answer{refer}"]


@pytest.mark.parametrize("state", ["idle", "pending", "dialing"])
def test_refer_needs_a_call_that_is_up(state: str) -> None:
    story = Story()
    if state == "pending":
        story.offered()
    elif state == "dialing":
        story.invited()
    story.order.clear()
    story.command("refer", callee=TARGET)
    assert story.order == ["error"]
    assert not [effect for effect in story.log if isinstance(effect, AllocateMedia) and effect.leg == REFER_LEG]


def test_a_target_that_cannot_be_called_disturbs_nothing() -> None:
    story = up().command("play", url="menu.wav")
    story.unreachable = (400, "callee: not a SIP URI")
    story.command("refer", callee="nonsense@", options={"moh": "hold.wav"})
    assert story.order == ["T(srv,menu.wav)", "error"]
    assert (story.event("error").sender, story.event("error").code) == ("command", 400)
    story.unreachable = None
    story.command("refer", callee=TARGET).told(LegAnswered("target sdp", REMOTE))
    assert story.order[-1] == "answer{refer}"


def test_music_that_the_worker_refuses_does_not_stop_the_transfer() -> None:
    story = referred().do(CommandRefused(400, "no such file"))
    story.told(LegAnswered("target sdp", REMOTE))
    assert story.order[-2:] == ["T(srv)", "answer{refer}"]


def test_p84_speech_during_the_transfer_is_played_and_the_join_stays() -> None:
    story = joined().command("tts", text="this call is recorded", playId="p")
    assert story.order == ["T(srv,p)"]
    assert not [effect for effect in story.log if isinstance(effect, JoinLegs | CloseMedia)]


def test_speech_that_replaced_the_music_is_not_cut_by_the_answer() -> None:
    story = referred().command("tts", text="one moment", playId="p").told(LegAnswered("target sdp", REMOTE))
    assert story.order == [MOH, "interruption", MOH_ENDS, "T(srv,p)", "T(srv)", "answer{refer}"]


def test_processing_of_the_targets_audio() -> None:
    story = referred(vad={}, denoise=True, asr={"startWhenAnswer": True}, pauseParentAsr=True, forwardDtmf=False)
    (before,) = [effect for effect in story.log if isinstance(effect, ConfigureLeg)]
    assert (before.leg_id, before.denoise, before.asr) == (REFER_LEG, True, None)
    assert before.vad is not None
    story.told(LegAnswered("target sdp", REMOTE))
    (after,) = [effect for effect in story.log[story.index("answer") :] if isinstance(effect, ConfigureLeg)]
    assert after.asr is not None
    assert JOIN.model_copy(update={"forward_dtmf": False, "pause_asr": True}) in story.log


def test_p78_what_the_target_does_is_told_with_refer_and_the_server_side_track() -> None:
    story = joined()
    story.told(LegDigit("5")).told(MediaChanged(REMOTE, on_hold=True)).told(LegMessage("hi", "text/plain"))
    story.told(LegTransferAsked("sip:9@h", None))
    assert story.order == ["dtmf{refer}", "hold{refer}", "message{refer}", "transferRequest{refer}"]
    assert {effect.event.track_id for effect in story.log if hasattr(effect, "event")} == {SERVER}
    assert not [effect for effect in story.log if isinstance(effect, NoteInput)], "no sign of the first party's"


def test_p94_message_to_the_target() -> None:
    story = joined().command("message", body="hello", refer=True, headers={"X-A": "1"}, contentType="text/html")
    assert story.log == [SendMessage("hello", "text/html", {"X-A": "1"}, REFER_LEG)]
    story.told(MessageRefused(415, "Unsupported"))
    assert story.event("error").error == "message: the peer answers 415 Unsupported"
    story.command("hangup", refer=True).told(MessageRefused(481, "late"))
    assert story.order[-2:] == ["hangup{refer}", "error"]
    story.log.clear()
    story.command("message", body="gone", refer=True)
    assert story.events == ["error"]


def test_p94_message_needs_a_sip_dialog() -> None:
    story = Story(call_type=CallType.WEBRTC).invited(offer="v=0").command("message", text="hi")
    assert story.order[-1] == "error"
    story = up().command("message", text="hi")
    assert story.log == [SendMessage("hi", "text/plain;charset=utf-8", {}, "main")]
    story.do(MessageRefused(415, "Unsupported"))
    assert story.event("error").error == "message: the peer answers 415 Unsupported"


@pytest.mark.parametrize("call_type", [CallType.WEBRTC, CallType.WEBSOCKET])
def test_q14_calls_of_other_types_are_transferred_too(call_type: CallType) -> None:
    story = Story(call_type=call_type).invited(offer="their offer", callee=None)
    story.command("refer", callee=TARGET).told(LegAnswered("target sdp", REMOTE)).told(LegHungUp())
    assert story.order == [
        "T(main)", "answer", "T(srv)", "answer{refer}", "E(srv)", "hangup{refer}", "E(main)", "hangup",
    ]  # fmt: skip


@pytest.mark.parametrize("is_joined", [True, False])
def test_media_lost_of_the_second_leg_ends_only_that(is_joined: bool) -> None:
    story = joined() if is_joined else referred(moh=None)
    story.told(MediaLost("socket failure", gone=False))
    expected = ["E(srv)"] if is_joined else ["reject{refer}"]
    assert story.order == ["error", *expected, "hangup{refer}"]
    assert story.event("hangup").reason == "failed"
    assert story.machine.state is CallState.UP
    assert isinstance(story.signalling[-1], SendBye if is_joined else SendCancel)


def test_media_lost_of_a_transferred_call_ends_each_track_once() -> None:
    story = joined().do(MediaLost("the media worker is gone"))
    assert story.order == ["error", "E(srv)", "hangup{refer}", "E(main)", "hangup"]
    assert EndLostTracks((SERVER,)) in story.log, "the second leg's track is the machine's own"
    assert not [effect for effect in story.log if isinstance(effect, CloseMedia)]
    assert story.signalling == [SendBye({}), SendBye({}, REFER_LEG)]


def test_the_music_ends_with_a_call_whose_transfer_is_dialing() -> None:
    story = referred().command("hangup")
    assert story.order == [MOH, MOH_ENDS, "hangup{refer}", "E(main)", "hangup"]


@pytest.mark.parametrize("end", ["hangup of the leg", "end of the call"])
def test_x05_nothing_waits_for_the_dns_and_its_answer_comes_too_late(end: str) -> None:
    story = up()
    story.finds_at_once = False
    story.command("refer", callee="sip:8100@slow.example").command("refer", callee=TARGET)
    assert story.order == ["error"], "one transfer is wanted already"
    story.command("hangup", refer=end == "hangup of the leg")
    expected = ["error", "hangup{refer}", *([] if end == "hangup of the leg" else ["E(main)", "hangup"])]
    assert story.order == expected
    story.log.clear()
    story.told(CalleeFound()).told(LegImpossible(400, "no address"))
    assert story.log == []
