"""Log lines that a stranger can cause at will: the first of each name, then some, with a count of the rest."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

BURST: Final = 10
"""So many lines of one name at once …"""
PER_S: Final = 0.5
"""… and so many a second from then on."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    suppressed: int = 0


class Quiet:
    """A token bucket for each event name. Names are ours, never a stranger's, so there are few."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, burst: int = BURST, per_s: float = PER_S
    ) -> None:
        self._clock = clock
        self._burst = burst
        self._per_s = per_s
        self._buckets: dict[str, _Bucket] = {}

    def take(self, event: str) -> int | None:
        """None when this line is one too many, else how many were since the last that was not."""
        now = self._clock()
        bucket = self._buckets.setdefault(event, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_s)
        bucket.filled_at = now
        if bucket.tokens < 1:
            bucket.suppressed += 1
            return None
        bucket.tokens -= 1
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed

    def log(self, write: Callable[..., Any], event: str, **facts: Any) -> None:
        """Write a line (`write` is `log.info`, `log.warning`, …) unless there are too many of this name.

        The next one says with `suppressed` how many were left out before it.
        """
        suppressed = self.take(event)
        if suppressed is not None:
            write(event, **facts, **({"suppressed": suppressed} if suppressed else {}))


quiet: Final = Quiet()
"""The process's own."""
