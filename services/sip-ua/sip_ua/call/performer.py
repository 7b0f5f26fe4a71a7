"""Doing what a call machine wants: on the bus, with the media worker, with the call's SIP legs.

What could keep the call waiting for somebody (a media worker, a DNS server, another call) runs beside it; whatever
comes of that is an input, failures included.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from dialbus import sdp, telemetry
from dialbus.bus import BusError, NoResponder, Refused
from dialbus.contracts import media, session
from dialbus.contracts.events import HangupEvent
from dialbus.contracts.media import MAIN_LEG
from dialbus.tasks import TaskSet
from sip_ua.call import effects, inputs
from sip_ua.call.books import CallBooks
from sip_ua.call.effects import Effect
from sip_ua.call.host import Host
from sip_ua.call.inputs import Input
from sip_ua.call.lost_tracks import end_lost_tracks
from sip_ua.call.machine import CallMachine
from sip_ua.call.media_link import WEBRTC_TIMEOUT_S, MediaGone, MediaLink
from sip_ua.call.requests import CallRequests
from sip_ua.errors import SipUaError
from sip_ua.leg import translate
from sip_ua.leg.sip_leg import SipLeg
from sip_ua.sip.agent import LocalProtocolError
from sip_ua.ua.user_agent import new_token

log = telemetry.get_logger()

BRIDGE_TIMEOUT_S = 5.0
"""The other call may be busy."""
SETTLE_S = max(BRIDGE_TIMEOUT_S, WEBRTC_TIMEOUT_S) + 1.0
"""How long what runs beside a call may outlive it."""
_BROKEN = "internal error"


class Performer:
    """The hands of one call. `perform` gives what follows at once; `put` takes what follows later."""

    def __init__(
        self, host: Host, machine: CallMachine, link: MediaLink, books: CallBooks, requests: CallRequests,
        put: Callable[[Input], None],
    ) -> None:  # fmt: skip
        self.legs: dict[str, SipLeg] = {}
        """The SIP legs by their ids; a WebRTC or `/call` call has no main one."""
        self._host = host
        self._machine = machine
        self._link = link
        self._books = books
        self._requests = requests
        self._put = put
        self._beside = TaskSet()
        self._last_sequence = 0
        """Of the call's last event of ours in the stream."""

    @property
    def _call_id(self) -> str:
        return self._machine.call.call_id

    async def perform(self, effect: Effect) -> Input | None:
        """Do it; an input that is to be taken before anything else is done."""
        match effect:
            case effects.Emit(HangupEvent(refer=False) as event):
                await self._books.last_words(event)
            case effects.Emit(event):
                self._last_sequence = await self._host.bus.emit(self._call_id, event)
            case effects.Ask(command):
                return await self._ask(command)
            case effects.AllocateMedia():
                return self._allocate(effect)
            case effects.CloseMedia(leg_id):
                if not await self._link.close(leg_id) and leg_id == MAIN_LEG:
                    return inputs.MediaNotClosed()
            case effects.EndLostTracks(ours):
                await self._end_lost_tracks(ours)
            case effects.TakeUp(command):
                return inputs.ClientSaid(command)
            case effects.Finish():
                await self._books.write_record()
            case effects.AskBridge() | effects.AnswerBridge() | effects.LeaveBridge():
                self._bridge(effect)
            case effects.FindCallee():
                return self._find(effect)
            case effects.Announce():
                await self._announce()
            case _:
                return self._signal(effect)
        return None

    async def _announce(self) -> None:
        invite = self.legs[MAIN_LEG].invite_received
        assert invite is not None
        await self._books.announce(invite, self._last_sequence)

    # -- beside the call --------------------------------------------------------------------------

    def _do_beside(self, name: str, work: Coroutine[Any, Any, Input | None], otherwise: Input | None) -> None:
        """Run work whose outcome is an input; `otherwise` is that of work that breaks."""
        self._beside.start(self._outcome(name, work, otherwise), name=f"{name} of call {self._call_id}")

    async def _outcome(self, name: str, work: Coroutine[Any, Any, Input | None], otherwise: Input | None) -> None:
        try:
            outcome = await work
        except Exception:  # the boundary: the call learns of it, and goes on or ends as for any failure
            log.exception("call.beside_failed", work=name)
            outcome = otherwise
        if outcome is not None:
            self._put(outcome)

    async def settle(self) -> None:
        """After the call: wait for what was begun beside it, though not for a slow DNS; give back what came of it."""
        await self._beside.wait(SETTLE_S)
        await self._beside.close()
        await self._link.close_all()

    # -- media ------------------------------------------------------------------------------------

    def _allocate(self, wanted: effects.AllocateMedia) -> Input | None:
        """Find a worker and make our SDP; what can't work is found out before a worker is asked."""
        leg = self.legs.get(wanted.leg)
        if leg is not None and wanted.kind == "rtp":
            try:
                leg.check_offer()
            except sdp.SdpError as error:
                return inputs.MediaRefused(488, str(error), wanted.leg)
        otherwise = inputs.MediaRefused(500, _BROKEN, wanted.leg)
        self._do_beside("allocation", self._allocated(wanted, leg), otherwise)
        return None

    async def _allocated(self, wanted: effects.AllocateMedia, leg: SipLeg | None) -> Input:
        try:
            allocated = await self._link.allocate(self._allocation(wanted, leg))
        except Refused as refused:
            return inputs.MediaRefused(refused.code, refused.reason, wanted.leg)
        answer = allocated.sdp or ""
        if leg is None:
            return inputs.MediaReady(allocated.ssrc, answer, leg=wanted.leg)
        if wanted.kind == "webrtc":
            leg.media.foreign = answer
        else:
            answer = leg.describe(allocated.address, allocated.port)
        return inputs.MediaReady(allocated.ssrc, answer, leg.remote, wanted.leg)

    def _allocation(self, wanted: effects.AllocateMedia, leg: SipLeg | None) -> media.AllocateLeg:
        call = self._machine.call
        peer_host = leg.peer_host if leg is not None else None
        if wanted.leg != MAIN_LEG:
            return media.AllocateBeside(
                call_id=self._call_id,
                leg_id=wanted.leg,
                main_track=call.server_track,
                server_track=self._call_id,  # what the third party hears is the first one
                refer=True,
                remote_host=peer_host,
            )
        option = call.option
        offer = call.offer.sdp if call.offer is not None else option.offer
        handshake_s = option.handshake_timeout
        return media.AllocateLeg(
            call_id=self._call_id,
            kind=wanted.kind,
            main_track=self._call_id,
            server_track=call.server_track,
            remote_host=peer_host,
            offer=offer if wanted.kind == "webrtc" else None,
            enable_ipv6=option.enable_ipv6,
            handshake_timeout_s=15.0 if handshake_s is None else handshake_s,
            codec=option.codec or "pcm",
            rate_hz=option.sample_rate or 16000,
        )

    async def _ask(self, command: media.LegCommand) -> Input | None:
        """A request to the worker; what it refuses becomes an `error` event, its absence the end of the call."""
        try:
            await self._link.tell(command)
        except Refused as refused:
            return inputs.CommandRefused(refused.code, refused.reason)
        except MediaGone:
            return inputs.MediaLost("the media worker is gone")
        return None

    async def _end_lost_tracks(self, ours: tuple[str, ...]) -> None:
        first = await self._books.first_sequence()
        last = self._last_sequence
        await end_lost_tracks(self._host.bus, self._call_id, ours, first_sequence=first, last_sequence=last)

    # -- other calls ------------------------------------------------------------------------------

    def _bridge(self, effect: effects.AskBridge | effects.AnswerBridge | effects.LeaveBridge) -> None:
        other = effect.other
        match effect:
            case effects.AskBridge():
                broken = inputs.BridgeRefused(other, 500, _BROKEN)
                self._do_beside(f"bridge to {other}", self._asked_bridge(other), broken)
            case effects.AnswerBridge(_, objection):
                self._requests.answer_bridge(other, objection)
            case effects.LeaveBridge():
                self._do_beside(f"end of bridge to {other}", self._left_bridge(other), None)

    async def _asked_bridge(self, other: str) -> Input:
        """Ask the owner of the other call for its half."""
        wanted = session.BridgeWanted(call_id=other, other=self._call_id, on=True)
        try:
            await self._host.bus.request(wanted, timeout_s=BRIDGE_TIMEOUT_S)
        except NoResponder:
            return inputs.BridgeRefused(other, 404, f"no such session: {other}")
        except Refused as refused:
            return inputs.BridgeRefused(other, refused.code, refused.reason)
        except BusError as error:
            log.warning("call.bridge_unanswered", other=other, error=str(error))
            self._bridge(effects.LeaveBridge(other))
            return inputs.BridgeRefused(other, 503, f"the session does not answer: {other}")
        return inputs.BridgeAgreed(other)

    async def _left_bridge(self, other: str) -> None:
        """Tell the owner of the other call; one that is gone needs no telling."""
        over = session.BridgeWanted(call_id=other, other=self._call_id, on=False)
        try:
            await self._host.bus.request(over, timeout_s=BRIDGE_TIMEOUT_S)
        except NoResponder:
            pass
        except (BusError, Refused) as error:
            log.warning("call.bridge_end_not_told", other=other, error=str(error))

    # -- SIP legs ---------------------------------------------------------------------------------

    def _find(self, wanted: effects.FindCallee) -> Input | None:
        """The way to a callee; the call does not wait for the DNS."""
        leg_id, generation = wanted.leg, wanted.generation
        leg = SipLeg(self._host.ua, self._host.config, self._put, self._call_id, leg_id, generation)
        self.legs[leg_id] = leg
        try:
            if leg.plan(wanted.dial):
                return inputs.CalleeFound(leg=leg_id, generation=generation)
        except SipUaError as error:
            return inputs.LegImpossible(400, str(error), leg=leg_id, generation=generation)
        broken = inputs.LegImpossible(500, _BROKEN, leg=leg_id, generation=generation)
        self._do_beside("look-up of the callee", self._resolved(leg), broken)
        return None

    async def _resolved(self, leg: SipLeg) -> Input:
        try:
            await leg.resolve()
        except SipUaError as error:
            return inputs.LegImpossible(400, str(error), leg=leg.leg_id, generation=leg.generation)
        return inputs.CalleeFound(leg=leg.leg_id, generation=leg.generation)

    def _signal(self, effect: Effect) -> Input | None:
        """What concerns a SIP leg; calls of other types have no main one."""
        leg = self.legs.get(getattr(effect, "leg", MAIN_LEG))
        if leg is None:
            return None
        match effect:
            case effects.SendInvite(leg_id):
                leg.invite(self._sip_call_id(leg_id))
            case effects.SendRinging(early_media):
                leg.ring(early_media=early_media)
            case effects.SendAnswer(option):
                leg.answer(option)
            case effects.SendReject(code, reason):
                leg.reject(code, reason)
            case effects.SendBye(headers):
                leg.hang_up(headers)
            case effects.SendCancel():
                leg.hang_up()
            case effects.SendMessage():
                return self._message(leg, effect)
        return None

    def _message(self, leg: SipLeg, message: effects.SendMessage) -> Input | None:
        try:
            leg.message(message.body, message.content_type, message.headers)
        except LocalProtocolError:
            return inputs.CommandRefused(409, "message: the dialog is over")
        except ValueError as error:
            return inputs.CommandRefused(400, f"message: {error}")
        return None

    def _sip_call_id(self, leg_id: str) -> str:
        """The session id where it can be a Call-ID (protocol 2.1); `ref-{rand}-{session id}` for a second leg."""
        fits = translate.is_call_id(self._call_id)
        if leg_id == MAIN_LEG:
            return self._call_id if fits else new_token(24)
        return f"ref-{new_token(8)}-{self._call_id}" if fits else f"ref-{new_token(24)}"
