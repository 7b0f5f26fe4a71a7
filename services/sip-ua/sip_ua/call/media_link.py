"""A call's side of the talk with its media worker: legs taken, told, and closed.

All legs of a call are on one worker. Nothing here knows what a leg is for.
"""

from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoReply, NoResponder, Refused
from dialbus.contracts import media

log = telemetry.get_logger()

ALLOCATE_TIMEOUT_S = 2.0
WEBRTC_TIMEOUT_S = 6.0
"""Of an allocation that gathers ICE candidates first."""
COMMAND_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 1.5


class MediaGone(Exception):
    """The worker does not answer any more; the call has to do without it."""


class MediaLink:
    """The legs of one call."""

    def __init__(self, bus: Bus, call_id: str) -> None:
        self._bus = bus
        self._call_id = call_id
        self.worker: str | None = None
        """The worker that holds the main leg."""
        self.recordings: list[media.RecordedFile] = []
        """Of the legs closed so far."""
        self._legs: set[str] = set()

    async def allocate(self, request: media.AllocateLeg) -> media.LegAllocated:
        """Take a leg. Raises Refused, with 503 when no worker has room."""
        timeout_s = WEBRTC_TIMEOUT_S if request.kind == "webrtc" else ALLOCATE_TIMEOUT_S
        try:
            allocated = await self._bus.request(request, timeout_s=timeout_s)
        except (NoResponder, NoReply):
            raise Refused(503, "no media worker has room") from None
        if request.leg_id == media.MAIN_LEG:
            self.worker = allocated.worker
        self._legs.add(request.leg_id)
        return allocated

    async def tell(self, command: media.LegCommand) -> None:
        """A request to the worker; nothing when it holds no such leg. Raises Refused, MediaGone."""
        if self.worker is None or command.leg_id not in self._legs:
            return
        try:
            await self._bus.request(command, timeout_s=COMMAND_TIMEOUT_S)
        except (NoResponder, NoReply) as error:
            log.error("call.media_gone", worker=self.worker, error=str(error))
            self.forget()
            raise MediaGone from None

    async def close(self, leg_id: str) -> bool:
        """End a leg; False when nobody is there to end what it has begun."""
        if leg_id not in self._legs:
            return True
        self._legs.discard(leg_id)
        there = True
        try:
            request = media.CloseLeg(call_id=self._call_id, leg_id=leg_id)
            closed = await self._bus.request(request, timeout_s=CLOSE_TIMEOUT_S)
            self.recordings += closed.recordings
        except NoResponder:
            there = False
        except (BusError, Refused) as error:
            log.warning("call.media_not_closed", leg_id=leg_id, error=str(error))
        if leg_id == media.MAIN_LEG:
            self.worker = None
        return there

    def forget(self) -> None:
        """The worker is gone, and every leg with it."""
        self.worker = None
        self._legs.clear()

    async def close_all(self) -> None:
        """End what is still held: legs that were found when the call had ended already."""
        for leg_id in sorted(self._legs):
            await self.close(leg_id)
