"""Delivery of one webhook: attempts, back-off, giving up (protocol section 5.5), without HTTP and without a clock.

What an attempt led to goes in; the next attempt or the outcome comes out. A caller hears ringing meanwhile, so all of
it fits into one limit: attempts, pauses and the last answer. Any 2xx is success. A target that could not be reached,
is overloaded (429) or broken (5xx) gets another attempt, at the next URL if there are several; any other answer,
redirects included, is final.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0
LEAST_ATTEMPT_S = 0.05
"""Less time than this is not worth an attempt."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the request once; then tell `responded` or `failed`."""

    url: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end: tell the owner of the call."""

    delivered: bool
    status: int | None
    reason: str
    attempts: int


Effect = Attempt | Outcome


class Delivery:
    """One call's announcement.

    `first`: index of the URL of the first attempt (round-robin over calls is the caller's). `give_up_at`: monotonic
    seconds after which the announcement serves nobody. Raises ValueError without URLs.
    """

    def __init__(self, urls: Sequence[str], *, first: int, give_up_at: float) -> None:
        if not urls:
            raise ValueError("a delivery needs a URL")
        self._urls = tuple(urls)
        self._next = first % len(self._urls)
        self._give_up_at = give_up_at
        self._attempts = 0
        self._resume_at = math.inf
        self._status: int | None = None
        self._reason = "no time left to ring"

    @property
    def deadline(self) -> float:
        """When `tick` is due; infinite while an attempt runs or all is over."""
        return self._resume_at

    def start(self, now: float) -> list[Effect]:
        """The first attempt."""
        return self._attempt(now)

    def tick(self, now: float) -> list[Effect]:
        """The pause is over."""
        return self._attempt(now) if now >= self._resume_at else []

    def responded(self, status: int, now: float, jitter: float) -> list[Effect]:
        """The target answered. `jitter` from [0, 1) spreads the retries of many calls."""
        self._status = status
        self._reason = f"webhook answered {status}"
        if 200 <= status < 300:
            return [Outcome(True, status, "", self._attempts)]
        return self._again(now, jitter) if status == 429 or status >= 500 else [self._failure()]

    def failed(self, reason: str, now: float, jitter: float, *, retry: bool) -> list[Effect]:
        """The attempt led to no answer; `retry` when another one may."""
        self._status = None
        self._reason = reason
        return self._again(now, jitter) if retry else [self._failure()]

    def _attempt(self, now: float) -> list[Effect]:
        self._resume_at = math.inf
        left = self._give_up_at - now
        if left < LEAST_ATTEMPT_S:
            return [self._failure()]
        url = self._urls[self._next]
        self._next = (self._next + 1) % len(self._urls)
        self._attempts += 1
        return [Attempt(url, left)]

    def _again(self, now: float, jitter: float) -> list[Effect]:
        """Pause, unless the pause would use up the time that is left: then the outcome is known already."""
        pause = self._pause(jitter)
        if now + pause + LEAST_ATTEMPT_S > self._give_up_at:
            return [self._failure()]
        self._resume_at = now + pause
        return []

    def _pause(self, jitter: float) -> float:
        """Doubling from round to round over the URLs; another URL that was not tried yet is tried at once."""
        rounds = self._attempts // len(self._urls)
        if rounds == 0:
            return 0.0
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(rounds - 1, 8)) * (0.5 + jitter / 2)

    def _failure(self) -> Outcome:
        return Outcome(False, self._status, self._reason, self._attempts)
