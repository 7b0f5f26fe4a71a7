"""One call as UAC or as UAS, from INVITE to BYE, without I/O.

`UacSession` sends the INVITE, `UasSession` received it; once answered both are an `InviteSession`: two parties in a
dialog, either of which may re-offer, send INFO or MESSAGE, and hang up. Messages and `now` (monotonic seconds) go
in, effects come out: transmissions for the transaction layer (`sip.agent`) and the effects below for whoever owns
the call. Sources: RFC 3261 §9, §12 to §15; RFC 3311 (UPDATE), RFC 4028 (session timers), RFC 3326 (Reason).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal

from sip_ua.sip.agent import (
    ALLOW,
    Agent,
    LocalProtocolError,
    SendAck,
    SendRequest,
    SendResponse,
)
from sip_ua.sip.authentication import is_challenge, with_credentials
from sip_ua.sip.dialog import Dialog
from sip_ua.sip.digest import Credentials
from sip_ua.sip.dtmf import parse_dtmf
from sip_ua.sip.extensions import SUPPORTED, HeaderItems, custom, option_tags, reason_text, unsupported
from sip_ua.sip.headers import Headers
from sip_ua.sip.message import REASON_PHRASES, SDP, Message, Request, Response, response_to
from sip_ua.sip.session_effects import (
    AckMissing,
    Acknowledged,
    InfoReceived,
    MessageReceived,
    RemoteHangUp,
    ReofferAnswered,
    Reoffered,
    ReofferRefused,
    ReofferWithdrawn,
    RequestAnswered,
    SessionEffect,
    SessionExpired,
    TransferRequested,
)
from sip_ua.sip.session_timer import MIN_SESSION_S, session_interval
from sip_ua.sip.uri import NameAddr, Uri

OFFER_RECHECK_S: Final = 1.0
"""How long a postponed offer waits once more while the peer's is open."""


class Phase(Enum):
    """How far a call has come."""

    NEW = "new"
    PENDING = "pending"
    UP = "up"
    ENDED = "ended"


class Timer(Enum):
    """What a call waits for."""

    RESEND_2XX = "2xx again"
    ACK_WAIT = "ACK missing"
    PROVISIONAL_AGAIN = "provisional again"
    REOFFER_AGAIN = "re-INVITE again after 491"
    SESSION_END = "session not refreshed"
    SESSION_REFRESH = "session to refresh"
    LINGER = "late messages"


@dataclass(slots=True)
class _Sent:
    """A request of ours inside the dialog that waits for its final response."""

    request: Request
    next_hop: Uri
    remote_tag: str
    tries: int = 0
    """How often it was sent with credentials."""


@dataclass(slots=True)
class _Unacknowledged:
    """A 2xx to INVITE of ours that waits for its ACK (RFC 3261 §13.3.1.4)."""

    response: Response
    cseq: int
    retransmit_interval: float
    carries_offer: bool
    initial: bool


