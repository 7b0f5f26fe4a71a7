"""The call machine: validity of commands (protocol 2) and orders of events (protocol 4), without a socket."""

from typing import Any

import pytest

from dialbus.contracts.commands import COMMANDS, Invite
from dialbus.contracts.events import RingingEvent
from dialbus.contracts.media import AddCandidate, ConfigureLeg, ConnectLeg, NoteInput, Playback, StopPlayback
from dialbus.contracts.options import AmbianceOption, MediaPassOption, RecorderOption
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.effects import (
    AllocateMedia,
    CloseMedia,
    Emit,
    EndLostTracks,
    Finish,
    SendAnswer,
    SendBye,
    SendCancel,
    SendReject,
    SendRinging,
)
from sip_ua.call.inputs import (
    AutoHangup,
    CalleeFound,
    Detached,
    Inactive,
    Input,
    LegCancelled,
    LegDigit,
    LegFailed,
    LegHungUp,
    LegImpossible,
    LegProgressed,
    LegRefused,
    MediaLeft,
    MediaLost,
    Offered,
    Tick,
    WebhookOutcome,
)
from sip_ua.call.table import VALID
from tests.peers.story import CALL, REMOTE, Story


def in_state(state: CallState) -> Story:
    story = Story()
    match state:
        case CallState.PENDING:
            story.offered()
        case CallState.DIALING:
            story.invited()
        case CallState.UP:
            story.invited().answered()
        case CallState.ENDED:
            story.command("hangup")
    assert story.machine.state is state
    return story


SAMPLES: dict[str, dict[str, Any]] = {
    "invite": {"option": {"callee": "sip:a@b"}},
    "accept": {"option": {}},
    "tts": {"text": "hello"},
    "play": {"url": "http://a/b.wav"},
    "history": {"speaker": "bot", "text": "hi"},
    "custom": {"data": {"a": 1}},
    "refer": {"callee": "sip:8100@b"},
    "message": {"body": "hi"},
    "bridge": {"targetSessionId": "s.2"},
    "unbridge": {"targetSessionId": "s.2"},
    "addIceCandidate": {"candidate": ""},
}


@pytest.mark.parametrize("state", list(CallState))
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_are_refused_with_an_error_exactly_where_section_2_says(name: str, state: CallState) -> None:
    story = in_state(state)
    story.log.clear()

    story.command(name, **SAMPLES.get(name, {}))

    valid = state in VALID[COMMANDS[name]]
    if state is CallState.ENDED:
        assert story.log == []
    elif name in ("tts", "play") and state is CallState.PENDING:
        assert story.events == ["error"]  # no early media yet
    elif name in ("pause", "resume") and state is CallState.PENDING:
        assert story.events == ["error"]  # nothing plays
    else:
        assert ("error" in story.events) is not valid
    if state not in (CallState.ENDED, CallState.IDLE) and not valid:
        assert story.machine.state is state, "a refused command changes nothing"


def test_o1_outbound_answered() -> None:
    story = Story().invited()
    story.do(LegProgressed())
    story.do(LegProgressed(REMOTE)).after(6).answered()

    assert story.events == ["trackStart", "ringing", "ringing", "answer"]
    assert story.event("answer").sdp == "their sdp"
    assert [e.event.early_media for e in story.log if isinstance(e, Emit) and isinstance(e.event, RingingEvent)] == [
        False,
        True,
    ]
    assert story.machine.state is CallState.UP


def test_o1_the_answer_event_is_stored_before_media_can_report_the_first_packet() -> None:
    story = Story().invited().answered()
    assert story.index("answer") < story.index(ConnectLeg)


def test_o2_outbound_refused() -> None:
    story = Story().invited()
    story.do(LegRefused(486, "Busy Here"))

    assert story.events == ["trackStart", "reject", "trackEnd", "hangup"]
    assert (story.event("reject").code, story.event("reject").reason) == (486, "Busy Here")
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("rejected", "callee")
    assert story.event("trackEnd").duration == 0
    assert story.index("reject") < story.index(CloseMedia) < story.index("trackEnd")
    assert isinstance(story.log[-1], Finish)


