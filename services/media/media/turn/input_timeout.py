"""waitInputTimeout: after a playback, how long to wait for the caller (protocol 2.5.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class InputTimeout:
    """No input came: the `silence` event of the server-side track."""

    started_at: float
    """When the playback ended."""
    duration_ms: int
    """The configured value, not what passed."""


class InputTimer:
    """Armed when a playback was heard to its end, cancelled by any input or new playback; fires once."""

    def __init__(self) -> None:
        self._armed: InputTimeout | None = None

    @property
    def deadline(self) -> float:
        """When `tick` has something to say; infinity when nothing is waited for."""
        if self._armed is None or not self._armed.duration_ms:
            return math.inf
        return self._armed.started_at + self._armed.duration_ms / 1000

    def arm(self, started_at: float, duration_ms: int | None) -> None:
        """Wait `duration_ms` from `started_at`, which may lie in the past; None or 0 is off, unless it is changed."""
        self._armed = InputTimeout(started_at, duration_ms or 0)

    def change(self, duration_ms: int) -> None:
        """Wait so long instead, from the same moment; nothing when it was cancelled."""
        if self._armed is not None:
            self._armed = InputTimeout(self._armed.started_at, duration_ms)

    def cancel(self) -> None:
        """Input was heard, or something new plays."""
        self._armed = None

    def tick(self, now: float) -> list[InputTimeout]:
        """The timeout, once, when it is due."""
        if self._armed is None or now < self.deadline - 1e-9:
            return []
        expired, self._armed = self._armed, None
        return [expired]

    def to_state(self, now: float) -> dict[str, Any] | None:
        """As plain data; moments in seconds from `now`."""
        if self._armed is None:
            return None
        return {"started": self._armed.started_at - now, "duration_ms": self._armed.duration_ms}

    @classmethod
    def from_state(cls, state: Mapping[str, Any] | None, now: float) -> InputTimer:
        """What `to_state` wrote."""
        timer = cls()
        if state is not None:
            timer.arm(state["started"] + now, state["duration_ms"])
        return timer
