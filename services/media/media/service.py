"""The media service: takes legs from the bus, keeps them on one clock, gives them back."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoResponder, Refused, Subscription
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.media import (
    AllocateLeg,
    CloseLeg,
    ConfigureLeg,
    ConnectLeg,
    LegAllocated,
    LegCommand,
    LegLost,
    NoteInput,
    Playback,
    RemoteMedia,
)
from dialbus.contracts.session import Heartbeat
from dialbus.lifecycle import HEARTBEAT_S, Service
from dialbus.liveness import Liveness
from dialbus.sessions import Sessions
from media import metrics
from media.audio.vad import SpeechDetector
from media.endpoint import NoPort, RtpEndpoint, local_address, open_sockets
from media.engine import Engine
from media.leg import Leg
from media.loader import Loader
from media.pacer import Pacer, prefer_this_thread

log = telemetry.get_logger()

QUEUE = "media"
ABANDONED_S = 300.0
"""A leg without packets and without requests for so long is given up."""
STOP_LIMIT_S = 2.0
"""How long the owners have to close their legs when the service stops."""

_random = random.SystemRandom()


@dataclass(slots=True)
class _Held:
    """A leg and what listens for it."""

    leg: Leg
    subscriptions: list[Subscription] = field(default_factory=list)
    closing: asyncio.Task[None] | None = None


class MediaService:
    """Every leg of this instance."""

    def __init__(self, me: Service, detector: SpeechDetector) -> None:
        self._bus: Bus = me.bus
        self._config = me.config
        self._instance = me.instance
        self._detector = detector
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(detector, self._loop.time)
        self._pacer = Pacer(self._engine.tick, self._engine.skip)
        host = me.config.http_addr.host
        self._loader = Loader(me.config.media_path, allow_loopback=_is_loopback(host))
        self._held: dict[str, _Held] = {}
        self._neighbours = Liveness(HEARTBEAT_S)
        self._owners: set[str] = set()
        self._sessions: Sessions | None = None
        self._subscriptions: list[Subscription] = []
        self._offer: Subscription | None = None
        self._stopping = False
        self._closed = asyncio.Event()
        self._late = 0
        self._tasks: set[asyncio.Future[None]] = set()

    @property
    def most(self) -> int:
        """Legs at once."""
        return self._config.media.max_calls

    @property
    def legs(self) -> int:
        """Legs now."""
        return len(self._held)

    async def start(self) -> None:
        """Start the clock and offer to take legs."""
        log.info("media.scheduling", real_time=prefer_this_thread())
        self._pacer.start()
        self._sessions = await Sessions.open(self._bus)
        for neighbour in ("asr", "sip-ua"):
            self._subscriptions.append(await self._bus.subscribe(Heartbeat, self._on_heartbeat, service=neighbour))
        await self._offer_room()
        await self._bus.flush()

    async def watch(self) -> None:
        """Until cancelled: notice dead asr workers, dead owners and abandoned legs."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            metrics.LATE_TICKS.inc(self._pacer.late - self._late)
            self._late = self._pacer.late
            self._notice_lost_workers()
            for held in list(self._held.values()):
                if held.closing is None and self._is_abandoned(held.leg):
                    log.warning("leg.abandoned", call_id=held.leg.call_id)
                    held.leg.touched_at = self._loop.time()
                    self._do(self._give_up(held, "no packets and no requests for a long time"))

    async def stop(self) -> None:
        """Take no more legs, tell the owners, and close what they have not closed within the limit."""
        self._stopping = True
        if self._offer is not None:
            await self._offer.leave()
        for held in list(self._held.values()):
            self._do(self._give_up(held, "the media worker stops"))
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                while self._held:
                    self._closed.clear()
                    await self._closed.wait()
        await asyncio.gather(*(self._close(held) for held in list(self._held.values())), return_exceptions=True)
        self._pacer.stop()
        for subscription in self._subscriptions:
            await subscription.drop()

    # -- taking legs ------------------------------------------------------------------------------

    async def _offer_room(self) -> None:
        """Be a member of the queue group exactly while there is room."""
        has_room = len(self._held) < self.most and not self._stopping
        if has_room and self._offer is None:
            self._offer = await self._bus.serve(AllocateLeg, self._on_allocate, queue=QUEUE)
        elif not has_room and self._offer is not None:
            offer, self._offer = self._offer, None
            self._do(offer.leave())

    async def _on_allocate(self, request: AllocateLeg) -> Contract:
        if request.call_id in self._held:
            raise Refused(409, "the call has a leg here")
        if self._stopping or len(self._held) >= self.most:
            raise Refused(503, "no room on this media worker")
        with telemetry.bound(call_id=request.call_id, leg_id=request.leg_id):
            held = await self._open(request)
        address = local_address(self._config.rtp_bind_ip, self._config.external_ip, await _literal(request.remote_host))
        endpoint = held.leg.endpoint
        return LegAllocated(worker=self._instance, address=address, port=endpoint.port, ssrc=endpoint.ssrc)

    async def _open(self, request: AllocateLeg) -> _Held:
        config = self._config
        is_v6 = request.remote_host is not None and ":" in request.remote_host
        host = config.rtp_bind_ip or ("::" if is_v6 else "0.0.0.0")
        try:
            sockets = open_sockets(host, config.rtp_start_port, config.rtp_end_port, _random.randrange)
        except NoPort as error:
            raise Refused(503, str(error)) from None
        endpoint = RtpEndpoint(
            sockets,
            latching=config.enable_rtp_latching,
            ssrc=_random.randrange(1, 1 << 32),
            sequence=_random.randrange(1 << 15),  # far from its wrap, as RFC 3711 has it
            timestamp=_random.randrange(1 << 32),
        )
        held = _Held(Leg(self._bus, config, request, endpoint, self._detector, self._loader))
        self._held[request.call_id] = held
        metrics.LEGS.set(len(self._held))
        await held.leg.start()
        await self._listen(held)
        self._engine.add(held.leg)
        await self._offer_room()
        await self._bus.flush()
        log.info("leg.allocated", port=endpoint.port, ssrc=endpoint.ssrc)
        return held

    async def _listen(self, held: _Held) -> None:
        """Serve the owner's requests for one leg."""
        leg = held.leg

        async def connect(request: ConnectLeg) -> None:
            leg.connect(await _resolved(request.remote))

        async def configure(request: ConfigureLeg) -> None:
            leg.configure(request)

        async def play(request: Playback) -> None:
            leg.command(request.command)

        async def note(_: NoteInput) -> None:
            leg.note_input()

        async def close(_: CloseLeg) -> None:
            await self._close(held)

        served: list[tuple[type[LegCommand], Callable[..., Awaitable[None]]]] = [
            (ConnectLeg, connect), (ConfigureLeg, configure), (Playback, play), (NoteInput, note), (CloseLeg, close),
        ]  # fmt: skip
        for contract, handler in served:
            answer = _answering(held, handler, is_close=contract is CloseLeg)
            held.subscriptions.append(await self._bus.serve(contract, answer, call_id=leg.call_id))

    # -- giving legs back -------------------------------------------------------------------------

    async def _close(self, held: _Held) -> None:
        """Close a leg, once; everyone who asks waits for the same end."""
        if held.closing is None:
            held.closing = self._loop.create_task(self._end(held), name=f"close {held.leg.call_id}")
        await asyncio.shield(held.closing)

    async def _end(self, held: _Held) -> None:
        leg = held.leg
        self._engine.remove(leg)
        for reason, count in leg.endpoint.ignored().items():
            metrics.DROPPED.labels(reason).inc(count)
        try:
            await leg.close()
        except Exception:  # the boundary of a leg: its place is given back whatever happened
            log.exception("leg.close_failed", call_id=leg.call_id)
        self._held.pop(leg.call_id, None)
        self._closed.set()
        metrics.LEGS.set(len(self._held))
        # The reply to CloseLeg goes out from one of these: they end behind it.
        self._do(_leave_all(held.subscriptions))
        await self._offer_room()

    async def _give_up(self, held: _Held, reason: str) -> None:
        """Tell the owner that it has to do without this leg; without an owner, close it."""
        try:
            await self._bus.request(LegLost(call_id=held.leg.call_id, reason=reason), Taken)
        except NoResponder:
            await self._close(held)
        except (BusError, Refused) as error:
            log.warning("leg.owner_not_told", call_id=held.leg.call_id, error=str(error))

    def _is_abandoned(self, leg: Leg) -> bool:
        remote = leg.endpoint.remote
        if remote is not None and (remote.on_hold or remote.direction in ("sendonly", "inactive")):
            return False  # the remote party need not send
        heard_at = leg.endpoint.heard_at or 0.0
        return self._loop.time() - max(heard_at, leg.touched_at) > ABANDONED_S

    # -- neighbours ------------------------------------------------------------------------------

    async def _on_heartbeat(self, beat: Heartbeat) -> None:
        self._neighbours.heard(beat.instance, self._loop.time())
        if beat.service == "sip-ua":
            self._owners.add(beat.instance)

    def _notice_lost_workers(self) -> None:
        now = self._loop.time()
        if not self._bus.connected:
            self._neighbours.deaf(now)
            return
        lost = self._neighbours.lost(now)
        for held in self._held.values() if lost else ():
            if held.leg.asr_worker in lost:
                held.leg.asr_lost()
        for name in lost:
            log.warning("worker.lost", worker=name)
        if owners := lost & self._owners:
            self._owners -= owners
            self._do(self._close_orphans(owners))

    async def _close_orphans(self, lost: set[str]) -> None:
        """Close the legs whose owner is one of the lost; a call without a session has ended without its owner."""
        assert self._sessions is not None
        for held in list(self._held.values()):
            session = await self._sessions.get(held.leg.call_id)
            if session is None or session.owner in lost:
                log.warning("leg.orphaned", call_id=held.leg.call_id, owner=session.owner if session else None)
                await self._close(held)

    def _do(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("media.task_failed", exc_info=error)


def _answering(
    held: _Held, handler: Callable[..., Awaitable[None]], *, is_close: bool
) -> Callable[[LegCommand], Awaitable[Contract]]:
    """The handler with the call bound to its log lines; while the leg closes, only CloseLeg is answered."""

    async def answer(request: LegCommand) -> Contract:
        if held.closing is not None and not is_close:
            raise Refused(409, "the leg is closed")
        with telemetry.bound(call_id=request.call_id):
            await handler(request)
        return Taken()

    return answer


async def _leave_all(subscriptions: list[Subscription]) -> None:
    await asyncio.gather(*(subscription.leave() for subscription in subscriptions))


async def _resolved(remote: RemoteMedia) -> RemoteMedia:
    """The same with a literal address. Raises Refused when the name is unknown."""
    literal = await _literal(remote.address)
    if literal is None:
        raise Refused(400, f"unknown media address: {remote.address}")
    return remote.model_copy(update={"address": literal})


async def _literal(host: str | None) -> str | None:
    """The IP address of a host; None when there is none."""
    if host is None:
        return None
    with suppress(ValueError):
        return str(ip_address(host))
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 9, type=socket.SOCK_DGRAM, family=socket.AF_INET)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0]) if found else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
