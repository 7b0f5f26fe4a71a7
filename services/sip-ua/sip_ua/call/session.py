"""One call of any type, alive: its inbox, and the loop that takes one input after the other.

The effects of an input are performed in order before the next is looked at. That, and the stream's acknowledgement
behind every event, keeps the orders of protocol section 4. Nothing else changes the call.
"""

import asyncio
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client import Gauge

from dialbus import telemetry
from dialbus.bus import BusError
from dialbus.config import Config
from dialbus.contracts import session
from dialbus.contracts.media import MAIN_LEG, REFER_LEG
from dialbus.contracts.options import AmbianceOption, RecorderOption
from dialbus.contracts.session import CallState, CallType
from dialbus.contracts.trace import TraceKind
from sip_ua.call import inputs
from sip_ua.call.books import CallBooks
from sip_ua.call.effects import Effect
from sip_ua.call.host import Host
from sip_ua.call.inputs import Input
from sip_ua.call.machine import CallMachine
from sip_ua.call.media_link import MediaLink
from sip_ua.call.performer import Performer
from sip_ua.call.requests import CallRequests
from sip_ua.call.state import CallSettings
from sip_ua.leg import translate
from sip_ua.leg.sip_leg import SipLeg
from sip_ua.sip.identity import dialog_id
from sip_ua.sip.message import Request
from sip_ua.sip.transaction_layer import Address
from sip_ua.ua.user_agent import new_token

log = telemetry.get_logger()

LIVE = Gauge("dialbus_calls_live", "Calls owned by this instance")

