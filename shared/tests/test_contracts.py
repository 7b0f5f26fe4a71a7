"""Every contract by example: subject, round trip, forward compatibility; and the clients' JSON rules (protocol 0.2)."""

import contextlib
import importlib
import json
import pkgutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import dialbus.contracts
from dialbus.contracts import commands, media, options, records, session, speech, trace
from dialbus.contracts.audio import AudioFrame, audio_subject
from dialbus.contracts.base import Contract, Refusal, Taken, from_token, token
from dialbus.contracts.commands import BadCommand, Hangup, Invite, command_from, load_json
from dialbus.contracts.events import CLIENT_EVENT, EVENTS, AsrFinal, Hold, TrackEnd, event_subject
from dialbus.contracts.options import CallOption, masked

CALL = "k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp"
REMOTE = media.RemoteMedia(address="192.0.2.1", port=4000, codec="pcmu", payload_type=0, telephone_event_pt=101)
ANNOUNCED = session.Announcement(
    dialog_id=CALL, caller="sip:a@b", callee="sip:c@d", created_at="x", headers=["Subject: x"], offer="v=0"
)
RECORD = records.CallRecord(
    call_type="sip", call_id=CALL, caller="sip:a@b", callee="sip:c@d", start_time="x", end_time="y", status_code=200
)
EXAMPLES: list[Contract] = [
    Taken(),
    Refusal(code=503, reason="no room"),
    session.Session(call_id=CALL, call_type=session.CallType.SIP, created_at="2026-03-04T09:15:20+00:00"),
    session.OpenSession(
        call_id="s.1", created_at="2026-03-04T09:15:20+00:00", gateway="gateway-1", command=commands.Hangup()
    ),
    session.ClientCommandSent(call_id=CALL, command=commands.Hangup(), command_id="7"),
    session.SocketCommand(call_id=CALL, command=commands.Hangup()),
    session.CommandSeen(call_id=CALL, at_ms=1772615727418, via="rest", command={"command": "pause"}),
    session.BridgeWanted(call_id=CALL, other="s.2", on=True),
    session.Attach(call_id=CALL, gateway="gateway-1"),
    session.Detach(call_id=CALL, gateway="gateway-1"),
    session.DeliverWebhook(call_id=CALL, body=ANNOUNCED, give_up_at_ms=1772615741903),
    session.WebhookOutcome(call_id=CALL, delivered=False, status=500, reason="HTTP 500", attempts=3),
    session.Heartbeat(service="media", instance="media-1", version="0.1.0", capacity=200, in_use=3, started_at="x"),
    trace.TraceLines(
        call_id=CALL,
        service="sip-ua",
        instance="sip-ua-1",
        lines=[trace.TraceLine(at=1772615727.418123, kind=trace.TraceKind.SIP_IN, name="ACK sip:a SIP/2.0", text="…")],
    ),
    REMOTE,
    media.LegAllocated(worker="media-1", address="127.0.0.1", port=12000, ssrc=1),
    media.AllocateLeg(call_id=CALL, main_track=CALL, server_track="server-side-track"),
    media.AllocateBeside(call_id=CALL, leg_id="refer", main_track="server-side-track", server_track="x", refer=True),
    media.ConnectLeg(call_id=CALL, remote=REMOTE),
    media.ConfigureLeg(call_id=CALL, denoise=True, vad=options.VADOption(type="silero")),
    media.Playback(call_id=CALL, command=commands.Tts(text="hi")),
    media.StopPlayback(call_id=CALL, interruption=True),
    media.NoteInput(call_id=CALL),
    media.AddCandidate(call_id=CALL, candidate="", sdp_mid="0"),
    media.JoinLegs(call_id=CALL, other_leg="refer", one_way=True),
    media.BridgeLeg(call_id=CALL, other="s.2"),
    media.UnbridgeLeg(call_id=CALL, other="s.2"),
    media.CloseLeg(call_id=CALL),
    media.RecordedFile(track_id=CALL, path="a.wav", size_bytes=44),
    media.LegClosed(recordings=(media.RecordedFile(track_id=CALL, path="a.wav", size_bytes=44),)),
    media.PlaybackEnded(call_id=CALL),
    media.LegInactive(call_id=CALL),
    media.LegLost(call_id=CALL, reason="stopping"),
    speech.OpenTranscription(call_id=CALL, language="en"),
    speech.TranscriptionOpened(worker="asr-1", model="tiny.en"),
    speech.CloseTranscription(call_id=CALL),
    speech.Transcript(call_id=CALL, utterance=0, text="hello", final=True, confidence=0.9),
    speech.Speak(call_id=CALL, utterance_id="u1", text="hello"),
    speech.SpeechTaken(worker="tts-1"),
    speech.CancelSpeech(call_id=CALL, utterance_id="u1"),
    speech.CacheSpeech(text="hello"),
    speech.CancelCaching(asker="gateway-1/7"),
    speech.Cached(cache_key="0f", size_bytes=3200, existed=False),
    records.WriteRecord(call_id=CALL, record=RECORD),
]


