"""Machines as tables: what is looked up, what is ignored, what a table must not hide."""

from dataclasses import dataclass
from enum import Enum

import pytest

from dialbus.machine import Move, Table, UndrawnTransition, dispatch, in_states


class State(Enum):
    SHUT = "shut"
    OPEN = "open"
    GONE = "gone"


class Input(Enum):
    WIND = "wind"


@dataclass(frozen=True)
class Push:
    force: int


@dataclass(frozen=True)
class Burn:
    pass


class Door:
    def __init__(self) -> None:
        self.state = State.SHUT
        self.heard: list[object] = []

    def open(self, push: Push) -> None:
        self.heard.append(push.force)
        if push.force > 1:
            self.state = State.OPEN

    def creak(self, wind: Input) -> None:
        self.heard.append(wind)

    def fall(self, _: Burn) -> None:
        self.state = State.GONE


DOOR: Table[State, Door] = {
    (State.SHUT, Push): Move(Door.open, State.OPEN),
    (State.OPEN, Input.WIND): Move(Door.creak),
    **in_states((State.SHUT, State.OPEN), {Burn: Move(Door.fall, State.GONE)}),
}


def test_the_type_of_an_input_finds_its_handler_in_the_state_the_machine_is_in() -> None:
    door = Door()
    assert dispatch(DOOR, door, Push(1))
    assert door.state is State.SHUT, "a handler may also stay"
    assert dispatch(DOOR, door, Push(2))
    assert (door.state, door.heard) == (State.OPEN, [1, 2])


def test_a_member_of_an_enum_is_looked_up_as_itself() -> None:
    door = Door()
    door.state = State.OPEN
    assert dispatch(DOOR, door, Input.WIND)
    assert door.heard == [Input.WIND]


def test_an_absent_pair_is_ignored() -> None:
    door = Door()
    assert not dispatch(DOOR, door, Input.WIND)
    assert (door.state, door.heard) == (State.SHUT, [])


@pytest.mark.parametrize("state", [State.SHUT, State.OPEN])
def test_what_holds_in_several_states_is_said_once(state: State) -> None:
    door = Door()
    door.state = state
    assert dispatch(DOOR, door, Burn())
    assert door.state is State.GONE


def test_a_state_that_the_table_does_not_name_is_told() -> None:
    table: Table[State, Door] = {(State.SHUT, Burn): Move(Door.fall, State.OPEN)}
    door = Door()
    with pytest.warns(UndrawnTransition, match=r"Door: .*GONE is not in its table"):
        dispatch(table, door, Burn())
    assert door.state is State.GONE
