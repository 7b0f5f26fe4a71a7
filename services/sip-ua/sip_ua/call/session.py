"""One call of any type: the call machine between a client's commands, the SIP legs, the media worker, other calls.

Inputs wait in one queue and are taken one by one; the effects of each are performed in order before the next is
looked at. That, and the stream's acknowledgement behind every event, keeps the orders of protocol section 4. What
could keep the queue waiting for another call's queue (a bridge) or for a peer's answer (a MESSAGE) runs beside it and
comes back as an input.
"""

import asyncio
import json
from collections import Counter as Counts
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from prometheus_client import Counter, Gauge

from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoResponder, Refused, Subscription
from dialbus.config import Config
from dialbus.contracts import media, session
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.commands import ClientCommand
from dialbus.contracts.events import HangupEvent, TrackEnd
from dialbus.contracts.media import MAIN_LEG, REFER_LEG
from dialbus.contracts.options import AmbianceOption, RecorderOption, masked
from dialbus.contracts.records import WriteRecord
from dialbus.contracts.session import CallState, CallType, Session
from dialbus.dumps import dump_path
from dialbus.sessions import Sessions
from sip_ua import call as machine
from sip_ua.call import CallMachine, Effect
from sip_ua.call.media_link import MediaGone, MediaLink
from sip_ua.errors import SipUaError
from sip_ua.leg import sip_leg as leg
from sip_ua.leg import translate as bridge
from sip_ua.leg.sip_leg import SipLeg
from sip_ua.sip import sdp
from sip_ua.sip.agent import LocalProtocolError
from sip_ua.sip.identity import dialog_id
from sip_ua.sip.message import Request
from sip_ua.sip.transaction_layer import Address
from sip_ua.ua.user_agent import UserAgent, new_token

log = telemetry.get_logger()

Act = Callable[[CallMachine, float], list[Effect]]

CALLS = Counter("dialbus_calls_total", "Calls that ended, by direction and reason", ["direction", "reason"])
LIVE = Gauge("dialbus_calls_live", "Calls owned by this instance")

LOST_TRACKS_WAIT_S = 2.0
BRIDGE_TIMEOUT_S = 5.0
"""The other call may be busy for as long as it takes to find media workers."""
WEBHOOK_MARGIN_S = 2.0
"""How much longer than the handler's timeout we wait for webhook-dispatcher's word."""
ABANDON_LIMIT_S = 5.0
"""How long a call that broke tries to tell its client."""
MOST_WAITING = 512
"""Inputs that may wait when a client's command comes; while the call looks for a media worker nothing is taken."""
REPEAT_WINDOW_S = 60.0
"""How long a commandId is remembered."""


class Host(Protocol):
    """What a call needs of the service that runs it."""

    bus: Bus
    sessions: Sessions
    ua: UserAgent
    config: Config
    instance: str

    def over(self, call: "CallSession") -> None:
        """The call has ended; forget it."""


