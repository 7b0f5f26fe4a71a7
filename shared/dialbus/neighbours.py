"""The workers that a service depends on, by their heartbeats: who is there, and who fell silent."""

import asyncio
from collections.abc import Sequence

from dialbus.bus import Bus, Subscription
from dialbus.contracts.session import Heartbeat
from dialbus.liveness import HEARTBEAT_S, LOST_AFTER_BEATS, Liveness


class Neighbours:
    """Hears the workers of some services from `listen` until `close`.

    While the bus is away nobody can be heard, and nobody's silence counts.
    """

    def __init__(self, bus: Bus, *services: str) -> None:
        self._bus = bus
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._liveness = Liveness(HEARTBEAT_S)
        self._last: dict[str, tuple[float, Heartbeat]] = {}
        self._subscriptions: list[Subscription] = []

    async def listen(self) -> None:
        """Hear heartbeats; from now on silence counts."""
        for service in self._services:
            self._subscriptions.append(await self._bus.subscribe(Heartbeat, self._on_heartbeat, service=service))
        self.is_gone("")

    async def close(self) -> None:
        """Hear no more."""
        for subscription in self._subscriptions:
            await subscription.drop()

    def alive(self, service: str) -> Sequence[Heartbeat]:
        """The last heartbeat of each worker of a service that was heard of lately; none while the bus is away."""
        since = self._loop.time() - LOST_AFTER_BEATS * HEARTBEAT_S
        return [beat for at, beat in self._last.values() if beat.service == service and at >= since]

    def lost(self) -> list[Heartbeat]:
        """The last heartbeats of those who were heard and then fell silent; each is told once."""
        return [self._last.pop(name)[1] for name in self._liveness.lost(self._now())]

    def is_gone(self, instance: str) -> bool:
        """Whether nobody of this name beats, as far as one who has listened long enough can tell."""
        return self._liveness.is_gone(instance, self._now())

    def _now(self) -> float:
        now = self._loop.time()
        if not self._bus.connected:
            self._liveness.deaf(now)
        return now

    async def _on_heartbeat(self, beat: Heartbeat) -> None:
        now = self._loop.time()
        self._last[beat.instance] = (now, beat)
        self._liveness.heard(beat.instance, now)
