"""Bridges between calls (protocol 2.13), for two machines that talk as their owners would."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dialbus.contracts.commands import command_from
from dialbus.contracts.events import ErrorEvent, Event, TrackEnd, TrackStart
from dialbus.contracts.media import MAX_BRIDGES, BridgeLeg, UnbridgeLeg
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.effects import AnswerBridge, Ask, AskBridge, Effect, Emit, LeaveBridge
from sip_ua.call.inputs import BridgeAgreed, BridgeLeft, BridgeRefused, BridgeWanted, ClientSaid, Input, MediaReady
from sip_ua.call.machine import CallMachine
from tests.peers.story import Story

Post = list[tuple[str, str, AskBridge | LeaveBridge]]


class Town:
    """Calls that are up, and the letters between their owners, delivered when a test says so."""

    def __init__(self, *names: str) -> None:
        self.calls: dict[str, CallMachine] = {}
        self.log: dict[str, list[str]] = {name: [] for name in names}
        self.post: Post = []
        self.answers: dict[str, list[str | None]] = {name: [] for name in names}
        """What others' questions were answered: objections, None for *taken*."""
        self._moments = iter(range(1, 1000))
        for name in names:
            epoch = datetime(2026, 3, 4, tzinfo=UTC)
            self.calls[name] = CallMachine.begin(name, CallType.WEBSOCKET, started=0, epoch=epoch)
            self.command(name, "invite", option={})
            self.take(name, MediaReady(1))
            self.log[name].clear()

    def command(self, name: str, command: str, **fields: Any) -> None:
        self.take(name, ClientSaid(command_from({"command": command, **fields})))

    def take(self, name: str, arrived: Input) -> None:
        self.do(name, self.calls[name].receive(arrived, self.now()))

    def now(self) -> float:
        """A second after the last time."""
        return float(next(self._moments))

    def do(self, name: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, AskBridge | LeaveBridge):
                self.post.append((name, effect.other, effect))
            elif isinstance(effect, Emit):
                self.log[name].append(_word(effect.event))
            elif isinstance(effect, AnswerBridge):
                self.answers[name].append(effect.objection)
            elif isinstance(effect, Ask) and isinstance(effect.command, BridgeLeg | UnbridgeLeg):
                self.log[name].append(
                    f"{'on' if isinstance(effect.command, BridgeLeg) else 'off'}({effect.command.other})"
                )

    def deliver(self) -> None:
        """One letter and, to a question, the answer."""
        sender, other, letter = self.post.pop(0)
        if isinstance(letter, LeaveBridge):
            if other in self.calls:
                self.take(other, BridgeLeft(sender))
        elif other not in self.calls:
            self.take(sender, BridgeRefused(other, 404, "no"))
        else:
            self.take(other, BridgeWanted(sender))
            objection = self.answers[other][-1]
            self.take(sender, BridgeAgreed(other) if objection is None else BridgeRefused(other, 409, objection))

    def settle(self) -> None:
        for _ in range(20):
            if not self.post:
                return
            self.deliver()
        raise AssertionError(f"the owners never stop writing: {self.post}")


def _word(event: Event) -> str:
    if isinstance(event, TrackStart | TrackEnd):
        return f"{'T' if isinstance(event, TrackStart) else 'E'}({event.track_id})"
    return f"error {event.code}" if isinstance(event, ErrorEvent) else event.event


A_TO_B, B_TO_A = "bridge:a:to:b", "bridge:b:to:a"


def test_p97_each_side_has_its_own_track() -> None:
    town = Town("a", "b")
    town.command("a", "bridge", targetSessionId="b")
    assert town.log == {"a": [], "b": []}, "nothing is on before the other side agrees"
    town.settle()
    assert town.log == {"a": ["on(b)", f"T({A_TO_B})"], "b": ["on(a)", f"T({B_TO_A})"]}

    town.command("b", "unbridge", targetSessionId="a")
    town.settle()
    assert town.log["a"][2:] == ["off(b)", f"E({A_TO_B})"]
    assert town.log["b"][2:] == ["off(a)", f"E({B_TO_A})"]


