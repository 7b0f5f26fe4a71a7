"""One client's conversation with one call: protocol sections 1.2 and 4, without a socket and without a bus.

Frames from the client, events of the call and the owner's answers go in; effects come out, to be performed one after
another in the order given. The shell takes the client's frames one at a time and performs a frame's effects before it
takes the next: that is what keeps commands in their order of arrival.
"""

import json
from enum import Enum, auto

from dialbus.contracts.cause import reason_word
from dialbus.contracts.commands import Accept, BadCommand, ClientCommand, Hangup, Invite
from gateway.socket.effects import (
    NORMAL,
    TOO_BIG,
    Attach,
    Audio,
    Close,
    Detach,
    Disown,
    Effect,
    End,
    Forget,
    Forward,
    Open,
    Record,
    Refusal,
    Reject,
    Report,
    Send,
    Subscribe,
)
from gateway.socket.parsing import Sent, client_command
from gateway.socket.uplink import Uplink, bytes_per_second

MAX_BINARY_BYTES = 64 << 10
"""Largest binary frame (protocol Q-22)."""
_NO_OWNER_CODE = 503


class State(Enum):
    """Where a conversation stands, and what may still come of it."""

    IDLE = auto()
    """The session has no owner; its next command looks for one."""
    OPENING = auto()
    """A first command is out, and no answer is in: there may be an owner already."""
    OWNED = auto()
    """A worker runs the call."""
    LEAVING = auto()
    """The client is gone, and the owner was told: the call's last events are on their way."""
    LEFT = auto()
    """The client is gone, and nobody runs the call as far as one knows."""
    ENDING = auto()
    """The call was ended for want of an owner: its last events are on their way."""
    ENDED = auto()
    """The call's last event has gone to the client."""


_OPEN_TO_CLIENT = frozenset({State.IDLE, State.OPENING, State.OWNED})