def test_o3_no_answer_is_a_408_and_no_answer() -> None:
    story = Story().invited().do(LegRefused(408, "Request Timeout", timed_out=True))

    assert story.events == ["trackStart", "reject", "trackEnd", "hangup"]
    assert (story.event("reject").code, story.event("reject").reason) == (408, "Request Timeout")
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("noAnswer", "system")


@pytest.mark.parametrize("how", ["command", "socket"])
def test_o4_client_gives_up_while_dialing(how: str) -> None:
    story = Story().invited()
    if how == "command":
        story.command("hangup", reason="changed my mind", initiator="caller")
    else:
        story.do(Detached())

    assert story.events == ["trackStart", "trackEnd", "hangup"]
    assert story.signalling[-1] == SendCancel()
    expected = ("changed my mind", "caller") if how == "command" else ("bySystem", "system")
    assert (story.event("hangup").reason, story.event("hangup").initiator) == expected


def test_o7_invite_without_callee_is_a_local_fault() -> None:
    story = Story().command("invite", option={})
    assert story.events == ["error", "hangup"]
    assert story.event("error").sender == "invite"
    assert story.event("hangup").reason == "failed"


def test_o7_no_media_worker() -> None:
    story = Story()
    story.media = (503, "no media worker has room")
    story.invited()
    assert story.events == ["error", "hangup"]
    assert (story.event("error").sender, story.event("error").error) == ("invite", "no media worker has room")
    assert story.machine.state is CallState.ENDED


def test_o7_a_fault_after_the_track_began_ends_it() -> None:
    story = Story().invited().do(LegFailed("no route to host"))
    assert story.events == ["trackStart", "error", "trackEnd", "hangup"]


def test_o10_inbound_accept() -> None:
    story = Story().offered().after(2).command("accept", option={"vad": {}, "asr": {"provider": "whisper"}})

    assert story.events == ["incoming", "trackStart", "answer"]
    assert story.event("incoming").headers == {"X-Tenant": "blue"}
    assert story.event("answer").sdp == "our sdp"
    assert story.signalling == [SendAnswer()]
    assert story.index(ConfigureLeg) < story.index("answer") < story.index(SendAnswer) < story.index(ConnectLeg)


def test_o10_an_uncommon_codec_is_488_and_an_error_of_accept() -> None:
    story = Story().offered()
    story.media = (488, "no common codec")
    story.command("accept", option={})
    assert story.events == ["incoming", "error", "hangup"]
    assert story.event("error").sender == "accept"
    assert story.signalling == [SendReject(488, "no common codec")]


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({}, 603, "rejected"),
        ({"reason": "busy"}, 603, "busy"),
        ({"code": 486, "reason": "busy"}, 486, "busy"),
        ({"code": "404"}, 404, "rejected"),
    ],
)
def test_o12_inbound_reject(fields: dict[str, Any], code: int, reason: str) -> None:
    story = Story().offered().command("reject", **fields)
    assert story.events == ["incoming", "hangup"]
    assert story.signalling == [SendReject(code, fields.get("reason"))]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == (reason, "callee")


@pytest.mark.parametrize("code", [200, 302, 399, 700])
def test_o12_a_code_that_refuses_nothing_leaves_the_call_pending(code: int) -> None:
    story = Story().offered().command("reject", code=code)
    assert story.events == ["incoming", "error"]
    assert story.machine.state is CallState.PENDING


@pytest.mark.parametrize("early", [False, True])
def test_o13_caller_cancels(early: bool) -> None:
    story = Story().offered()
    if early:
        story.command("ringing", earlyMedia=True)
    story.do(LegCancelled())

    assert story.events == ["incoming", *(["trackStart", "trackEnd"] if early else []), "hangup"]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("canceled", "caller")


