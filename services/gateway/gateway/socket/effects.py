"""What a conversation wants done: decided without a socket and a bus, performed by `performer.py`."""

from dataclasses import dataclass
from enum import Enum, auto

from dialbus.contracts.commands import ClientCommand

NORMAL, GOING_AWAY, TOO_BIG, INTERNAL_ERROR = 1000, 1001, 1009, 1011
"""Codes of Close frames (RFC 6455 section 7.4.1)."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Tell the owner of the pending call that this socket took it; answer with `taken` or `not_taken`."""


@dataclass(frozen=True, slots=True)
class Open:
    """First command of an idle session: find it an owner; answer with `taken` or `not_taken`."""

    command: ClientCommand


@dataclass(frozen=True, slots=True)
class Forward:
    """A command for the owner; answer with `taken` or `not_taken`."""

    command: ClientCommand
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

    NO_RESPONDER = auto()
    """Nobody listens."""
    TIMEOUT = auto()
    """Somebody listens and did not answer in time."""
    REFUSED = auto()
    """It said no, with a code and a reason."""
