"""A call can be stored and taken over: state and inputs are plain data, and nothing is lost on the way."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialbus.contracts.commands import command_from
from dialbus.contracts.media import MAIN_LEG, REFER_LEG, RemoteMedia
from dialbus.contracts.options import AmbianceOption, RecorderOption
from dialbus.contracts.session import CallState, CallType
from sip_ua.call import inputs
from sip_ua.call.effects import Ask, Effect, TakeUp
from sip_ua.call.inputs import ClientSaid, Input
from sip_ua.call.leg import Phase
from sip_ua.call.machine import CallMachine
from sip_ua.call.state import CallSettings

REMOTE = RemoteMedia(address="192.0.2.15", port=4000, codec="pcmu", payload_type=0)
SETTINGS = CallSettings(
    webhook_timeout_s=12.0,
    recorder=RecorderOption(samplerate=8000),
    ambiance=AmbianceOption.model_validate({"path": "office.wav"}),
)
COMMANDS: tuple[dict[str, Any], ...] = (
    {"command": "invite", "option": {"callee": "sip:1@h", "offer": "v=0", "vad": {}, "extra": {"a": "1"}}},
    {"command": "invite", "option": {"callee": "sip:1@h", "ambiance": {"normalLevel": 0.5}, "asr": {"model": "x"}}},
    {"command": "accept", "option": {"sip": {"hangupHeaders": {"X-A": "1"}}, "asr": {"startWhenAnswer": True}}},
    {"command": "reject", "code": 486},
    {"command": "ringing", "ringtone": "ring.wav", "recorder": {}},
    {"command": "tts", "text": "hello", "option": {"speed": 1.5}},
    {"command": "play", "url": "a.wav", "playId": "p"},
    {"command": "mute", "trackId": "x"},
    {"command": "interrupt"},
    {"command": "hangup", "headers": {"X-B": "2"}},
    {"command": "hangup", "refer": True},
    {"command": "refer", "callee": "sip:2@h", "options": {"moh": "hold.wav", "vad": {}, "timeout": 7}},
    {"command": "bridge", "targetSessionId": "s.2"},
    {"command": "unbridge", "targetSessionId": "s.2"},
    {"command": "addIceCandidate", "candidate": "candidate:1", "sdpMid": "0"},
    {"command": "message", "body": "hi", "refer": True},
    {"command": "pause"},
    {"command": "resume"},
    {"command": "unmute"},
    {"command": "history", "speaker": "bot", "text": "hi"},
    {"command": "custom", "data": {"a": [1, None]}},
)
EXAMPLES: tuple[Input, ...] = (
    *(ClientSaid(command_from(fields)) for fields in COMMANDS),
    inputs.Offered("sip:a@h", "sip:b@h", "v=0", {"X-T": "1"}),
    inputs.WebhookOutcome(True),
    inputs.WebhookOutcome(False, "HTTP 500"),
    inputs.Attached("gateway-1", "srv", True),
    inputs.Detached(),
    inputs.Detached("gateway-1"),
    inputs.CalleeFound(),
    inputs.LegImpossible(400, "no address"),
    inputs.LegProgressed(),
    inputs.LegProgressed(REMOTE),
    inputs.LegAnswered("their sdp", REMOTE),
    inputs.LegRefused(486, "Busy Here"),
    inputs.LegFailed("no route"),
    inputs.LegCancelled(),
    inputs.LegHungUp(),
    inputs.MediaChanged(REMOTE, True),
    inputs.LegDigit("5"),
    inputs.LegMessage("hi", "text/plain"),
    inputs.MessageRefused(415, "Unsupported"),
    inputs.LegTransferAsked("sip:9@h"),
    inputs.MediaReady(4711, "our sdp", REMOTE),
    inputs.MediaReady(4711, "our sdp"),
    inputs.MediaRefused(503, "no room"),
    inputs.MediaLost("gone"),
    inputs.MediaLeft(),
    inputs.MediaNotClosed(),
    inputs.CommandRefused(404, "track not found"),
    inputs.AutoHangup(),
    inputs.Inactive(),
    inputs.BridgeWanted("s.3"),
    inputs.BridgeAgreed("s.2"),
    inputs.BridgeLeft("s.3"),
    inputs.BridgeRefused("s.2", 409, "no"),
    inputs.Tick(),
)


def _of_a_leg(said: Any, leg: str, generation: int) -> Any:
    if isinstance(said, inputs.OfLeg):
        return replace(said, leg=leg, generation=generation)
    return replace(said, leg=leg) if hasattr(said, "leg") else said


_ENDS = (
    inputs.Detached, inputs.LegFailed, inputs.LegCancelled, inputs.LegHungUp, inputs.MediaLost, inputs.MediaLeft,
    inputs.AutoHangup, inputs.Inactive, inputs.LegRefused, inputs.MediaRefused, inputs.LegImpossible,
)  # fmt: skip
_GOES_ON = tuple(said for said in EXAMPLES if not isinstance(said, _ENDS))
_inputs: st.SearchStrategy[Input] = st.builds(
    _of_a_leg,
    st.sampled_from((*_GOES_ON, *_GOES_ON, *EXAMPLES)),
    st.sampled_from([MAIN_LEG, REFER_LEG]),
    st.integers(0, 1),
)
_SAID = {said.command.command: said for said in reversed(EXAMPLES) if isinstance(said, ClientSaid)}
_READY = inputs.MediaReady(4711, "our sdp", REMOTE)
_PLACED: tuple[Input, ...] = (_SAID["invite"], inputs.CalleeFound(), _READY)
_UP: tuple[Input, ...] = (*_PLACED, inputs.LegAnswered("their sdp", REMOTE))
_REFERRED: tuple[Input, ...] = (
    *_UP,
    _SAID["refer"],
    inputs.CalleeFound(leg=REFER_LEG),
    inputs.MediaReady(4712, "our sdp", leg=REFER_LEG),
)
STARTS: tuple[tuple[Input, ...], ...] = (
    (),
    (EXAMPLES[len(COMMANDS)],),
    (EXAMPLES[len(COMMANDS)], _SAID["ringing"]),
    (EXAMPLES[len(COMMANDS)], _SAID["accept"]),
    (EXAMPLES[len(COMMANDS)], _SAID["accept"], _READY),
    _PLACED[:1],
    _PLACED[:2],
    _PLACED,
    _UP,
    (*_UP, _SAID["refer"]),
    _REFERRED[:-1],
    _REFERRED,
    (*_REFERRED, inputs.LegAnswered("target sdp", REMOTE, leg=REFER_LEG)),
)
"""Ways to each phase, from where anything may happen."""
_moments = st.integers(0, 64).map(lambda eighths: eighths / 8)
_life = st.tuples(st.sampled_from(STARTS), st.lists(st.tuples(_inputs, _moments), min_size=8, max_size=30)).map(
    lambda parts: [*((said, 0.125) for said in parts[0]), *parts[1]]
)


def begun(call_type: CallType) -> CallMachine:
    epoch = datetime(2026, 3, 4, 9, 15, 20, tzinfo=UTC)
    return CallMachine.begin("s.1", call_type, started=100.0, epoch=epoch, settings=SETTINGS)


def take(machine: CallMachine, said: Input, now: float) -> list[Effect]:
    """The effects, and those of commands whose turn has come, as a session takes them up."""
    effects = machine.receive(said, now)
    for effect in list(effects):
        if isinstance(effect, TakeUp):
            effects += machine.receive(ClientSaid(effect.command), now)
    return effects


def as_told(effects: list[Effect]) -> list[object]:
    """The effects, requests as they go over the bus: what was not set must not be."""
    return [(type(e.command), e.command.to_bytes()) if isinstance(e, Ask) else e for e in effects]


@given(st.sampled_from(list(CallType)), _life, st.integers(0, 35), st.integers(-512, 512))
def test_a_stored_call_goes_on_as_if_it_had_not_been_stored(
    call_type: CallType, life: list[tuple[Input, float]], stored_after: int, other_clock: int
) -> None:
    machine, now = begun(call_type), 100.0
    for said, passed in life[:stored_after]:
        now += passed
        take(machine, said, now)

    stored = json.dumps(machine.to_state(now))
    ahead = other_clock / 8
    heir = CallMachine.from_state(json.loads(stored), now + ahead)

    assert heir.call == machine.call if ahead == 0 else heir.state is machine.state
    for said, passed in life[stored_after:]:
        now += passed
        assert as_told(take(heir, said, now + ahead)) == as_told(take(machine, said, now))
        assert heir.finished is machine.finished
        deadline = machine.deadline
        assert heir.deadline == (None if deadline is None else deadline + ahead)
    assert heir.record([], None) == machine.record([], None)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: type(start[-1]).__name__ if start else "idle")
@pytest.mark.parametrize("leg", [MAIN_LEG, REFER_LEG])
def test_every_input_finds_the_heir_as_it_finds_the_call(start: tuple[Input, ...], leg: str) -> None:
    """Whatever the phase: with the two tables' every row."""
    for example in EXAMPLES:
        machine, said = begun(CallType.SIP), _of_a_leg(example, leg, 0)
        for before in start:
            take(machine, before, 101.0)
        heir = CallMachine.from_state(json.loads(json.dumps(machine.to_state(101.0))), 101.0)
        assert as_told(take(heir, said, 102.0)) == as_told(take(machine, said, 102.0))
        assert heir.call == machine.call


def test_the_starts_lead_to_every_phase() -> None:
    phases = {Phase.ENDED}
    for start in STARTS:
        machine = begun(CallType.SIP)
        for said in start:
            take(machine, said, 101.0)
        phases.add(machine.call.main.phase)
    assert phases == set(Phase)


@given(_inputs)
def test_an_input_can_be_stored(said: Input) -> None:
    fields = json.loads(json.dumps(inputs.to_fields(said)))
    assert inputs.from_fields(fields) == said


def test_the_life_above_knows_every_input() -> None:
    assert {type(said) for said in EXAMPLES} == set(get_args(Input))


def test_what_is_no_state_is_refused() -> None:
    state = begun(CallType.SIP).to_state(100.0)
    state["main"]["phase"] = "asleep"
    with pytest.raises(ValueError, match="phase"):
        CallMachine.from_state(state, 100.0)


def test_a_call_tells_where_it_stands() -> None:
    machine = begun(CallType.WEBRTC)
    take(machine, ClientSaid(command_from(COMMANDS[0])), 101.0)
    take(machine, ClientSaid(command_from(COMMANDS[5])), 101.0)
    assert machine.state is CallState.DIALING
    assert repr(machine) == "<call s.1, webrtc, placing, 1 waiting>"
