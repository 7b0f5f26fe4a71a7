"""Who is alive, by heartbeats. Pure: the time is an argument."""

HEARTBEAT_S = 1.0
"""How often a worker says that it lives."""
LOST_AFTER_BEATS = 4


class Liveness:
    """The workers heard, and those that fell silent. `period_s` is that of the heartbeats."""

    def __init__(self, period_s: float) -> None:
        self._limit_s = LOST_AFTER_BEATS * period_s
        self._heard: dict[str, float] = {}
        self._since: float | None = None

    def heard(self, instance: str, now: float) -> None:
        """A heartbeat came."""
        self._heard[instance] = now

    def deaf(self, now: float) -> None:
        """Nobody can be heard at this moment (the bus is away): nobody's silence counts."""
        self._heard = dict.fromkeys(self._heard, now)
        self._since = now

    def lost(self, now: float) -> set[str]:
        """Those who were heard once and then fell silent; each is told once."""
        gone = {name for name, at in self._heard.items() if now - at > self._limit_s}
        for name in gone:
            del self._heard[name]
        return gone

    def is_gone(self, instance: str, now: float) -> bool:
        """Whether nobody of this name beats, as far as one who has listened long enough can tell."""
        if self._since is None:
            self._since = now
        if now - self._since <= self._limit_s:
            return False
        at = self._heard.get(instance)
        return at is None or now - at > self._limit_s