def test_o14_accept_timeout_is_408_and_ringing_does_not_stop_the_clock() -> None:
    story = Story(accept_timeout_s=60.0).offered().after(30).command("ringing").after(29.9)
    story.do(Tick())
    assert story.machine.state is CallState.PENDING
    assert story.machine.deadline == 160.0

    story.after(0.2).do(Tick())

    assert story.events == ["incoming", "hangup"]
    assert story.signalling == [SendRinging(early_media=False), SendReject(408, "accept timeout")]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("noAnswer", "system")


@pytest.mark.parametrize(("inbound", "reason"), [(True, ("byCaller", "caller")), (False, ("byCallee", "callee"))])
def test_o15_remote_hangs_up(inbound: bool, reason: tuple[str, str]) -> None:
    story = Story().offered().command("accept", option={}) if inbound else Story().invited().answered()
    story.after(14).log.clear()

    story.do(LegHungUp())

    assert [type(effect) for effect in story.log] == [CloseMedia, Emit, Emit, Finish]
    assert story.events == ["trackEnd", "hangup"]
    assert story.event("trackEnd").duration == 14_000
    assert story.event("trackEnd").ssrc == 4711
    assert (story.event("hangup").reason, story.event("hangup").initiator) == reason


def test_o16_hangup_command_sends_bye_first() -> None:
    story = Story().invited(sip={"hangup_headers": {"X-A": "1", "X-B": "1"}}).answered().after(3)
    story.log.clear()

    story.command("hangup", reason="Normal clearing", headers={"X-B": "2"})

    assert story.log[0] == SendBye({"X-A": "1", "X-B": "2"})
    assert [type(effect) for effect in story.log] == [SendBye, CloseMedia, Emit, Emit, Finish]
    assert story.events == ["trackEnd", "hangup"]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("Normal clearing", "system")


def test_o17_playback_on_an_unanswered_call_is_held_and_runs_right_after_answer() -> None:
    story = Story().invited().command("tts", text="one").command("play", url="http://a/b.wav")
    assert not [effect for effect in story.log if isinstance(effect, Playback)]

    story.answered()

    names = [effect.command.command for effect in story.log if isinstance(effect, Playback)]
    assert names == ["tts", "play"]
    assert story.index("answer") < story.index(Playback)


def test_o17_held_playback_is_dropped_when_the_call_fails() -> None:
    story = Story().invited().command("tts", text="one").do(LegRefused(486, "Busy"))
    assert not [effect for effect in story.log if isinstance(effect, Playback)]


def test_o18_autohangup() -> None:
    story = Story().invited().answered().after(2)
    story.log.clear()
    story.do(AutoHangup())
    assert [type(effect) for effect in story.log] == [SendBye, CloseMedia, Emit, Emit, Finish]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("autohangup", "system")


def test_p44_accept_without_a_call() -> None:
    story = Story().command("accept", option={})
    assert story.events == ["reject", "error", "hangup"]
    assert story.event("reject").code == 486
    assert isinstance(story.log[-1], Finish)


@pytest.mark.parametrize("reason", [None, "changed my mind"])
def test_hangup_while_pending_is_603_handler_disconnected(reason: str | None) -> None:
    """Protocol 5.6; the client's own reason is for its `hangup` event."""
    story = Story().offered().command("hangup", reason=reason)
    assert story.signalling == [SendReject(603, "handler disconnected")]
    assert story.event("hangup").reason == (reason or "bySystem")


def test_every_call_is_recorded_when_the_settings_say_so() -> None:
    """X-18; what the client asks for counts instead."""
    settings = RecorderOption(samplerate=8000, ptime=100)
    recorded = [
        effect.recorder
        for option in ({}, {"recorder": {"samplerate": 48000}})
        for effect in Story(recorder=settings).invited(**option).log
        if isinstance(effect, ConfigureLeg)
    ]
    assert [(one.samplerate, one.ptime) for one in recorded if one] == [(8000, 100), (48000, 200)]


def test_p46_socket_lost_while_pending_is_603_handler_disconnected() -> None:
    story = Story().offered().do(Detached())
    assert story.signalling == [SendReject(603, "handler disconnected")]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("bySystem", "system")


