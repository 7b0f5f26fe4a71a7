"""The session we ask for: INVITE, CANCEL, and the forks that answer. Sources: RFC 3261 §9.1, §13.2, §22."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sip_ua.sip.agent import ALLOW, MAX_FORWARDS, Agent, SendRequest
from sip_ua.sip.authentication import is_challenge, with_credentials
from sip_ua.sip.dialog import dialog_of_uac
from sip_ua.sip.digest import Credentials
from sip_ua.sip.extensions import custom
from sip_ua.sip.headers import Headers
from sip_ua.sip.invite_session import InviteSession, Phase, Timer
from sip_ua.sip.message import REASON_PHRASES, SDP, Request, Response
from sip_ua.sip.session_effects import Answered, Cancelled, Progress, Refused, SessionEffect
from sip_ua.sip.uri import NameAddr


class UacSession(InviteSession):
    """A call we place: INVITE with an offer, `Progress`, then `Answered`, `Refused` or `Cancelled`."""

    def __init__(
        self,
        agent: Agent,
        caller: NameAddr,
        callee: NameAddr,
        *,
        call_id: str,
        sdp: bytes,
        contact: NameAddr | None = None,
        credentials: Credentials | None = None,
        headers: Mapping[str, str] | None = None,
        hangup_headers: Mapping[str, str] | None = None,
        ringing_limit_s: float | None = None,
    ) -> None:
        """`ringing_limit_s` is how long it may ring, when that is not what the agent's timers say."""
        super().__init__(
            agent,
            contact=contact or agent.contact(caller.uri.user),
            credentials=credentials,
            hangup_headers=hangup_headers,
        )
        self.call_id = call_id
        self.local_tag = agent.new_token()
        self._invite = self._first_invite(caller, callee, sdp, headers or {})
        self._ringing_limit_s = ringing_limit_s
        self._tries = 0
        self._provisional_seen = False
        self._cancel_wanted = False

    def start(self, now: float) -> list[SessionEffect]:
        """Send the INVITE."""
        self._now = now
        self.phase = Phase.PENDING
        self._emit(SendRequest(self._invite, self._invite.uri, self._ringing_limit_s))
        return self._drain()

    def cancel(self, now: float) -> list[SessionEffect]:
        """Give the unanswered call up. `Cancelled` comes at once, CANCEL goes out as soon as RFC 3261 §9.1 allows.

        A 2xx that crosses the CANCEL is acknowledged and hung up. Nothing happens when the call is answered or over.
        """
        self._now = now
        if self.phase is Phase.PENDING:
            self._give_up(Cancelled())
        return self._drain()

    def hang_up(self, now: float, headers: Mapping[str, str] | None = None) -> list[SessionEffect]:
        """BYE when up, CANCEL when still unanswered."""
        return self.cancel(now) if self.phase is Phase.PENDING else super().hang_up(now, headers)

    def failed(self, request: Request, status: Literal[408, 503], now: float) -> list[SessionEffect]:
        """The layer gave up on a request of ours; on the INVITE that is `Refused` with this status."""
        if request.via.branch != self._invite.via.branch or request.method != "INVITE":
            return super().failed(request, status, now)
        self._now = now
        if self.phase is Phase.PENDING:
            self._give_up(Refused(status, REASON_PHRASES[status]))
        return self._drain()

    def _first_invite(self, caller: NameAddr, callee: NameAddr, sdp: bytes, headers: Mapping[str, str]) -> Request:
        items = [
            ("Via", self.agent.new_via()),
            ("Max-Forwards", MAX_FORWARDS),
            ("From", str(caller.without_params().with_tag(self.local_tag))),
            ("To", str(callee.without_params())),
            ("Call-ID", self.call_id),
            ("CSeq", "1 INVITE"),
            ("Contact", str(self.contact)),
            ("Allow", ALLOW),
            ("User-Agent", self.agent.user_agent),
            *custom(headers.items()),
            ("Content-Type", SDP),
        ]
        return Request("INVITE", callee.uri.without_headers(), Headers(items), sdp)

    def _on_response(self, response: Response) -> None:
        if response.cseq != self._invite.cseq or response.via.branch != self._invite.via.branch:
            super()._on_response(response)
        elif response.status < 200:
            self._on_provisional(response)
        elif response.status < 300:
            self._on_success(response)
        elif self.phase is Phase.PENDING and not self._retry_invite(response):
            self._end(Refused(response.status, response.reason))

    def _on_provisional(self, response: Response) -> None:
        self._provisional_seen = True
        if self.phase is Phase.ENDED and self._cancel_wanted:
            self._send_cancel()
        if self.phase is not Phase.PENDING or response.status == 100:
            return
        tag = response.to_tag or ""
        if tag and tag not in self._dialogs:
            self._dialogs[tag] = dialog_of_uac(self._invite, response)
        self._emit(Progress(response.status, response.reason, response.sdp, tag))

    def _on_success(self, response: Response) -> None:
        """The first 2xx is the answer; from other forks, or after we gave up, it is acknowledged and hung up."""
        tag = response.to_tag or ""
        if ack := self._acks.get((tag, response.cseq.number)):
            self._emit(ack)
            return
        early = self._dialogs.get(tag)
        if early is None:
            self._dialogs[tag] = dialog_of_uac(self._invite, response)
        else:
            self._dialogs[tag] = early.confirmed(response)
        self._send_ack(self._invite, tag)
        if self.phase is Phase.PENDING:
            self.phase = Phase.UP
            self._chosen = tag
            self._emit(Answered(response.sdp, tag))
        else:
            self._send_bye(self.hangup_headers.items(), tag)

    def _retry_invite(self, response: Response) -> bool:
        """Answer a challenge with a new INVITE: same Call-ID and From tag, higher CSeq (RFC 3261 §22.2)."""
        if self.credentials is None or not is_challenge(response):
            return False
        cseq = self._invite.cseq.number + 1
        again = with_credentials(self._invite, response, self.credentials, self.agent, cseq, self._tries)
        if again is None:
            return False
        self._tries += 1
        self._invite = again
        self._provisional_seen = False
        self._dialogs.clear()
        self._emit(SendRequest(again, again.uri, self._ringing_limit_s))
        return True

    def _give_up(self, effect: SessionEffect) -> None:
        self._cancel_wanted = True
        self._end(effect)
        if self._provisional_seen:
            self._send_cancel()

    def _send_cancel(self) -> None:
        """CANCEL: the INVITE's target, top Via and Routes (RFC 3261 §9.1); never with custom headers."""
        self._cancel_wanted = False
        invite = self._invite
        items = [("Via", str(invite.via)), *(("Route", route) for route in invite.headers.get_all("Route"))]
        items.append(("Max-Forwards", MAX_FORWARDS))
        items += [line for line in invite.headers.lines() if line[0] in ("From", "To", "Call-ID")]
        items.append(("CSeq", f"{invite.cseq.number} CANCEL"))
        self._emit(SendRequest(Request("CANCEL", invite.uri, Headers(items)), invite.uri))
        self._arm(Timer.LINGER, self.agent.timers.t1_x64)

    def _local_tag(self) -> str | None:
        return self.local_tag

    def _on_bye(self, request: Request) -> None:
        """A callee may not hang up before its 2xx; if one does, only its own branch is forgotten."""
        if self.phase is Phase.PENDING:
            self._reply(request, 200)
            del self._dialogs[request.from_tag or ""]
        else:
            super()._on_bye(request)
