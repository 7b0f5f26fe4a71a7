"""One leg as its owner's requests reach it: each contract and what is done for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.media import (
    MAIN_LEG,
    AddCandidate,
    AllocateBeside,
    BridgeLeg,
    CloseLeg,
    ConfigureLeg,
    ConnectLeg,
    JoinLegs,
    LegAllocated,
    LegClosed,
    LegRequest,
    NoteInput,
    Playback,
    RemoteMedia,
    StopPlayback,
    UnbridgeLeg,
)
from media.leg.leg import Leg, LegKey
from media.mix.join import Join
from media.webrtc import candidate
from media.webrtc.transport import WebRtcTransport
from media.worker.opening import literal

log = telemetry.get_logger()


@dataclass(slots=True)
class HeldLeg:
    """A leg of this worker and what listens for it."""

    leg: Leg
    webrtc: WebRtcTransport | None = None
    subscriptions: list[Subscription] = field(default_factory=list)
    closing: asyncio.Task[LegClosed] | None = None
    """The end of the leg, once it has begun; only CloseLeg is answered then."""

    async def leave(self) -> None:
        """Listen to no more requests; those that have arrived are still answered."""
        await asyncio.gather(*(subscription.leave() for subscription in self.subscriptions))


class Legs(Protocol):
    """The worker, as far as the requests to one leg concern others."""

    def find(self, key: LegKey) -> HeldLeg | None:
        """A leg of this worker."""

    async def close(self, held: HeldLeg) -> LegClosed:
        """End a leg and give its place back."""

    async def take(self, request: AllocateBeside) -> LegAllocated:
        """Hold another leg of the same call."""


_Handler = Callable[..., Awaitable[Contract | None]]
_Answer = Callable[[LegRequest[Any]], Awaitable[Contract]]


class LegRequests:
    """Serves the owner's requests for one leg. Handlers raise Refused; what they return None for is *taken*."""

    def __init__(self, bus: Bus, held: HeldLeg, legs: Legs) -> None:
        self._bus = bus
        self._held = held
        self._leg = held.leg
        self._legs = legs

    async def listen(self) -> None:
        """Serve them; when this returns and the bus was flushed they arrive."""
        held, key = self._held, {"call_id": self._leg.call_id, "leg_id": self._leg.leg_id}
        handlers: list[tuple[type[LegRequest[Any]], _Handler]] = [
            (ConnectLeg, self._connect), (ConfigureLeg, self._configure), (Playback, self._play),
            (StopPlayback, self._stop), (JoinLegs, self._join), (BridgeLeg, self._bridge),
            (UnbridgeLeg, self._unbridge), (NoteInput, self._note_input), (AddCandidate, self._add_candidate),
        ]  # fmt: skip
        for contract, handler in handlers:
            held.subscriptions.append(await self._bus.serve(contract, self._unless_closing(handler), **key))
        held.subscriptions.append(await self._bus.serve(CloseLeg, self._bound(self._close), **key))
        if self._leg.leg_id == MAIN_LEG:
            # A full worker takes it too: the legs of a call can be joined nowhere else.
            beside = await self._bus.serve(AllocateBeside, self._legs.take, call_id=self._leg.call_id)
            held.subscriptions.append(beside)

    def _unless_closing(self, handler: _Handler) -> _Answer:
        async def answer(request: LegRequest[Any]) -> Contract | None:
            self._refuse_when_closing()
            return await handler(request)

        return self._bound(answer)

    def _bound(self, handler: _Handler) -> _Answer:
        """The handler with the leg bound to its log lines."""

        async def answer(request: LegRequest[Any]) -> Contract:
            with telemetry.bound(call_id=request.call_id, leg_id=request.leg_id):
                return await handler(request) or Taken()

        return answer

    def _refuse_when_closing(self) -> None:
        if self._held.closing is not None:
            raise Refused(409, "the leg is closed")

    # -- handlers ---------------------------------------------------------------------------------

    async def _connect(self, request: ConnectLeg) -> None:
        remote = await _resolved(request.remote)
        self._refuse_when_closing()  # the end may have overtaken the look-up
        self._leg.connect(remote)

    async def _configure(self, request: ConfigureLeg) -> None:
        self._leg.configure(request)
        await self._leg.settle()

    async def _play(self, request: Playback) -> None:
        self._leg.command(request.command, loop=request.loop)

    async def _stop(self, request: StopPlayback) -> None:
        await self._leg.stop_playback(interruption=request.interruption, play_id=request.play_id)

    async def _join(self, request: JoinLegs) -> None:
        other = self._legs.find((request.call_id, request.other_leg))
        if other is None or other.closing is not None:
            raise Refused(404, f"the call has no leg {request.other_leg} here")
        if other.leg is self._leg:
            raise Refused(400, "a leg can't be joined to itself")
        self._leg.touch()
        other.leg.touch()
        Join(
            self._leg,
            other.leg,
            one_way=request.one_way,
            forward_dtmf=request.forward_dtmf,
            pause_asr=request.pause_asr,
        )
        log.info("leg.joined", other_leg=request.other_leg, one_way=request.one_way)

    async def _bridge(self, request: BridgeLeg) -> None:
        if self._leg.leg_id != MAIN_LEG:  # the audio of a bridge is named by the call
            raise Refused(400, "only the main leg of a call is bridged")
        await self._leg.bridge(request.other)

    async def _unbridge(self, request: UnbridgeLeg) -> None:
        await self._leg.unbridge(request.other)

    async def _note_input(self, _request: NoteInput) -> None:
        self._leg.note_input()

    async def _add_candidate(self, request: AddCandidate) -> None:
        if self._held.webrtc is None:
            raise Refused(409, "the leg has no ICE")
        try:
            self._held.webrtc.add_candidate(candidate.parse(request.candidate))
        except candidate.CandidateError as error:
            raise Refused(400, str(error)) from None

    async def _close(self, _request: CloseLeg) -> LegClosed:
        return await self._legs.close(self._held)


async def _resolved(remote: RemoteMedia) -> RemoteMedia:
    """The same with a literal address. Raises Refused when the name is unknown."""
    found = await literal(remote.address)
    if found is None:
        raise Refused(400, f"unknown media address: {remote.address}")
    return remote.model_copy(update={"address": found})