class CallSession:
    """One call owned by this sip-ua instance. `run()` is its task; it ends with the call."""

    def __init__(
        self,
        host: Host,
        call_id: str,
        call_type: CallType = CallType.SIP,
        *,
        created_at: str | None = None,
        server_track: str = "",
    ) -> None:
        self.call_id = call_id
        self.gateway: str | None = None
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._machine = CallMachine(
            call_id,
            call_type,
            started=self._loop.time(),
            epoch=_when(created_at),
            server_track=server_track or "server-side-track",
            accept_timeout_s=host.config.ua.accept_timeout,
            recorder=_recorder(host.config),
            ambiance=_ambiance(host.config),
        )
        self._media = MediaLink(host.bus, call_id)
        self._legs: dict[str, SipLeg] = {}
        """The SIP legs by their ids; a WebRTC or `/call` call has no main one."""
        self._dump = False
        """Whether a gateway writes the event dump."""
        self._written: tuple[object, ...] | None = None
        """What the books say."""
        self._inbox: asyncio.Queue[Act] = asyncio.Queue()
        self._unfinished: deque[Effect] = deque()
        """Effects of the current input that are still to be performed."""
        self._subscriptions: list[Subscription] = []
        self._gone = asyncio.Event()
        self._beside: set[asyncio.Task[None]] = set()
        self._seen: dict[str, float] = {}
        self._last_sequence = 0
        """Of the last event of ours in the stream."""
        self._webhook_timer: asyncio.TimerHandle | None = None

    # -- beginnings -------------------------------------------------------------------------------

    @classmethod
    def opened(cls, host: Host, opening: session.OpenSession) -> "CallSession":
        """The call of an idle socket whose first command has come. Raises Refused when too many wait."""
        call = cls(
            host,
            opening.call_id,
            opening.call_type,
            created_at=opening.created_at,
            server_track=opening.server_side_track,
        )
        call.gateway = opening.gateway
        call._dump = opening.dump
        call._put_command(opening.command)
        return call

    @classmethod
    def inbound(cls, host: Host, invite: Request, source: Address) -> "CallSession":
        """The call of an INVITE; its id is the dialogId (protocol 5.4)."""
        tag = new_token(8)
        call = cls(host, dialog_id(invite.call_id, invite.from_tag or "", tag))
        call._legs[MAIN_LEG] = SipLeg.inbound(host.ua, host.config, call._on_main_leg, invite, source, tag)
        return call

    @property
    def media_worker(self) -> str | None:
        """The worker that holds the call's audio."""
        return self._media.worker

    @property
    def refused_at_once(self) -> bool:
        """The INVITE was answered before anybody could be asked (bad extension, bad body)."""
        return MAIN_LEG in self._legs and self._legs[MAIN_LEG].is_over

    @property
    def is_idle(self) -> bool:
        """No call yet: a socket that has sent something else than `invite`."""
        return self._machine.state is CallState.IDLE

    @property
    def is_pending(self) -> bool:
        """An inbound call that nobody has accepted yet."""
        return self._machine.state is CallState.PENDING

    @property
    def is_answered(self) -> bool:
        """The call was up, now or before."""
        return self._machine.answer_time is not None

    @property
    def is_ended(self) -> bool:
        """Its last words are said, or about to be: only what it holds is still given back."""
        return self._machine.state is CallState.ENDED

    async def gone(self) -> None:
        """Wait until nothing of it is left."""
        await self._gone.wait()

    @property
    def dialogs(self) -> int:
        """SIP legs that are not over."""
        return sum(not leg.is_over for leg in self._legs.values())

    async def run(self) -> None:
        """Live until the call is over; always leaves the bus and the books in order."""
        LIVE.inc()
        with telemetry.bound(call_id=self.call_id):
            try:
                if MAIN_LEG in self._legs:
                    await self.listen()
                    await self._announce(self._legs[MAIN_LEG])
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
                while not self._inbox.empty():  # who waits for an answer gets it
                    self._inbox.get_nowait()(self._machine, self._loop.time())
                for subscription in self._subscriptions:
                    await subscription.drop()
                self._host.over(self)
                self._gone.set()

    async def listen(self) -> None:
        """Take requests for this call from now on; they wait until `run()`."""
        bus = self._host.bus
        handlers: list[tuple[type[Any], Callable[[Any], Awaitable[Contract]]]] = [
            (session.ClientCommandSent, self._on_command),
            (session.Attach, self._on_attach),
            (session.Detach, self._on_detach),
            (session.WebhookOutcome, self._on_webhook),
            (session.BridgeWanted, self._on_bridge),
            (media.PlaybackEnded, self._on_playback_ended),
            (media.LegInactive, self._on_inactive),
            (media.LegLost, self._on_leg_lost),
        ]
        for contract, handler in handlers:
            self._subscriptions.append(await bus.serve(contract, handler, call_id=self.call_id))

    async def _announce(self, main: SipLeg) -> None:
        """`incoming` and the pending session stand before the webhook is sent (G7)."""
        invite = main.invite_received
        assert invite is not None
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
        self._written = self._facts()
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
        for one in self._legs.values():
            with suppress(Exception):
                one.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_LIMIT_S):
                for leg_id in (REFER_LEG, MAIN_LEG):
                    await self._media.close(leg_id)
                for effect in self._machine.leg_failed("internal error", self._loop.time()) or self._unfinished:
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
        before = self._machine.state
        self._unfinished = effects = deque(act(self._machine, self._loop.time()))
        while effects:
            follow_ups = await self._perform(effects.popleft())
            effects.extendleft(reversed(follow_ups))
        if self._machine.state is CallState.ENDED:
            return
        if self._machine.state is not before:
            log.info(f"call.{self._machine.state.value}")
        if self._facts() != self._written:
            await self._write_down()

    def _facts(self) -> tuple[object, ...]:
        """What makes the session's entry worth writing anew."""
        m = self._machine
        return m.state, m.ringing_time, m.answer_time, self.media_worker

    async def _write_down(self) -> None:
        """Keep the session's entry true: state, owner, worker, parties, times, option without secrets."""
        m, option = self._machine, self._machine.option
        shown = masked(option.to_fields())

        def change(current: Session) -> Session:
            return current.model_copy(
                update={
                    "state": m.state,
                    "direction": "inbound" if m.inbound else "outbound",
                    "owner": self._host.instance,
                    "media_worker": self.media_worker,
                    "caller": option.caller,
                    "callee": option.callee,
                    "option": shown,
                    "ringing_at": m.ringing_time,
                    "answered_at": m.answer_time,
                }
            )

        self._written = self._facts()
        try:
            await self._host.sessions.change(self.call_id, change)
        except (BusError, TimeoutError) as error:  # the call matters more than its entry
            log.warning("call.not_written_down", error=str(error) or type(error).__name__)

    # -- what arrives over the bus ----------------------------------------------------------------

    def _put_command(self, command: ClientCommand) -> None:
        if self._inbox.qsize() >= MOST_WAITING:
            raise Refused(429, f"{command.command}: too many commands wait")
        self._put(lambda m, now: m.command(command, now))

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
        self._dump = attach.dump
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

    async def _on_bridge(self, wanted: session.BridgeWanted) -> Contract:
        """Answered in the queue's turn; that never waits for another call, so two can ask each other at once."""
        other, answer = wanted.other, self._loop.create_future()

        def act(m: CallMachine, now: float) -> list[Effect]:
            if not answer.done():
                objection = m.bridge_objection(other) if wanted.on else None
                answer.set_result(None if objection is None else Refused(409, objection))
            return m.bridge_wanted(other, now) if wanted.on else m.bridge_left(other, now)

        self._put(act)
        if (refusal := await answer) is not None:
            raise refusal
        return Taken()

    async def _on_playback_ended(self, _: media.PlaybackEnded) -> Contract:
        self._put(CallMachine.auto_hangup)
        return Taken()

    async def _on_inactive(self, _: media.LegInactive) -> Contract:
        self._put(CallMachine.inactive)
        return Taken()

    async def _on_leg_lost(self, lost: media.LegLost) -> Contract:
        if lost.hung_up and lost.leg_id == MAIN_LEG:
            self._put(CallMachine.media_left)
        else:
            self._put(lambda m, now: m.media_lost(lost.reason, now, leg=lost.leg_id, gone=False))
        return Taken()

    def detach(self, why: str) -> None:
        """The client is gone, or the service stops: end the call."""
        log.info("call.detached", why=why)
        self._put(CallMachine.detached)

    def media_gone(self, reason: str) -> None:
        """The media worker fell silent."""
        self._media.forget()
        self._put(lambda m, now: m.media_lost(reason, now))

    # -- what the machine wants -------------------------------------------------------------------

    async def _perform(self, effect: Effect) -> list[Effect]:
        match effect:
            case machine.Emit(HangupEvent(refer=False) as event):
                await self._last_words(event)
            case machine.Emit(event):
                self._last_sequence = await self._host.bus.emit(self.call_id, event)
            case machine.FindCallee(dial, leg_id):
                return self._find(dial, leg_id)
            case machine.AllocateMedia():
                return await self._allocate(effect)
            case machine.CloseMedia(leg_id):
                if not await self._media.close(leg_id) and leg_id == MAIN_LEG:
                    return self._machine.media_not_closed()
            case machine.EndLostTracks(ours):
                await self._end_lost_tracks(ours)
            case machine.AskBridge(other):
                self._do_beside(self._ask_bridge(other))
            case machine.LeaveBridge(other):
                self._do_beside(self._leave_bridge(other))
            case machine.Finish():
                await self._write_record()
            case _:
                request = self._request(effect)
                return await self._tell_media(request) if request is not None else self._signal(effect)
        return []

    def _request(self, effect: Effect) -> media.LegCommand | None:
        """What concerns the media worker, as its request."""
        call_id = self.call_id
        match effect:
            case machine.ConfigureMedia():
                return media.ConfigureLeg(
                    call_id=call_id,
                    leg_id=effect.leg,
                    denoise=effect.denoise,
                    vad=effect.vad,
                    asr=effect.asr,
                    tts=effect.tts,
                    recorder=effect.recorder,
                    agc=effect.agc,
                    ambiance=effect.ambiance,
                    media_pass=effect.media_pass,
                    subscribe=effect.subscribe,
                    inactivity_timeout_s=effect.inactivity_timeout_s,
                    unsupported=list(effect.unsupported) if effect.unsupported else None,
                    answered=effect.answered,
                )
            case machine.ConnectMedia(leg_id) if leg_id in self._legs:
                remote = self._legs[leg_id].remote_media
                return media.ConnectLeg(call_id=call_id, leg_id=leg_id, remote=remote) if remote else None
            case machine.AddCandidate(candidate, mid, index):
                return media.AddCandidate(call_id=call_id, candidate=candidate, sdp_mid=mid, sdp_m_line_index=index)
            case machine.ControlPlayback(command, loop):
                return media.Playback(call_id=call_id, command=command, loop=loop)
            case machine.StopPlayback(interruption, play_id):
                return media.StopPlayback(call_id=call_id, interruption=interruption, play_id=play_id)
            case machine.NoteInput():
                return media.NoteInput(call_id=call_id)
            case machine.JoinLegs(one_way, forward_dtmf, pause_asr):
                return media.JoinLegs(
                    call_id=call_id,
                    other_leg=REFER_LEG,
                    one_way=one_way,
                    forward_dtmf=forward_dtmf,
                    pause_asr=pause_asr,
                )
            case machine.BridgeMedia(other):
                return media.BridgeLeg(call_id=call_id, other=other)
            case machine.UnbridgeMedia(other):
                return media.UnbridgeLeg(call_id=call_id, other=other)
        return None

    def _signal(self, effect: Effect) -> list[Effect]:
        """Perform what concerns a SIP leg; calls of other types have no main one."""
        now = self._loop.time()
        one = self._legs.get(getattr(effect, "leg", MAIN_LEG))
        if one is None:
            return []
        match effect:
            case machine.SendInvite(leg_id):
                one.invite(self._sip_call_id(leg_id))
            case machine.SendRinging(early_media):
                one.ring(early_media=early_media)
            case machine.SendAnswer():
                one.answer(self._machine.option.sip)
            case machine.SendReject(code, reason):
                one.reject(code, reason)
            case machine.SendBye(headers):
                one.hang_up(headers)
            case machine.SendCancel():
                one.hang_up()
            case machine.SendMessage(body, content_type, headers):
                try:
                    one.message(body, content_type, headers)
                except LocalProtocolError:
                    return self._machine.playback_refused("command", 409, "message: the dialog is over", now)
                except ValueError as error:
                    return self._machine.playback_refused("command", 400, f"message: {error}", now)
            case _:
                pass
        return []

    def _sip_call_id(self, leg_id: str) -> str:
        """The session id where it can be a Call-ID (protocol 2.1); `ref-{rand}-{session id}` for a second leg."""
        fits = bridge.is_call_id(self.call_id)
        if leg_id == MAIN_LEG:
            return self.call_id if fits else new_token(24)
        return f"ref-{new_token(8)}-{self.call_id}" if fits else f"ref-{new_token(24)}"

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

    async def _write_record(self) -> None:
        """One record per session, once its recordings are closed (protocol 9.4)."""
        config = self._host.config
        if config.callrecord is None:
            return
        dump = str(dump_path(config.recorder_path, self.call_id)) if self._dump else None
        record = self._machine.record(self._media.recordings, dump)
        await self._host.bus.enqueue(WriteRecord(call_id=self.call_id, record=record))

    async def _end_lost_tracks(self, ours: tuple[str, ...]) -> None:
        """What the lost worker had begun is in the stream; our last event, just stored, is where it ends."""
        found = await self._host.sessions.get(self.call_id)
        begun: Counts[tuple[str, str | None]] = Counts()
        since_ms: dict[tuple[str, str | None], int] = {}
        async with (
            asyncio.timeout(LOST_TRACKS_WAIT_S),
            aclosing(self._host.bus.events(self.call_id, found.first_sequence if found else 0)) as events,
        ):
            async for event in events:
                fields = json.loads(event.data)
                track = (str(fields.get("trackId")), fields.get("playId"))
                if event.name == "trackStart" and track[0] != self.call_id:
                    begun[track] += 1
                    since_ms[track] = fields["timestamp"]
                elif event.name == "trackEnd":
                    begun[track] -= 1
                if event.sequence >= self._last_sequence:
                    break
        begun.subtract((track, None) for track in ours)
        for track_id, play_id in reversed(list(begun.elements())):
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            duration = max(0, now_ms - since_ms[track_id, play_id])  # another machine's clock may be ahead
            end = TrackEnd(track_id=track_id, timestamp=now_ms, duration=duration, ssrc=0, play_id=play_id)
            await self._host.bus.emit(self.call_id, end)

    # -- outbound legs ----------------------------------------------------------------------------

    def _find(self, dial: machine.Dial, leg_id: str) -> list[Effect]:
        """The way to a callee; the queue does not wait for the DNS, so that a `hangup` meanwhile works."""
        tell = self._on_main_leg if leg_id == MAIN_LEG else self._on_second_leg
        self._legs[leg_id] = one = SipLeg(self._host.ua, self._host.config, tell)
        try:
            if one.plan(dial):
                return self._machine.callee_found(leg_id)
        except SipUaError as error:
            return self._machine.media_refused(400, str(error), self._loop.time(), leg_id)
        self._do_beside(self._look_up(one, leg_id))
        return []

    async def _look_up(self, one: SipLeg, leg_id: str) -> None:
        try:
            await one.look_up()
        except SipUaError as error:
            text = str(error)
            self._put(self._of(leg_id, one, lambda m, now: m.media_refused(400, text, now, leg_id)))
        else:
            self._put(self._of(leg_id, one, lambda m, _: m.callee_found(leg_id)))

    # -- media ------------------------------------------------------------------------------------

    async def _allocate(self, wanted: machine.AllocateMedia) -> list[Effect]:
        """Find a worker and make our SDP; what can't work is found out before a worker is asked."""
        m, leg_id = self._machine, wanted.leg
        try:
            one = self._legs.get(leg_id)
            if one is not None and wanted.kind == "rtp":
                one.check_offer()
            allocated = await self._media.allocate(self._allocation(wanted, one))
        except sdp.SdpError as error:
            return m.media_refused(488, str(error), self._loop.time(), leg_id)
        except Refused as refused:
            return m.media_refused(refused.code, refused.reason, self._loop.time(), leg_id)
        if one is not None and one.is_over:
            await self._media.close(leg_id)  # cancelled meanwhile; the call's end waits in the inbox
            return []
        answer = allocated.sdp or ""
        if one is not None and wanted.kind == "webrtc":
            one.adopt(answer)
        elif one is not None:
            answer = one.describe(allocated.address, allocated.port)
        return m.media_ready(allocated.ssrc, answer, self._loop.time(), leg_id)

    def _allocation(self, wanted: machine.AllocateMedia, one: SipLeg | None) -> media.AllocateLeg:
        option, track = self._machine.option, self._machine.server_track
        peer_host = one.peer_host if one is not None else None
        if wanted.leg != MAIN_LEG:
            return media.AllocateBeside(
                call_id=self.call_id,
                leg_id=wanted.leg,
                main_track=track,
                server_track=self.call_id,  # what the third party hears is the first one
                refer=True,
                remote_host=peer_host,
            )
        invite = one.invite_received if one is not None else None
        offer = invite.body.decode(errors="replace") if invite is not None else option.offer
        handshake_s = option.handshake_timeout
        return media.AllocateLeg(
            call_id=self.call_id,
            kind=wanted.kind,
            main_track=self.call_id,
            server_track=track,
            remote_host=peer_host,
            offer=offer if wanted.kind == "webrtc" else None,
            enable_ipv6=option.enable_ipv6,
            handshake_timeout_s=15.0 if handshake_s is None else handshake_s,
            codec=option.codec or "pcm",
            rate_hz=option.sample_rate or 16000,
        )

    async def _tell_media(self, command: media.LegCommand) -> list[Effect]:
        """A request to the worker; what it refuses becomes an `error` event, its absence the end of the call."""
        try:
            await self._media.tell(command)
        except Refused as refused:
            return self._machine.playback_refused("command", refused.code, refused.reason, self._loop.time())
        except MediaGone:
            return self._machine.media_lost("the media worker is gone", self._loop.time())
        return []

    # -- other calls ------------------------------------------------------------------------------

    def _do_beside(self, work: Any) -> None:
        task = self._loop.create_task(work, name=f"beside call {self.call_id}")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _ask_bridge(self, other: str) -> None:
        """Ask the owner of the other call for its half."""
        wanted = session.BridgeWanted(call_id=other, other=self.call_id, on=True)
        try:
            await self._host.bus.request(wanted, timeout_s=BRIDGE_TIMEOUT_S)
        except NoResponder:
            self._put(lambda m, now: m.bridge_refused(other, 404, f"no such session: {other}", now))
        except Refused as refused:
            code, reason = refused.code, refused.reason
            self._put(lambda m, now: m.bridge_refused(other, code, reason, now))
        except BusError as error:
            log.warning("call.bridge_unanswered", other=other, error=str(error))
            self._put(lambda m, now: m.bridge_refused(other, 503, f"the session does not answer: {other}", now))
            await self._leave_bridge(other)
        else:
            self._put(lambda m, now: m.bridge_agreed(other, now))

    async def _leave_bridge(self, other: str) -> None:
        """Tell the owner of the other call; one that is gone needs no telling."""
        try:
            await self._host.bus.request(
                session.BridgeWanted(call_id=other, other=self.call_id, on=False), timeout_s=BRIDGE_TIMEOUT_S
            )
        except NoResponder:
            pass
        except (BusError, Refused) as error:
            log.warning("call.bridge_end_not_told", other=other, error=str(error))

    # -- what the SIP legs tell -------------------------------------------------------------------

    def _on_main_leg(self, one: SipLeg, told: leg.Told) -> None:
        self._on_leg(MAIN_LEG, one, told)

    def _on_second_leg(self, one: SipLeg, told: leg.Told) -> None:
        self._on_leg(REFER_LEG, one, told)

    def _on_leg(self, leg_id: str, one: SipLeg, told: leg.Told) -> None:
        """Late words of a leg that another has replaced are nobody's business."""
        for act in _acts(leg_id, told):
            self._put(self._of(leg_id, one, act))

    def _of(self, leg_id: str, one: SipLeg, act: Act) -> Act:
        return lambda m, now: act(m, now) if self._legs.get(leg_id) is one else []


