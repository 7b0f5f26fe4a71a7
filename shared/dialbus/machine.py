"""Machines as tables: the shape in which transitions are written, looked up and drawn; no I/O.

    TABLE: Table[State, "Door"] = {
        (State.SHUT, Push): Move(Door.open, State.OPEN),
        (State.OPEN, Input.WIND): Move(Door.creak),  # stays
        **in_states(State, {Burn: Move(Door.fall, State.GONE)}),
    }

An input is a frozen dataclass, looked up by its type, or a member of an enum, looked up as itself. A pair that is
absent is ignored on purpose. A handler takes the machine and the input, and sets the machine's `state` itself; the
states a `Move` names are those it may set. `docs/machines` is drawn from the tables (`scripts/machines.py`).
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

M = TypeVar("M")
S = TypeVar("S", bound=Enum)
S_co = TypeVar("S_co", bound=Enum, covariant=True)

Key: TypeAlias = type | Enum
"""How a table names an input: the type of a dataclass, or the member of an enum."""


class Move(Generic[M, S]):
    """What an input does in a state: a handler, and the states it may leave the machine in, besides the same one."""

    __slots__ = ("handler", "targets")

    def __init__(self, handler: Callable[[M, Any], None], *targets: S) -> None:
        self.handler = handler
        self.targets = targets


Table: TypeAlias = Mapping[tuple[S, Key], Move[M, S]]
"""`Table[State, Machine]`: every transition of a machine."""


class Machine(Protocol[S_co]):
    """Whatever has a state."""

    @property
    def state(self) -> S_co: ...


class UndrawnTransition(RuntimeWarning):
    """A handler set a state that its `Move` does not name: the diagram is wrong, not the machine. Fails a test."""


def key_of(arrived: object) -> Key:
    """By what a table names this input."""
    return arrived if isinstance(arrived, Enum) else type(arrived)


def in_states(states: Iterable[S], moves: Mapping[Key, Move[M, S]]) -> dict[tuple[S, Key], Move[M, S]]:
    """The part of a table that is the same in each of these states."""
    return {(state, key): move for state in states for key, move in moves.items()}


def dispatch(table: Mapping[tuple[S, Key], Move[Any, S]], machine: Machine[S], arrived: object) -> bool:
    """Let the handler for the machine's state take an input; False when there is none, so that it is ignored."""
    before = machine.state
    move = table.get((before, key_of(arrived)))
    if move is None:
        return False
    move.handler(machine, arrived)
    if machine.state is not before and machine.state not in move.targets:
        told = f"{type(machine).__name__}: {before} --{key_of(arrived)}--> {machine.state} is not in its table"
        warnings.warn(told, UndrawnTransition, stacklevel=2)
    return True