class Conversation:
    """One socket.

    `pending`: the id is that of a pending inbound call, which has an owner; otherwise the session is idle and its
    first command finds one. `carries_audio`: the call's audio is the socket's binary frames (`/call`).
    """

    def __init__(self, call_id: str, *, pending: bool, carries_audio: bool = False) -> None:
        self._call_id = call_id
        self._pending = pending
        self._uplink = Uplink() if carries_audio else None
        self._subscribed = False
        self._state = State.OWNED if pending else State.IDLE

    def __repr__(self) -> str:
        return f"<Conversation {self._call_id} {self._state.name.lower()}>"

    @property
    def ended(self) -> bool:
        """The call's last event has gone to the client."""
        return self._state is State.ENDED

    @property
    def owned(self) -> bool:
        """More events will come: a worker runs the call, or its last events are on their way."""
        return self._state in (State.OWNED, State.LEAVING, State.ENDING)

    def connected(self) -> list[Effect]:
        """The socket is open."""
        effects: list[Effect] = [Attach()] if self._pending else []
        if self._uplink is not None:
            effects.append(Subscribe())
        return effects

    # -- the client -------------------------------------------------------------------------------

    def text(self, text: str) -> list[Effect]:
        """A text frame. What is no command is reported, and the socket stays open."""
        if self._state not in _OPEN_TO_CLIENT:
            return []
        try:
            return self.command(client_command(text))
        except BadCommand as error:
            return [Report(str(error), 400)]

    def command(self, sent: Sent) -> list[Effect]:
        """A command of the client's, over the socket or from elsewhere."""
        if self._state not in _OPEN_TO_CLIENT:
            return []
        effects: list[Effect] = [Record(sent.text)]
        match sent.command:
            case Invite(option=option) if self._uplink is not None:
                self._uplink.expect(bytes_per_second(option.codec, option.sample_rate))
            case Invite(option=option) | Accept(option=option) if self._uplink is None:
                if option.subscribe and not self._subscribed:
                    self._subscribed = True
                    effects.append(Subscribe())
        if self._state is State.OWNED:
            return [*effects, Forward(sent.command, sent.command_id)]
        self._state = State.OPENING
        return [*effects, Open(sent.command)]

    def binary(self, data: bytes) -> list[Effect]:
        """A binary frame: audio on `/call`, nothing at all on the other sockets (protocol section 1.2)."""
        if len(data) > MAX_BINARY_BYTES:
            return [Close(TOO_BIG, "binary frame above 64 KiB")]
        if self._uplink is None or self._state not in _OPEN_TO_CLIENT:
            return []
        return [Audio(part) for part in self._uplink.audio(data)]

    def leave(self) -> list[Effect]:
        """The client is gone, or the gateway stops: the call ends, or the idle session is forgotten. Once."""
        match self._state:
            case State.OWNED:
                self._state = State.LEAVING
                return [Detach()]
            case State.OPENING:  # the command may have found an owner all the same
                self._state = State.LEFT
                return [Detach()]
            case State.IDLE:
                self._state = State.LEFT
                return [Forget()]
        return []

    # -- the owner --------------------------------------------------------------------------------

    def taken(self) -> list[Effect]:
        """The owner took what the last effect sent; an idle session has an owner from now on."""
        if self._state is State.OPENING:
            self._state = State.OWNED
        return []

    def not_taken(
        self, sent: Effect, why: Refusal, *, code: int = 0, reason: str = "", call_is_over: bool = False
    ) -> list[Effect]:
        """The owner did not take it. `call_is_over`: the session is gone, so its last events are on their way."""
        if self._state is State.OPENING:
            self._state = State.IDLE
        if call_is_over:
            # Commands for an ended call are ignored silently; clients send `hangup` after `hangup` (section 2).
            return []
        match sent, why:
            case Detach(), Refusal.NO_RESPONDER:
                self._state = State.LEFT
                return [Forget()]
            case Detach(), _:
                return []
            case Attach(), _:
                # Like an id that no dialog has: an idle session, in which `accept` fails (section 1.2).
                self._state = State.LEFT if self._state is State.LEAVING else State.IDLE
                return [Disown(), Report(reason or "the call is gone", code or _NO_OWNER_CODE)]
            case Open(command), Refusal.NO_RESPONDER:
                return self._without_owner(command, "no sip-ua has room for the call")
            case Open(command), Refusal.REFUSED if code == _NO_OWNER_CODE:
                return self._without_owner(command, reason)
            case _, Refusal.NO_RESPONDER:
                return [Report("the worker that owns the call is gone", _NO_OWNER_CODE)]
            case _, Refusal.TIMEOUT:
                return [Report(f"the worker that owns the call did not answer: {reason}", _NO_OWNER_CODE)]
        return [Report(reason, code)]

    def _without_owner(self, command: ClientCommand, why: str) -> list[Effect]:
        """What the first command of an idle session comes to that found no owner, as an owner would have told it."""
        match command:
            case Invite(option=option):  # a local fault (section 2.1, O7)
                end = End("failed", "system", option.caller, option.callee)
                return self._end(end, Report(why, _NO_OWNER_CODE, "invite"))
            case Accept():  # section 2.3
                text = "no pending call"
                return self._end(End("failed", "system"), Reject(text, 486), Report(text, _NO_OWNER_CODE, "accept"))
            case Hangup(refer=False):
                reason = reason_word(command.reason or "bySystem")
                return self._end(End(reason, command.initiator or "system"))
        return [Report(why, _NO_OWNER_CODE)]

    def _end(self, end: End, *told: Effect) -> list[Effect]:
        # From here on the id may belong to another socket: nothing of this one may touch its session.
        self._state = State.ENDING
        return [*told, end]

    # -- the call's events ------------------------------------------------------------------------

    def event(self, seq: int, name: str, stored: str) -> list[Effect]:
        """An event of the call, as stored: it goes out with its `seq`; `hangup` of the main track is the last one."""
        if self.ended:
            return []
        text = f'{stored.rstrip()[:-1]},"seq":{seq}}}'
        if name == "hangup" and self._concerns_main_leg(stored):
            self._state = State.ENDED
            return [Send(text, last=True), Close(NORMAL)]
        held: list[Effect] = []
        if name == "answer" and self._uplink is not None and self._concerns_main_leg(stored):
            # Before the event, which may have to wait for the client while newer audio comes in.
            held = [Audio(part) for part in self._uplink.answered()]
        return [*held, Send(text)]

    def _concerns_main_leg(self, stored: str) -> bool:
        event = json.loads(stored)
        return event.get("trackId") == self._call_id and event.get("refer") is not True
