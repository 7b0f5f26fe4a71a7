"""The session we are asked for: ringing, answering, refusing; and what is answered outside of sessions.

Sources: RFC 3261 §8.2, §9.2, §13.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sip_ua.sip.agent import ALLOW, Agent, LocalProtocolError, SendResponse
from sip_ua.sip.dialog import dialog_of_uas
from sip_ua.sip.digest import Credentials
from sip_ua.sip.extensions import SUPPORTED, HeaderItems, custom, reason_text, reason_value, unsupported
from sip_ua.sip.identity import Key, server_key
from sip_ua.sip.invite_session import InviteSession, Phase, Timer
from sip_ua.sip.message import SDP, Request, Response, response_to
from sip_ua.sip.session_effects import Cancelled, Offered, RemoteHangUp, SessionEffect
from sip_ua.sip.uri import NameAddr

PROVISIONAL_REFRESH_S: Final = 60.0
"""How often an unanswered INVITE gets its provisional response again (RFC 3261 §13.3.1.1)."""


class UasSession(InviteSession):
    """A call we got: `Offered`, then `ring`, `answer` or `reject`, unless `Cancelled` comes first."""

    def __init__(
        self,
        agent: Agent,
        invite: Request,
        local_tag: str,
        *,
        contact: NameAddr | None = None,
        credentials: Credentials | None = None,
        hangup_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            agent,
            contact=contact or agent.contact(invite.to.uri.user if invite.to.uri.scheme != "tel" else None),
            credentials=credentials,
            hangup_headers=hangup_headers,
        )
        self.invite = invite
        self.call_id = invite.call_id
        self.local_tag = local_tag
        dialog = dialog_of_uas(invite, local_tag)
        self._dialogs[dialog.remote_tag] = dialog
        self._chosen = dialog.remote_tag
        self._provisional: Response | None = None

    @property
    def invite_key(self) -> Key:
        """The INVITE's server transaction, by which the shell finds the call of a CANCEL."""
        return server_key(self.invite)

    def start(self, now: float) -> list[SessionEffect]:
        """Answer 100 and offer the call; or refuse at once what the INVITE asks and we cannot give."""
        self._now = now
        self.phase = Phase.PENDING
        invite = self.invite
        if required := unsupported(invite):
            self._refuse(420, headers=[("Unsupported", ", ".join(required))])
        elif invite.body and invite.content_type != SDP:
            self._refuse(415, headers=[("Accept", SDP)])
        elif self._session_refused(invite):
            self._end(None)
        else:
            self._emit(SendResponse(response_to(invite, 100)))
            self._emit(Offered(invite.sdp))
        return self._drain()

    def ring(self, now: float, sdp: bytes | None = None, headers: HeaderItems = ()) -> list[SessionEffect]:
        """Send 180, or 183 with an SDP answer for early media. May be repeated. Nothing once answered or over."""
        self._now = now
        if self.phase is Phase.PENDING:
            items = [*self._dialog_headers(), *custom(headers)]
            if sdp is not None:
                items.append(("Content-Type", SDP))
            status = 180 if sdp is None else 183
            response = response_to(self.invite, status, None, self.local_tag, items, sdp or b"")
            self._send_provisional(response)
        return self._drain()

    def answer(self, sdp: bytes, now: float, headers: HeaderItems = ()) -> list[SessionEffect]:
        """Send 200 with our answer (our offer, if the INVITE had none), repeated until the ACK.

        The call counts as up from here; `Acknowledged` or `AckMissing` follows. Raises LocalProtocolError when
        the call is not pending.
        """
        self._now = now
        if self.phase is not Phase.PENDING:
            raise LocalProtocolError("only a pending call can be answered")
        self.phase = Phase.UP
        self._timers.clear()
        items = [*self._dialog_headers(), ("User-Agent", self.agent.user_agent)]
        items += [*self._session_headers(self.invite), *custom(headers), ("Content-Type", SDP)]
        response = response_to(self.invite, 200, None, self.local_tag, items, sdp)
        assert self._chosen is not None
        self._dialogs[self._chosen] = replace(self._dialogs[self._chosen], state="confirmed")
        self._emit(SendResponse(response))
        self._await_ack(response, carries_offer=self.invite.sdp is None, initial=True)
        return self._drain()

    def reject(
        self, now: float, status: int = 603, reason: str | None = None, headers: HeaderItems = ()
    ) -> list[SessionEffect]:
        """Refuse the call, with a Reason header when `reason` is given. Nothing once answered or over.

        Raises LocalProtocolError for a status that is no 300–699.
        """
        if not 300 <= status <= 699:
            raise LocalProtocolError(f"{status} does not refuse a call")
        self._now = now
        if self.phase is Phase.PENDING:
            told = [] if reason is None else [("Reason", reason_value(status, reason))]
            self._refuse(status, headers=[*told, *custom(headers)])
        return self._drain()

    def hang_up(self, now: float, headers: Mapping[str, str] | None = None) -> list[SessionEffect]:
        """BYE when answered, 603 when still pending."""
        return self.reject(now) if self.phase is Phase.PENDING else super().hang_up(now, headers)

    def _refuse(self, status: int, headers: HeaderItems = ()) -> None:
        self._reply(self.invite, status, headers=headers)
        self._end(None)

    def _send_provisional(self, response: Response) -> None:
        self._provisional = response
        self._emit(SendResponse(response))
        self._arm(Timer.PROVISIONAL_AGAIN, PROVISIONAL_REFRESH_S)

    def _on_timer(self, timer: Timer) -> None:
        if timer is Timer.PROVISIONAL_AGAIN and self._provisional is not None:
            self._send_provisional(self._provisional)
        else:
            super()._on_timer(timer)

    def _on_cancel(self, cancel: Request, cancels: Request | None) -> None:
        if self.phase is not Phase.PENDING:
            super()._on_cancel(cancel, cancels)
            return
        self._reply(cancel, 200)
        self._reply(self.invite, 487)
        self._end(Cancelled(reason_text(cancel)))

    def _on_bye(self, request: Request) -> None:
        """A caller may also end its early dialog; the INVITE is then answered 487 (RFC 3261 §15.1.2)."""
        self._reply(request, 200)
        if self.phase is Phase.PENDING:
            self._reply(self.invite, 487)
            self._end(Cancelled(reason_text(request)))
        else:
            self._end(RemoteHangUp(reason_text(request)))

    def _local_tag(self) -> str | None:
        return self.local_tag


def answer_outside_dialog(request: Request, agent: Agent) -> Response | None:
    """The response to a request that belongs to no call and starts none; None for an ACK.

    481 when it names a dialog we do not know, 200 to OPTIONS, 400 to REFER, 405 to the rest. A new INVITE is not
    for this function but for `UasSession`.
    """
    if request.method == "ACK":
        return None
    tag = agent.new_token()
    if request.to_tag is not None:
        return response_to(request, 481)
    if required := unsupported(request):
        return response_to(request, 420, None, tag, [("Unsupported", ", ".join(required))])
    if request.method == "OPTIONS":
        headers = [("Contact", str(agent.contact(None))), ("Allow", ALLOW), ("Accept", SDP)]
        return response_to(request, 200, None, tag, [*headers, ("Supported", SUPPORTED)])
    if request.method == "CANCEL":
        return response_to(request, 200, None, tag)
    if request.method == "REFER":
        return response_to(request, 400, "REFER outside a dialog", tag)
    return response_to(request, 405, None, tag, [("Allow", ALLOW)])
