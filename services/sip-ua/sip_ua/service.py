"""The sip-ua service: takes calls from the wire and from the bus, and watches those they depend on."""

import asyncio
import random
from contextlib import suppress

from prometheus_client import Counter

from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.config import Config, HostPort
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.session import OpenSession
from dialbus.lifecycle import Service
from dialbus.liveness import HEARTBEAT_S
from dialbus.neighbours import Neighbours
from dialbus.quiet import quiet
from dialbus.sessions import Sessions
from dialbus.tasks import cancel_all
from sip_ua.admission import RETRY_S, Admission, Refusal, Seat, Stage
from sip_ua.call.session import CallSession
from sip_ua.sip.agent import Agent
from sip_ua.sip.invite_session import InviteSession
from sip_ua.sip.message import Request, response_to
from sip_ua.sip.transaction_layer import Address
from sip_ua.ua.registrar import Registrar
from sip_ua.ua.user_agent import UserAgent, new_token

log = telemetry.get_logger()

REFUSED = Counter("dialbus_calls_not_admitted_total", "INVITEs refused because their source has its share")

SETTLE_LIMIT_S = 1.0
"""How long those BYEs then have for their answers."""
MAX_ID_BYTES = 480
"""Of Call-ID and From tag together: with our tag they are a session id, which the bus bounds."""
STOP_LIMIT_S = 3.0
"""How long the calls have for their BYEs and last events when the service stops."""
_FULL = "call limit reached"
_GONE_WITHIN_S = 2.0
"""How long a session waits for one with its id that has ended and still gives its media back."""


