"""What may wait for an answer is bounded (protocol Q-22)."""

from datetime import UTC, datetime
from typing import Any

from dialbus.contracts.commands import command_from
from dialbus.contracts.events import ErrorEvent
from dialbus.contracts.session import CallType
from sip_ua.call import CallMachine, ControlPlayback, Effect, Emit, FindCallee

NOW = 100.0


def dialing() -> CallMachine:
    machine = CallMachine("s.1", CallType.SIP, started=NOW, epoch=datetime(2026, 3, 4, tzinfo=UTC))
    effects = told(machine, "invite", option={"callee": "sip:1@h"})
    assert isinstance(effects[-1], FindCallee)
    machine.media_ready(4711, "our sdp", NOW)
    return machine


def told(machine: CallMachine, name: str, **fields: Any) -> list[Effect]:
    return machine.command(command_from({"command": name, **fields}), NOW)


def is_refusal(effects: list[Effect]) -> bool:
    (effect,) = effects
    assert isinstance(effect, Emit)
    assert isinstance(effect.event, ErrorEvent)
    assert effect.event.error == "tts: too much waits for the answer already"
    return True


def held(machine: CallMachine) -> list[str]:
    """What is spoken after the answer."""
    effects = machine.leg_answered("their sdp", NOW)
    return [effect.command.text for effect in effects if isinstance(effect, ControlPlayback)]


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
    machine = CallMachine("s.1", CallType.SIP, started=NOW, epoch=datetime(2026, 3, 4, tzinfo=UTC))
    for number in range(300):
        assert told(machine, "mute", trackId=str(number)) == []
    told(machine, "invite", option={"callee": "sip:1@h"})
    machine.media_ready(4711, "our sdp", NOW)
    effects = machine.leg_answered("their sdp", NOW)
    muted = [effect.command.track_id for effect in effects if isinstance(effect, ControlPlayback)]
    assert muted == [str(number) for number in range(100, 300)]