def _contracts() -> set[type[Contract]]:
    for module in pkgutil.iter_modules(dialbus.contracts.__path__):
        importlib.import_module(f"dialbus.contracts.{module.name}")
    found: set[type[Contract]] = set()
    waiting = [Contract]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if "SUBJECT" in kind.__dict__:
                found.add(kind)
    return found


def test_every_contract_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == _contracts()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_round_trip_and_forward_compatibility(example: Contract) -> None:
    data = json.loads(example.to_bytes())
    assert type(example).from_bytes(example.to_bytes()) == example
    assert type(example).model_validate({**data, "added_next_year": [1]}) == example


def set_fields(value: Any) -> Any:
    """What is set, all the way down."""
    if isinstance(value, BaseModel):
        return {name: set_fields(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, list | tuple):
        return [set_fields(item) for item in value]
    return value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_what_was_set_is_all_that_is_set_behind_the_bus(example: Contract) -> None:
    assert set_fields(type(example).from_bytes(example.to_bytes())) == set_fields(example)


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"vad": {}},
        {"vad": {"silencePadding": 300}, "asr": {"model": "tiny"}, "tts": {"voice": "joe"}},
        {"recorder": {}, "ambiance": {"enabled": False}, "agc": {}, "sip": {"hangup_headers": {"X-A": "1"}}},
        {"samplerate": 8000, "inactivityTimeout": "30s", "mediaPass": {
            "url": "ws://127.0.0.1:1", "inputSampleRate": 8000, "outputSampleRate": 16000}},
    ],
)  # fmt: skip
def test_only_what_a_client_sent_is_set_behind_the_bus(option: dict[str, Any]) -> None:
    sent = commands.command_from({"command": "invite", "option": option})
    opening = session.OpenSession(call_id="s.1", created_at="x", gateway="g", command=sent)
    got = session.OpenSession.from_bytes(opening.to_bytes()).command
    assert got == sent
    assert set_fields(got) == set_fields(sent)
    assert got.model_dump(exclude_unset=True) == {"command": "invite", "option": set_fields(sent.option)}


def test_a_command_made_here_keeps_its_tag() -> None:
    asked = media.Playback(call_id=CALL, command=commands.Play(url="a.wav"))
    assert json.loads(asked.to_bytes())["command"] == {"command": "play", "url": "a.wav"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_the_subject_is_valid_and_matches_its_own_pattern(example: Contract) -> None:
    subject = example.subject
    assert " " not in subject
    assert "*" not in subject
    pattern = type(example).pattern()
    assert len(pattern.split(".")) == len(subject.split("."))
    for wanted, got in zip(pattern.split("."), subject.split("."), strict=True):
        assert wanted in ("*", got)
    if hasattr(example, "call_id") and "{call}" in type(example).SUBJECT:
        assert type(example).pattern(call_id=CALL).split(".")[1] == subject.split(".")[1]


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.isprintable() or True))
def test_any_id_becomes_one_token_and_comes_back(call_id: str) -> None:
    try:
        call_id.encode()
    except UnicodeEncodeError:
        return  # lone surrogates never arrive: ids are decoded from UTF-8
    text = token(call_id)
    assert not set(text) & set(" .*>\r\n\t")
    assert text
    assert from_token(text) == call_id


@pytest.mark.parametrize(
    ("call_id", "text"),
    [("abc_1-Z", "abc_1-Z"), ("s.1", "s=2E1"), ("a@b", "a=40b"), ("a=b", "a=3Db"), ("é", "=C3=A9")],
)
def test_known_tokens(call_id: str, text: str) -> None:
    assert token(call_id) == text
    assert event_subject(call_id, "answer") == f"call.{text}.event.answer"


def test_an_empty_id_and_foreign_text_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        token("")
    for foreign in ("a.b", "=2", "=zz", "=41"):
        with pytest.raises(ValueError):  # noqa: PT011 - int() phrases some of them
            from_token(foreign)


def test_audio_round_trip_and_faults() -> None:
    frame = AudioFrame(
        CALL, "server", "u1", 3, 8000, b"\x01\x02", last=True, failure="gone\r\nbad", facts={"ttfb": "12"}
    )
    back = AudioFrame.received(CALL, "server", frame.headers(), frame.pcm)
    assert (back.utterance, back.sequence, back.rate_hz, back.last) == ("u1", 3, 8000, True)
    assert back.facts == {"ttfb": "12"}
    assert back.failure == "gone bad", "a header value never holds a line break"
    assert frame.subject == audio_subject(CALL, "server")
    for headers, pcm in ((None, b""), ({}, b""), (frame.headers(), b"\x01"), ({"Utterance": "u"}, b"")):
        with pytest.raises(ValueError):  # noqa: PT011
            AudioFrame.received(CALL, "server", headers, pcm)


# -- the clients' JSON ----------------------------------------------------------------------------