class SipService:
    """Every call of this instance."""

    def __init__(self, me: Service, sessions: Sessions) -> None:
        self.bus: Bus = me.bus
        self.config: Config = me.config
        self.instance = me.instance
        self.sessions = sessions
        agent = Agent(
            host="127.0.0.1",
            port=0,
            new_token=new_token,
            random=random.random,
            user_agent=me.config.ua.useragent,
        )
        self.ua = UserAgent(
            agent,
            self._on_invite,
            me.bus.tracer,
            external_ip=me.config.external_ip,
            options=me.config.enable_options_response,
        )
        self.registrar = Registrar(self.ua, me.config.ua.register_users)
        self._admission = Admission(me.config.ua, self.registrar.hosts)
        self.stopping = False
        self._calls: dict[str, CallSession] = {}
        self._seats: dict[str, Seat] = {}
        """Of the calls in from sources that are counted."""
        self._total = self._unanswered = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._neighbours = Neighbours(me.bus, "gateway", "media")
        self._hurry = me.hurry
        self._openings: Subscription | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def live(self) -> int:
        """Calls now."""
        return len(self._calls)

    async def start(self) -> HostPort:
        """Open the socket, then offer to take sessions; the SIP address."""
        bound = await self.ua.bind(HostPort(self.config.ua.addr, self.config.ua.udp_port))
        await self._neighbours.listen()
        self._openings = await self.bus.serve(OpenSession, self._on_open, queue="sip-ua")
        return bound

    async def watch_neighbours(self) -> None:
        """Until cancelled: end the calls whose gateway or media worker fell silent."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            gone = {beat.instance for beat in self._neighbours.lost()}
            for call in list(self._calls.values()) if gone else ():
                if call.gateway in gone:
                    call.detach("the gateway is gone")
                elif call.media_worker in gone:
                    call.media_gone("the media worker is gone")
            for name in gone:
                log.warning("worker.lost", worker=name)

    async def stop(self) -> None:
        """Take nothing new, let calls end, hang up the rest, and leave when the last event is out or time is up."""
        self.stopping = True
        if self._openings is not None:
            await self._openings.leave()
        farewell = asyncio.create_task(self.registrar.stop(), name="unregister")
        await self._let_calls_end()
        for call in list(self._calls.values()):
            call.detach("the service stops")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_LIMIT_S)
        await farewell
        await self.ua.settle(SETTLE_LIMIT_S)
        for task in self._tasks:
            task.cancel()
        self.ua.close()

    async def _let_calls_end(self) -> None:
        """Wait for calls in progress, as long as the settings allow and nobody asks to hurry."""
        settings = self.config.ua
        for call in list(self._calls.values()):
            if call.is_idle:
                call.detach("the service stops")  # it could not place a call any more
        if not settings.graceful_shutdown or not self._tasks:
            return
        log.info("service.draining", calls=self.live, limit_s=settings.graceful_shutdown_timeout)
        watch = asyncio.create_task(self.watch_neighbours(), name="watch")
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.graceful_shutdown_timeout):
                while self._tasks and not hurry.done():
                    await asyncio.wait({*self._tasks, hurry}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_all([watch, hurry])

    def over(self, call: CallSession) -> None:
        """A call has ended."""
        if (seat := self._seats.pop(call.call_id, None)) is not None:
            seat.leave()
        if self._calls.pop(call.call_id, None) is not None and not call.is_answered:
            self._unanswered += 1

    def facts(self) -> dict[str, int]:
        """Counts for the heartbeats: calls since the start, those that ended unanswered, SIP now."""
        calls = self._calls.values()
        return {
            "total": self._total,
            "failed": self._unanswered,
            "pending": sum(call.is_pending for call in calls),
            "dialogs": sum(call.dialogs for call in calls),
            **{f"transactions_{name}": value for name, value in self.ua.transaction_counts().items()},
        }

    @property
    def _is_full(self) -> bool:
        return len(self._calls) >= self.config.ua.max_calls

    # -- beginnings -------------------------------------------------------------------------------

    async def _on_open(self, opening: OpenSession) -> Contract:
        if self.stopping:
            raise Refused(503, "this sip-ua stops")
        before = self._calls.get(opening.call_id)
        if before is not None and before.is_ended:
            with suppress(TimeoutError):  # its id is free as soon as its client knows of the end
                await asyncio.wait_for(before.gone(), _GONE_WITHIN_S)
        if opening.call_id in self._calls:
            raise Refused(409, "session id in use")
        if self._is_full:
            raise Refused(503, _FULL)
        call = CallSession.opened(self, opening)
        self._calls[call.call_id] = call
        try:
            await call.listen()  # the next command follows this answer at once
        except BaseException:
            self.over(call)
            raise
        self._begin(call)
        return Taken()

    def _on_invite(self, invite: Request, source: Address) -> None:
        if self.stopping or self._is_full or not self.bus.connected:
            self._refuse(invite, "stopping" if self.stopping else _FULL if self._is_full else "the bus is away")
            return
        if len(f"{invite.call_id}{invite.from_tag}".encode()) > MAX_ID_BYTES:
            self.ua.send_response(response_to(invite, 400, "Call-ID or tag too long", new_token(8)))
            return
        seat = self._admission.admit(source.host, self.live, self._loop.time())
        if isinstance(seat, Refusal):
            REFUSED.inc()
            quiet.log(log.warning, "call.not_admitted", source=source.host, reason=seat.reason)
            self._refuse(invite, seat.reason, seat.retry_after_s)
            return
        call = CallSession.inbound(self, invite, source)
        if not call.refused_at_once:
            self._begin(call)
        if seat is not None:
            self._seated(call, invite, seat)

    def _seated(self, call: CallSession, invite: Request, seat: Seat) -> None:
        """Let a call take from its source's shares what it has come to, and give it back at its end."""
        if call.refused_at_once:
            seat.leave()
            return
        self._seats[call.call_id] = seat

        def moved(leg: InviteSession) -> None:
            if call.call_id in self._seats and not leg.is_over:
                seat.move(_stage(leg))

        self.ua.watch(invite, moved)

    def _refuse(self, invite: Request, reason: str, retry_after_s: int = RETRY_S) -> None:
        """503, said once: whoever floods us makes us remember nothing."""
        headers = [("Reason", f'SIP;cause=503;text="{reason}"'), ("Retry-After", str(retry_after_s))]
        self.ua.answer_once(response_to(invite, 503, None, new_token(8), headers))

    def _begin(self, call: CallSession) -> None:
        self._calls[call.call_id] = call
        self._total += 1
        task = self._loop.create_task(call.run(), name=f"call {call.call_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with suppress(asyncio.CancelledError):
            if (error := task.exception()) is not None:
                log.error("call.task_failed", exc_info=error)


def _stage(leg: InviteSession) -> Stage:
    if leg.is_pending:
        return Stage.PENDING
    return Stage.ESTABLISHED if leg.is_acknowledged else Stage.UNACKNOWLEDGED
