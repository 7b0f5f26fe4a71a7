"""What may wait for an answer is bounded (protocol Q-22)."""

from datetime import UTC, datetime
from typing import Any

from dialbus.contracts.commands import Mute, Tts, command_from
from dialbus.contracts.events import ErrorEvent
from dialbus.contracts.media import Playback, PlaybackCommand
from dialbus.contracts.session import CallType
from sip_ua.call.effects import Ask, Effect, Emit, FindCallee
from sip_ua.call.inputs import CalleeFound, ClientSaid, LegAnswered, MediaReady
from sip_ua.call.machine import CallMachine
from tests.peers.story import REMOTE

NOW = 100.0


def dialing() -> CallMachine:
    machine = begun()
    placed(machine)
    return machine


def begun() -> CallMachine:
    return CallMachine.begin("s.1", CallType.SIP, started=NOW, epoch=datetime(2026, 3, 4, tzinfo=UTC))


def placed(machine: CallMachine) -> None:
    effects = told(machine, "invite", option={"callee": "sip:1@h"})
    assert isinstance(effects[-1], FindCallee)
    machine.receive(CalleeFound(), NOW)
    machine.receive(MediaReady(4711, "our sdp"), NOW)


def told(machine: CallMachine, name: str, **fields: Any) -> list[Effect]:
    return machine.receive(ClientSaid(command_from({"command": name, **fields})), NOW)


def is_refusal(effects: list[Effect]) -> bool:
    (effect,) = effects
    assert isinstance(effect, Emit)
    assert isinstance(effect.event, ErrorEvent)
    assert effect.event.error == "tts: too much waits for the answer already"
    return True


def held(machine: CallMachine) -> list[str]:
    """What is spoken after the answer."""
    return [command.text for command in played(machine) if isinstance(command, Tts)]


def played(machine: CallMachine) -> list[PlaybackCommand]:
    """What media is told with the answer."""
    asked = [
        effect.command for effect in machine.receive(LegAnswered("their sdp", REMOTE), NOW) if isinstance(effect, Ask)
    ]
    return [request.command for request in asked if isinstance(request, Playback)]


def test_200_texts_wait_for_the_answer_and_the_next_is_refused() -> None:
    machine = dialing()
    for number in range(200):
        assert told(machine, "tts", text=f"{number}") == []
    assert is_refusal(told(machine, "tts", text="one too many"))
    assert held(machine) == [str(number) for number in range(200)]


def test_a_mebibyte_waits_for_the_answer_and_no_more() -> None:
    machine = dialing()
    audio = "A" * 600_000
    assert told(machine, "tts", text=audio, base64=True) == []
    assert is_refusal(told(machine, "tts", text=audio, base64=True))
    assert told(machine, "tts", text="still room") == []
    assert held(machine) == [audio, "still room"]


def test_of_mutes_before_there_is_media_the_last_200_count() -> None:
    machine = begun()
    for number in range(300):
        assert told(machine, "mute", trackId=str(number)) == []
    placed(machine)
    muted = [command.track_id for command in played(machine) if isinstance(command, Mute)]
    assert muted == [str(number) for number in range(100, 300)]