def test_webhook_failure_is_503() -> None:
    story = Story().offered().do(WebhookOutcome(False, "No invite handler configured"))
    assert story.signalling == [SendReject(503, "No invite handler configured")]
    assert story.events == ["incoming", "hangup"]


def test_start_when_answer_puts_off_recognition_only() -> None:
    story = Story().invited(vad={}, asr={"startWhenAnswer": True})
    (before,) = [effect for effect in story.log if isinstance(effect, ConfigureLeg)]
    assert before.vad is not None
    assert before.asr is None
    story.answered()
    assert story.index("answer") < story.log.index(
        next(effect for effect in story.log if isinstance(effect, ConfigureLeg) and effect.asr)
    )


def test_recorder_of_ringing_wins_over_that_of_accept() -> None:
    story = Story().offered().command("ringing", earlyMedia=True, recorder={"recorderFile": "a"})
    story.command("accept", option={"recorder": {"recorderFile": "b"}})
    files = [e.recorder.recorder_file for e in story.log if isinstance(e, ConfigureLeg) and e.recorder]
    assert files[0] == "a"
    assert set(files) == {"a"}


def test_a_second_invite_or_accept_leaves_the_call_alone() -> None:
    story = Story().invited().answered()
    story.log.clear()
    story.command("invite", option={"callee": "sip:x@y"}).command("accept", option={})
    assert story.events == ["error", "error"]
    assert story.machine.state is CallState.UP


def test_hangup_event_carries_parties_times_and_extra_without_internal_keys() -> None:
    story = Story().invited(caller="sip:7301@10.20.0.4:13050", extra={"order": "17", "_trace": "x"})
    story.after(1.25).do(LegProgressed()).after(1).answered().after(10)
    story.do(LegHungUp())
    event = story.event("hangup").model_dump(by_alias=True, exclude_none=True)

    assert event["from"] == {"username": "7301", "realm": "10.20.0.4", "source": "sip:7301@10.20.0.4:13050"}
    assert event["to"] == {"username": "7455", "realm": "10.20.0.9", "source": "sip:7455@10.20.0.9"}
    assert event["startTime"] == "2026-03-04T09:15:20+00:00"
    assert event["ringingTime"] == "2026-03-04T09:15:21.250000+00:00"
    assert event["answerTime"] == "2026-03-04T09:15:22.250000+00:00"
    assert event["hangupTime"] == "2026-03-04T09:15:32.250000+00:00"
    assert event["extra"] == {"order": "17", "session_id": CALL, "call_type": "sip", "start_time": event["startTime"]}
    assert event["refer"] is False


def test_a_key_by_sip_info_is_an_event_and_a_sign_of_life() -> None:
    story = Story().invited().answered()
    story.log.clear()
    story.do(LegDigit("5"))
    assert story.event("dtmf").digit == "5"
    assert story.log[-1] == NoteInput(call_id=CALL)


def test_media_lost_ends_the_call_without_asking_the_lost_worker() -> None:
    story = Story().invited().answered()
    story.log.clear()
    story.do(MediaLost("worker stopped"))
    assert not [effect for effect in story.log if isinstance(effect, CloseMedia)]
    assert story.events == ["error", "trackEnd", "hangup"]


def test_muting_before_there_is_media_counts_later() -> None:
    story = Story().offered().command("mute", trackId=CALL).command("accept", option={})
    assert [e.command.command for e in story.log if isinstance(e, Playback)] == ["mute"]


def test_every_command_has_a_row_in_the_table() -> None:
    assert set(VALID) == set(COMMANDS.values())
    assert Invite in VALID


# -- WebRTC and /call -----------------------------------------------------------------------------


def test_o8_webrtc_invite_is_answered_with_our_sdp_and_no_sip() -> None:
    story = Story(call_type=CallType.WEBRTC).invited(offer="their offer", callee=None, vad={})

    assert story.order == ["T(main)", "answer"]
    assert story.event("answer").sdp == "our sdp"
    assert story.signalling == []
    (allocated,) = [effect for effect in story.log if isinstance(effect, AllocateMedia)]
    assert allocated == AllocateMedia(kind="webrtc")
    assert story.index(ConfigureLeg) < story.index("answer")
    assert story.machine.state is CallState.UP


