"""What an INVITE session tells its owner, besides what is to be sent.

After an effect that is final there is no other, and after the owner's own `hang_up` or `reject` there is none at all.
Giving up a call of ours before its answer is confirmed by `Cancelled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sip_ua.sip.agent import Transmission


@dataclass(frozen=True, slots=True)
class Offered:
    """A call came in and waits for `ring`, `answer` or `reject`. Without SDP our answer carries the offer."""

    sdp: bytes | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A 101–199 to our INVITE; `sdp` is the peer's early answer, `remote_tag` tells forks apart."""

    status: int
    reason: str
    sdp: bytes | None
    remote_tag: str


@dataclass(frozen=True, slots=True)
class Answered:
    """Our INVITE was answered and acknowledged. Without SDP the early answer of that fork stands, if there was one."""

    sdp: bytes | None
    remote_tag: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Our INVITE failed: the peer's 300–699, 408 when nobody answered, 503 when it could not be sent. Final."""

    status: int
    reason: str
    local: bool = False
    """The 408 or 503 is ours, not the peer's word."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The call ended before its answer: the caller sent CANCEL, or we did. Final. `reason` is the Reason's text."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Our answer arrived; `sdp` is the peer's answer when our 200 carried the offer."""

    sdp: bytes | None


@dataclass(frozen=True, slots=True)
class AckMissing:
    """Our answer was never acknowledged; the call is over, BYE is sent. Final."""


@dataclass(frozen=True, slots=True)
class RemoteHangUp:
    """The peer ended the call, or lost it. Final. `reason` is the text of its Reason header."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """The peer stopped refreshing the session it asked for (RFC 4028 §10); BYE is sent. Final."""


@dataclass(frozen=True, slots=True)
class Reoffered:
    """The peer wants other media: call `answer_reoffer` or `refuse_reoffer`. Without SDP it wants our offer."""

    sdp: bytes | None
    kind: Literal["INVITE", "UPDATE"]


@dataclass(frozen=True, slots=True)
class ReofferWithdrawn:
    """The peer cancelled its unanswered re-INVITE; the session stays as it was."""


@dataclass(frozen=True, slots=True)
class ReofferAnswered:
    """The answer to an offer of ours: from a 2xx, or from the ACK to a re-INVITE that had none."""

    sdp: bytes | None


@dataclass(frozen=True, slots=True)
class ReofferRefused:
    """Our offer was refused; the session stays as it was."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class DtmfReceived:
    """One key by INFO; `duration_ms` is None when the peer did not say."""

    digit: str
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class InfoReceived:
    """An INFO that is not DTMF."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A MESSAGE inside the dialog; `content_type` is the whole header."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """A REFER: the peer asks us to call `refer_to`. It was accepted; nothing else happens by itself."""

    refer_to: str
    referred_by: str | None


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """The final response to an INFO or MESSAGE of ours; 408 and 503 as in `Refused`. Not after the call's end."""

    method: str
    status: int
    reason: str


SessionEffect: TypeAlias = (
    Transmission
    | Offered
    | Progress
    | Answered
    | Refused
    | Cancelled
    | Acknowledged
    | AckMissing
    | RemoteHangUp
    | SessionExpired
    | Reoffered
    | ReofferWithdrawn
    | ReofferAnswered
    | ReofferRefused
    | DtmfReceived
    | InfoReceived
    | MessageReceived
    | TransferRequested
    | RequestAnswered
)