def test_nulls_are_absent_and_numbers_may_be_strings_at_every_depth() -> None:
    command = command_from(
        load_json(
            '{"command":"invite","callType":"sip","option":{"callee":"sip:a@b","caller":null,"vad":{"silencePadding":"300",'
            '"voiceThreshold":null,"speechPadding":null},"asr":{"provider":null,"sampleRate":"8000","model":"base"},'
            '"handshakeTimeout":"30s","denoise":null}}'
        )
    )
    assert isinstance(command, Invite)
    assert command.option.vad is not None
    assert command.option.vad.silence_padding == 300
    assert command.option.vad.speech_padding == 250
    assert command.option.vad.voice_threshold == 0.5
    assert command.option.asr is not None
    assert command.option.asr.samplerate == 8000
    assert command.option.asr.model_type == "base"
    assert command.option.handshake_timeout == 30


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "malformed JSON"),
        ("[" * 100_000, "malformed JSON"),
        ("[]", "a command is a JSON object"),
        ('"x"', "a command is a JSON object"),
        ("{}", "missing field: command"),
        ('{"command":7}', "missing field: command"),
        ('{"command":"fly"}', "unknown command: fly"),
        ('{"command":"invite"}', "missing field: option"),
        ('{"command":"tts"}', "missing field: text"),
        ('{"command":"tts","text":null}', "missing field: text"),
        ('{"command":"tts","text":5}', "text: "),
        ('{"command":"tts","text":"a","waitInputTimeout":-1}', "waitInputTimeout"),
        ('{"command":"play","url":""}', "url"),
        ('{"command":"invite","option":{"vad":7}}', "option.vad"),
        ('{"command":"reject","code":"many"}', "code"),
    ],
)
def test_bad_commands_say_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(BadCommand) as caught:
        command_from(load_json(text))
    assert why in str(caught.value)
    assert len(str(caught.value)) < 300


@given(
    st.text(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_any_text_is_a_command_or_a_bad_command(text: str) -> None:
    with contextlib.suppress(BadCommand):
        command_from(load_json(text))


def test_camel_and_snake_case_of_the_sip_option_are_both_known() -> None:
    for key in ("hangup_headers", "hangupHeaders"):
        option = CallOption.model_validate({"sip": {key: {"X": "1"}}})
        assert option.sip is not None
        assert option.sip.hangup_headers == {"X": "1"}


def test_hangup_needs_nothing() -> None:
    assert command_from(load_json('{"command":"hangup"}')) == Hangup()


def test_secrets_are_masked_at_every_depth() -> None:
    option = {"sip": {"username": "u", "password": "p"}, "asr": [{"secretKey": "k", "apiKey": ""}], "tts": None}
    assert masked(option) == {
        "sip": {"username": "u", "password": "***"},
        "asr": [{"secretKey": "***", "apiKey": ""}],
        "tts": None,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            {"secret_id": "i", "accessKey": "k", "X-Auth-Token": "t"},
            {"secret_id": "***", "accessKey": "***", "X-Auth-Token": "***"},
        ),
        (
            {"headers": {"Proxy-Authorization": "Digest …", "Subject": "s"}},
            {"headers": {"Proxy-Authorization": "***", "Subject": "s"}},
        ),
        ({"password": 1234, "credential": {"username": "u"}}, {"password": "***", "credential": "***"}),
        (
            {"tokens": 3, "secretary": "Ann", "text": "the password is a@b"},
            {"tokens": 3, "secretary": "Ann", "text": "the password is a@b"},
        ),
        ("wss://u:p@example.org/a?lang=en&access_token=t&x=1", "wss://***@example.org/a?lang=en&access_token=***&x=1"),
        ("https://example.org/?api_key=k#here", "https://example.org/?api_key=***#here"),
        ("https://example.org/users@home", "https://example.org/users@home"),
        ('"Al" <sip:alice:pw@example.org:5060>', '"Al" <sip:alice:***@example.org:5060>'),
        ("sip:alice@example.org:5060", "sip:alice@example.org:5060"),
    ],
)
def test_what_looks_like_a_secret_is_masked_and_nothing_else(value: Any, shown: Any) -> None:
    assert masked(value) == shown


def test_events_leave_absent_values_out_and_write_plain_integers() -> None:
    text = TrackEnd(track_id="s.1", timestamp=1772615727418, duration=0, ssrc=4294967295).to_json()
    assert json.loads(text) == {
        "event": "trackEnd", "trackId": "s.1", "timestamp": 1772615727418, "duration": 0, "ssrc": 4294967295,
    }  # fmt: skip
    assert "null" not in text
    assert json.loads(Hold(track_id="s.1", timestamp=1, on_hold=True).to_json())["refer"] is False


@pytest.mark.parametrize("wrong", [{"ssrc": -1}, {"ssrc": 1 << 32}, {"duration": 1.5}, {"timestamp": -1}])
def test_events_refuse_numbers_that_go_would_refuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrackEnd(**{"track_id": "s.1", "timestamp": 1, "duration": 0, "ssrc": 0, **wrong})


def test_g1_transcripts_always_carry_both_times() -> None:
    event = AsrFinal(track_id="s.1", timestamp=1, index=0, text="", start_time=0, end_time=0)
    assert {"startTime", "endTime", "index", "text"} <= set(json.loads(event.to_json()))


def test_every_event_is_in_the_union() -> None:
    schema = CLIENT_EVENT.json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(EVENTS)