def test_o9_an_invite_on_the_call_socket_is_answered_with_no_sdp() -> None:
    story = Story(call_type=CallType.WEBSOCKET, sdp="").invited(callee=None, subscribe=True)

    assert story.order == ["T(main)", "answer"]
    assert story.event("answer").sdp == ""
    assert [effect.kind for effect in story.log if isinstance(effect, AllocateMedia)] == ["socket"]
    assert not [effect for effect in story.log if isinstance(effect, ConfigureLeg)], "no subscribe on /call"


def test_o7_webrtc_without_an_offer() -> None:
    story = Story(call_type=CallType.WEBRTC).invited()
    assert story.order == ["error", "hangup"]
    assert (story.event("error").sender, story.event("hangup").reason) == ("invite", "failed")


def test_o7_webrtc_with_an_offer_that_media_refuses() -> None:
    story = Story(call_type=CallType.WEBRTC)
    story.media = (488, "no common codec")
    story.invited(offer="v=0")
    assert story.order == ["error", "hangup"]
    assert (story.event("error").sender, story.event("error").error) == ("invite", "no common codec")


@pytest.mark.parametrize("call_type", [CallType.WEBRTC, CallType.WEBSOCKET])
@pytest.mark.parametrize("name", ["accept", "reject", "ringing"])
def test_an_idle_socket_of_any_type_has_no_call_to_take(call_type: CallType, name: str) -> None:
    story = Story(call_type=call_type).command(name, **({"option": {}} if name == "accept" else {}))
    if name == "accept":
        assert story.order == ["reject", "error", "hangup"]
        assert story.event("reject").code == 486
    else:
        assert story.order == ["error"]
        assert story.machine.state is CallState.IDLE


@pytest.mark.parametrize("call_type", [CallType.WEBRTC, CallType.WEBSOCKET])
def test_p51_a_call_of_any_type_ends_with_hangup(call_type: CallType) -> None:
    story = Story(call_type=call_type).invited(offer="their offer").after(2)
    story.command("hangup", reason="done")
    assert story.order == ["T(main)", "answer", "E(main)", "hangup"]
    assert story.event("hangup").extra["call_type"] == call_type.value
    assert story.event("trackEnd").duration == 2000


def test_p98_candidates_wait_for_the_leg_in_order_and_are_bounded() -> None:
    story = Story(call_type=CallType.WEBRTC)
    for number in range(70):
        story.command("addIceCandidate", candidate=f"candidate:{number}", sdpMid="0", sdpMlineIndex=0)
    story.invited(offer="their offer").command("addIceCandidate", candidate="")

    added = [effect for effect in story.log if isinstance(effect, AddCandidate)]
    assert [effect.candidate for effect in added] == [f"candidate:{n}" for n in range(6, 70)] + [""]
    assert added[0] == AddCandidate(call_id=CALL, candidate="candidate:6", sdp_mid="0", sdp_m_line_index=0)
    assert "error" not in story.order


def test_p98_candidates_mean_nothing_to_other_calls() -> None:
    story = Story().command("addIceCandidate", candidate="x").invited().answered()
    story.command("addIceCandidate", candidate="x")
    assert not [effect for effect in story.log if isinstance(effect, AddCandidate)]
    assert story.order == ["T(main)", "answer"]


def test_a_browsers_offer_by_sip_is_answered_as_webrtc() -> None:
    sdp = "v=0\r\na=ice-ufrag:x\r\na=fingerprint:sha-256 AB\r\n"
    story = Story().do(Offered("sip:a@b", "sip:c@d", sdp))
    story.command("accept", option={})
    assert [effect.kind for effect in story.log if isinstance(effect, AllocateMedia)] == ["webrtc"]


