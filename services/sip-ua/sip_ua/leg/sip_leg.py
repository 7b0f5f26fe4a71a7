"""One SIP leg of a call: its dialog, its SDP on both sides, and what it tells the call's owner.

The main leg of a SIP call is one, and so is the second leg of a transfer, whatever the type of the call. The dialog
itself is of `sip_ua.sip`; this is its shell: it finds the way to a callee, makes offers and answers, and
answers a re-INVITE on the spot.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dialbus import telemetry
from dialbus.config import Config
from dialbus.contracts.media import RemoteMedia
from dialbus.contracts.options import SipOption
from sip_ua.call.effects import Dial
from sip_ua.errors import BadAddress
from sip_ua.leg import outbound
from sip_ua.leg import translate as bridge
from sip_ua.sip import sdp
from sip_ua.sip import session_effects as sip
from sip_ua.sip.agent import Agent, LocalProtocolError
from sip_ua.sip.message import Request
from sip_ua.sip.transaction_layer import Address
from sip_ua.sip.uac import UacSession
from sip_ua.sip.uas import UasSession
from sip_ua.sip.uri import NameAddr
from sip_ua.ua.transport import is_ip, resolve
from sip_ua.ua.user_agent import TransactionUser, UserAgent

log = telemetry.get_logger()


@dataclass(frozen=True, slots=True)
class Progressed:
    """18x to our INVITE."""

    early_media: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """200 to our INVITE; the SDP is the peer's and usable."""

    sdp: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer to our INVITE, for this reason. Final."""

    status: int
    reason: str
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A fault that is not the peer's word. Final."""

    reason: str
    status: int = 500


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller gave up. Final."""


@dataclass(frozen=True, slots=True)
class HungUp:
    """BYE, or the peer was lost. Final."""


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """Offer and answer agreed anew; `on_hold` is given when that changed."""

    on_hold: bool | None


@dataclass(frozen=True, slots=True)
class Digit:
    """A key by INFO."""

    digit: str


@dataclass(frozen=True, slots=True)
class MessageCame:
    """A MESSAGE in the dialog."""

    body: str
    content_type: str


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A MESSAGE of ours got no 2xx."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class TransferAsked:
    """A REFER in the dialog."""

    refer_to: str
    referred_by: str | None


Told = (
    Progressed | Answered | Refused | Failed | Cancelled | HungUp | MediaChanged | Digit | MessageCame
    | MessageRefused | TransferAsked
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Way:
    """To a callee: who we are there, and where its address is."""

    plan: outbound.Plan
    agent: Agent
    caller: NameAddr
    contact: NameAddr


class SipLeg:
    """One leg, placed by us (`plan`, `describe`, `invite`) or by a caller (`SipLeg.inbound`)."""

    def __init__(self, ua: UserAgent, config: Config, tell: Callable[["SipLeg", Told], None]) -> None:
        """`tell` hears what happens, from within the datagram's handling: it must not wait."""
        self.peer_host = "127.0.0.1"
        self._ua = ua
        self._config = config
        self._tell = tell
        self._user: TransactionUser | None = None
        self._core: UacSession | UasSession | None = None
        self._plan: outbound.Plan | None = None
        self._way: _Way | None = None
        self._dial: Dial | None = None
        self._address = ""
        self._port = 0
        self._local: sdp.Description | None = None
        self._foreign: bytes | None = None
        """Our SDP when a WebRTC leg made it."""
        self._sdp_id = secrets.randbits(31)
        self._sdp_version = 0
        self._agreed: sdp.NegotiatedAudio | None = None
        self._early: dict[str, tuple[sdp.NegotiatedAudio, bytes]] = {}
        self._on_hold = False

    @classmethod
    def inbound(
        cls, ua: UserAgent, config: Config, tell: Callable[["SipLeg", Told], None], invite: Request, source: Address,
        tag: str,
    ) -> "SipLeg":  # fmt: skip
        """The leg of an INVITE, which is answered 100, or refused at once (`is_over`)."""
        leg = cls(ua, config, tell)
        leg.peer_host = source.host
        core = UasSession(ua.agent_towards(source.host), invite, tag)
        leg._core = core
        leg._user = ua.add(core, invite.call_id, tag, leg._on_sip)
        leg._user.perform(core.start(ua.now()))
        return leg

    @property
    def is_over(self) -> bool:
        """Whether the dialog has ended, though the owner may not have seen why yet."""
        return self._core is not None and self._core.is_over

    @property
    def invite_received(self) -> Request | None:
        """The caller's INVITE."""
        return self._core.invite if isinstance(self._core, UasSession) else None

    @property
    def local_sdp(self) -> bytes:
        """Our latest offer or answer; empty before `describe`."""
        if self._foreign is not None:
            return self._foreign
        return sdp.write(self._local) if self._local is not None else b""

    @property
    def remote_media(self) -> RemoteMedia | None:
        """What offer and answer agreed on, for the media worker."""
        return bridge.remote_media(self._agreed) if self._agreed is not None else None

    # -- before there is media --------------------------------------------------------------------

    def plan(self, dial: Dial) -> bool:
        """Whom to call, and as whom (protocol 5.1); False when `look_up` has to follow. Raises SipUaError."""
        if dial.sip_call_id is not None and not bridge.is_any_call_id(dial.sip_call_id):
            raise BadAddress(f"not a Call-ID: {dial.sip_call_id[:64]!r}")
        self._dial = dial
        self._plan = plan = outbound.plan(dial.caller, dial.callee, dial.sip, self._config)
        if not is_ip(plan.callee.uri.host):
            return False
        self._take_way(plan, plan.callee.uri.host)
        return True

    async def look_up(self) -> None:
        """Ask the DNS for the callee's host. Raises SipUaError."""
        assert self._plan is not None
        uri = self._plan.callee.uri
        self._take_way(self._plan, (await resolve(uri.host, uri.port)).host)

    def _take_way(self, plan: outbound.Plan, host: str) -> None:
        self.peer_host = host
        agent = self._ua.agent_towards(host)
        self._way = _Way(plan, agent, plan.caller(agent), plan.contact(agent))

    def check_offer(self) -> None:
        """Find out whether the caller's offer can be answered before anybody is asked. Raises sdp.SdpError."""
        if (offer := self._received_offer()) is not None:
            sdp.negotiate(offer, self._codecs, "127.0.0.1", 9, self._sdp_id, 1)

    def describe(self, address: str, port: int) -> str:
        """Our answer to the caller's offer, or our own offer, once the media's address is known."""
        self._address, self._port = address, port
        self._describe(self._received_offer())
        return self.local_sdp.decode()

    def adopt(self, answer: str) -> None:
        """Our answer as a WebRTC leg made it."""
        self._foreign = answer.encode()

    @property
    def _codecs(self) -> tuple[sdp.Codec, ...]:
        return bridge.codecs(self._config.codecs)

    def _received_offer(self) -> sdp.Description | None:
        invite = self.invite_received
        return sdp.parse(invite.body) if invite is not None and invite.body else None

    def _describe(self, offer: sdp.Description | None) -> None:
        version = self._sdp_version + 1
        where = (self._address, self._port)
        if offer is None:
            self._local = sdp.make_offer(*where, self._codecs, self._sdp_id, version, previous=self._local)
        else:
            self._local, self._agreed = sdp.negotiate(offer, self._codecs, *where, self._sdp_id, version)
        self._sdp_version = version  # only now: a refused offer uses up no version (RFC 3264 §8)

    # -- what the owner wants ---------------------------------------------------------------------

    def invite(self, default_call_id: str) -> None:
        """Place the call that `plan` prepared."""
        assert self._way is not None
        assert self._dial is not None
        option, suffix = self._dial.sip, self._config.ua.callid_suffix
        call_id = f"{default_call_id}@{suffix}" if suffix else default_call_id
        core = UacSession(
            self._way.agent,
            self._way.caller,
            self._way.plan.callee,
            call_id=self._dial.sip_call_id or call_id,
            sdp=self.local_sdp,
            contact=self._way.contact,
            credentials=self._way.plan.credentials,
            headers={**self._dial.headers, **((option and option.headers) or {})},
            hangup_headers=_hangup_headers(option),
            ringing_limit_s=self._dial.ringing_limit_s,
        )
        self._core = core
        self._user = self._ua.add(core, core.call_id, core.local_tag, self._on_sip)
        self._user.perform(core.start(self._ua.now()))
        caller, callee = self._way.caller.uri.without_password(), self._way.plan.callee.uri.without_password()
        log.info("call.dialing", caller=str(caller), callee=str(callee))

    def ring(self, *, early_media: bool) -> None:
        """180, or 183 with our SDP. Nothing once answered or over."""
        if isinstance(self._core, UasSession):
            self._perform(self._core.ring(self._ua.now(), self.local_sdp if early_media else None))

    def answer(self, option: SipOption | None) -> None:
        """200 with our SDP. Nothing when the caller has gone."""
        core = self._core
        if isinstance(core, UasSession) and core.is_pending:
            core.hangup_headers = _hangup_headers(option)
            caller = core.invite.from_.uri.host
            core.credentials = bridge.credentials(option) or outbound.registered(caller, self._config.ua.register_users)
            self._perform(core.answer(self.local_sdp, self._ua.now()))

    def reject(self, code: int, reason: str | None) -> None:
        """A final refusal. Nothing once answered or over."""
        if isinstance(self._core, UasSession):
            self._perform(self._core.reject(self._ua.now(), code, reason))

    def hang_up(self, headers: Mapping[str, str] | None = None) -> None:
        """BYE or CANCEL, whichever the dialog needs: an answer may wait unseen in the owner's inbox."""
        if self._core is not None:
            self._perform(self._core.hang_up(self._ua.now(), headers))

    def message(self, body: str, content_type: str, headers: Mapping[str, str]) -> None:
        """A MESSAGE in the dialog. Raises LocalProtocolError unless up, ValueError for a bad content type."""
        if not content_type.isprintable():
            raise ValueError("contentType: control characters")
        if self._core is None:
            raise LocalProtocolError("MESSAGE needs an established call")
        self._perform(self._core.send_message(body.encode(), self._ua.now(), content_type, headers.items()))

    def _perform(self, effects: list[sip.SessionEffect]) -> None:
        assert self._user is not None
        self._user.perform(effects)

    # -- what the dialog tells --------------------------------------------------------------------

    def _say(self, told: Told) -> None:
        self._tell(self, told)

    def _on_sip(self, effect: Any) -> None:
        match effect:
            case sip.Progress():
                self._on_progress(effect)
            case sip.Answered():
                self._on_answered(effect)
            case sip.Refused(status, reason):
                assert self._user is not None
                if self._user.send_failed:
                    self._say(Failed("the callee can't be reached", 503))
                else:
                    self._say(Refused(status, reason, self._user.timed_out))
            case sip.Cancelled() if isinstance(self._core, UasSession):
                self._say(Cancelled())
            case sip.RemoteHangUp() | sip.SessionExpired():
                self._say(HungUp())
            case sip.AckMissing():
                self._say(Failed("our answer was never acknowledged", 408))
            case sip.Acknowledged(body) | sip.ReofferAnswered(body):
                if body is not None:
                    self._take_answer(body)
                elif self._agreed is None and self._foreign is None:
                    self._say(Failed("our offer was never answered", 488))
            case sip.Reoffered(body, _):
                self._on_reoffer(body)
            case sip.DtmfReceived(digit, _):
                self._say(Digit(digit.upper()))
            case sip.MessageReceived(content_type, body):
                self._say(MessageCame(body.decode(errors="replace"), content_type))
            case sip.TransferRequested(refer_to, referred_by):
                self._say(TransferAsked(refer_to, referred_by))
            case sip.RequestAnswered("MESSAGE", status, reason):
                if status >= 300:
                    self._say(MessageRefused(status, reason))
            case _:
                log.debug("call.sip", effect=type(effect).__name__)

    def _on_progress(self, progress: sip.Progress) -> None:
        early = False
        if progress.sdp is not None:
            try:
                self._agreed = self._accepted(progress.sdp)
                self._early[progress.remote_tag] = (self._agreed, progress.sdp)
                early = True
            except sdp.SdpError as error:
                log.warning("call.early_sdp_unusable", error=str(error))
        self._say(Progressed(early))

    def _on_answered(self, answered: sip.Answered) -> None:
        """A 200 without usable SDP was acknowledged by the core; hang up and say 488 (O6)."""
        try:
            if answered.sdp is not None:
                self._agreed, body = self._accepted(answered.sdp), answered.sdp
            elif answered.remote_tag in self._early:
                self._agreed, body = self._early[answered.remote_tag]
            else:
                raise sdp.SdpError("the answer has no SDP")
        except sdp.SdpError as error:
            log.warning("call.answer_sdp_unusable", error=str(error))
            self.hang_up()
            self._say(Refused(488, "Not Acceptable Here"))
            return
        self._say(Answered(body.decode(errors="replace")))

    def _accepted(self, body: bytes) -> sdp.NegotiatedAudio:
        assert self._local is not None
        return sdp.accept_answer(self._local, sdp.parse(body), self._codecs)

    def _take_answer(self, body: bytes) -> None:
        """The answer to an offer of ours (delayed offer, re-INVITE without SDP)."""
        try:
            self._agreed = self._accepted(body)
        except sdp.SdpError as error:
            self._say(Failed(f"the answer in the ACK is unusable: {error}", 488))
            return
        self._media_changed()

    def _on_reoffer(self, body: bytes | None) -> None:
        """A re-INVITE or UPDATE: answer it here and now, then let media and the client know."""
        assert self._core is not None
        now = self._ua.now()
        try:
            if self._foreign is not None:
                raise sdp.SdpError("a WebRTC leg is not negotiated anew")
            self._describe(None if body is None else sdp.parse(body))
        except sdp.SdpError as error:
            log.warning("call.reoffer_refused", error=str(error))
            self._perform(self._core.refuse_reoffer(now))
            return
        self._perform(self._core.answer_reoffer(self.local_sdp, now))
        if body is not None:
            self._media_changed()

    def _media_changed(self) -> None:
        assert self._agreed is not None
        on_hold, changed = self._agreed.on_hold, self._agreed.on_hold is not self._on_hold
        self._on_hold = on_hold
        self._say(MediaChanged(on_hold if changed else None))


def _hangup_headers(option: SipOption | None) -> dict[str, str]:
    """What every BYE of the leg carries (protocol 5.10)."""
    return dict((option and option.hangup_headers) or {})
