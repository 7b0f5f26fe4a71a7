"""Who may offer now: the offers in flight inside an established dialog. Sources: RFC 3261 §14, RFC 3311 §5, RFC 6337.

What an offer says is not looked at here (`sip.audio_offer`), only whether it may be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sip_ua.sip.message import Request, Response, message_from_state, message_to_state


@dataclass(slots=True)
class Unacknowledged:
    """A 2xx to INVITE of ours that waits for its ACK (RFC 3261 §13.3.1.4)."""

    response: Response
    retransmit_interval: float
    """Seconds until the next copy."""
    carries_offer: bool
    """The INVITE had no SDP, so that the ACK brings the answer."""

    @property
    def cseq(self) -> int:
        return self.response.cseq.number


@dataclass(slots=True)
class OpenOffers:
    """The offers and INVITEs in flight, in both directions."""

    own: bytes | None = None
    """Our offer, in a re-INVITE that is not answered yet."""
    postponed: bytes | None = None
    """Our offer that a 491 sent back, to be made again."""
    remote: Request | None = None
    """The peer's re-INVITE or UPDATE, which waits for our answer."""
    unacknowledged: Unacknowledged | None = None

    @property
    def is_open(self) -> bool:
        """Whether an INVITE or an offer is open in either direction, which forbids another (RFC 3261 §14.1)."""
        return self.own is not None or self.remote is not None or self.unacknowledged is not None

    def clash_of_invite(self) -> Literal[491, 500] | None:
        """How a re-INVITE that comes now is refused: 491 when it meets ours, 500 when it comes too early."""
        if self.own is not None:
            return 491
        return 500 if self.is_open else None

    def clash_of_update(self, request: Request) -> Literal[491, 500] | None:
        """How an UPDATE that comes now is refused (RFC 3311 §5.2); one without offer never is."""
        if request.sdp is None:
            return None
        if self.own is not None or (self.unacknowledged is not None and self.unacknowledged.carries_offer):
            return 491
        return 500 if self.remote is not None else None

    def take_postponed(self) -> bytes | None:
        """The offer to make again, which is our open one from now."""
        if self.postponed is not None:
            self.own, self.postponed = self.postponed, None
        return self.own

    def take_remote(self) -> Request | None:
        """The peer's request, which is answered now."""
        request, self.remote = self.remote, None
        return request

    def to_state(self) -> dict[str, Any]:
        waiting = self.unacknowledged
        return {
            "own": None if self.own is None else self.own.decode("latin-1"),
            "postponed": None if self.postponed is None else self.postponed.decode("latin-1"),
            "remote": None if self.remote is None else message_to_state(self.remote),
            "unacknowledged": None
            if waiting is None
            else [message_to_state(waiting.response), waiting.retransmit_interval, waiting.carries_offer],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> OpenOffers:
        own, postponed = (None if state[key] is None else state[key].encode("latin-1") for key in ("own", "postponed"))
        offers = cls(own, postponed)
        if state["remote"] is not None:
            request = message_from_state(state["remote"])
            assert isinstance(request, Request)
            offers.remote = request
        if state["unacknowledged"] is not None:
            message, interval, carries_offer = state["unacknowledged"]
            response = message_from_state(message)
            assert isinstance(response, Response)
            offers.unacknowledged = Unacknowledged(response, interval, carries_offer)
        return offers
