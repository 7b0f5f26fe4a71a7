"""Whether the remote party still sends. Pure: the time is an argument."""

from typing import Protocol


class Watched(Protocol):
    """An endpoint, as far as its silence is judged."""

    heard_at: float | None

    @property
    def on_hold(self) -> bool:
        """Nobody has to be heard."""

    @property
    def ready(self) -> bool:
        """Audio can flow."""


class Activity:
    """Tells once when nothing was heard for `limit_s`; 0 switches that off."""

    def __init__(self) -> None:
        self.limit_s = 0.0
        self._missed_at: float | None = None
        self._told = False

    def expect(self, now: float) -> None:
        """From now on the remote party sends, or it began anew to."""
        self._missed_at = now

    def silent_for(self, endpoint: Watched, now: float) -> float | None:
        """Seconds of silence, once, when they are too many; called in every tick."""
        if not self.limit_s or self._told or self._missed_at is None:
            return None
        if endpoint.on_hold or not endpoint.ready:
            self._missed_at = now
        silent_s = now - max(self._missed_at, endpoint.heard_at or 0.0)
        if silent_s <= self.limit_s:
            return None
        self._told = True
        return silent_s
