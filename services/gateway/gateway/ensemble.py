"""What the heartbeats tell of all workers: who is there, how much they carry, what they counted. Pure."""

from dialbus.contracts.session import Heartbeat
from dialbus.liveness import LOST_AFTER_BEATS, Liveness


class Ensemble:
    """The workers heard of lately. `period_s` is that of their heartbeats; `now` is monotonic seconds."""

    def __init__(self, period_s: float) -> None:
        self._limit_s = LOST_AFTER_BEATS * period_s
        self._liveness = Liveness(period_s)
        self._last: dict[str, tuple[float, Heartbeat]] = {}

    def heard(self, beat: Heartbeat, now: float) -> None:
        """A heartbeat came."""
        self._liveness.heard(beat.instance, now)
        self._last[beat.instance] = (now, beat)

    def deaf(self, now: float) -> None:
        """The bus is away: nobody's silence counts."""
        self._liveness.deaf(now)

    def workers(self, service: str, now: float) -> list[Heartbeat]:
        """The last heartbeat of each worker of a service that is alive."""
        self._last = {name: item for name, item in self._last.items() if now - item[0] <= self._limit_s}
        return [beat for _, beat in self._last.values() if beat.service == service]

    def sum(self, service: str, fact: str, now: float) -> int:
        """A count over all workers of a service; those that don't count it add nothing."""
        return sum(beat.facts.get(fact, 0) for beat in self.workers(service, now))

    def is_gone(self, instance: str, now: float) -> bool:
        """Whether nobody of this name beats, as far as one who has listened long enough can tell."""
        return self._liveness.is_gone(instance, now)
