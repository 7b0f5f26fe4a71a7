"""What the softphone writes inside its call: requests in the dialog, CANCEL and ACK like the INVITE, responses."""

import re
import secrets
from dataclasses import dataclass

from dialbus_cli.phone_message import Address, Message, address_of, target_of

ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO"
REASONS = {
    180: "Ringing", 200: "OK", 405: "Method Not Allowed", 480: "Temporarily Unavailable", 481: "Call Does Not Exist",
    486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 603: "Decline",
}  # fmt: skip


@dataclass(slots=True)
class Dialog:
    """What a request inside the call needs (RFC 3261 section 12)."""

    call_id: str
    local: str
    remote: str
    target: str
    route: list[str]
    to: Address
    number: int

    @classmethod
    def of_ours(cls, invite: Message, target: str, to: Address) -> "Dialog":
        """The dialog that our INVITE asks for."""
        return cls(invite.header("Call-ID"), invite.header("From"), invite.header("To"), target, [], to, invite.number)

    @classmethod
    def of_theirs(cls, invite: Message, local_tag: str, source: Address) -> "Dialog":
        """The dialog that a received INVITE asks for."""
        target = target_of(invite.header("Contact")) or f"sip:{source[0]}:{source[1]}"
        route = [part.strip() for value in invite.all("Record-Route") for part in value.split(",")]
        to = source if route else address_of(target) or source
        local = f"{invite.header('To')};tag={local_tag}"
        return cls(invite.header("Call-ID"), local, invite.header("From"), target, route, to, 0)

    def confirm(self, response: Message, invited_at: Address) -> None:
        """Go by a 2xx: its tag, Contact and route."""
        self.remote = response.header("To")
        self.target = target_of(response.header("Contact")) or self.target
        self.route = [part.strip() for value in response.all("Record-Route") for part in value.split(",")][::-1]
        if not self.route:
            self.to = address_of(self.target) or invited_at

    def request(self, method: str, number: int, own: Address) -> bytes:
        """A request inside the dialog (RFC 3261 section 12.2.1.1)."""
        lines = [f"{method} {self.target} SIP/2.0"]
        lines += [f"Via: SIP/2.0/UDP {own[0]}:{own[1]};branch=z9hG4bK{secrets.token_hex(8)};rport"]
        lines += ["Max-Forwards: 70", *(f"Route: {route}" for route in self.route)]
        lines += [f"From: {self.local}", f"To: {self.remote}", f"Call-ID: {self.call_id}"]
        lines += [f"CSeq: {number} {method}", "Content-Length: 0", "", ""]
        return "\r\n".join(lines).encode()


class Writer:
    """The responses of a phone at one address."""

    def __init__(self, user: str) -> None:
        self.own: Address = ("", 0)
        self.local_tag = secrets.token_hex(6)
        self._user = user

    def response(self, request: Message, status: int, to: Address, body: str = "") -> bytes:
        """Answer a request; its own headers come back as they came (RFC 3261 section 8.2.6)."""
        via, *more = request.all("Via")
        via = re.sub(r";rport(?=;|$)", f";rport={to[1]};received={to[0]}", via)
        remote = request.header("To")
        if "tag=" not in remote:
            remote += f";tag={self.local_tag}"
        lines = [f"SIP/2.0 {status} {REASONS[status]}", f"Via: {via}", *(f"Via: {other}" for other in more)]
        lines += [f"Record-Route: {route}" for route in request.all("Record-Route")]
        lines += [f"From: {request.header('From')}", f"To: {remote}", f"Call-ID: {request.header('Call-ID')}"]
        lines += [f"CSeq: {request.header('CSeq')}", f"Allow: {ALLOW}"]
        lines += [f"Contact: <sip:{self._user}@{self.own[0]}:{self.own[1]}>"]
        lines += ["Content-Type: application/sdp"] if body else []
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


def like_invite(invite: Message, method: str, response: Message | None = None) -> bytes:
    """A CANCEL, or the ACK of a refusal: the INVITE's own branch and target (RFC 3261 sections 9.1, 17.1.1.3)."""
    target = invite.raw.split(b" ", 2)[1].decode()
    remote = response.header("To") if response is not None else invite.header("To")
    lines = [f"{method} {target} SIP/2.0", f"Via: {invite.header('Via')}", "Max-Forwards: 70"]
    lines += [f"From: {invite.header('From')}", f"To: {remote}", f"Call-ID: {invite.header('Call-ID')}"]
    lines += [f"CSeq: {invite.number} {method}", "Content-Length: 0", "", ""]
    return "\r\n".join(lines).encode()
