"""The call machine: one call's states, which commands are valid in them, and the order of its events.

Sans-IO: inputs and the time go in (`sip_ua.call.inputs`), effects come out (`sip_ua.call.effects`). What an input does
is looked up in `sip_ua.call.table`, which holds the validity table of protocol section 2 and, by its handlers, the
orders of section 4 for everything but playback, whose own machine runs beside the audio. Whoever owns a call runs it,
whatever its type: sip-ua.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from dialbus.contracts.commands import ClientCommand
from dialbus.contracts.media import MAIN_LEG, REFER_LEG, RecordedFile
from dialbus.contracts.records import CallRecord
from dialbus.contracts.session import CallState, CallType
from dialbus.machine import dispatch
from sip_ua.call import conversation, transfer
from sip_ua.call.bridges import Bridges
from sip_ua.call.clock import Clock
from sip_ua.call.effects import Effect, TakeUp
from sip_ua.call.inputs import ClientSaid, Input, MediaReady, MediaRefused, OfLeg, Tick
from sip_ua.call.leg import CallLeg, Phase
from sip_ua.call.record import record_of
from sip_ua.call.state import Call, CallSettings
from sip_ua.call.table import AT_ONCE, CALL, TRANSFER, Turn

_STATE = TypeAdapter(Call)


class CallMachine:
    """One call. Every `now` is seconds of one monotonic clock."""

    def __init__(self, call: Call) -> None:
        """Go on with a call where it stands; `begin` makes a new one."""
        self.call = call

    @classmethod
    def begin(
        cls,
        call_id: str,
        call_type: CallType,
        *,
        started: float,
        epoch: datetime,
        server_track: str = "server-side-track",
        settings: CallSettings | None = None,
    ) -> "CallMachine":
        """A call that nothing has happened to; `epoch` is the wall time at `started`."""
        clock = Clock(started, epoch)
        main = CallLeg(call_id, MAIN_LEG, call_id, clock, Phase.IDLE, started)
        settings, bridges = settings or CallSettings(), Bridges(call_id, clock)
        return cls(Call(call_id, call_type, settings, clock, main, bridges, server_track))

    def __repr__(self) -> str:
        call, second = self.call, self.call.second
        parts = [f"call {call.call_id}", call.call_type.value, call.main.phase.value]
        parts += [f"refer {second.leg.phase.value}"] if second is not None else []
        parts += [f"{len(call.bridges.on)} bridges"] if call.bridges.on else []
        parts += [f"{len(call.waiting)} waiting"] if call.waiting else []
        return f"<{', '.join(parts)}>"

    # -- what may be asked ------------------------------------------------------------------------

    @property
    def state(self) -> CallState:
        """Where the call stands (protocol section 2)."""
        return self.call.state

    @property
    def finished(self) -> bool:
        """It has ended, and nobody has to answer any more: what is given later would be nobody's."""
        return not self.call.main.is_active and not self.call.main.awaits_media and not self.call.owes_media

    @property
    def deadline(self) -> float | None:
        """When `Tick` is due."""
        second = self.call.second
        dues = (self.call.accept_by, self.call.webhook_by, second.deadline if second is not None else None)
        return min((due for due in dues if due is not None), default=None)

    @property
    def ringing_time(self) -> str | None:
        """When it first rang, RFC 3339."""
        return self.call.clock.wall_or_none(self.call.main.ringing_at)

    @property
    def answer_time(self) -> str | None:
        """When it was answered, RFC 3339."""
        return self.call.clock.wall_or_none(self.call.main.answered_at)

    def record(self, recordings: Sequence[RecordedFile], dump_file: str | None) -> CallRecord:
        """What is kept of the call that is over (protocol 9.4)."""
        return record_of(self.call, recordings, dump_file)

    # -- its state as data ------------------------------------------------------------------------

    def to_state(self, now: float) -> dict[str, Any]:
        """Everything it knows, as a JSON object; moments are relative to `now`. It holds the client's secrets."""
        made: dict[str, Any] = _STATE.dump_python(
            self.call, mode="json", by_alias=True, exclude_unset=True, context={"now": now}
        )
        return made

    @classmethod
    def from_state(cls, state: Mapping[str, Any], now: float) -> "CallMachine":
        """The machine that `to_state` described; `now` is, on this process's clock, the moment that it was described.

        Raises pydantic.ValidationError when that is no state of a call.
        """
        return cls(_STATE.validate_python(state, context={"now": now}))

    # -- what goes in -----------------------------------------------------------------------------

    def receive(self, said: Input, now: float) -> list[Effect]:
        """What is to be done now, in this order. After the end almost everything is ignored."""
        if isinstance(said, ClientSaid):
            return self._command(said.command, now)
        effects = self._take(said, now)
        if self.call.waiting and not self.call.awaits_media:
            waited, self.call.waiting = self.call.waiting, []
            effects += [TakeUp(command) for command in waited]
        return effects

    def _command(self, command: ClientCommand, now: float) -> list[Effect]:
        second = self.call.second
        if second is not None and second.leg.phase is Phase.PLACING and not isinstance(command, AT_ONCE):
            return conversation.wait(self.call, command, now)
        turn = Turn(self.call, self.call.main, now)
        if not dispatch(CALL, turn, command) and self.call.main.is_active:
            return conversation.not_valid(self.call, command, now)
        return turn.effects

    def _take(self, said: Any, now: float) -> list[Effect]:
        call, second = self.call, self.call.second
        if isinstance(said, Tick) and second is not None and second.deadline is not None and now >= second.deadline:
            return _turn(call, second.leg, said, now)
        if getattr(said, "leg", MAIN_LEG) != REFER_LEG:
            return _turn(call, call.main, said, now)
        if call.owes_media and isinstance(said, MediaReady | MediaRefused):
            return transfer.owed_media(call, said)
        if call.transfer is None or (isinstance(said, OfLeg) and said.generation != call.transfer.leg.generation):
            return []
        return _turn(call, call.transfer.leg, said, now)


def _turn(call: Call, leg: CallLeg, said: Any, now: float) -> list[Effect]:
    turn = Turn(call, leg, now)
    dispatch(CALL if leg is call.main else TRANSFER, turn, said)
    return turn.effects
