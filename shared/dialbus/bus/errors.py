"""How a message can fail to be carried, and how its receiver says no.

BusError                     the bus could not carry it
├── NoResponder              nobody listens
├── NoReply                  somebody listens and did not answer in time
└── Conflict                 somebody else changed the key first
Refused                      the answer is no
Later                        not now: work comes back
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import APIError
from pydantic import ValidationError


class BusError(Exception):
    """The bus could not carry a message."""


class NoResponder(BusError):
    """Nobody listens on the subject: the worker is gone, or none of them has room."""


class NoReply(BusError):
    """Somebody listens but did not answer in time."""


class Refused(Exception):
    """The answer is no. Handlers raise it to refuse; requesters get it raised."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Later(Exception):
    """Raised by a handler of `work`: this item can't be done now, it shall come back after so many seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


class Conflict(BusError):
    """Somebody else changed the key first (compare-and-set failed)."""


@contextmanager
def translated() -> Iterator[None]:
    """NATS's own errors as BusError."""
    try:
        yield
    except (nats.errors.Error, APIError, TimeoutError) as error:
        raise BusError(str(error) or type(error).__name__) from error


def call_of(message: Msg) -> dict[str, str]:
    """Which call a message that could not be handled concerns, for the log."""
    try:
        fields = json.loads(message.data)
    except ValueError:
        return {}
    return {"call_id": str(fields["call_id"])} if isinstance(fields, dict) and "call_id" in fields else {}


def first_fault(error: ValidationError) -> str:
    """What a schema has first against a message."""
    return str(error.errors(include_url=False)[0]["msg"])
