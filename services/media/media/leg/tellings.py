"""What a leg tells the owner of its call."""

import asyncio

from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoResponder, Refused
from dialbus.contracts.base import Request, Taken
from dialbus.contracts.media import AllocateLeg, LegInactive, LegLost, PlaybackEnded
from dialbus.tasks import TaskSet
from media.leg.outbox import Outbox

log = telemetry.get_logger()

_ATTEMPTS = 5  # of a call's end: one that the owner misses would leave the remote party in silence
_RETRY_S = 1.0


class Tellings:
    """Each is asked again until the owner has taken or refused it."""

    def __init__(self, bus: Bus, allocation: AllocateLeg, outbox: Outbox, tasks: TaskSet) -> None:
        self._bus = bus
        self._call_id = allocation.call_id
        self._leg_id = allocation.leg_id
        self._outbox = outbox
        self._tasks = tasks
        self._log = log.bind(call_id=self._call_id, leg_id=self._leg_id)

    def playback_ended(self) -> None:
        """A playback with `autoHangup` ended; told when its `trackEnd` is stored."""
        self._tell_behind_events(PlaybackEnded(call_id=self._call_id))

    def inactive(self) -> None:
        """Nothing came from the remote party for the inactivity timeout."""
        self._tell_behind_events(LegInactive(call_id=self._call_id))

    async def lost(self, reason: str, *, hung_up: bool) -> None:
        """The owner has to do without this leg. Raises NoResponder when the call has no owner."""
        await self._tell(
            LegLost(call_id=self._call_id, leg_id=self._leg_id, reason=reason, hung_up=hung_up), final=NoResponder
        )

    def _tell_behind_events(self, request: Request[Taken]) -> None:
        """Tell it when the events so far are stored, without holding up those behind."""

        async def tell() -> None:
            self._tasks.start(self._tell(request), name=f"tell owner {type(request).__name__}")

        self._outbox.then(tell)

    async def _tell(self, request: Request[Taken], *, final: type[Exception] | tuple[()] = ()) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._bus.request(request)
                return
            except final:
                raise
            except (BusError, Refused) as error:
                self._log.warning("leg.owner_not_told", told=type(request).__name__, error=str(error))
            await asyncio.sleep(_RETRY_S)
