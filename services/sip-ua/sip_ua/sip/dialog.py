"""Dialogs as plain data: created from messages, stored as JSON, resumed anywhere. Source: RFC 3261 §12."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from sip_ua.sip.agent import MAX_FORWARDS
from sip_ua.sip.headers import Headers
from sip_ua.sip.identity import dialog_id
from sip_ua.sip.message import Request, Response
from sip_ua.sip.uri import NameAddr, Uri, parse_name_addr, parse_uri


@dataclass(frozen=True, slots=True, repr=False)
class Dialog:
    """One dialog, seen from our side; every field survives JSON. URIs are text as it stands in headers."""

    call_id: str
    local_tag: str
    remote_tag: str
    """Empty when the peer sent no tag, as RFC 2543 allowed."""
    local_uri: str
    """From and To without the tag: display name, URI and other parameters."""
    remote_uri: str
    remote_target: str
    """A bare URI: the peer's latest Contact."""
    route_set: tuple[str, ...]
    """Route values in the order in which we use them."""
    local_cseq: int
    """The number of our last request; 0 before the first."""
    remote_cseq: int | None
    """The highest number the peer used; None before its first request."""
    secure: bool
    role: Literal["UAC", "UAS"]
    """Who sent the request that created the dialog: us (UAC) or the peer (UAS)."""
    state: Literal["early", "confirmed"]

    @property
    def id(self) -> str:
        """`dialog_id` of this dialog."""
        return dialog_id(self.call_id, self.local_tag, self.remote_tag)

    @property
    def next_hop(self) -> Uri:
        """Where requests go first: the first route, strict or loose, else the remote target."""
        return parse_name_addr(self.route_set[0]).uri if self.route_set else parse_uri(self.remote_target)

    def request(self, method: str, cseq: int, via: str) -> Request:
        """A request inside the dialog, without Contact or body. Source: RFC 3261 §12.2.1.1.

        With a loose first route the remote target is the Request-URI; a strict router takes its place there, and
        the target moves to the end of the routes.
        """
        target, routes = parse_uri(self.remote_target), self.route_set
        if routes and not (first := parse_name_addr(routes[0]).uri).is_loose:
            target, routes = _request_uri(first), (*routes[1:], f"<{self.remote_target}>")
        items = [
            ("Via", via),
            *(("Route", route) for route in routes),
            ("Max-Forwards", MAX_FORWARDS),
            ("From", _tagged(self.local_uri, self.local_tag)),
            ("To", _tagged(self.remote_uri, self.remote_tag)),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]
        return Request(method, target, Headers(items))

    def accepts(self, request: Request) -> bool:
        """Whether the request's CSeq is in order; a lower one is answered 500 (RFC 3261 §12.2.2)."""
        return self.remote_cseq is None or request.cseq.number >= self.remote_cseq

    def received(self, request: Request) -> Dialog:
        """The dialog after a request from the peer: its CSeq is remembered."""
        return replace(self, remote_cseq=request.cseq.number)

    def raised(self, cseq: int | None = None) -> Dialog:
        """The dialog with the next local CSeq, or with the one given."""
        return replace(self, local_cseq=self.local_cseq + 1 if cseq is None else cseq)

    def refreshed(self, message: Request | Response) -> Dialog:
        """The dialog after a target refresh: the message's Contact, if it has one, is the new remote target."""
        contact = _contact_uri(message)
        return self if contact is None else replace(self, remote_target=contact)

    def confirmed(self, response: Response) -> Dialog:
        """An early dialog of ours after its 2xx, whose Record-Route and Contact count anew (RFC 3261 §13.2.2.4)."""
        return replace(self.refreshed(response), route_set=_reversed_routes(response), state="confirmed")

    def to_state(self) -> dict[str, Any]:
        """The dialog as plain data."""
        return {**asdict(self), "route_set": list(self.route_set)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Dialog:
        """The dialog that `to_state` told; unknown keys are ignored. Raises ValueError when one is missing."""
        names = {field.name for field in fields(cls)}
        if missing := names - state.keys():
            raise ValueError(f"dialog lacks {', '.join(sorted(missing))}")
        known = {name: state[name] for name in names}
        return cls(**{**known, "route_set": tuple(known["route_set"])})

    def __repr__(self) -> str:
        return f"<dialog {self.id} {self.state} as {self.role}, CSeq {self.local_cseq}/{self.remote_cseq}>"


def dialog_of_uac(request: Request, response: Response) -> Dialog:
    """The dialog that a 101–299 to our INVITE creates. Source: RFC 3261 §12.1.2.

    Without Contact (a fault many provisional responses have) the request's URI is the target.
    """
    return Dialog(
        call_id=request.call_id,
        local_tag=request.from_tag or "",
        remote_tag=response.to_tag or "",
        local_uri=_untagged(request.headers.get("From")),
        remote_uri=_untagged(request.headers.get("To")),
        remote_target=_contact_uri(response) or str(_request_uri(request.uri)),
        route_set=_reversed_routes(response),
        local_cseq=request.cseq.number,
        remote_cseq=None,
        secure=request.uri.scheme == "sips",
        role="UAC",
        state="early" if response.status < 200 else "confirmed",
    )


def dialog_of_uas(request: Request, local_tag: str, state: Literal["early", "confirmed"] = "early") -> Dialog:
    """The dialog that our 101–299 with this To tag creates for a received INVITE. Source: RFC 3261 §12.1.1.

    Without Contact, which an INVITE must have, the From URI is the target.
    """
    return Dialog(
        call_id=request.call_id,
        local_tag=local_tag,
        remote_tag=request.from_tag or "",
        local_uri=_untagged(request.headers.get("To")),
        remote_uri=_untagged(request.headers.get("From")),
        remote_target=_contact_uri(request) or str(_request_uri(request.from_.uri)),
        route_set=tuple(str(route) for route in request.record_routes),
        local_cseq=0,
        remote_cseq=request.cseq.number,
        secure=request.uri.scheme == "sips",
        role="UAS",
        state=state,
    )


def _reversed_routes(response: Response) -> tuple[str, ...]:
    return tuple(str(route) for route in reversed(response.record_routes))


def _contact_uri(message: Request | Response) -> str | None:
    contacts = message.contacts
    return str(contacts[0].uri.without_headers()) if contacts else None


def _request_uri(uri: Uri) -> Uri:
    """A URI as it may stand in a request line: no headers, no method parameter (RFC 3261 §19.1.1)."""
    return uri.without_headers().without_params("method")


def _untagged(header: str | None) -> str:
    address = parse_name_addr(header or "")
    params = tuple(param for param in address.params if param[0].lower() != "tag")
    return str(NameAddr(address.display_name, address.uri, params))


def _tagged(address: str, tag: str) -> str:
    return f"{address};tag={tag}" if tag else address
