"""One SIP call: the call machine between a client's commands, the SIP leg and the media worker.

Inputs wait in one queue and are taken one by one; the effects of each are performed in order before the next is
looked at. That, and the stream's acknowledgement behind every event, keeps the orders of protocol section 4.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from prometheus_client import Counter, Gauge

from dialbus import call as machine
from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoReply, NoResponder, Refused, Subscription
from dialbus.call import CallMachine, Effect
from dialbus.config import Config
from dialbus.contracts import media, session
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.commands import BadCommand, ClientCommand, command_from
from dialbus.contracts.events import HangupEvent, TrackEnd
from dialbus.contracts.options import CallOption, SipOption, masked
from dialbus.contracts.session import CallState, CallType, Session
from dialbus.sessions import Sessions
from sip_ua import bridge, outbound
from sip_ua import call as sip
from sip_ua.errors import SipUaError
from sip_ua.sip import sdp
from sip_ua.sip.dialog import dialog_id
from sip_ua.sip.layer import Address
from sip_ua.sip.message import Request
from sip_ua.sip.uri import NameAddr
from sip_ua.transport import resolve
from sip_ua.ua import Party, UserAgent, new_token

log = telemetry.get_logger()

Act = Callable[[CallMachine, float], list[Effect]]

CALLS = Counter("dialbus_calls_total", "SIP calls that ended, by direction and reason", ["direction", "reason"])
LIVE = Gauge("dialbus_calls_live", "SIP calls owned by this instance")

MEDIA_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 1.5
LOST_TRACKS_WAIT_S = 2.0
WEBHOOK_MARGIN_S = 2.0
"""How much longer than the handler's timeout we wait for webhook-dispatcher's word."""
ABANDON_LIMIT_S = 5.0
"""How long a call that broke tries to tell its client."""
REPEAT_WINDOW_S = 60.0
"""How long a commandId is remembered."""


class Host(Protocol):
    """What a call needs of the service that runs it."""

    bus: Bus
    sessions: Sessions
    ua: UserAgent
    config: Config
    instance: str

    def over(self, call: "SipCall") -> None:
        """The call has ended; forget it."""


class SipCall:
    """One call owned by this sip-ua instance. `run()` is its task; it ends with the call."""

    def __init__(self, host: Host, call_id: str, *, created_at: str | None = None, server_track: str = "") -> None:
        self.call_id = call_id
        self.gateway: str | None = None
        self.media_worker: str | None = None
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._machine = CallMachine(
            call_id,
            CallType.SIP,
            started=self._loop.time(),
            epoch=_when(created_at),
            server_track=server_track or "server-side-track",
            accept_timeout_s=host.config.ua.accept_timeout,
            record_always=host.config.recording.enabled and host.config.recording.auto_start,
        )
        self._written: CallState | None = None
        """The state in the books."""
        self._inbox: asyncio.Queue[Act] = asyncio.Queue()
        self._unfinished: deque[Effect] = deque()
        """Effects of the current input that are still to be performed."""
        self._subscriptions: list[Subscription] = []
        self._seen: dict[str, float] = {}
        self._last_sequence = 0
        """Of the last event of ours in the stream."""
        self._webhook_timer: asyncio.TimerHandle | None = None
        # The SIP leg.
        self._party: Party | None = None
        self._core: sip.OutgoingCall | sip.IncomingCall | None = None
        self._remote_sdp: bytes | None = None
        self._caller: NameAddr | None = None
        self._contact: NameAddr | None = None
        self._plan: outbound.Plan | None = None
        self._peer_host = "127.0.0.1"
        # Our side of the media.
        self._address = ""
        self._port = 0
        self._local: sdp.Description | None = None
        self._sdp_id = secrets.randbits(31)
        self._sdp_version = 0
        self._agreed: sdp.NegotiatedAudio | None = None
        self._early: dict[str, tuple[sdp.NegotiatedAudio, bytes]] = {}
        self._on_hold = False

    # -- beginnings -------------------------------------------------------------------------------

    @classmethod
    def outbound(cls, host: Host, opening: session.OpenSession) -> "SipCall":
        """The call of an idle socket whose first command has come. Raises Refused when that is no command."""
        call = cls(host, opening.call_id, created_at=opening.created_at, server_track=opening.server_side_track)
        call.gateway = opening.gateway
        call._put_command(opening.command)
        return call

    @classmethod
    def inbound(cls, host: Host, invite: Request, source: Address) -> "SipCall":
        """The call of an INVITE; its id is the dialogId (protocol 5.4)."""
        tag = new_token(8)
        call = cls(host, dialog_id(invite.call_id, invite.from_tag or "", tag))
        agent = host.ua.agent_towards(source.host)
        call._peer_host = source.host
        core = sip.IncomingCall(agent, invite, tag)
        call._core = core
        call._party = host.ua.add(core, invite.call_id, tag, call._on_sip)
        call._party.perform(core.start(host.ua.now()))
        return call

    @property
    def refused_at_once(self) -> bool:
        """The INVITE was answered before anybody could be asked (bad extension, bad body)."""
        return self._core is not None and self._core.phase is sip.Phase.ENDED

    @property
    def is_idle(self) -> bool:
        """No call yet: a socket that has sent something else than `invite`."""
        return self._machine.state is CallState.IDLE

    async def run(self) -> None:
        """Live until the call is over; always leaves the bus and the books in order."""
        LIVE.inc()
        with telemetry.bound(call_id=self.call_id):
            try:
                if self._core is not None:
                    await self.listen()
                    await self._announce()
                while self._machine.state is not CallState.ENDED:
                    await self._step()
            except BusError as error:
                log.error("call.bus_failed", error=str(error))
                await self._abandon()
            except Exception:  # the boundary: one broken call never ends the service
                log.exception("call.broken")
                await self._abandon()
            finally:
                LIVE.dec()
                if self._webhook_timer is not None:
                    self._webhook_timer.cancel()
                for subscription in self._subscriptions:
                    await subscription.drop()
                self._host.over(self)

    async def listen(self) -> None:
        """Take requests for this call from now on; they wait until `run()`."""
        bus = self._host.bus
        handlers: list[tuple[type[Any], Callable[[Any], Awaitable[Contract]]]] = [
            (session.ClientCommandSent, self._on_command),
            (session.Attach, self._on_attach),
            (session.Detach, self._on_detach),
            (session.WebhookOutcome, self._on_webhook),
            (media.PlaybackEnded, self._on_playback_ended),
            (media.LegLost, self._on_leg_lost),
        ]
        for contract, handler in handlers:
            self._subscriptions.append(await bus.serve(contract, handler, call_id=self.call_id))

    async def _announce(self) -> None:
        """`incoming` and the pending session stand before the webhook is sent (G7)."""
        assert isinstance(self._core, sip.IncomingCall)
        invite = self._core.invite
        created_at = datetime.now(UTC)
        offer = machine.InboundOffer(
            caller=bridge.bare_uri(invite.from_),
            callee=bridge.bare_uri(invite.to),
            sdp=invite.body.decode(errors="replace"),
            headers=bridge.unusual_headers(invite),
        )
        first_sequence = 0
        for effect in self._machine.offered(offer, self._loop.time()):
            assert isinstance(effect, machine.Emit)
            first_sequence = await self._host.bus.emit(self.call_id, effect.event)
        pending = Session(
            call_id=self.call_id,
            call_type=CallType.SIP,
            state=CallState.PENDING,
            direction="inbound",
            owner=self._host.instance,
            first_sequence=first_sequence,
            created_at=created_at.isoformat(),
            caller=offer.caller,
            callee=offer.callee,
        )
        await self._host.sessions.create(pending)
        self._written = CallState.PENDING
        await self._host.bus.flush()
        timeout_s = min(self._host.config.ua.handler.timeout, self._host.config.ua.accept_timeout)
        log.info("call.offered", caller=offer.caller, callee=offer.callee)
        await self._host.bus.enqueue(
            session.DeliverWebhook(
                call_id=self.call_id,
                body=bridge.webhook_body(invite, self.call_id, created_at),
                give_up_at_ms=int((created_at.timestamp() + timeout_s) * 1000),
            )
        )
        self._webhook_timer = self._loop.call_later(
            timeout_s + WEBHOOK_MARGIN_S,
            self._put,
            lambda m, now: m.webhook_failed("webhook-dispatcher does not answer", now),
        )

    async def _abandon(self) -> None:
        """The call can't go on: end its legs, and tell its client as far as that still works."""
        now = self._loop.time()
        if self._party is not None and self._core is not None:
            with suppress(Exception):
                self._party.perform(self._core.hang_up(now))
        with suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_LIMIT_S):
                await self._close_media()
                for effect in self._machine.leg_failed("internal error", now) or self._unfinished:
                    with suppress(Exception):
                        await self._perform(effect)

    # -- the loop ---------------------------------------------------------------------------------

    def _put(self, act: Act) -> None:
        self._inbox.put_nowait(act)

    async def _step(self) -> None:
        try:
            async with asyncio.timeout_at(self._machine.deadline):
                act = await self._inbox.get()
        except TimeoutError:
            act = CallMachine.tick
        self._unfinished = effects = deque(act(self._machine, self._loop.time()))
        while effects:
            follow_ups = await self._perform(effects.popleft())
            effects.extendleft(reversed(follow_ups))
        if self._machine.state not in (self._written, CallState.ENDED):
            log.info(f"call.{self._machine.state.value}")
            await self._write_down()

    async def _write_down(self) -> None:
        """Keep the session's entry true: state, owner, worker, parties, option without secrets."""
        state, option = self._machine.state, self._machine.option
        shown = masked(option.model_dump(mode="json", by_alias=True, exclude_none=True))

        def change(current: Session) -> Session:
            return current.model_copy(
                update={
                    "state": state,
                    "direction": "inbound" if self._machine.inbound else "outbound",
                    "owner": self._host.instance,
                    "media_worker": self.media_worker,
                    "caller": option.caller,
                    "callee": option.callee,
                    "option": shown,
                }
            )

        self._written = state
        try:
            await self._host.sessions.change(self.call_id, change)
        except (BusError, TimeoutError) as error:  # the call matters more than its entry
            log.warning("call.not_written_down", error=str(error) or type(error).__name__)

    # -- what arrives over the bus ----------------------------------------------------------------

    def _put_command(self, command: dict[str, Any]) -> None:
        try:
            parsed: ClientCommand = command_from(command)
        except BadCommand as error:
            raise Refused(400, str(error)) from None
        self._put(lambda m, now: m.command(parsed, now))

    async def _on_command(self, sent: session.ClientCommandSent) -> Contract:
        now = self._loop.time()
        if sent.command_id is not None:
            self._seen = {key: at for key, at in self._seen.items() if now - at < REPEAT_WINDOW_S}
            if sent.command_id in self._seen:
                return Taken()
            self._seen[sent.command_id] = now
        self._put_command(sent.command)
        return Taken()

    async def _on_attach(self, attach: session.Attach) -> Contract:
        self.gateway = attach.gateway
        self._machine.attached(attach.server_side_track)
        return Taken()

    async def _on_detach(self, detach: session.Detach) -> Contract:
        if detach.gateway == self.gateway:
            self.detach("socket closed")
        return Taken()

    async def _on_webhook(self, outcome: session.WebhookOutcome) -> Contract:
        if self._webhook_timer is not None:
            self._webhook_timer.cancel()
        if not outcome.delivered:
            log.warning("call.webhook_failed", reason=outcome.reason, attempts=outcome.attempts)
            self._put(lambda m, now: m.webhook_failed(outcome.reason, now))
        return Taken()

    async def _on_playback_ended(self, _: media.PlaybackEnded) -> Contract:
        self._put(CallMachine.auto_hangup)
        return Taken()

    async def _on_leg_lost(self, lost: media.LegLost) -> Contract:
        self.media_lost(lost.reason)
        return Taken()

    def detach(self, why: str) -> None:
        """The client is gone, or the service stops: end the call."""
        log.info("call.detached", why=why)
        self._put(CallMachine.detached)

    def media_lost(self, reason: str) -> None:
        """The media worker can't go on."""
        self._put(lambda m, now: m.media_lost(reason, now))

    # -- what the machine wants -------------------------------------------------------------------

    async def _perform(self, effect: Effect) -> list[Effect]:
        now = self._loop.time()
        match effect:
            case machine.Emit(event):
                if isinstance(event, HangupEvent):
                    await self._last_words(event)
                else:
                    self._last_sequence = await self._host.bus.emit(self.call_id, event)
            case machine.AllocateMedia():
                return await self._allocate()
            case machine.ConfigureMedia():
                return await self._tell_media(
                    media.ConfigureLeg(
                        call_id=self.call_id,
                        denoise=effect.denoise,
                        vad=effect.vad,
                        asr=effect.asr,
                        tts=effect.tts,
                        recorder=effect.recorder,
                    )
                )
            case machine.ConnectMedia():
                if self._agreed is not None:
                    remote = bridge.remote_media(self._agreed)
                    return await self._tell_media(media.ConnectLeg(call_id=self.call_id, remote=remote))
            case machine.ControlPlayback(command):
                fields = command.model_dump(mode="json", by_alias=True, exclude_none=True)
                return await self._tell_media(media.Playback(call_id=self.call_id, command=fields))
            case machine.NoteInput():
                return await self._tell_media(media.NoteInput(call_id=self.call_id))
            case machine.CloseMedia():
                await self._close_media()
            case machine.EndLostTracks():
                await self._end_lost_tracks()
            case machine.Finish():
                pass
            case _:
                return self._signal(effect, now)
        return []

    def _signal(self, effect: Effect, now: float) -> list[Effect]:
        """Perform what concerns the SIP leg."""
        core, party = self._core, self._party
        if isinstance(effect, machine.SendInvite):
            return self._send_invite(effect.option, now)
        if core is None or party is None:
            return []
        match effect:
            case machine.SendRinging(early_media=early) if isinstance(core, sip.IncomingCall):
                party.perform(core.ring(now, self._local_sdp() if early else None))
            case machine.SendAnswer() if isinstance(core, sip.IncomingCall):
                if core.phase is sip.Phase.PENDING:
                    option = self._machine.option.sip
                    core.hangup_headers = _hangup_headers(option)
                    core.credentials = bridge.credentials(option)
                    party.perform(core.answer(self._local_sdp(), now))
            case machine.SendReject(code, reason) if isinstance(core, sip.IncomingCall):
                party.perform(core.reject(now, code, reason))
            case machine.SendBye(headers):
                party.perform(core.hang_up(now, headers))
            case machine.SendCancel():
                # The answer may have come meanwhile and wait in the inbox: then this sends a BYE.
                party.perform(core.hang_up(now))
            case _:
                pass
        return []

    async def _last_words(self, event: HangupEvent) -> None:
        """The id is free again before the client can learn that the call is over."""
        freed = await self._free_id()
        await self._host.bus.emit(self.call_id, event)
        if not freed:
            await self._free_id()
        direction = "inbound" if self._machine.inbound else "outbound"
        known = event.reason if event.reason.isidentifier() and len(event.reason) < 24 else "other"
        CALLS.labels(direction, known).inc()
        log.info("call.ended", reason=event.reason, initiator=event.initiator)

    async def _free_id(self) -> bool:
        try:
            await self._host.sessions.delete(self.call_id)
        except (BusError, TimeoutError) as error:
            log.warning("call.id_not_freed", error=str(error) or type(error).__name__)
            return False
        return True

    async def _end_lost_tracks(self) -> None:
        """What the lost worker had begun is in the stream; our `error`, just stored, is where it ends."""
        found = await self._host.sessions.get(self.call_id)
        begun: dict[tuple[str, str | None], None] = {}
        async with (
            asyncio.timeout(LOST_TRACKS_WAIT_S),
            aclosing(self._host.bus.events(self.call_id, found.first_sequence if found else 0)) as events,
        ):
            async for event in events:
                fields = json.loads(event.data)
                track = (str(fields.get("trackId")), fields.get("playId"))
                if event.name == "trackStart" and track[0] != self.call_id:
                    begun[track] = None
                elif event.name == "trackEnd":
                    begun.pop(track, None)
                if event.sequence >= self._last_sequence:
                    break
        for track_id, play_id in reversed(list(begun)):
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            end = TrackEnd(track_id=track_id, timestamp=now_ms, duration=0, ssrc=0, play_id=play_id)
            await self._host.bus.emit(self.call_id, end)

    # -- media ------------------------------------------------------------------------------------

    async def _allocate(self) -> list[Effect]:
        """Find a worker and make our SDP; what can't work is found out before a worker is asked."""
        try:
            codecs = bridge.codecs(self._host.config.codecs)
            offer = self._received_offer()
            if offer is not None:
                sdp.negotiate(offer, codecs, "127.0.0.1", 9, self._sdp_id, 1)
            if self._core is None:
                await self._find_parties(self._machine.option)
            allocated = await self._host.bus.request(
                media.AllocateLeg(
                    call_id=self.call_id,
                    main_track=self.call_id,
                    server_track=self._machine.server_track,
                    remote_host=self._peer_host,
                ),
                media.LegAllocated,
                timeout_s=MEDIA_TIMEOUT_S,
            )
        except sdp.SdpError as error:
            return self._machine.media_refused(488, str(error), self._loop.time())
        except SipUaError as error:
            return self._machine.media_refused(400, str(error), self._loop.time())
        except (NoResponder, NoReply):
            return self._machine.media_refused(503, "no media worker has room", self._loop.time())
        except Refused as refused:
            return self._machine.media_refused(503, refused.reason, self._loop.time())
        self.media_worker = allocated.worker
        if isinstance(self._core, sip.IncomingCall) and self._core.phase is sip.Phase.ENDED:
            await self._close_media()  # cancelled meanwhile; the call's end waits in the inbox
            return []
        self._address, self._port = allocated.address, allocated.port
        self._describe(offer, codecs)
        return self._machine.media_ready(allocated.ssrc, self._local_sdp().decode(), self._loop.time())

    def _received_offer(self) -> sdp.Description | None:
        if isinstance(self._core, sip.IncomingCall) and self._core.invite.body:
            return sdp.parse(self._core.invite.body)
        return None

    def _describe(self, offer: sdp.Description | None, codecs: tuple[sdp.Codec, ...]) -> None:
        """Our answer to an offer, or our own offer."""
        version = self._sdp_version + 1
        if offer is None:
            self._local = sdp.make_offer(self._address, self._port, codecs, self._sdp_id, version, previous=self._local)
        else:
            self._local, self._agreed = sdp.negotiate(offer, codecs, self._address, self._port, self._sdp_id, version)
        self._sdp_version = version  # only now: a refused offer uses up no version (RFC 3264 §8)

    def _local_sdp(self) -> bytes:
        return sdp.write(self._local) if self._local is not None else b""

    async def _tell_media(self, command: media.LegCommand) -> list[Effect]:
        """A request to the worker; what it refuses becomes an `error` event, its absence the end of the call."""
        if self.media_worker is None:
            return []
        try:
            await self._host.bus.request(command, Taken, timeout_s=MEDIA_TIMEOUT_S)
        except Refused as refused:
            return self._machine.playback_refused("command", refused.code, refused.reason, self._loop.time())
        except (NoResponder, NoReply) as error:
            log.error("call.media_gone", worker=self.media_worker, error=str(error))
            self.media_worker = None
            return self._machine.media_lost("the media worker is gone", self._loop.time())
        return []

    async def _close_media(self) -> None:
        if self.media_worker is None:
            return
        try:
            await self._host.bus.request(media.CloseLeg(call_id=self.call_id), Taken, timeout_s=CLOSE_TIMEOUT_S)
        except (BusError, Refused) as error:
            log.warning("call.media_not_closed", error=str(error))
        self.media_worker = None

    # -- the outbound leg -------------------------------------------------------------------------

    async def _find_parties(self, option: CallOption) -> None:
        """Whom to call, and as whom (protocol 5.1). Raises SipUaError."""
        plan = outbound.plan(option.caller, option.callee, option.sip, self._host.config)
        uri = plan.callee.uri
        self._peer_host = (await resolve(uri.host, uri.port)).host
        agent = self._host.ua.agent_towards(self._peer_host)
        self._plan, self._caller, self._contact = plan, plan.caller(agent), plan.contact(agent)

    def _send_invite(self, option: CallOption, now: float) -> list[Effect]:
        assert self._plan is not None
        assert self._caller is not None
        agent = self._host.ua.agent_towards(self._peer_host)
        suffix = self._host.config.ua.callid_suffix
        call_id = self.call_id if bridge.is_call_id(self.call_id) else new_token(24)
        core = sip.OutgoingCall(
            agent,
            self._caller,
            self._plan.callee,
            call_id=f"{call_id}@{suffix}" if suffix else call_id,
            sdp=self._local_sdp(),
            contact=self._contact,
            credentials=self._plan.credentials,
            headers=option.sip.headers if option.sip else None,
            hangup_headers=_hangup_headers(option.sip),
        )
        self._core = core
        self._party = self._host.ua.add(core, core.call_id, core.local_tag, self._on_sip)
        self._party.perform(core.start(now))
        caller, callee = self._caller.uri.without_password(), self._plan.callee.uri.without_password()
        log.info("call.dialing", caller=str(caller), callee=str(callee))
        return []

    # -- what the SIP leg tells -------------------------------------------------------------------

    def _on_sip(self, effect: Any) -> None:
        match effect:
            case sip.Progress():
                self._on_progress(effect)
            case sip.Answered():
                self._on_answered(effect)
            case sip.Refused(status, reason):
                timed_out = self._party is not None and self._party.timed_out
                if self._party is not None and self._party.send_failed:
                    self._put(lambda m, now: m.leg_failed("the callee can't be reached", now))
                else:
                    self._put(lambda m, now: m.leg_refused(status, reason, now, timed_out=timed_out))
            case sip.Cancelled():
                if isinstance(self._core, sip.IncomingCall):
                    self._put(CallMachine.leg_cancelled)
            case sip.RemoteHangUp() | sip.SessionExpired():
                self._put(CallMachine.leg_hung_up)
            case sip.AckMissing():
                self._put(lambda m, now: m.leg_failed("our answer was never acknowledged", now))
            case sip.Acknowledged(body) | sip.ReofferAnswered(body):
                if body is not None:
                    self._take_answer(body)
                elif self._agreed is None:
                    self._put(lambda m, now: m.leg_failed("our offer was never answered", now))
            case sip.Reoffered(body, _):
                self._on_reoffer(body)
            case sip.DtmfReceived(digit, _):
                self._put(lambda m, now: m.leg_digit(digit.upper(), now))
            case sip.MessageReceived(content_type, body):
                text = body.decode(errors="replace")
                self._put(lambda m, now: m.leg_message(text, content_type, now))
            case sip.TransferRequested(refer_to, referred_by):
                self._put(lambda m, now: m.leg_transfer(refer_to, referred_by, now))
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
        self._put(lambda m, now: m.leg_progress(now, early_media=early))

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
            assert self._core is not None
            assert self._party is not None
            self._party.perform(self._core.hang_up(self._loop.time()))
            self._put(lambda m, now: m.leg_refused(488, "Not Acceptable Here", now))
            return
        text = body.decode(errors="replace")
        self._put(lambda m, now: m.leg_answered(text, now))

    def _accepted(self, body: bytes) -> sdp.NegotiatedAudio:
        assert self._local is not None
        return sdp.accept_answer(self._local, sdp.parse(body), bridge.codecs(self._host.config.codecs))

    def _take_answer(self, body: bytes) -> None:
        """The answer to an offer of ours (delayed offer, re-INVITE without SDP)."""
        try:
            self._agreed = self._accepted(body)
        except sdp.SdpError as error:
            reason = f"the answer in the ACK is unusable: {error}"
            self._put(lambda m, now: m.leg_failed(reason, now))
            return
        self._media_changed()

    def _on_reoffer(self, body: bytes | None) -> None:
        """A re-INVITE or UPDATE: answer it here and now, then let media and the client know."""
        assert self._core is not None
        assert self._party is not None
        now = self._loop.time()
        try:
            self._describe(None if body is None else sdp.parse(body), bridge.codecs(self._host.config.codecs))
        except sdp.SdpError as error:
            log.warning("call.reoffer_refused", error=str(error))
            self._party.perform(self._core.refuse_reoffer(now))
            return
        self._party.perform(self._core.answer_reoffer(self._local_sdp(), now))
        if body is not None:
            self._media_changed()

    def _media_changed(self) -> None:
        assert self._agreed is not None
        on_hold, changed = self._agreed.on_hold, self._agreed.on_hold is not self._on_hold
        self._on_hold = on_hold
        self._put(lambda _, __: [machine.ConnectMedia()])
        if changed:
            self._put(lambda m, now: m.leg_held(now, on_hold=on_hold))


def _hangup_headers(option: SipOption | None) -> dict[str, str]:
    """What every BYE of the call carries (protocol 5.10)."""
    return dict((option and option.hangup_headers) or {})


def _when(created_at: str | None) -> datetime:
    try:
        return datetime.fromisoformat(created_at) if created_at else datetime.now(UTC)
    except ValueError:
        return datetime.now(UTC)