# -- what the answer changes ----------------------------------------------------------------------


def test_o11_a_ringtone_ends_before_the_answer_without_an_interruption() -> None:
    story = Story().offered().command("ringing", ringtone="ring.wav").command("ringing")
    story.command("accept", option={})
    assert story.order == ["incoming", "T(main)", "T(srv,ring.wav)", "E(srv,ring.wav)", "answer"]


def test_o11_speech_that_replaced_the_ringtone_goes_on() -> None:
    story = Story().offered().command("ringing", ringtone="ring.wav").command("tts", text="one moment", playId="p")
    story.command("accept", option={})
    assert story.order[-2:] == ["T(srv,p)", "answer"]


def test_a_repeated_ringing_sends_the_response_again_and_keeps_the_first_recorder() -> None:
    story = Story().offered().command("ringing", earlyMedia=True, recorder={"recorderFile": "a"})
    story.command("ringing", recorder={"recorderFile": "b"}).command("accept", option={})
    assert story.signalling == [SendRinging(early_media=True), SendRinging(early_media=True), SendAnswer()]
    assert story.machine.call.option.recorder is not None
    assert story.machine.call.option.recorder.recorder_file == "a"


def test_g2_nothing_is_complained_of_before_the_answer() -> None:
    story = Story().invited(
        eou={"type": "x"},
        realtime={},
        ringbackDetection={"enabled": False},
        inactivityTimeout="50s",
        sip={"enable_srtp": True},
    )
    assert not [effect for effect in story.log if isinstance(effect, ConfigureLeg)]
    story.answered()
    assert story.index("answer") < story.log.index(
        ConfigureLeg(call_id=CALL, unsupported=["eou", "realtime", "enableSrtp"], inactivity_timeout_s=50.0)
    )


def test_g2_complaints_about_the_option_wait_for_the_answer() -> None:
    story = Story().invited(vad={"type": "guess"}).do(LegProgressed(REMOTE)).answered()
    told = [effect.answered for effect in story.log if isinstance(effect, ConfigureLeg)]
    assert told == [False, True]
    assert story.index("answer") < story.log.index(ConfigureLeg(call_id=CALL, answered=True))


@pytest.mark.parametrize("early", [False, True])
def test_g2_complaints_about_the_option_of_an_accept_come_after_its_answer(early: bool) -> None:
    story = Story().offered()
    if early:
        story.command("ringing", earlyMedia=True)
    story.command("accept", option={"vad": {"type": "guess"}})
    told = [effect.answered for effect in story.log if isinstance(effect, ConfigureLeg)]
    assert told == [False, True]
    assert story.index("answer") < story.log.index(ConfigureLeg(call_id=CALL, answered=True))


def test_options_of_the_audio_reach_the_leg_before_the_answer() -> None:
    story = Story(ambiance=AmbianceOption(path="office.wav", normal_level=0.5))
    option = {"url": "ws://x", "inputSampleRate": 16000, "outputSampleRate": 8000}
    story.invited(mediaPass=option, subscribe=True, agc={"headroomDb": 3}, ambiance={"normalLevel": 0.2})

    (configured,) = [effect for effect in story.log if isinstance(effect, ConfigureLeg)]
    assert configured.subscribe is True
    assert configured.media_pass == MediaPassOption.model_validate({**option, "packetSize": 2560})
    assert configured.agc is not None
    assert configured.agc.headroom_db == 3
    assert configured.ambiance == AmbianceOption(path="office.wav", normal_level=0.2)


def test_o27_inactivity() -> None:
    story = Story().invited().answered().do(Inactive())
    assert story.order[-3:] == ["inactivity", "E(main)", "hangup"]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("inactivityTimeout", "system")
    assert story.signalling[-1] == SendBye({})


