"""The media service: takes legs from the bus, keeps them on one clock, gives them back."""

import asyncio
from contextlib import suppress
from typing import Protocol

from dialbus import telemetry
from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.base import Contract
from dialbus.contracts.media import (
    MAIN_LEG,
    AllocateLeg,
    LegAllocated,
    LegClosed,
    LegKind,
)
from dialbus.lifecycle import Service
from dialbus.liveness import HEARTBEAT_S
from dialbus.membership import Join as Group
from dialbus.membership import Membership
from dialbus.neighbours import Neighbours
from dialbus.sessions import Sessions
from dialbus.tasks import TaskSet
from media import metrics
from media.audio.vad import SpeechDetector
from media.endpoint.endpoint import Endpoint
from media.files.fetch import Fetcher
from media.files.loader import Loader
from media.leg.leg import Leg, LegKey
from media.leg.resources import Resources
from media.webrtc.transport import Lost, WebRtcTransport
from media.worker.engine import Engine
from media.worker.opening import EndpointOpener
from media.worker.pacer import Pacer, prefer_this_thread
from media.worker.requests import HeldLeg, LegRequests

log = telemetry.get_logger()

QUEUE = "media"
ABANDONED_S = 300.0
"""A leg without packets and without requests for so long is given up."""
MAX_HANDSHAKE_S = 300.0
STOP_LIMIT_S = 2.0
"""How long the owners have to close their legs when the service stops."""


