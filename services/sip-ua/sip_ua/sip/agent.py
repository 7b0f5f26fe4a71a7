"""What call and registration machines know of their surroundings, and what they ask the shell to send."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from sip_ua.sip.grammar import format_host
from sip_ua.sip.message import Request, Response
from sip_ua.sip.timers import Timers
from sip_ua.sip.uri import NameAddr, Uri

MAX_FORWARDS = "70"

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, MESSAGE, NOTIFY, REFER, UPDATE"
"""The methods a call answers; the value of Allow."""


class LocalProtocolError(Exception):
    """We asked of a call what its state does not allow; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Agent:
    """This user agent as its peers see it, and its sources of randomness."""

    host: str
    """Address or name put into Via and Contact; IPv6 without brackets."""
    port: int
    new_token: Callable[[], str]
    """A fresh alphanumeric string, unguessable; becomes branches, tags and cnonces."""
    random: Callable[[], float]
    """A number from 0 up to 1."""
    transport: str = "UDP"
    user_agent: str = "dialbus"
    timers: Timers = field(default_factory=Timers)

    def new_via(self) -> str:
        """A Via for a new transaction; asks for rport (RFC 3581)."""
        sent_by = f"{format_host(self.host)}:{self.port}"
        return f"SIP/2.0/{self.transport} {sent_by};branch=z9hG4bK{self.new_token()};rport"

    def contact(self, user: str | None) -> NameAddr:
        """Where requests for `user` (as written in a URI, None for none) reach this agent."""
        transport = () if self.transport == "UDP" else (("transport", self.transport.lower()),)
        return NameAddr("", Uri("sip", user or None, self.host, self.port, transport))


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send a request through a new client transaction.

    `next_hop` is what to resolve to an address. A CANCEL goes where its INVITE went, whatever has been resolved.
    """

    request: Request
    next_hop: Uri
    ringing_limit_s: float | None = None
    """How long an INVITE may ring; None: as long as the layer's timers say."""


@dataclass(frozen=True, slots=True)
class SendAck:
    """Send the ACK to a 2xx: straight to the transport, since it belongs to no transaction (RFC 3261 §13.2.2.4)."""

    request: Request
    next_hop: Uri


@dataclass(frozen=True, slots=True)
class SendResponse:
    """Send a response through the server transaction of its request."""

    response: Response


Transmission: TypeAlias = SendRequest | SendAck | SendResponse
