"""What a request inside a dialog is answered, and tells, whatever the session's state: INFO, MESSAGE, REFER, ….

Sources: RFC 6086 (INFO), RFC 3428 (MESSAGE), RFC 3515 (REFER), RFC 3261 §11 (OPTIONS).
"""

from __future__ import annotations

from dataclasses import dataclass

from sip_ua.sip.agent import ALLOW
from sip_ua.sip.dtmf import parse_dtmf
from sip_ua.sip.extensions import SUPPORTED
from sip_ua.sip.message import SDP, Request
from sip_ua.sip.session_effects import InfoReceived, MessageReceived, SessionEffect, TransferRequested
from sip_ua.sip.uri import NameAddr


@dataclass(frozen=True, slots=True)
class Reply:
    """A final response, and what the session's owner learns."""

    status: int
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    effect: SessionEffect | None = None


def reply_in_dialog(request: Request, contact: NameAddr) -> Reply:
    """The reply to any request but INVITE, UPDATE, ACK, CANCEL and BYE; `contact` is ours."""
    match request.method:
        case "INFO":
            return Reply(200, effect=_info(request))
        case "MESSAGE":
            content_type = request.headers.get("Content-Type") or "text/plain"
            return Reply(200, effect=MessageReceived(content_type, request.body))
        case "REFER":
            return _refer(request, contact)
        case "OPTIONS":
            return Reply(200, headers=(("Allow", ALLOW), ("Accept", SDP), ("Supported", SUPPORTED)))
        case "NOTIFY":
            return Reply(200)
        case _:
            return Reply(405, headers=(("Allow", ALLOW),))


def _info(request: Request) -> SessionEffect | None:
    content_type = request.content_type or ""
    if content_type in ("application/dtmf-relay", "application/dtmf"):
        return parse_dtmf(content_type, request.body)
    return InfoReceived(request.headers.get("Content-Type") or "", request.body) if request.body else None


def _refer(request: Request, contact: NameAddr) -> Reply:
    targets = request.headers.get_all("Refer-To")
    if len(targets) != 1:
        return Reply(400, "One Refer-To needed")
    effect = TransferRequested(targets[0], request.headers.get("Referred-By"))
    return Reply(202, headers=(("Contact", str(contact)),), effect=effect)
