"""What can happen to an INVITE session: wishes of its owner, requests and responses of the peer, timers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sip_ua.sip.dialog_set import Sent
from sip_ua.sip.message import Request, Response
from sip_ua.sip.session_effects import SessionEffect

HeaderPairs = tuple[tuple[str, str], ...]


# Wishes of the owner.


@dataclass(frozen=True, slots=True)
class Start:
    """Send the INVITE, or answer it 100."""


@dataclass(frozen=True, slots=True)
class Ring:
    """180, or 183 with an SDP answer."""

    sdp: bytes | None
    headers: HeaderPairs


@dataclass(frozen=True, slots=True)
class Answer:
    """200 to the INVITE."""

    sdp: bytes
    headers: HeaderPairs


@dataclass(frozen=True, slots=True)
class Reject:
    """A final refusal of the INVITE."""

    status: int
    headers: HeaderPairs


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the session by whatever its state needs; these headers go into a BYE.

    The session itself has this wish as well, when the peer is lost; its owner then learns `effect`.
    """

    headers: HeaderPairs
    effect: SessionEffect | None = None


@dataclass(frozen=True, slots=True)
class Reoffer:
    """A re-INVITE with this offer."""

    sdp: bytes


@dataclass(frozen=True, slots=True)
class AnswerReoffer:
    """200 to the peer's re-INVITE or UPDATE, with our answer, or offer when it sent none."""

    sdp: bytes


@dataclass(frozen=True, slots=True)
class RefuseReoffer:
    """A refusal of the peer's re-INVITE or UPDATE."""

    status: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class SendInDialog:
    """A MESSAGE or INFO inside the dialog."""

    method: Literal["MESSAGE", "INFO"]
    body: bytes
    content_type: str
    headers: HeaderPairs


# Requests of the peer, each in a dialog of the session, with CSeq and Require in order; ACK and CANCEL as they come.


@dataclass(frozen=True, slots=True)
class Bye:
    request: Request


@dataclass(frozen=True, slots=True)
class Reinvite:
    request: Request


@dataclass(frozen=True, slots=True)
class Update:
    request: Request


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """INFO, MESSAGE, REFER, OPTIONS, NOTIFY, or a method that we don't have."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ack:
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    request: Request
    cancels: Request | None
    """The INVITE it is for."""


# Responses of the peer.


@dataclass(frozen=True, slots=True)
class Provisional:
    """100–199 to our INVITE."""

    response: Response


@dataclass(frozen=True, slots=True)
class Success:
    """2xx to our INVITE, a new one: a fork, or the only answer."""

    response: Response


@dataclass(frozen=True, slots=True)
class Failure:
    """300–699 to our INVITE."""

    response: Response


@dataclass(frozen=True, slots=True)
class InviteFailed:
    """Our INVITE got no answer (408) or could not be sent (503)."""

    status: Literal[408, 503]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of another request of ours; `response` is None when there was none, and `status` 408 or 503."""

    sent: Sent
    status: int
    reason: str
    response: Response | None

    @property
    def ends_the_dialog(self) -> bool:
        """Whether the peer has lost the dialog, or is lost itself (RFC 3261 §12.2.1.2, RFC 5057)."""
        method = self.sent.request.method
        return method != "BYE" and (self.status == 481 or (self.status == 408 and method in ("INVITE", "UPDATE")))


class Timer(Enum):
    """What a session waits for, besides its session timer (`sip.session_timer`)."""

    RESEND_2XX = "2xx again"
    ACK_WAIT = "ACK missing"
    PROVISIONAL_AGAIN = "provisional again"
    REOFFER_AGAIN = "re-INVITE again after 491"
    LINGER = "late messages"