WEBHOOK_MARGIN_S = 2.0
"""How much longer than the handler's timeout we wait for webhook-dispatcher's word."""
ABANDON_LIMIT_S = 5.0
"""How long a call that broke tries to tell its client."""


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
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._log = log.bind(call_id=call_id)
        self._machine = CallMachine.begin(
            call_id,
            call_type,
            started=self._loop.time(),
            epoch=_when(created_at),
            server_track=server_track or "server-side-track",
            settings=_settings(host.config),
        )
        self._inbox: asyncio.Queue[Input] = asyncio.Queue()
        self._unfinished: deque[Effect] = deque()
        """Effects of the current input that are still to be performed."""
        self._gone = asyncio.Event()
        self._media = MediaLink(host.bus, call_id)
        self._books = CallBooks(host, self._machine, self._media)
        self._requests = CallRequests(host.bus, call_id, self._put, self._waiting)
        self._performer = Performer(host, self._machine, self._media, self._books, self._requests, self._put)

    def __repr__(self) -> str:
        return f"<{self._machine!r}, {self._inbox.qsize()} inputs wait>"

    # -- beginnings -------------------------------------------------------------------------------

    @classmethod
    def opened(cls, host: Host, opening: session.OpenSession) -> "CallSession":
        """The call of an idle socket whose first command has come."""
        call = cls(
            host,
            opening.call_id,
            opening.call_type,
            created_at=opening.created_at,
            server_track=opening.server_side_track,
        )
        state = call._machine.call
        state.gateway, state.dump = opening.gateway, opening.dump
        call._requests.command(opening.command)
        return call

    @classmethod
    def inbound(cls, host: Host, invite: Request, source: Address) -> "CallSession":
        """The call of an INVITE; its id is the dialogId (protocol 5.4)."""
        tag = new_token(8)
        call = cls(host, dialog_id(invite.call_id, invite.from_tag or "", tag))
        call._put(
            inputs.Offered(
                caller=translate.bare_uri(invite.from_),
                callee=translate.bare_uri(invite.to),
                sdp=invite.body.decode(errors="replace"),
                headers=translate.unusual_headers(invite),
            )
        )
        leg = SipLeg(host.ua, host.config, call._put, call.call_id)
        call._performer.legs[MAIN_LEG] = leg
        leg.take(invite, source, tag)
        return call

    # -- what the service asks --------------------------------------------------------------------

    @property
    def gateway(self) -> str | None:
        """Instance that holds the client's socket."""
        return self._machine.call.gateway

    @property
    def media_worker(self) -> str | None:
        """The worker that holds the call's audio."""
        return self._media.worker

    @property
    def refused_at_once(self) -> bool:
        """The INVITE was answered before anybody could be asked (bad extension, bad body)."""
        main = self._performer.legs.get(MAIN_LEG)
        return main is not None and main.is_over

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

    @property
    def dialogs(self) -> int:
        """SIP legs that are not over."""
        return sum(not leg.is_over for leg in self._performer.legs.values())

    async def gone(self) -> None:
        """Wait until nothing of it is left."""
        await self._gone.wait()

    def detach(self, why: str) -> None:
        """The client's gateway is gone, or the service stops: end the call."""
        self._log.info("call.detached", why=why)
        self._put(inputs.Detached())

    def media_gone(self, reason: str) -> None:
        """The media worker fell silent."""
        self._media.forget()
        self._put(inputs.MediaLost(reason))

    # -- its life ---------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Take requests for this call from now on; they wait until `run()`."""
        await self._requests.listen()

    async def run(self) -> None:
        """Live until the call is over; always leaves the bus and the books in order."""
        LIVE.inc()
        with telemetry.bound(call_id=self.call_id):
            try:
                if MAIN_LEG in self._performer.legs:
                    await self.listen()
                while not self._machine.finished:
                    await self._step()
            except BusError as error:
                log.error("call.bus_failed", error=str(error))
                await self._abandon()
            except Exception:  # the boundary: one broken call never ends the service
                log.exception("call.broken")
                await self._abandon()
            finally:
                LIVE.dec()
                await self._requests.close()
                self._host.over(self)
                self._gone.set()
                await self._performer.settle()

    async def _abandon(self) -> None:
        """The call can't go on: end its legs, and tell its client as far as that still works."""
        for leg in self._performer.legs.values():
            with suppress(Exception):
                leg.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_LIMIT_S):
                for leg_id in (REFER_LEG, MAIN_LEG):
                    await self._media.close(leg_id)
                for effect in self._take(inputs.LegFailed("internal error")) or self._unfinished:
                    with suppress(Exception):
                        await self._performer.perform(effect)

    # -- the loop ---------------------------------------------------------------------------------

    def _put(self, arrived: Input) -> None:
        self._inbox.put_nowait(arrived)

    def _waiting(self) -> int:
        return self._inbox.qsize() + len(self._machine.call.waiting)

    async def _next(self) -> Input:
        try:
            async with asyncio.timeout_at(self._machine.deadline):
                return await self._inbox.get()
        except TimeoutError:
            return inputs.Tick()

    def _take(self, arrived: Input) -> list[Effect]:
        leg_id = getattr(arrived, "leg", None)
        self._host.bus.tracer.note(self.call_id, TraceKind.INPUT, type(arrived).__name__, leg_id=leg_id, facts=arrived)
        return self._machine.receive(arrived, self._loop.time())

    async def _step(self) -> None:
        arrived = await self._next()
        before = self._machine.state
        self._unfinished = effects = deque(self._take(arrived))
        while effects:
            follows = await self._performer.perform(effects.popleft())
            if follows is not None:
                effects.extendleft(reversed(self._take(follows)))
        if self._machine.state is CallState.ENDED:
            return
        if self._machine.state is not before:
            log.info(f"call.{self._machine.state.value}")
        await self._books.write_down()


def _settings(config: Config) -> CallSettings:
    """What the settings say of every call."""
    recording, recorder = config.recording, None
    if recording.enabled and recording.auto_start:
        recorder = RecorderOption(samplerate=recording.samplerate, ptime=recording.ptime)
    ambiance = None
    if config.ambiance is not None:
        ambiance = AmbianceOption.model_validate(config.ambiance.model_dump(mode="json", exclude_none=True))
    return CallSettings(
        accept_timeout_s=config.ua.accept_timeout,
        webhook_timeout_s=min(config.ua.handler.timeout, config.ua.accept_timeout) + WEBHOOK_MARGIN_S,
        recorder=recorder,
        ambiance=ambiance,
    )


def _when(created_at: str | None) -> datetime:
    try:
        return datetime.fromisoformat(created_at) if created_at else datetime.now(UTC)
    except ValueError:
        return datetime.now(UTC)
