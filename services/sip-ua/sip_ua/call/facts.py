"""What the parts of a call machine have in common: its clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time of a monotonic `now`: `epoch` is what the wall showed at `started`."""

    started: float
    epoch: datetime

    def ms(self, now: float) -> int:
        """Unix epoch milliseconds."""
        return int(self._at(now).timestamp() * 1000)

    def wall(self, now: float) -> str:
        """RFC 3339."""
        return self._at(now).isoformat()

    def wall_or_none(self, now: float | None) -> str | None:
        """RFC 3339 of a moment that may not have come."""
        return None if now is None else self.wall(now)

    def _at(self, now: float) -> datetime:
        return self.epoch + timedelta(seconds=now - self.started)
