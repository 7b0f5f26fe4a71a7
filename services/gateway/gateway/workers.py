"""The workers of the exchange, by their heartbeats: whether all have begun, and what they counted."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from dialbus.bus import Bus
from dialbus.config import SERVICES
from dialbus.contracts.session import Heartbeat
from dialbus.neighbours import Neighbours


class Start:
    """Whether the exchange has begun: each service that is expected had a ready worker, all at one time. Pure.

    What happens afterwards does not undo it: a service that fails later is told by its own `/health`, and calls that
    do without it go on.
    """

    def __init__(self, expected: Sequence[str]) -> None:
        self._expected = expected
        self._begun = False

    def waiting_for(self, alive: Callable[[str], Sequence[Heartbeat]]) -> list[str]:
        """The services that nobody is ready of. A worker's heartbeats begin when it is ready."""
        if self._begun:
            return []
        missing = [service for service in self._expected if not alive(service)]
        self._begun = not missing
        return missing


class Workers:
    """The workers of the exchange, as this gateway hears them. `expected`: services that make it complete."""

    def __init__(self, bus: Bus, expected: Sequence[str]) -> None:
        self._neighbours = Neighbours(bus, *SERVICES)
        self._start = Start(expected)
        self._since = datetime.now(UTC).isoformat()
        self.is_gone = self._neighbours.is_gone

    async def listen(self) -> None:
        """Hear heartbeats; from now on silence counts."""
        await self._neighbours.listen()

    def waiting_for(self) -> list[str]:
        """The expected services that have not been ready since this gateway began; empty once all have been."""
        return self._start.waiting_for(self._neighbours.alive)

    def lost(self) -> set[str]:
        """Instances that fell silent, each told once; nobody while the bus is away."""
        return {beat.instance for beat in self._neighbours.lost()}

    def facts(self) -> dict[str, Any]:
        """What `/health` tells about the exchange."""
        return {"uptime": self._since, **counts(self._neighbours.alive("sip-ua"))}


def counts(beats: Sequence[Heartbeat]) -> dict[str, Any]:
    """What sip-ua workers counted, summed; those that don't count a thing add nothing to it."""

    def total(fact: str) -> int:
        return sum(beat.facts.get(fact, 0) for beat in beats)

    return {
        "total": total("total"),
        "failed": total("failed"),
        "runnings": sum(beat.in_use for beat in beats),
        "useragent": {
            "pending": total("pending"),
            "dialogs": total("dialogs"),
            "transactions": {name: total(f"transactions_{name}") for name in ("running", "finished", "waiting_ack")},
        },
    }
