"""The 20 ms clock: ticks at absolute deadlines, so that no delay adds up."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dialbus.audio import FRAME_S

MAX_AT_ONCE = 4
"""Ticks made up for in a row after a delay: what a phone's jitter buffer takes; the rest are skipped."""


@dataclass(frozen=True, slots=True)
class Due:
    """What a late or timely wake-up has to do."""

    ticks: tuple[float, ...]
    """The moments to tick for, in order."""
    skipped: int
    """Ticks that are given up."""


class Schedule:
    """Which ticks are due when; sans-IO."""

    def __init__(self, start: float, period_s: float = FRAME_S, max_at_once: int = MAX_AT_ONCE) -> None:
        self._start = start
        self._period_s = period_s
        self._max_at_once = max_at_once
        self._next = 0

    @property
    def deadline(self) -> float:
        """The moment of the next tick."""
        return self._start + self._next * self._period_s

    def due(self, now: float) -> Due:
        """Every tick up to `now`, at least one; the oldest are skipped when there are too many."""
        behind = max(1, int((now - self.deadline) / self._period_s + 1e-6) + 1)
        skipped = max(0, behind - self._max_at_once)
        first = self._next + skipped
        self._next += behind
        return Due(tuple(self._start + n * self._period_s for n in range(first, self._next)), skipped)


class Pacer:
    """Calls `tick(moment)` for every period, and `skip(ticks)` for those that are given up."""

    def __init__(self, tick: Callable[[float], None], skip: Callable[[int], None]) -> None:
        self._tick = tick
        self._skip = skip
        self._loop = asyncio.get_running_loop()
        self._schedule = Schedule(self._loop.time() + FRAME_S)
        self._handle: asyncio.TimerHandle | None = None
        self.late = 0
        """Ticks that came more than half a period late."""

    def start(self) -> None:
        """Tick from now on, until `stop`."""
        self._handle = self._loop.call_at(self._schedule.deadline, self._wake)

    def stop(self) -> None:
        """No more ticks."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wake(self) -> None:
        now = self._loop.time()
        if now - self._schedule.deadline > FRAME_S / 2:
            self.late += 1
        due = self._schedule.due(now)
        self._handle = self._loop.call_at(self._schedule.deadline, self._wake)
        if due.skipped:
            self._skip(due.skipped)
        for moment in due.ticks:
            self._tick(moment)


def prefer_this_thread() -> bool:
    """Ask for real-time scheduling of this thread, not of its children; False where the system does not allow it."""
    with suppress(OSError, AttributeError):  # not allowed, or not a system that has it
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return True
    return False
