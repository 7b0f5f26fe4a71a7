"""What the services see of one call, line by line, for those who follow it (`dialbus trace`). Nobody acts on it."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from dialbus.contracts.base import CallId, Contract
from dialbus.contracts.session import CommandSeen

TRACE_SUBJECTS = ("trace.*.*", CommandSeen.pattern())
"""What the stream TRACE keeps: these lines, and clients' commands, which the gateways publish for watchers anyway."""


class TraceKind(StrEnum):
    """What a line tells of."""

    SIP_IN = "sip-in"
    SIP_OUT = "sip-out"
    INPUT = "input"
    """What the call machine took from its inbox."""
    REQUEST = "request"
    """A request to another service, and how it was answered."""
    MESSAGE = "message"
    """Sent to another service, which does not answer."""
    LOG = "log"


class TraceLine(BaseModel):
    """One thing that happened, with secrets masked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: float
    """Unix epoch seconds with microseconds, by the clock of the machine it happened on."""
    kind: TraceKind
    name: str
    """Start line, input, contract or log event."""
    leg_id: str | None = None
    text: str | None = None
    """A whole SIP message."""
    facts: dict[str, Any] = Field(default_factory=dict)


class TraceLines(Contract):
    """What one instance saw of a call within a moment, in order; kept by the stream TRACE. Some may get lost."""

    SUBJECT: ClassVar[str] = "trace.{call}.{service}"

    call_id: CallId
    service: str
    instance: str
    lines: list[TraceLine]
    dropped: int = 0
    """Lines that this instance could not send since it last told, of whichever calls."""