def test_o27_not_before_the_answer() -> None:
    assert Story().invited().do(Inactive()).order == ["T(main)"]


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason", "initiator"),
    [
        ({}, "bySystem", "system"),
        ({"reason": "caller", "initiator": "caller"}, "byCaller", "caller"),
        ({"reason": "callee"}, "byCallee", "system"),
        ({"reason": "refer"}, "byRefer", "system"),
        ({"reason": "system"}, "bySystem", "system"),
        ({"reason": "autohangup"}, "autohangup", "system"),
        ({"reason": "NoAnswer"}, "noAnswer", "system"),
        ({"reason": "Normal clearing", "initiator": "bot"}, "Normal clearing", "bot"),
    ],
)
def test_x01_x19_reasons_are_words_whatever_their_capitals(fields: dict[str, str], reason: str, initiator: str) -> None:
    story = Story().invited().answered().command("hangup", **fields)
    assert (story.event("hangup").reason, story.event("hangup").initiator) == (reason, initiator)


def test_x03_reject_comes_before_the_ends_and_no_error_with_it() -> None:
    story = Story().invited().do(LegRefused(486, "Busy Here"))
    story.do(LegRefused(487, "again")).do(LegHungUp())
    assert story.order == ["T(main)", "reject", "E(main)", "hangup"]


def test_x05_no_command_waits_behind_another() -> None:
    story = Story().invited()
    for number in range(100):
        story.command("history", speaker="bot", text=str(number))
    story.command("hangup")
    assert story.order == ["T(main)", *["addHistory"] * 100, "E(main)", "hangup"]
    assert story.signalling[-1] == SendCancel()


def test_x08_autohangup_is_the_plays_own_and_needs_no_track_of_the_machine() -> None:
    story = Story().offered().command("ringing", earlyMedia=True).do(AutoHangup())
    assert story.signalling[-1] == SendReject(603, "autohangup")
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("autohangup", "system")


def test_x11_every_way_to_lose_a_pending_call_sends_a_final_response() -> None:
    lose: Input
    for lose, code in (
        (WebhookOutcome(False, "HTTP 500"), 503),
        (Detached(), 603),
        (Tick(), 408),
        (LegFailed("broken"), 603),
    ):
        story = Story().offered().after(61 if isinstance(lose, Tick) else 0).do(lose)
        (sent,) = story.signalling
        assert isinstance(sent, SendReject)
        assert sent.code == code
        assert story.order[-1] == "hangup"


def test_media_lost_by_a_worker_that_lives_is_closed_by_it() -> None:
    story = Story().invited().answered()
    story.log.clear()
    story.do(MediaLost("ICE failed", gone=False))
    assert story.index("error") < story.index(SendBye) < story.index(CloseMedia) < story.index("trackEnd")
    assert not [effect for effect in story.log if isinstance(effect, EndLostTracks)]


def test_media_closed_by_the_remote_party_is_its_hanging_up() -> None:
    story = Story().invited().answered()
    story.log.clear()
    story.do(MediaLeft())
    assert story.events == ["trackEnd", "hangup"]
    assert (story.event("hangup").reason, story.event("hangup").initiator) == ("byCallee", "callee")
    assert story.index(SendBye) < story.index(CloseMedia) < story.index("trackEnd")
    story.log.clear()
    story.do(MediaLeft())
    assert not story.log


def test_a_leg_that_nobody_can_close_has_its_tracks_ended_first() -> None:
    story = Story(close_fails=True).invited().answered().command("play", url="a.wav")
    story.command("hangup")
    assert story.index(CloseMedia) < story.index(EndLostTracks) < story.index("trackEnd")


def test_stopping_what_plays_before_the_answer_is_not_the_clients_interrupt() -> None:
    story = Story().offered().command("ringing", ringtone="ring.wav").command("accept", option={})
    assert [effect for effect in story.log if isinstance(effect, StopPlayback)] == [
        StopPlayback(call_id=CALL, play_id="ring.wav")
    ]


def test_x05_a_hangup_does_not_wait_for_the_dns() -> None:
    story = Story()
    story.finds_at_once = False
    story.invited().command("hangup")
    assert story.order == ["hangup"]
    story.log.clear()
    story.do(CalleeFound()).do(LegImpossible(400, "no address"))
    assert story.log == []