class MediaService:
    """Every leg of this instance."""

    def __init__(self, me: Service, detector: SpeechDetector) -> None:
        self._bus: Bus = me.bus
        self._config = me.config
        self._instance = me.instance
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(detector, self._loop.time)
        self._pacer = Pacer(self._engine.tick, self._engine.skip)
        fetcher = Fetcher(me.config.fetch)
        loader = Loader.configured(me.config, fetcher)
        self._resources = Resources(me.bus, me.config, detector, fetcher, loader, self._is_full)
        self._opener = EndpointOpener(me.bus, me.config)
        self._held: dict[LegKey, HeldLeg] = {}
        self._opening: set[LegKey] = set()
        self._neighbours = Neighbours(me.bus, "asr", "sip-ua", "tts")
        self._sessions: Sessions | None = None
        self._membership = Membership(
            QUEUE, [self._offer(kind) for kind in me.config.media.accept], has_room=lambda: not self._full
        )
        self._stopping = False
        self._closed = asyncio.Event()
        self._late = 0
        self._tasks = TaskSet()

    @property
    def capacity(self) -> int:
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
        await self._neighbours.listen()
        await self._membership.start()
        await self._bus.flush()

    async def watch(self) -> None:
        """Until cancelled: notice dead asr workers, dead owners and abandoned legs."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            metrics.LATE_TICKS.inc(self._pacer.late - self._late)
            self._late = self._pacer.late
            self._notice_lost_neighbours()
            for held in list(self._held.values()):
                main = self._held.get((held.leg.call_id, MAIN_LEG), held)
                if held.closing is None and is_abandoned(held.leg, main.leg, self._loop.time()):
                    log.warning("leg.abandoned", call_id=held.leg.call_id, leg_id=held.leg.leg_id)
                    held.leg.touch()
                    self._begin_to_give_up(held, "no packets and no requests for a long time")

    async def stop(self) -> None:
        """Take no more legs, tell the owners, and close what they have not closed within the limit."""
        self._stopping = True
        self._tasks.start(self._membership.leave(STOP_LIMIT_S), name="leave the queue groups")
        for held in list(self._held.values()):
            self._begin_to_give_up(held, "the media worker stops")
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                while self._held:
                    self._closed.clear()
                    await self._closed.wait()
        await asyncio.gather(*(self.close(held) for held in list(self._held.values())), return_exceptions=True)
        self._pacer.stop()
        await self._neighbours.close()

    def find(self, key: LegKey) -> HeldLeg | None:
        """A leg of this worker."""
        return self._held.get(key)

    # -- taking legs ------------------------------------------------------------------------------

    def _offer(self, kind: LegKind) -> Group:
        return lambda: self._bus.serve(AllocateLeg, self._on_allocate, queue=QUEUE, kind=kind)

    @property
    def _full(self) -> bool:
        return len(self._held) + len(self._opening) >= self.capacity

    async def _on_allocate(self, request: AllocateLeg) -> Contract:
        if self._full:
            raise Refused(503, "no room on this media worker")
        return await self.take(request)

    async def take(self, request: AllocateLeg) -> LegAllocated:
        """Hold a leg, whether there is room or not. Raises Refused."""
        key = (request.call_id, request.leg_id)
        if self._stopping:
            raise Refused(503, "this media worker stops")
        if key in self._held or key in self._opening:
            raise Refused(409, "the call has this leg already")
        self._opening.add(key)
        try:
            with telemetry.bound(call_id=request.call_id, leg_id=request.leg_id):
                return await self._open(key, request)
        finally:
            self._opening.discard(key)
            self._membership.room_changed()

    async def _open(self, key: LegKey, request: AllocateLeg) -> LegAllocated:
        opened = await self._opener.open(request)
        main = self._held.get((request.call_id, MAIN_LEG))
        muted = main.leg.muting.tracks if main is not None else None
        held = HeldLeg(Leg(self._resources, request, opened.endpoint, muted), opened.webrtc)
        self._held[key] = held
        metrics.LEGS.set(len(self._held))
        self._engine.add(held.leg)  # before anything that may end it
        try:
            await held.leg.start()
            await LegRequests(self._bus, held, self).listen()
            await self._bus.flush()
        except BaseException:
            await self.close(held)
            raise
        if held.closing is not None:
            await held.leave()
            raise Refused(503, "the leg was closed while it was opened")
        if opened.webrtc is not None:
            self._tasks.start(self._watch(held, opened.webrtc, request.handshake_timeout_s), name="webrtc leg")
        log.info("leg.allocated", kind=request.kind, port=opened.port, ssrc=opened.endpoint.ssrc)
        return LegAllocated(
            worker=self._instance,
            address=opened.address,
            port=opened.port,
            ssrc=opened.endpoint.ssrc,
            sdp=opened.sdp,
        )

    async def _watch(self, held: HeldLeg, webrtc: WebRtcTransport, handshake_timeout_s: float) -> None:
        """Connect a WebRTC leg, and tell its owner when it is lost."""
        try:
            lost = await webrtc.run(min(max(handshake_timeout_s, 1.0), MAX_HANDSHAKE_S))
        except Exception as error:  # the boundary of a leg: whatever fails in its transport, its owner has to know
            log.exception("leg.transport_failed")
            lost = Lost(f"the WebRTC transport failed: {type(error).__name__}")
        if lost is not None and held.closing is None:
            log.info("leg.lost", reason=lost.reason)
            await self._give_up(held, lost.reason, hung_up=lost.hung_up)

    # -- giving legs back -------------------------------------------------------------------------

    async def close(self, held: HeldLeg) -> LegClosed:
        """Close a leg, once; everyone who asks waits for the same end."""
        if held.closing is None:
            call_id, leg_id = held.leg.key
            with telemetry.bound(call_id=call_id, leg_id=leg_id):
                held.closing = self._loop.create_task(self._end(held), name=f"close {call_id}/{leg_id}")
        return await asyncio.shield(held.closing)

    async def _end(self, held: HeldLeg) -> LegClosed:
        leg, closed = held.leg, LegClosed()
        self._engine.remove(leg)
        for reason, count in leg.endpoint.ignored().items():
            metrics.DROPPED.labels(reason).inc(count)
        try:
            closed = await leg.close()
        except Exception:  # the boundary of a leg: its place is given back whatever happened
            log.exception("leg.close_failed", call_id=leg.call_id, leg_id=leg.leg_id)
        self._held.pop(leg.key, None)
        self._closed.set()
        metrics.LEGS.set(len(self._held))
        # The reply to CloseLeg goes out from one of these: they end behind it.
        self._tasks.start(held.leave(), name="leave leg")
        self._membership.room_changed()
        return closed

    def _begin_to_give_up(self, held: HeldLeg, reason: str) -> None:
        with telemetry.bound(call_id=held.leg.call_id, leg_id=held.leg.leg_id):
            self._tasks.start(self._give_up(held, reason), name="give up leg")

    async def _give_up(self, held: HeldLeg, reason: str, *, hung_up: bool = False) -> None:
        """Tell the owner that it has to do without this leg; without an owner, close it."""
        try:
            await held.leg.tellings.lost(reason, hung_up=hung_up)
        except NoResponder:
            for other in [other for other in self._held.values() if other.leg.call_id == held.leg.call_id]:
                await self.close(other)

    # -- neighbours ------------------------------------------------------------------------------

    def _is_full(self, service: str) -> bool:
        """Whether a worker says so: where one is there and full, nobody who comes later is waited for."""
        beats = self._neighbours.alive(service)
        return any(beat.capacity is not None and beat.in_use >= beat.capacity for beat in beats)

    def _notice_lost_neighbours(self) -> None:
        lost = {beat.instance: beat.service for beat in self._neighbours.lost()}
        for held in self._held.values() if lost else ():
            if held.leg.asr_worker in lost:
                held.leg.asr_lost()
        for name in lost:
            log.warning("worker.lost", worker=name)
        if owners := {name for name, service in lost.items() if service == "sip-ua"}:
            self._tasks.start(self._close_orphans(owners), name="close orphans")

    async def _close_orphans(self, lost: set[str]) -> None:
        """Close the legs whose owner is one of the lost; a call without a session has ended without its owner."""
        assert self._sessions is not None
        for held in list(self._held.values()):
            session = await self._sessions.get(held.leg.call_id)
            if session is None or session.owner in lost:
                log.warning("leg.orphaned", call_id=held.leg.call_id, owner=session.owner if session else None)
                await self.close(held)


class Watched(Protocol):
    """A leg, as far as its silence is judged."""

    endpoint: Endpoint
    touched_at: float


def is_abandoned(leg: Watched, main: Watched, now: float) -> bool:
    """Whether nobody cares for a leg any more: no packets and no requests for a long time.

    `main` is the call's main leg, or the leg itself when that is gone: a leg beside another one is not judged, since it
    may ring for an hour, and goes with the other. Nor is one whose party need not send.
    """
    if leg is not main or not leg.endpoint.expects:
        return False
    return now - max(leg.endpoint.heard_at or 0.0, leg.touched_at) > ABANDONED_S
