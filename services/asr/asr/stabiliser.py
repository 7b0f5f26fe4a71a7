"""Hypotheses of one growing utterance, turned into partials that do not flicker and one final.

Every decode hears the utterance from its beginning, and its last words change as more is heard.
LocalAgreement-2 (Liu, Spanakis and Niehues 2020, "Low-latency sequence-to-sequence speech recognition and
translation by partial hypothesis selection"): what two successive hypotheses begin with alike is stable,
and stays as it was shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Scripts written without blanks (Thai, kana, Han) agree character by character, all others word by word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"(\s*)([{_UNSPACED}](?:[^\w\s]*)|[^\s{_UNSPACED}]+)")
_TRAILING = re.compile(r"[^\w\s]+$")


@dataclass(frozen=True, slots=True)
class Partial:
    """What a delta shows: `text[:stable_chars]` is in every later partial, unchanged; the rest may change."""

    text: str
    stable_chars: int

    @property
    def stable(self) -> str:
        return self.text[: self.stable_chars]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A word: blanks before it, itself, punctuation after it; `key` is what agreement compares."""

    lead: str
    core: str
    trail: str

    @property
    def key(self) -> str:
        return self.core.casefold()


class Stabiliser:
    """One utterance's text so far. Words are compared without case and closing punctuation."""

    def __init__(self) -> None:
        self._stable = ""
        self._stable_keys: list[str] = []
        self._previous: list[str] | None = None  # keys behind the stable part, in the hypothesis before
        self._shown = ""

    @property
    def stable(self) -> str:
        """The part that no longer changes."""
        return self._stable

    def add(self, hypothesis: str) -> Partial | None:
        """The next interim hypothesis; None when a client would see nothing new.

        An empty hypothesis (silence, not speech) is ignored: it does not take back what was said.
        """
        units = _units(hypothesis)
        if not units:
            return None
        cut = _cut(self._stable_keys, [unit.key for unit in units])
        agreed = self._agreement([unit.key for unit in units[cut:]])
        for index in range(cut, cut + agreed):
            trail = units[index - 1].trail if index > 0 and self._stable else ""
            self._stable += trail + self._lead(units[index]) + units[index].core
            self._stable_keys.append(units[index].key)
        cut += agreed
        self._previous = [unit.key for unit in units[cut:]]
        return self._partial(units, cut)

    def finish(self, hypothesis: str) -> str:
        """The text of the final: the last hypothesis, which heard everything.

        It may correct the stable part, as finals do. Only an empty one gives the stable part, so that words
        already shown as certain are not lost to a decode that took the whole for noise.
        """
        return hypothesis or self._stable

    def _agreement(self, keys: list[str]) -> int:
        """How many words behind the stable part this hypothesis and the one before have in common."""
        if self._previous is None:
            return 0
        pairs = zip(self._previous, keys, strict=False)
        return next(
            (n for n, (before, here) in enumerate(pairs) if before != here),
            min(len(self._previous), len(keys)),
        )

    def _partial(self, units: list[_Unit], cut: int) -> Partial | None:
        trail = units[cut - 1].trail if cut > 0 and self._stable else ""
        text = self._stable + trail
        for number, unit in enumerate(units[cut:]):
            text += (self._lead(unit) if number == 0 else unit.lead) + unit.core + unit.trail
        if text == self._shown:
            return None
        self._shown = text
        return Partial(text, len(self._stable))

    def _lead(self, unit: _Unit) -> str:
        """Blanks before a unit that follows the stable part, also where its own hypothesis began with it."""
        if not self._stable:
            return ""
        unspaced = re.match(rf"[{_UNSPACED}]", unit.core) is not None
        return unit.lead or ("" if unspaced else " ")


def _units(text: str) -> list[_Unit]:
    units = []
    for lead, body in _UNIT.findall(text.strip()):
        trailing = _TRAILING.search(body)
        core = body[: trailing.start()] if trailing and trailing.start() > 0 else body
        units.append(_Unit(lead, core, body[len(core) :]))
    return units


def _cut(stable: list[str], keys: list[str]) -> int:
    """How many units of a hypothesis stand for the stable ones.

    Usually they begin it. Where the hypothesis has changed its mind about them, it is the prefix with the
    smallest edit distance to them; of equals, the one nearest in length.
    """
    if keys[: len(stable)] == stable:
        return len(stable)
    row = list(range(len(keys) + 1))
    for i, expected in enumerate(stable, 1):
        diagonal, row[0] = row[0], i
        for j, key in enumerate(keys, 1):
            diagonal, row[j] = row[j], min(diagonal + (expected != key), row[j] + 1, row[j - 1] + 1)
    return min(range(len(row)), key=lambda j: (row[j], abs(j - len(stable))))