class InviteSession:
    """An established call, and what both roles share before; `InviteSession(agent, dialog)` resumes a call.

    Every input returns the effects it has, in order. `deadline` says when to `tick`; once `finished` the call may
    be forgotten: it lingers 64·T1 after its end, to answer copies and late responses.
    """

    def __init__(
        self,
        agent: Agent,
        dialog: Dialog | None = None,
        *,
        contact: NameAddr | None = None,
        credentials: Credentials | None = None,
        hangup_headers: Mapping[str, str] | None = None,
    ) -> None:
        self.agent = agent
        self.credentials = credentials
        self.contact = contact or agent.contact(None)
        self.phase = Phase.NEW if dialog is None else Phase.UP
        self.hangup_headers = dict(hangup_headers or {})
        self._dialogs: dict[str, Dialog] = {} if dialog is None else {dialog.remote_tag: dialog}
        self._chosen: str | None = None if dialog is None else dialog.remote_tag
        self._sent: dict[str, _Sent] = {}
        self._acks: dict[tuple[str, int], SendAck] = {}
        self._unacknowledged: _Unacknowledged | None = None
        self._bye_after_ack: tuple[tuple[str, str], ...] | None = None
        self._remote_offer: Request | None = None
        self._own_offer: bytes | None = None
        self._postponed_offer: bytes | None = None
        self._timers: dict[Timer, float] = {}
        self._session_s = 0
        self._we_refresh = False
        self._finished = False
        self._effects: list[SessionEffect] = []
        self._now = 0.0

    # What the owner may ask.

    @property
    def is_pending(self) -> bool:
        """Whether the INVITE waits for its final answer."""
        return self.phase is Phase.PENDING

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.ENDED

    @property
    def finished(self) -> bool:
        return self._finished

    @property
    def deadline(self) -> float | None:
        return min(self._timers.values(), default=None)

    @property
    def dialog(self) -> Dialog | None:
        """The dialog of the call, to be stored when it changes; None for an outgoing call without answer."""
        return None if self._chosen is None else self._dialogs[self._chosen]

    # What the owner may do.

    def hang_up(self, now: float, headers: Mapping[str, str] | None = None) -> list[SessionEffect]:
        """End the call: BYE with the call's hang-up headers and these, which win. Nothing when it is over.

        A UAS whose 200 is not acknowledged yet sends the BYE after the ACK or its absence (RFC 3261 §15).
        """
        self._now = now
        if self.phase is Phase.UP:
            self._hang_up(tuple({**self.hangup_headers, **(headers or {})}.items()))
        return self._drain()

    def reoffer(self, sdp: bytes, now: float) -> list[SessionEffect]:
        """Send a re-INVITE with this offer. Raises LocalProtocolError unless up with no other offer open."""
        self._now = now
        if self.phase is not Phase.UP or self._postponed_offer is not None or self._negotiating:
            raise LocalProtocolError("a new offer needs an established call and no other open offer")
        self._own_offer = sdp
        self._send("INVITE", sdp, SDP)
        return self._drain()

    def answer_reoffer(self, sdp: bytes, now: float) -> list[SessionEffect]:
        """Accept the peer's re-INVITE or UPDATE with this answer, or offer when it sent none."""
        self._now = now
        request = self._take_remote_offer()
        headers = [*self._dialog_headers(), *self._session_headers(request), ("Content-Type", SDP)]
        response = response_to(request, 200, headers=headers, body=sdp)
        self._emit(SendResponse(response))
        if request.method == "INVITE":
            self._await_ack(response, carries_offer=request.sdp is None, initial=False)
        return self._drain()

    def refuse_reoffer(self, now: float, status: int = 488, reason: str | None = None) -> list[SessionEffect]:
        """Refuse the peer's re-INVITE or UPDATE; the session stays as it was."""
        self._now = now
        self._reply(self._take_remote_offer(), status, reason)
        return self._drain()

    def send_message(
        self, body: bytes, now: float, content_type: str = "text/plain;charset=utf-8", headers: HeaderItems = ()
    ) -> list[SessionEffect]:
        """Send a MESSAGE inside the dialog; `RequestAnswered` follows. Raises LocalProtocolError unless up."""
        return self._send_user_request("MESSAGE", body, content_type, headers, now)

    def send_info(self, body: bytes, now: float, content_type: str, headers: HeaderItems = ()) -> list[SessionEffect]:
        """Send an INFO inside the dialog; `RequestAnswered` follows. Raises LocalProtocolError unless up."""
        return self._send_user_request("INFO", body, content_type, headers, now)

    @property
    def _negotiating(self) -> bool:
        """Whether an INVITE or an offer is open in either direction, which forbids another (RFC 3261 §14.1)."""
        return any(part is not None for part in (self._own_offer, self._remote_offer, self._unacknowledged))

    # What arrives.

    def receive(self, message: Message, now: float, cancels: Request | None = None) -> list[SessionEffect]:
        """Take a message from the transaction layer; with a CANCEL comes the request it is for."""
        self._now = now
        if isinstance(message, Response):
            self._on_response(message)
        elif message.method == "ACK":
            self._on_ack(message)
        elif message.method == "CANCEL":
            self._on_cancel(message, cancels)
        else:
            self._on_request(message)
        return self._drain()

    def failed(self, request: Request, status: Literal[408, 503], now: float) -> list[SessionEffect]:
        """The layer gave up on a request of ours: treated as that response (RFC 3261 §8.1.3.1)."""
        self._now = now
        sent = self._sent.pop(request.via.branch, None)
        if sent is not None:
            self._on_outcome(sent, status, REASON_PHRASES[status], None)
        return self._drain()

    def tick(self, now: float) -> list[SessionEffect]:
        """Let every timer that is due happen, oldest first."""
        self._now = now
        while self._timers and (timer := min(self._timers, key=self._timers.__getitem__)):
            if self._timers[timer] > now:
                break
            del self._timers[timer]
            self._on_timer(timer)
        return self._drain()

    # Requests of the peer.

    def _on_request(self, request: Request) -> None:
        dialog = self._dialogs.get(request.from_tag or "")
        if dialog is None:
            self._reply(request, 481)
        elif not dialog.accepts(request):
            self._reply(request, 500, "CSeq out of order")
        elif required := unsupported(request):
            self._reply(request, 420, headers=[("Unsupported", ", ".join(required))])
        elif self.phase is Phase.ENDED:
            self._reply(request, 200 if request.method == "BYE" else 481)
        else:
            self._dialogs[dialog.remote_tag] = dialog.received(request)
            self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        match request.method:
            case "BYE":
                self._on_bye(request)
            case "INVITE":
                self._on_reinvite(request)
            case "UPDATE":
                self._on_update(request)
            case "INFO":
                self._on_info(request)
            case "MESSAGE":
                self._on_message(request)
            case "REFER":
                self._on_refer(request)
            case "OPTIONS":
                self._reply(request, 200, headers=[("Allow", ALLOW), ("Accept", SDP), ("Supported", SUPPORTED)])
            case "NOTIFY":
                self._reply(request, 200)
            case _:
                self._reply(request, 405, headers=[("Allow", ALLOW)])

    def _on_bye(self, request: Request) -> None:
        self._reply(request, 200)
        self._end(RemoteHangUp(reason_text(request)))

    def _on_reinvite(self, request: Request) -> None:
        if self._own_offer is not None:
            self._reply(request, 491)
        elif self.phase is not Phase.UP or self._remote_offer is not None or self._unacknowledged is not None:
            self._reply(request, 500, headers=[self._retry_after()])
        elif self._session_refused(request):
            return
        else:
            self._refresh_target(request)
            self._remote_offer = request
            self._emit(SendResponse(response_to(request, 100)))
            self._emit(Reoffered(request.sdp, "INVITE"))

    def _on_update(self, request: Request) -> None:
        sdp = request.sdp
        waiting = self._unacknowledged
        if sdp is not None and (self._own_offer is not None or (waiting is not None and waiting.carries_offer)):
            self._reply(request, 491)
        elif sdp is not None and (self.phase is not Phase.UP or self._remote_offer is not None):
            self._reply(request, 500, headers=[self._retry_after()])
        elif self._session_refused(request):
            return
        else:
            self._refresh_target(request)
            if sdp is None:
                self._reply(request, 200, headers=[*self._dialog_headers(), *self._session_headers(request)])
            else:
                self._remote_offer = request
                self._emit(Reoffered(sdp, "UPDATE"))

    def _on_info(self, request: Request) -> None:
        self._reply(request, 200)
        content_type = request.content_type or ""
        if content_type in ("application/dtmf-relay", "application/dtmf"):
            if dtmf := parse_dtmf(content_type, request.body):
                self._emit(dtmf)
        elif request.body:
            self._emit(InfoReceived(request.headers.get("Content-Type") or "", request.body))

    def _on_message(self, request: Request) -> None:
        self._reply(request, 200)
        self._emit(MessageReceived(request.headers.get("Content-Type") or "text/plain", request.body))

    def _on_refer(self, request: Request) -> None:
        targets = request.headers.get_all("Refer-To")
        if len(targets) != 1:
            self._reply(request, 400, "One Refer-To needed")
            return
        self._reply(request, 202, headers=[("Contact", str(self.contact))])
        self._emit(TransferRequested(targets[0], request.headers.get("Referred-By")))

    def _on_cancel(self, cancel: Request, cancels: Request | None) -> None:
        """A CANCEL for a re-INVITE; once that is answered it changes nothing (RFC 3261 §9.2)."""
        self._reply(cancel, 200)
        offer = self._remote_offer
        if offer is not None and cancels is not None and offer.cseq == cancels.cseq:
            self._remote_offer = None
            self._reply(offer, 487)
            self._emit(ReofferWithdrawn())

    def _on_ack(self, ack: Request) -> None:
        waiting = self._unacknowledged
        if waiting is None or ack.cseq.number != waiting.cseq:
            return
        self._unacknowledged = None
        self._disarm(Timer.RESEND_2XX, Timer.ACK_WAIT)
        if self._bye_after_ack is not None:
            self._send_bye(self._bye_after_ack)
        elif self.phase is Phase.UP:
            sdp = ack.sdp if waiting.carries_offer else None
            if waiting.initial:
                self._emit(Acknowledged(sdp))
            elif waiting.carries_offer:
                self._emit(ReofferAnswered(sdp))

    # Responses of the peer.

    def _on_response(self, response: Response) -> None:
        if (ack := self._acks.get((response.to_tag or "", response.cseq.number))) and _is_invite_success(response):
            self._emit(ack)
            return
        branch = response.via.branch
        sent = self._sent.get(branch)
        if sent is None or response.status < 200:
            return
        del self._sent[branch]
        self._on_outcome(sent, response.status, response.reason, response)

    def _on_outcome(self, sent: _Sent, status: int, reason: str, response: Response | None) -> None:
        """The end of a request of ours; `response` is None when the layer gave up."""
        method = sent.request.method
        if response is not None and self._retry_with_credentials(sent, response):
            return
        if status == 481 or (status == 408 and method in ("INVITE", "UPDATE")):
            self._own_offer = None if method == "INVITE" else self._own_offer
            if self.phase is Phase.UP:
                self._hang_up(tuple(self.hangup_headers.items()), RemoteHangUp(reason))
        elif method == "INVITE":
            self._on_reinvite_outcome(sent, status, reason, response)
        elif method == "UPDATE":
            if status < 300 and response is not None and self.phase is Phase.UP:
                self._refresh_target(response, sent.remote_tag)
                self._session_answered(response)
        elif method != "BYE" and self.phase is Phase.UP:
            self._emit(RequestAnswered(method, status, reason))

    def _on_reinvite_outcome(self, sent: _Sent, status: int, reason: str, response: Response | None) -> None:
        if status < 300 and response is not None:
            self._refresh_target(response, sent.remote_tag)
            self._send_ack(sent.request, sent.remote_tag)
            self._own_offer = None
            if self.phase is Phase.UP:
                self._session_answered(response)
                self._emit(ReofferAnswered(response.sdp))
        elif status == 491 and self.phase is Phase.UP:
            # RFC 3261 §14.1: whoever made the Call-ID waits 2.1 to 4 s, the other up to 2 s.
            dialog = self._dialogs[sent.remote_tag]
            self._postponed_offer, self._own_offer = self._own_offer, None
            wait = self.agent.random() * (1.9 if dialog.role == "UAC" else 2.0)
            self._arm(Timer.REOFFER_AGAIN, wait + (2.1 if dialog.role == "UAC" else 0.0))
        else:
            self._own_offer = None
            if self.phase is Phase.UP:
                self._emit(ReofferRefused(status, reason))

    def _retry_with_credentials(self, sent: _Sent, response: Response) -> bool:
        """Send a challenged request once more, with credentials; False when that is not possible."""
        if self.credentials is None or not is_challenge(response) or self._unwanted(sent.request):
            return False
        dialog = self._dialogs[sent.remote_tag].raised()
        again = with_credentials(sent.request, response, self.credentials, self.agent, dialog.local_cseq, sent.tries)
        if again is None:
            return False
        self._dialogs[sent.remote_tag] = dialog
        self._sent[again.via.branch] = replace(sent, request=again, tries=sent.tries + 1)
        self._emit(SendRequest(again, sent.next_hop))
        return True

    def _unwanted(self, request: Request) -> bool:
        """Whether the call ended meanwhile, so that only its BYE is worth another try."""
        return self.phase is Phase.ENDED and request.method != "BYE"

    # Time.

    def _on_timer(self, timer: Timer) -> None:
        match timer:
            case Timer.RESEND_2XX:
                self._resend_2xx()
            case Timer.ACK_WAIT:
                self._give_up_on_ack()
            case Timer.REOFFER_AGAIN:
                self._offer_again()
            case Timer.SESSION_END:
                self._hang_up(tuple(self.hangup_headers.items()), SessionExpired())
            case Timer.SESSION_REFRESH:
                self._send("UPDATE")
                self._arm(Timer.SESSION_REFRESH, self._session_s / 2)
            case Timer.LINGER:
                self._finished = True
                self._timers.clear()
            case Timer.PROVISIONAL_AGAIN:
                pass

    def _offer_again(self) -> None:
        """After a 491: our offer once more, as soon as the peer's own is through."""
        if self._negotiating:
            self._arm(Timer.REOFFER_AGAIN, OFFER_RECHECK_S)
        elif (offer := self._postponed_offer) is not None:
            self._own_offer, self._postponed_offer = offer, None
            self._send("INVITE", offer, SDP)

    def _await_ack(self, response: Response, *, carries_offer: bool, initial: bool) -> None:
        t1 = self.agent.timers.t1
        self._unacknowledged = _Unacknowledged(response, response.cseq.number, t1, carries_offer, initial)
        self._arm(Timer.RESEND_2XX, t1)
        self._arm(Timer.ACK_WAIT, self.agent.timers.t1_x64)

    def _resend_2xx(self) -> None:
        if (waiting := self._unacknowledged) is not None:
            waiting.retransmit_interval = min(2 * waiting.retransmit_interval, self.agent.timers.t2)
            self._emit(SendResponse(waiting.response))
            self._arm(Timer.RESEND_2XX, waiting.retransmit_interval)

    def _give_up_on_ack(self) -> None:
        self._unacknowledged = None
        self._disarm(Timer.RESEND_2XX)
        if self._bye_after_ack is not None:
            self._send_bye(self._bye_after_ack)
        elif self.phase is Phase.UP:
            self._send_bye(tuple(self.hangup_headers.items()))
            self._end(AckMissing())

    # Ends.

    def _hang_up(self, headers: tuple[tuple[str, str], ...], effect: SessionEffect | None = None) -> None:
        if self._unacknowledged is not None and self._unacknowledged.initial:
            self._bye_after_ack = headers
        else:
            self._send_bye(headers)
        self._end(effect)

    def _send_bye(self, headers: HeaderItems = (), remote_tag: str | None = None) -> None:
        self._bye_after_ack = None
        self._send("BYE", headers=headers, remote_tag=remote_tag)
        if self.phase is Phase.ENDED:
            self._arm(Timer.LINGER, self.agent.timers.t1_x64)

    def _end(self, effect: SessionEffect | None) -> None:
        """The call is over; an open re-INVITE is answered (RFC 3261 §15.1.2), late messages still are."""
        self.phase = Phase.ENDED
        if self._remote_offer is not None:
            self._reply(self._remote_offer, 487)
            self._remote_offer = None
        if self._bye_after_ack is None:
            self._unacknowledged = None
        kept = (Timer.RESEND_2XX, Timer.ACK_WAIT) if self._unacknowledged is not None else ()
        self._disarm(*(timer for timer in Timer if timer not in kept))
        self._arm(Timer.LINGER, self.agent.timers.t1_x64)
        if effect is not None:
            self._emit(effect)

    # Messages of ours.

    def _send_user_request(
        self, method: str, body: bytes, content_type: str, headers: HeaderItems, now: float
    ) -> list[SessionEffect]:
        self._now = now
        if self.phase is not Phase.UP:
            raise LocalProtocolError(f"{method} needs an established call")
        self._send(method, body, content_type, headers)
        return self._drain()

    def _send(
        self,
        method: str,
        body: bytes = b"",
        content_type: str | None = None,
        headers: HeaderItems = (),
        remote_tag: str | None = None,
    ) -> None:
        """Send a new request inside a dialog, by default the call's; `headers` are the client's."""
        tag = self._chosen if remote_tag is None else remote_tag
        assert tag is not None
        dialog = self._dialogs[tag] = self._dialogs[tag].raised()
        request = dialog.request(method, dialog.local_cseq, self.agent.new_via())
        items = [*request.headers.lines()]
        if method in ("INVITE", "UPDATE"):
            items += [("Contact", str(self.contact)), ("Allow", ALLOW), *self._session_request_headers()]
        elif method != "BYE":
            items.append(("Contact", str(self.contact)))
        items.append(("User-Agent", self.agent.user_agent))
        items += custom(headers)
        if body and content_type:
            items.append(("Content-Type", content_type))
        request = replace(request, headers=Headers(items), body=body)
        self._sent[request.via.branch] = _Sent(request, dialog.next_hop, tag)
        self._emit(SendRequest(request, dialog.next_hop))

    def _send_ack(self, invite: Request, remote_tag: str) -> None:
        """Acknowledge a 2xx, with the INVITE's credentials (RFC 3261 §13.2.2.4), and keep the ACK for copies."""
        dialog = self._dialogs[remote_tag]
        ack = dialog.request("ACK", invite.cseq.number, self.agent.new_via())
        proofs = [line for line in invite.headers.lines() if line[0] in ("Authorization", "Proxy-Authorization")]
        ack = replace(ack, headers=Headers([*ack.headers.lines(), *proofs]))
        sending = self._acks[(remote_tag, invite.cseq.number)] = SendAck(ack, dialog.next_hop)
        self._emit(sending)

    def _reply(
        self, request: Request, status: int, reason: str | None = None, headers: HeaderItems = (), body: bytes = b""
    ) -> None:
        self._emit(SendResponse(response_to(request, status, reason, self._local_tag(), headers, body)))

    def _local_tag(self) -> str | None:
        return next((dialog.local_tag for dialog in self._dialogs.values()), None)

    def _dialog_headers(self) -> list[tuple[str, str]]:
        return [("Contact", str(self.contact)), ("Allow", ALLOW), ("Supported", SUPPORTED)]

    def _retry_after(self) -> tuple[str, str]:
        return ("Retry-After", str(int(self.agent.random() * 11)))

    def _refresh_target(self, message: Message, remote_tag: str | None = None) -> None:
        tag = remote_tag if remote_tag is not None else (message.from_tag or "")
        self._dialogs[tag] = self._dialogs[tag].refreshed(message)

    def _take_remote_offer(self) -> Request:
        request, self._remote_offer = self._remote_offer, None
        if request is None:
            raise LocalProtocolError("the peer has no offer open")
        return request

    # Session timers, RFC 4028: the peer may ask for them and refreshes, unless it asks us to.

    def _session_refused(self, request: Request) -> bool:
        """Answer 422 to a session interval that is too short."""
        asked = session_interval(request)
        if asked is None or asked[0] >= MIN_SESSION_S:
            return False
        self._reply(request, 422, headers=[("Min-SE", str(MIN_SESSION_S))])
        return True

    def _session_headers(self, request: Request) -> list[tuple[str, str]]:
        """The headers of a 2xx that agree to the session timer the request asks for, which starts now."""
        asked = session_interval(request)
        if asked is None or "timer" not in option_tags(request, "Supported", "Require"):
            self._start_session(0, we_refresh=False)
            return []
        self._start_session(asked[0], we_refresh=asked[1] == "uas")
        if self._we_refresh:
            return [("Session-Expires", f"{asked[0]};refresher=uas")]
        return [("Require", "timer"), ("Session-Expires", f"{asked[0]};refresher=uac")]

    def _session_request_headers(self) -> list[tuple[str, str]]:
        """What keeps a running session timer, and its refresher, through a re-INVITE or UPDATE of ours."""
        if not self._session_s:
            return []
        refresher = "uac" if self._we_refresh else "uas"
        return [("Supported", SUPPORTED), ("Session-Expires", f"{self._session_s};refresher={refresher}")]

    def _session_answered(self, response: Response) -> None:
        """Go by what a 2xx to our re-INVITE or UPDATE says of the session timer; silence turns it off."""
        granted = session_interval(response) if self._session_s else None
        if granted is None:
            self._start_session(0, we_refresh=False)
        else:
            self._start_session(granted[0], we_refresh=granted[1] == "uac")

    def _start_session(self, interval_s: int, *, we_refresh: bool) -> None:
        self._disarm(Timer.SESSION_END, Timer.SESSION_REFRESH)
        self._session_s, self._we_refresh = interval_s, we_refresh
        if interval_s and we_refresh:
            self._arm(Timer.SESSION_REFRESH, interval_s / 2)
        elif interval_s:
            # RFC 4028 §10: BYE a third of the interval before its end, at most 32 s before.
            self._arm(Timer.SESSION_END, interval_s - min(32.0, interval_s / 3))

    def _arm(self, timer: Timer, after: float) -> None:
        self._timers[timer] = self._now + after

    def _disarm(self, *timers: Timer) -> None:
        for timer in timers:
            self._timers.pop(timer, None)

    def _emit(self, effect: SessionEffect) -> None:
        self._effects.append(effect)

    def _drain(self) -> list[SessionEffect]:
        effects, self._effects = self._effects, []
        return effects


def _is_invite_success(response: Response) -> bool:
    return response.cseq.method == "INVITE" and 200 <= response.status < 300
