"""Whose text is synthesised next, and when: pure, no clock, no thread.

A worker makes a few pieces of speech at once and many texts want them. A text is in hand while one of its pieces is
being made. A call's texts follow one another; between calls the order is:

1. speech that would soon fall silent (less than `SAFE_AHEAD_S` of audio left), the most urgent first,
2. texts that have not begun, first come, first served,
3. speech that is well ahead of its listener.

Speech that is `MAX_AHEAD_S` ahead of its listener rests until it no longer is: a long text neither floods the bus nor
fills the media worker, and a barge-in wastes little.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

SAFE_AHEAD_S = 1.0
MAX_AHEAD_S = 10.0

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Text:
    call_id: str
    number: int
    """Order of arrival."""
    in_hand: bool = False
    runs_out_at: float | None = None
    """When the listener has heard all that was made; None before the first piece."""


class Schedule(Generic[K]):
    """Texts by key; at most `at_once` of them are in hand. Times are monotonic seconds."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._texts: dict[K, _Text] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, key: K) -> bool:
        return key in self._texts

    @property
    def waiting(self) -> int:
        """Texts that have not begun."""
        return sum(text.runs_out_at is None and not text.in_hand for text in self._texts.values())

    @property
    def has_room(self) -> bool:
        """Fewer than `at_once` are in hand; after `take` has said None, nothing else wants the place now."""
        return sum(text.in_hand for text in self._texts.values()) < self._at_once

    def add(self, key: K, call_id: str) -> None:
        """A new text, behind those of its call."""
        self._arrivals += 1
        self._texts[key] = _Text(call_id, self._arrivals)

    def take(self, now: float) -> K | None:
        """The text whose next piece is to be made now, which is in hand from here on; None: nothing to do."""
        if not self.has_room:
            return None
        due = [key for key, text in self._first_of_calls().items() if self._due_at(text) <= now]
        if not due:
            return None
        chosen = min(due, key=lambda key: self._rank(self._texts[key], now))
        self._texts[chosen].in_hand = True
        return chosen

    def put_back(self, key: K, made_s: float, now: float) -> None:
        """A piece of `made_s` seconds of audio was made and sent; there may be more of this text."""
        text = self._texts[key]
        text.in_hand = False
        # A listener who ran dry goes on from now: what is late is not made up for.
        text.runs_out_at = max(now, text.runs_out_at or now) + made_s

    def remove(self, key: K) -> None:
        """The text is finished, failed or unwanted; fine when it is not there."""
        self._texts.pop(key, None)

    @property
    def deadline(self) -> float | None:
        """When `take` has something to do next, by the passing of time alone; None: never.

        In the past when only the number of texts in hand is in the way.
        """
        return min((self._due_at(text) for text in self._first_of_calls().values()), default=None)

    def _first_of_calls(self) -> dict[K, _Text]:
        """The oldest text of each call, without those in hand."""
        first: dict[str, K] = {}
        for key, text in self._texts.items():  # in order of arrival
            first.setdefault(text.call_id, key)
        return {key: self._texts[key] for key in first.values() if not self._texts[key].in_hand}

    @staticmethod
    def _due_at(text: _Text) -> float:
        return float("-inf") if text.runs_out_at is None else text.runs_out_at - MAX_AHEAD_S

    @staticmethod
    def _rank(text: _Text, now: float) -> tuple[int, float]:
        if text.runs_out_at is None:
            return 1, text.number
        return (0 if text.runs_out_at - now < SAFE_AHEAD_S else 2), text.runs_out_at