def test_p97_again_is_a_replacement() -> None:
    town = Town("a", "b")
    for _ in range(2):
        town.command("a", "bridge", targetSessionId="b")
        town.settle()
    assert town.log["a"] == ["on(b)", f"T({A_TO_B})", "off(b)", f"E({A_TO_B})", "on(b)", f"T({A_TO_B})"]
    assert town.log["b"] == ["on(a)", f"T({B_TO_A})", "off(a)", f"E({B_TO_A})", "on(a)", f"T({B_TO_A})"]


def test_p97_both_at_once() -> None:
    town = Town("a", "b")
    town.command("a", "bridge", targetSessionId="b")
    town.command("b", "bridge", targetSessionId="a")
    town.settle()
    for name, track in (("a", A_TO_B), ("b", B_TO_A)):
        tracks = [word for word in town.log[name] if track in word]
        assert tracks == [f"T({track})", f"E({track})", f"T({track})"]
        assert town.log[name][-2].startswith("on(")


@pytest.mark.parametrize(("target", "code"), [("nobody", 404), ("a", 409), ("ended", 409)])
def test_p97_what_cannot_be_bridged(target: str, code: int) -> None:
    town = Town("a", "ended")
    town.command("ended", "hangup")
    town.command("a", "bridge", targetSessionId=target)
    town.settle()
    assert town.log["a"] == [f"error {code}"]


def test_p97_unbridge_of_nothing_is_silent() -> None:
    town = Town("a", "b")
    town.command("a", "unbridge", targetSessionId="b")
    town.command("a", "unbridge", targetSessionId="nobody")
    town.settle()
    assert town.log == {"a": [], "b": []}


def test_unbridge_overtakes_the_answer_to_bridge() -> None:
    town = Town("a", "b")
    town.command("a", "bridge", targetSessionId="b")
    town.command("a", "unbridge", targetSessionId="b")
    town.settle()
    assert [word for word in town.log["a"] if word[0] in "TE"] == []
    assert town.log["b"] == ["on(a)", f"T({B_TO_A})", "off(a)", f"E({B_TO_A})"]


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_call_that_ends_leaves_its_bridges(who: str) -> None:
    town = Town("a", "b", "c")
    town.command("a", "bridge", targetSessionId="b")
    town.command(who, "bridge", targetSessionId="c")
    town.settle()
    other = "b" if who == "a" else "a"
    for log in town.log.values():
        log.clear()

    town.command(who, "hangup")
    town.settle()

    ends = [f"E(bridge:{who}:to:{name})" for name in (other, "c")]
    assert town.log[who] == [*ends, f"E({who})", "hangup"]
    assert town.log[other] == [f"off({who})", f"E(bridge:{other}:to:{who})"]
    assert town.log["c"] == [f"off({who})", f"E(bridge:c:to:{who})"]
    assert town.calls[other].state is CallState.UP


def test_a_call_that_ended_while_the_other_agreed_is_left() -> None:
    town = Town("a", "b")
    town.command("a", "bridge", targetSessionId="b")
    town.command("a", "hangup")
    town.log["a"].clear()
    assert [type(letter) for _, _, letter in town.post] == [AskBridge, LeaveBridge]  # nobody is left to hear the answer
    town.settle()
    assert town.log == {"a": [], "b": ["on(a)", f"T({B_TO_A})", "off(a)", f"E({B_TO_A})"]}


def test_bridges_are_bounded() -> None:
    story = Story().invited().answered()
    for number in range(MAX_BRIDGES + 1):
        story.command("bridge", targetSessionId=f"s.{number}")
    assert len([effect for effect in story.log if isinstance(effect, AskBridge)]) == MAX_BRIDGES
    assert story.event("error").code == 409


def test_no_more_others_can_bridge_to_a_call_than_it_can_itself() -> None:
    town = Town("a")
    for number in range(MAX_BRIDGES):
        town.take("a", BridgeWanted(f"s.{number}"))
    assert town.answers["a"] == [None] * MAX_BRIDGES
    town.take("a", BridgeWanted("s.0"))
    assert town.answers["a"][-1] is None, "it replaces its track"
    town.log["a"].clear()
    town.take("a", BridgeWanted("one more"))
    assert town.answers["a"][-1] == "the session has too many bridges"
    assert town.log["a"] == []


def test_bridge_needs_a_call_that_is_up() -> None:
    story = Story().invited().command("bridge", targetSessionId="s.2")
    assert story.order == ["T(main)", "error"]
