"""Moments of a call: seconds on its owner's monotonic clock, and what the wall shows then."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, SerializationInfo, ValidationInfo


def _since_now(moment: float, info: SerializationInfo) -> float:
    return moment - float((info.context or {})["now"])


def _from_now(seconds: float, info: ValidationInfo) -> float:
    return seconds + float((info.context or {})["now"])


Moment = Annotated[float, PlainSerializer(_since_now), AfterValidator(_from_now)]
"""Monotonic seconds; stored relative to `now`, since another process has another clock."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time of a monotonic `now`: `epoch` is what the wall showed at `started`."""

    started: Moment
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
