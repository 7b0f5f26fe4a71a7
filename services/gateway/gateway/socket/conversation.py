"""One client's conversation with one call: protocol sections 1.2 and 4, without a socket and without a bus.

Frames from the client, events of the call and the owner's answers go in; effects come out, to be performed one after
another in the order given. The shell takes the client's frames one at a time and performs a frame's effects before it
takes the next: that is what keeps commands in their order of arrival.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from dialbus.contracts.cause import reason_word
from gateway.socket.uplink import DEFAULT_BYTES_PER_SECOND, Uplink

MOST_TEXT_BYTES = 1 << 20
"""Largest text frame (protocol Q-22); the WebSocket layer closes with 1009 above it."""
MOST_BINARY_BYTES = 64 << 10
"""Largest binary frame (protocol Q-22)."""
MOST_COMMAND_ID = 128
MISSED_PONGS = 3

NORMAL, GOING_AWAY, TOO_BIG = 1000, 1001, 1009


@dataclass(frozen=True, slots=True)
class Command:
    """A client's command: its JSON, and what in it concerns the socket itself."""

    json: dict[str, Any]
    subscribes: bool = False
    """It asks for the call's audio as binary frames (protocol section 10.2)."""
    bytes_per_second: int | None = None
    """Of the audio on a `/call` socket, when the command says so."""


Parse = Callable[[str], Command]
"""Text that is known to be a command; raises ValueError whose text tells the client why not."""


# -- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attach:
    """Tell the owner of the pending call that this socket took it; answer with `taken` or `not_taken`."""


@dataclass(frozen=True, slots=True)
class Open:
    """First command of an idle session: find it an owner; answer with `taken` or `not_taken`."""

    command: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Forward:
    """A command for the owner; answer with `taken` or `not_taken`."""

    command: dict[str, Any]
    command_id: str | None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """From now on the call's binary frames go to the client."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio from the client for the media worker."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Detach:
    """Tell the owner that the client is gone."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the session: nobody owns it."""


@dataclass(frozen=True, slots=True)
class Disown:
    """The session's owner is gone; keep the session, idle."""


@dataclass(frozen=True, slots=True)
class Report:
    """Append an `error` event to the call's events."""

    error: str
    code: int
    sender: str = "command"


@dataclass(frozen=True, slots=True)
class Reject:
    """Append a `reject` event to the call's events."""

    reason: str
    code: int


@dataclass(frozen=True, slots=True)
class End:
    """Free the id and append the call's last events, for there is no owner to do it; `hangup` closes the socket."""

    reason: str
    initiator: str
    caller: str | None = None
    callee: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """A text frame for the client: an event of the call (`recorded` in the dump) or a ping.

    Nothing but the Close follows the `last` one, audio included.
    """

    text: str
    recorded: bool = True
    last: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """A Ping control frame."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A command for the event dump."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket with this code."""

    code: int
    reason: str = ""


Effect = (
    Attach | Open | Forward | Subscribe | Audio | Detach | Forget | Disown
    | Report | Reject | End | Send | Ping | Record | Close
)  # fmt: skip


class Refusal(Enum):
    """Why an owner did not take a message."""

    NOBODY = auto()
    """Nobody listens."""
    SILENCE = auto()
    """Somebody listens and did not answer in time."""
    NO = auto()
    """It said no, with a code and a reason."""


_NOBODY_CODE = 503


