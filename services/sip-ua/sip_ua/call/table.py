"""What each input does in each phase of a call, and of the second leg of a transfer; absent pairs are ignored.

An absent command is told to the client as an error, but for a call that has ended: `VALID` is the table of protocol
section 2, and the commands' rows follow from it. `docs/machines` is drawn from these tables.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from dialbus.contracts.base import ClientJson
from dialbus.contracts.commands import (
    Accept,
    AddIceCandidate,
    Bridge,
    Custom,
    Hangup,
    History,
    Interrupt,
    Invite,
    Message,
    Mute,
    Pause,
    Play,
    Refer,
    Reject,
    Resume,
    Ringing,
    Tts,
    Unbridge,
    Unmute,
)
from dialbus.contracts.session import CallState
from dialbus.machine import Key, Move, Table, in_states
from sip_ua.call import conversation, ending, inbound, inputs, outbound, transfer
from sip_ua.call.effects import Effect
from sip_ua.call.leg import CallLeg, Phase
from sip_ua.call.state import STATE_OF, Call

IDLE, PENDING, DIALING, UP, ENDED = CallState

VALID: Mapping[type[ClientJson], frozenset[CallState]] = {
    Invite: frozenset({IDLE}),
    Accept: frozenset({PENDING}),
    Reject: frozenset({PENDING}),
    Ringing: frozenset({PENDING}),
    Tts: frozenset({UP, DIALING, PENDING}),
    Play: frozenset({UP, DIALING, PENDING}),
    Interrupt: frozenset({IDLE, PENDING, DIALING, UP}),
    Pause: frozenset({PENDING, DIALING, UP}),
    Resume: frozenset({PENDING, DIALING, UP}),
    Hangup: frozenset({IDLE, PENDING, DIALING, UP}),
    Mute: frozenset({IDLE, PENDING, DIALING, UP}),
    Unmute: frozenset({IDLE, PENDING, DIALING, UP}),
    History: frozenset({IDLE, PENDING, DIALING, UP}),
    Custom: frozenset({IDLE, PENDING, DIALING, UP}),
    Refer: frozenset({UP}),
    Message: frozenset({UP}),
    Bridge: frozenset({UP}),
    Unbridge: frozenset({UP}),
    AddIceCandidate: frozenset({IDLE, PENDING, DIALING, UP}),
}
"""Protocol section 2. `tts` and `play` are held while dialing, and in pending need early media."""

AT_ONCE = (Hangup, Interrupt, Reject)
"""The commands that wait for no media worker."""


@dataclass(slots=True)
class Turn:
    """One input being taken: by which leg of which call, when, and what is to be done so far."""

    call: Call
    leg: CallLeg
    now: float
    effects: list[Effect] = field(default_factory=list)

    @property
    def state(self) -> Phase:
        """What the tables go by."""
        return self.leg.phase


Handler = Callable[[Call, Any, float], list[Effect]]


def _move(handler: Handler, *targets: Phase) -> Move[Turn, Phase]:
    @wraps(handler)
    def take(turn: Turn, said: Any) -> None:
        turn.effects += handler(turn.call, said, turn.now)

    return Move(take, *targets)


def _row(phases: Iterable[Phase], key: Key, handler: Handler, *targets: Phase) -> dict[tuple[Phase, Key], Any]:
    return in_states(phases, {key: _move(handler, *targets)})


_NEW = (Phase.PENDING, Phase.RINGING)
"""Inbound, and nobody has accepted."""
_PENDING = (*_NEW, Phase.ACCEPTING)
_DIALING = (Phase.FINDING, Phase.PLACING, Phase.DIALING)
_ALIVE = (Phase.IDLE, *_PENDING, *_DIALING, Phase.UP)
_ANY = (*_ALIVE, Phase.ENDED)

_COMMANDS: Mapping[type[ClientJson], Move[Turn, Phase]] = {
    Invite: _move(outbound.invite, Phase.FINDING, Phase.PLACING, Phase.ENDED),
    Accept: _move(inbound.accept, Phase.ACCEPTING, Phase.UP),
    Reject: _move(inbound.reject, Phase.ENDED),
    Ringing: _move(inbound.ring, Phase.RINGING),
    Tts: _move(conversation.play),
    Play: _move(conversation.play),
    Interrupt: _move(conversation.interrupt),
    Pause: _move(conversation.pause),
    Resume: _move(conversation.pause),
    Hangup: _move(ending.hang_up, Phase.ENDED),
    Mute: _move(conversation.mute),
    Unmute: _move(conversation.mute),
    History: _move(conversation.history),
    Custom: _move(conversation.custom),
    Refer: _move(transfer.refer),
    Message: _move(conversation.message),
    Bridge: _move(conversation.bridge),
    Unbridge: _move(conversation.unbridge),
    AddIceCandidate: _move(conversation.candidate),
}

_WAITING = (Phase.RINGING, Phase.ACCEPTING, Phase.PLACING)
"""A media worker is looked for: commands wait, but for those that end the call or a playback."""

CALL: Table[Phase, Turn] = {
    **{(phase, key): move for key, move in _COMMANDS.items() for phase in _ALIVE if STATE_OF[phase] in VALID[key]},
    **in_states([Phase.PENDING], {key: _move(conversation.play_early) for key in (Tts, Play)}),
    **in_states(_DIALING, {key: _move(conversation.hold_playback) for key in (Tts, Play)}),
    **in_states(_WAITING, {key: _move(conversation.wait) for key in _COMMANDS if key not in AT_ONCE}),
    **_row([Phase.IDLE], Accept, outbound.accept_without_call, Phase.ENDED),
    # inbound
    **_row([Phase.IDLE], inputs.Offered, inbound.offered, Phase.PENDING),
    **_row(_NEW, inputs.WebhookOutcome, inbound.webhook_outcome, Phase.ENDED),
    **_row(_ALIVE, inputs.Attached, inbound.attached),
    **_row(_NEW, inputs.Tick, inbound.tick, Phase.ENDED),
    **_row([*_PENDING, Phase.UP], inputs.LegCancelled, inbound.cancelled, Phase.ENDED),
    **_row([Phase.RINGING], inputs.MediaReady, inbound.media_ready_to_ring, Phase.PENDING),
    **_row([Phase.ACCEPTING], inputs.MediaReady, inbound.media_ready_to_answer, Phase.UP),
    **_row([Phase.RINGING, Phase.ACCEPTING], inputs.MediaRefused, inbound.media_refused, Phase.ENDED),
    # outbound
    **_row([Phase.FINDING], inputs.CalleeFound, outbound.callee_found, Phase.PLACING),
    **_row([Phase.FINDING], inputs.LegImpossible, outbound.impossible, Phase.ENDED),
    **_row([Phase.PLACING], inputs.MediaReady, outbound.media_ready, Phase.DIALING, Phase.UP),
    **_row([Phase.PLACING], inputs.MediaRefused, outbound.impossible, Phase.ENDED),
    **_row([Phase.DIALING], inputs.LegProgressed, outbound.progressed),
    **_row([Phase.DIALING], inputs.LegAnswered, outbound.leg_answered, Phase.UP),
    **_row([Phase.DIALING], inputs.LegRefused, outbound.refused, Phase.ENDED),
    # what the legs and their media tell
    **_row(_ALIVE, inputs.MediaChanged, conversation.media_changed),
    **_row([Phase.UP], inputs.MediaChanged, conversation.media_changed_while_up),
    **_row(_ALIVE, inputs.LegDigit, conversation.digit),
    **_row(_ALIVE, inputs.LegMessage, conversation.message_in),
    **_row(_ALIVE, inputs.LegTransferAsked, conversation.transfer_asked),
    **_row(_ALIVE, inputs.MessageRefused, conversation.message_refused),
    **_row(_ALIVE, inputs.CommandRefused, conversation.command_refused),
    # other calls
    **_row(_ANY, inputs.BridgeWanted, conversation.bridge_not_up),
    **_row([Phase.UP], inputs.BridgeWanted, conversation.bridge_wanted),
    **_row(_ANY, inputs.BridgeLeft, conversation.bridge_left),
    **_row(_ANY, inputs.BridgeAgreed, conversation.bridge_agreed),
    **_row(_ALIVE, inputs.BridgeRefused, conversation.bridge_refused),
    # ends
    **_row(_ALIVE, inputs.Detached, ending.detached, Phase.ENDED),
    **_row(_ALIVE, inputs.LegFailed, ending.failed, Phase.ENDED),
    **_row(_ALIVE, inputs.LegHungUp, ending.hung_up, Phase.ENDED),
    **_row(_ALIVE, inputs.AutoHangup, ending.auto_hangup, Phase.ENDED),
    **_row([Phase.UP], inputs.Inactive, ending.inactive, Phase.ENDED),
    **_row(_ALIVE, inputs.MediaLost, ending.media_lost, Phase.ENDED),
    **_row(_ALIVE, inputs.MediaLeft, ending.media_left, Phase.ENDED),
    **_row(_ANY, inputs.MediaNotClosed, ending.media_not_closed),
    **_row([Phase.ENDED], inputs.MediaReady, ending.media_too_late),
    **_row([Phase.ENDED], inputs.MediaRefused, ending.refused_too_late),
}
"""A call, by the phase of its main leg."""

_SECOND_ALIVE = (*_DIALING, Phase.UP)

TRANSFER: Table[Phase, Turn] = {
    **_row([Phase.FINDING], inputs.CalleeFound, transfer.callee_found, Phase.PLACING),
    **_row([Phase.FINDING], inputs.LegImpossible, transfer.impossible, Phase.ENDED),
    **_row([Phase.PLACING], inputs.MediaReady, transfer.media_ready, Phase.DIALING),
    **_row([Phase.PLACING], inputs.MediaRefused, transfer.impossible, Phase.ENDED),
    **_row([Phase.DIALING], inputs.LegProgressed, transfer.progressed),
    **_row([Phase.DIALING], inputs.LegAnswered, transfer.answered, Phase.UP),
    **_row([Phase.DIALING], inputs.LegRefused, transfer.refused, Phase.ENDED),
    **_row([Phase.DIALING], inputs.Tick, transfer.expired, Phase.ENDED),
    **_row(_SECOND_ALIVE, inputs.LegFailed, transfer.failed, Phase.ENDED),
    **_row([Phase.DIALING], inputs.LegFailed, transfer.failed_before_answer, Phase.ENDED),
    **_row([Phase.UP], inputs.LegHungUp, ending.transferee_hung_up, Phase.ENDED),
    **_row(_SECOND_ALIVE, inputs.MediaLost, transfer.media_lost, Phase.ENDED),
    **_row(_SECOND_ALIVE, inputs.MediaChanged, transfer.media_changed),
    **_row([Phase.UP], inputs.MediaChanged, transfer.media_changed_while_up),
    **_row(_SECOND_ALIVE, inputs.LegDigit, transfer.digit),
    **_row(_SECOND_ALIVE, inputs.LegMessage, transfer.message_in),
    **_row(_SECOND_ALIVE, inputs.LegTransferAsked, transfer.transfer_asked),
    **_row([*_SECOND_ALIVE, Phase.ENDED], inputs.MessageRefused, transfer.message_refused),
}
"""The second leg of a transfer, by its own phase; the client's commands for it are rows of `CALL`."""