def _acts(leg_id: str, told: leg.Told) -> list[Act]:
    """What a leg tells, as inputs of the machine."""
    match told:
        case leg.Progressed(early):
            return [lambda m, now: m.leg_progress(now, early_media=early, leg=leg_id)]
        case leg.Answered(body):
            return [lambda m, now: m.leg_answered(body, now, leg_id)]
        case leg.Refused(status, reason, timed_out):
            return [lambda m, now: m.leg_refused(status, reason, now, timed_out=timed_out, leg=leg_id)]
        case leg.Failed(reason, status):
            return [lambda m, now: m.leg_failed(reason, now, status=status, leg=leg_id)]
        case leg.Cancelled():
            return [CallMachine.leg_cancelled]
        case leg.HungUp():
            return [lambda m, now: m.leg_hung_up(now, leg_id)]
        case leg.MediaChanged(on_hold):
            connect: Act = lambda _, __: [machine.ConnectMedia(leg_id)]  # noqa: E731
            if on_hold is None:
                return [connect]
            return [connect, lambda m, now: m.leg_held(now, on_hold=on_hold, leg=leg_id)]
        case leg.Digit(digit):
            return [lambda m, now: m.leg_digit(digit, now, leg_id)]
        case leg.MessageCame(text, content_type):
            return [lambda m, now: m.leg_message(text, content_type, now, leg_id)]
        case leg.MessageRefused(status, reason):
            return [lambda m, now: m.message_refused(status, reason, now)]
        case leg.TransferAsked(refer_to, referred_by):
            return [lambda m, now: m.leg_transfer(refer_to, referred_by, now, leg_id)]


def _recorder(config: Config) -> RecorderOption | None:
    """How every call is recorded, if the settings say so."""
    wanted = config.recording
    if not (wanted.enabled and wanted.auto_start):
        return None
    return RecorderOption(samplerate=wanted.samplerate, ptime=wanted.ptime)


def _ambiance(config: Config) -> AmbianceOption | None:
    """The setting `ambiance`, as a client would write it."""
    if config.ambiance is None:
        return None
    return AmbianceOption.model_validate(config.ambiance.model_dump(mode="json", exclude_none=True))


def _when(created_at: str | None) -> datetime:
    try:
        return datetime.fromisoformat(created_at) if created_at else datetime.now(UTC)
    except ValueError:
        return datetime.now(UTC)
