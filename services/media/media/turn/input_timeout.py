"""waitInputTimeout: after a playback, how long to wait for the caller (protocol 2.5.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputTimeout:
    """No input came: the `silence` event of the server-side track."""

    started_at: float
    """When the playback ended."""
    duration_ms: int
    """The configured value, not what passed."""


class InputTimer:
    """Armed when a playback ends by itself, cancelled by any input or new playback; fires once."""

    def __init__(self) -> None:
        self._armed: InputTimeout | None = None

    @property
    def deadline(self) -> float:
        """When `tick` has something to say; infinity when not armed."""
        if self._armed is None:
            return math.inf
        return self._armed.started_at + self._armed.duration_ms / 1000

    def arm(self, started_at: float, duration_ms: int | None) -> None:
        """Wait `duration_ms` from `started_at`, which may lie in the past; None or 0 is off."""
        self._armed = InputTimeout(started_at, duration_ms) if duration_ms else None

    def cancel(self) -> None:
        """Input was heard, or something new plays."""
        self._armed = None

    def tick(self, now: float) -> list[InputTimeout]:
        """The timeout, once, when it is due."""
        if self._armed is None or now < self.deadline - 1e-9:
            return []
        expired, self._armed = self._armed, None
        return [expired]
