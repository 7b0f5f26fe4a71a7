"""One SIP leg of a call: its dialog, its SDP on both sides, and what it tells the call's owner.

The main leg of a SIP call is one, and so is the second leg of a transfer, whatever the type of the call. The dialog
itself is of `sip_ua.sip`; this is its shell: it finds the way to a callee, makes offers and answers, and
answers a re-INVITE on the spot.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from pydantic import TypeAdapter

from dialbus import sdp, telemetry
from dialbus.config import Config
from dialbus.contracts.media import MAIN_LEG, RemoteMedia
from dialbus.contracts.options import SipOption
from dialbus.quiet import quiet
from sip_ua.call import inputs
from sip_ua.call.effects import Dial
from sip_ua.call.inputs import Input
from sip_ua.errors import BadAddress
from sip_ua.leg import outbound, translate
from sip_ua.leg.offer_answer import OfferAnswer
from sip_ua.sip import session_effects as sip
from sip_ua.sip.agent import Agent, LocalProtocolError
from sip_ua.sip.credential_policy import CredentialPolicy
from sip_ua.sip.message import Request
from sip_ua.sip.transaction_layer import Address
from sip_ua.sip.uac import UacSession
from sip_ua.sip.uas import UasSession
from sip_ua.sip.uri import NameAddr
from sip_ua.ua.traffic import LegName
from sip_ua.ua.transaction_user import TransactionUser
from sip_ua.ua.transport import is_ip, resolve
from sip_ua.ua.user_agent import UserAgent

log = telemetry.get_logger()


@dataclass(frozen=True, slots=True)
class NextHop:
    """The way to a callee: who we are there, and whom it is about."""

    plan: outbound.Plan
    agent: Agent
    caller: NameAddr
    contact: NameAddr


_DIAL: TypeAdapter[Dial | None] = TypeAdapter(Dial | None)


class _Of(TypedDict):
    leg: str
    generation: int


class SipLeg:
    """One leg, placed by us (`plan`, `describe`, `invite`) or by a caller (`take`)."""

    def __init__(
        self, ua: UserAgent, config: Config, tell: Callable[[Input], None], call_id: str, leg_id: str = MAIN_LEG,
        generation: int = 0,
    ) -> None:  # fmt: skip
        """`tell` hears what happens, from within the datagram's handling: it must not wait."""
        self.call_id = call_id
        self.leg_id = leg_id
        self.generation = generation
        self.peer_host = "127.0.0.1"
        self.media = OfferAnswer(translate.codecs(config.codecs), secrets.randbits(31))
        """The SDP on both sides."""
        self._ua = ua
        self._config = config
        self._tell = tell
        self._user: TransactionUser | None = None
        self._core: UacSession | UasSession | None = None
        self._dial: Dial | None = None
        self._plan: outbound.Plan | None = None
        self._next_hop: NextHop | None = None
        self._option: SipOption | None = None
        """What a client's `accept` said of SIP."""
        self._of = _Of(leg=leg_id, generation=generation)
        """What every input of the leg says."""

    def __repr__(self) -> str:
        core = "no dialog" if self._core is None else self._core.state.value
        return f"<leg {self.leg_id} of {self.call_id}, {core}, sdp {self.media.version}>"

    def take(self, invite: Request, source: Address, tag: str) -> None:
        """Be the leg of an INVITE, which is answered 100, or refused at once (`is_over`)."""
        self.peer_host = source.host
        core = UasSession(self._ua.agent_towards(source.host), invite, tag)
        self._join(core).perform(core.start(self._ua.now()))

    def _join(self, core: UacSession | UasSession) -> TransactionUser:
        """Let the dialog take part in what the user agent hears."""
        self._core = core
        leg = LegName(self.call_id, self.leg_id)
        self._user = self._ua.add(core, core.call_id, core.local_tag, self._on_sip, leg)
        return self._user

    # -- its state as data ------------------------------------------------------------------------

    def to_state(self, now: float) -> dict[str, Any]:
        """All of it as a JSON object, its dialog included; moments are relative to `now`. It holds secrets."""
        return {
            "leg": self.leg_id,
            "generation": self.generation,
            "peer_host": self.peer_host,
            "dial": _DIAL.dump_python(self._dial, mode="json", by_alias=True, exclude_unset=True),
            "found": self._next_hop is not None,
            "sip": None if self._option is None else self._option.model_dump(mode="json", exclude_unset=True),
            "media": self.media.to_state(),
            "session": None if self._core is None else self._core.to_state(now),
        }

    @classmethod
    def from_state(
        cls, ua: UserAgent, config: Config, tell: Callable[[Input], None], call_id: str, state: Mapping[str, Any],
        now: float,
    ) -> "SipLeg":  # fmt: skip
        """The leg that `to_state` told, heard by this user agent; `now` is, on its clock, the moment it was told.

        Raises pydantic.ValidationError or KeyError when that is no state of a leg.
        """
        leg = cls(ua, config, tell, call_id, state["leg"], state["generation"])
        leg.peer_host = state["peer_host"]
        leg.media = OfferAnswer.from_state(state["media"])
        leg._option = None if state["sip"] is None else SipOption.model_validate(state["sip"])
        dial = _DIAL.validate_python(state["dial"])
        if dial is not None:
            leg._dial, leg._plan = dial, outbound.plan(dial.caller, dial.callee, dial.sip, config)
            if state["found"]:
                leg._go_by(leg._plan, leg.peer_host)
        if (session := state["session"]) is not None:
            agent = ua.agent_towards(leg.peer_host)
            core: UacSession | UasSession
            if session["role"] == "UAC":
                core = UacSession.from_state(session, agent, now, leg._policy())
            else:
                core = UasSession.from_state(session, agent, now)
            leg._join(core).perform([])  # sets its timer
        return leg

    def _policy(self) -> CredentialPolicy | None:
        """What our requests in the dialog may prove who we are with, and to whom; passwords are not stored with it."""
        grant = None if self._plan is None else self._plan.grant(self.peer_host)
        return None if grant is None else CredentialPolicy(grant, self._ua.realms if grant.account else None)

    # -- what may be asked ------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the dialog has ended, though the owner may not have seen why yet."""
        return self._core is not None and self._core.is_over

    @property
    def remote(self) -> RemoteMedia | None:
        """What offer and answer agreed on, and what vouches for its address."""
        acknowledged = not isinstance(self._core, UasSession) or self._core.is_acknowledged
        return translate.vouched(self.media.remote, self.peer_host, acknowledged=acknowledged)

    @property
    def invite_received(self) -> Request | None:
        """The caller's INVITE."""
        return self._core.invite if isinstance(self._core, UasSession) else None

    # -- before there is media --------------------------------------------------------------------

    def plan(self, dial: Dial) -> bool:
        """Whom to call, and as whom (protocol 5.1); False when `resolve` has to follow. Raises SipUaError."""
        if dial.sip_call_id is not None and not translate.is_any_call_id(dial.sip_call_id):
            raise BadAddress(f"not a Call-ID: {dial.sip_call_id[:64]!r}")
        self._dial = dial
        self._plan = plan = outbound.plan(dial.caller, dial.callee, dial.sip, self._config)
        if not is_ip(plan.callee.uri.host):
            return False
        self._go_by(plan, plan.callee.uri.host)
        return True

    async def resolve(self) -> None:
        """Ask the DNS for the callee's host. Raises SipUaError."""
        assert self._plan is not None
        uri = self._plan.callee.uri
        self._go_by(self._plan, (await resolve(uri.host, uri.port)).host)

    def _go_by(self, plan: outbound.Plan, host: str) -> None:
        self.peer_host, agent = host, self._ua.agent_towards(host)
        self._next_hop = NextHop(plan, agent, plan.caller(agent), plan.contact(agent))

    def check_offer(self) -> None:
        """Find out whether the caller's offer can be answered before anybody is asked. Raises sdp.SdpError."""
        if (offer := self._received_offer) is not None:
            self.media.check(offer)

    def describe(self, address: str, port: int) -> str:
        """Our answer to the caller's offer, or our own offer, once the media's address is known."""
        self.media.address, self.media.port = address, port
        self.media.describe(self._received_offer)
        return self.media.local_sdp.decode()

    @property
    def _received_offer(self) -> bytes | None:
        return (invite.body or None) if (invite := self.invite_received) is not None else None

    # -- what the owner wants ---------------------------------------------------------------------

    def invite(self, default_call_id: str) -> None:
        """Place the call that `plan` prepared."""
        assert self._next_hop is not None
        assert self._dial is not None
        option, suffix = self._dial.sip, self._config.ua.callid_suffix
        call_id = f"{default_call_id}@{suffix}" if suffix else default_call_id
        core = UacSession(
            self._next_hop.agent,
            self._next_hop.caller,
            self._next_hop.plan.callee,
            call_id=self._dial.sip_call_id or call_id,
            sdp=self.media.local_sdp,
            contact=self._next_hop.contact,
            policy=self._policy(),
            headers={**self._dial.headers, **((option and option.headers) or {})},
            hangup_headers=_hangup_headers(option),
            ringing_limit_s=self._dial.ringing_limit_s,
        )
        self._join(core).perform(core.start(self._ua.now()))
        caller, callee = self._next_hop.caller.uri.without_password(), self._next_hop.plan.callee.uri.without_password()
        log.info("call.dialing", caller=str(caller), callee=str(callee))

    def ring(self, *, early_media: bool) -> None:
        """180, or 183 with our SDP. Nothing once answered or over."""
        if isinstance(self._core, UasSession):
            self._perform(self._core.ring(self._ua.now(), self.media.local_sdp if early_media else None))

    def answer(self, option: SipOption | None) -> None:
        """200 with our SDP. Nothing when the caller has gone."""
        core = self._core
        if isinstance(core, UasSession) and core.is_pending:
            self._option = option
            core.hangup_headers = _hangup_headers(option)
            self._perform(core.answer(self.media.local_sdp, self._ua.now()))

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

    def _on_sip(self, effect: Any) -> None:
        with telemetry.bound(call_id=self.call_id, leg_id=self.leg_id):
            self._hear(effect)

    def _hear(self, effect: Any) -> None:
        match effect:
            case sip.Progress():
                self._on_progress(effect)
            case sip.Answered():
                self._on_answered(effect)
            case sip.Refused(503, _, local=True):
                self._tell(inputs.LegFailed("the callee can't be reached", 503, **self._of))
            case sip.Refused(status, reason, local):
                self._tell(inputs.LegRefused(status, reason, local, **self._of))
            case sip.Cancelled() if isinstance(self._core, UasSession):
                self._tell(inputs.LegCancelled(**self._of))
            case sip.RemoteHangUp() | sip.SessionExpired():
                self._tell(inputs.LegHungUp(**self._of))
            case sip.AckMissing():
                self._tell(inputs.LegFailed("our answer was never acknowledged", 408, **self._of))
            case sip.Acknowledged(body) | sip.ReofferAnswered(body):
                self._on_answer(body)
            case sip.Reoffered(body, _):
                self._on_reoffer(body)
            case sip.DtmfReceived(digit, _):
                self._tell(inputs.LegDigit(digit.upper(), **self._of))
            case sip.MessageReceived(content_type, body):
                self._tell(inputs.LegMessage(body.decode(errors="replace"), content_type, **self._of))
            case sip.TransferRequested(refer_to, referred_by):
                self._tell(inputs.LegTransferAsked(refer_to, referred_by, **self._of))
            case sip.RequestAnswered("MESSAGE", status, reason):
                if status >= 300:
                    self._tell(inputs.MessageRefused(status, reason, **self._of))
            case _:
                log.debug("call.sip", effect=type(effect).__name__)

    def _on_progress(self, progress: sip.Progress) -> None:
        remote = None
        if progress.sdp is not None:
            try:
                self.media.take_early_answer(progress.sdp, progress.remote_tag)
                remote = self.remote
            except sdp.SdpError as error:
                quiet.log(log.warning, "call.early_sdp_unusable", error=str(error))
        self._tell(inputs.LegProgressed(remote, **self._of))

    def _on_answered(self, answered: sip.Answered) -> None:
        """A 200 without usable SDP was acknowledged by the core; hang up and say 488 (O6)."""
        try:
            body = self.media.take_final_answer(answered.sdp, answered.remote_tag)
        except sdp.SdpError as error:
            quiet.log(log.warning, "call.answer_sdp_unusable", error=str(error))
            self.hang_up()
            self._tell(inputs.LegRefused(488, "Not Acceptable Here", **self._of))
            return
        remote = self.remote
        assert remote is not None
        self._tell(inputs.LegAnswered(body, remote, **self._of))

    def _on_answer(self, body: bytes | None) -> None:
        """The answer to an offer of ours (delayed offer, re-INVITE without SDP), or a plain ACK."""
        if body is None:
            if self.media.needs_answer:
                self._tell(inputs.LegFailed("our offer was never answered", 488, **self._of))
            elif self.media.is_elsewhere(self.peer_host):
                self._media_changed()  # media may go there now
            return
        try:
            self.media.take_answer(body)
        except sdp.SdpError as error:
            self._tell(inputs.LegFailed(f"the answer in the ACK is unusable: {error}", 488, **self._of))
            return
        self._media_changed()

    def _on_reoffer(self, body: bytes | None) -> None:
        """A re-INVITE or UPDATE: answer it here and now, then let media and the client know."""
        assert self._core is not None
        now = self._ua.now()
        try:
            self.media.describe(body)
        except sdp.SdpError as error:
            quiet.log(log.warning, "call.reoffer_refused", error=str(error))
            self._perform(self._core.refuse_reoffer(now))
            return
        self._perform(self._core.answer_reoffer(self.media.local_sdp, now))
        if body is not None:
            self._media_changed()

    def _media_changed(self) -> None:
        if (remote := self.remote) is not None:
            self._tell(inputs.MediaChanged(remote, self.media.hold_changed(), **self._of))


def _hangup_headers(option: SipOption | None) -> dict[str, str]:
    """What every BYE of the leg carries (protocol 5.10)."""
    return dict((option and option.hangup_headers) or {})