class Conversation:
    """One socket.

    `pending`: the id is that of a pending inbound call, which has an owner; otherwise the session is idle and its
    first command finds one. `carries_audio`: the call's audio is the socket's binary frames (`/call`).
    """

    def __init__(self, call_id: str, *, pending: bool, parse: Parse, carries_audio: bool = False) -> None:
        self._call_id = call_id
        self._pending = pending
        self._parse = parse
        self._uplink = Uplink() if carries_audio else None
        self._subscribed = False
        self._owned = pending
        self._opening = False
        self._ending = False
        self._ended = False
        self._left = False

    @property
    def ended(self) -> bool:
        """The call's last event has gone to the client."""
        return self._ended

    @property
    def owned(self) -> bool:
        """More events will come: a worker runs the call, or its last events are on their way."""
        return self._owned or self._ending

    def connected(self) -> list[Effect]:
        """The socket is open."""
        effects: list[Effect] = [Attach()] if self._pending else []
        if self._uplink is not None:
            effects.append(Subscribe())
        return effects

    # -- the client -------------------------------------------------------------------------------

    def text(self, text: str) -> list[Effect]:
        """A text frame. What is no command is reported, and the socket stays open."""
        if self._ending or self._ended or self._left:
            return []
        try:
            command = self._parse(text)
            command_id = command_id_of(command.json)
        except ValueError as error:
            return [Report(str(error), 400)]
        effects: list[Effect] = [Record(text)]
        if self._uplink is not None and command.json["command"] == "invite":
            self._uplink.expect(command.bytes_per_second or DEFAULT_BYTES_PER_SECOND)
        elif self._uplink is None and command.subscribes and not self._subscribed:
            self._subscribed = True
            effects.append(Subscribe())
        if self._owned:
            return [*effects, Forward(command.json, command_id)]
        self._opening = True
        return [*effects, Open(command.json)]

    def binary(self, data: bytes) -> list[Effect]:
        """A binary frame: audio on `/call`, nothing at all on the other sockets (protocol section 1.2)."""
        if len(data) > MOST_BINARY_BYTES:
            return [Close(TOO_BIG, "binary frame above 64 KiB")]
        if self._uplink is None or self._ended or self._left:
            return []
        return [Audio(part) for part in self._uplink.audio(data)]

    def leave(self) -> list[Effect]:
        """The client is gone, or the gateway stops: the call ends, or the idle session is forgotten. Once."""
        if self._left or self._ending or self._ended:
            return []
        self._left = True
        # A first command that was not answered yet may have found an owner all the same.
        return [Detach() if self._owned or self._opening else Forget()]

    # -- the owner --------------------------------------------------------------------------------

    def taken(self) -> list[Effect]:
        """The owner took what the last effect sent; an idle session has an owner from now on."""
        if not self._left:
            self._owned = True
        self._opening = False
        return []

    def not_taken(
        self, sent: Effect, why: Refusal, *, code: int = 0, reason: str = "", call_is_over: bool = False
    ) -> list[Effect]:
        """The owner did not take it. `call_is_over`: the session is gone, so its last events are on their way."""
        self._opening = False
        if call_is_over:
            # Commands for an ended call are ignored silently; clients send `hangup` after `hangup` (section 2).
            return []
        match sent, why:
            case Detach(), Refusal.NOBODY:
                self._owned = False
                return [Forget()]
            case Detach(), _:
                return []
            case Attach(), _:
                # Like an id that no dialog has: an idle session, in which `accept` fails (section 1.2).
                self._owned = False
                return [Disown(), Report(reason or "the call is gone", code or _NOBODY_CODE)]
            case Open(command), Refusal.NOBODY:
                return self._without_owner(command, "no sip-ua has room for the call")
            case Open(command), Refusal.NO if code == _NOBODY_CODE:
                return self._without_owner(command, reason)
            case _, Refusal.NOBODY:
                return [Report("the worker that owns the call is gone", _NOBODY_CODE)]
            case _, Refusal.SILENCE:
                return [Report(f"the worker that owns the call did not answer: {reason}", _NOBODY_CODE)]
        return [Report(reason, code)]

    def _without_owner(self, command: dict[str, Any], why: str) -> list[Effect]:
        """What the first command of an idle session comes to that found no owner, as an owner would have told it."""
        match command:
            case {"command": "invite"}:  # a local fault (section 2.1, O7)
                option = command.get("option") or {}
                end = End("failed", "system", option.get("caller"), option.get("callee"))
                return self._end(end, Report(why, _NOBODY_CODE, "invite"))
            case {"command": "accept"}:  # section 2.3
                text = "no pending call"
                return self._end(End("failed", "system"), Reject(text, 486), Report(text, _NOBODY_CODE, "accept"))
            case {"command": "hangup"} if command.get("refer") is not True:
                reason = reason_word(command.get("reason") or "bySystem")
                return self._end(End(reason, command.get("initiator") or "system"))
        return [Report(why, _NOBODY_CODE)]

    def _end(self, end: End, *told: Effect) -> list[Effect]:
        # From here on the id may belong to another socket: nothing of this one may touch its session.
        self._ending = True
        return [*told, end]

    # -- the call's events ------------------------------------------------------------------------

    def event(self, number: int, name: str, stored: str) -> list[Effect]:
        """An event of the call, as stored: it goes out with its `seq`; `hangup` of the main track is the last one."""
        if self._ended:
            return []
        text = f'{stored.rstrip()[:-1]},"seq":{number}}}'
        if name == "hangup" and self._concerns_main_leg(stored):
            self._ended = True
            return [Send(text, last=True), Close(NORMAL)]
        held: list[Effect] = []
        if name == "answer" and self._uplink is not None and self._concerns_main_leg(stored):
            # Before the event, which may have to wait for the client while newer audio comes in.
            held = [Audio(part) for part in self._uplink.answered()]
        return [*held, Send(text)]

    def _concerns_main_leg(self, stored: str) -> bool:
        event = json.loads(stored)
        return event.get("trackId") == self._call_id and event.get("refer") is not True


class KeepAlive:
    """Pings every interval, none at time 0; three intervals without a pong mean that nobody is there (Q-21)."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._next = now + interval if interval > 0 else math.inf
        self._unanswered = 0

    @property
    def deadline(self) -> float:
        """When `tick` is due; infinite when pings are off."""
        return self._next

    def pong(self) -> None:
        """The client answered."""
        self._unanswered = 0

    def tick(self, now: float, timestamp_ms: int, rfc3339: str) -> list[Effect]:
        """The interval is over: ping in both forms (section 1.2), or give up."""
        if now < self._next:
            return []
        self._next += self._interval
        if self._next <= now:  # a late tick: those that it missed are left out
            self._next = now + self._interval
        if self._unanswered >= MISSED_PONGS:
            self._next = math.inf
            return [Close(GOING_AWAY, "no pong")]
        self._unanswered += 1
        event = {"event": "ping", "timestamp": timestamp_ms, "payload": rfc3339}
        return [Ping(rfc3339.encode()), Send(json.dumps(event, separators=(",", ":")), recorded=False)]


def command_id_of(command: dict[str, Any]) -> str | None:
    """The client's `commandId`; raises ValueError for one that can't be one."""
    value = command.get("commandId")
    if value is None or (isinstance(value, str) and 0 < len(value) <= MOST_COMMAND_ID):
        return value
    raise ValueError(f"commandId: a text of 1 to {MOST_COMMAND_ID} characters")
