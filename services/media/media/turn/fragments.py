"""Streamed text on its way to the synthesiser: fragments are joined and cut where a speaker would breathe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A full stop between digits is no end, so Latin marks need white space behind them; CJK marks do not.
_SENTENCE_END = re.compile(r"[.!?…;:]+[\"'”’»)\]]*(?=\s)|[。！？；…]+[”’」』）]*|\n+")
_CLAUSE_END = re.compile(r"[,–—][\"'”’»)\]]*(?=\s)|[，、：]")

_FIRST_CHUNK = 12  # characters; short, so that the first audio comes early
_SENTENCE_CHUNK = 24  # shorter sentences are joined with the next one
_CLAUSE_CHUNK = 120  # a sentence this long is cut at a clause
LONGEST_CHUNK = 400  # without any mark: cut at white space


class FragmentBuffer:
    """Joins the fragments of one utterance and gives speakable chunks as soon as they are complete."""

    def __init__(self) -> None:
        self._text = ""
        self._given = False

    @property
    def pending(self) -> bool:
        """Words are waiting for `append` or `flush`."""
        return not self._text.isspace() and self._text != ""

    def append(self, fragment: str) -> list[str]:
        """Chunks that are complete now, stripped, never empty.

        Fragments may be cut anywhere, words included.
        """
        self._text += fragment
        chunks: list[str] = []
        while end := self._boundary():
            chunks.append(self._text[:end].strip())
            self._text = self._text[end:].lstrip()
            self._given = True
        return [chunk for chunk in chunks if chunk]

    def flush(self) -> list[str]:
        """What is left, as the last chunk; empty when nothing is."""
        rest, self._text = self._text.strip(), ""
        self._given = self._given or bool(rest)
        return [rest] if rest else []

    def to_state(self) -> dict[str, Any]:
        """As plain data."""
        return {"text": self._text, "given": self._given}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FragmentBuffer:
        """What `to_state` wrote."""
        buffer = cls()
        buffer._text, buffer._given = state["text"], state["given"]
        return buffer

    def _boundary(self) -> int:
        """Where the first chunk ends; 0 when it is not complete."""
        least = _SENTENCE_CHUNK if self._given else _FIRST_CHUNK
        if end := _first_end(_SENTENCE_END, self._text, least, _CLAUSE_CHUNK):
            return end
        clause_least = _CLAUSE_CHUNK if self._given else _SENTENCE_CHUNK
        if end := _first_end(_CLAUSE_END, self._text, clause_least, LONGEST_CHUNK):
            return end
        if end := _first_end(_SENTENCE_END, self._text, least, LONGEST_CHUNK):
            return end
        if len(self._text) < LONGEST_CHUNK:
            return 0
        space = max(self._text.rfind(" ", 0, LONGEST_CHUNK), self._text.rfind("\n", 0, LONGEST_CHUNK))
        return space if space > 0 else LONGEST_CHUNK


def _first_end(marks: re.Pattern[str], text: str, least: int, most: int) -> int:
    """End of the first mark that closes `least` to `most` characters; 0 when there is none."""
    return next((mark.end() for mark in marks.finditer(text, 0, most + 1) if least <= mark.end() <= most), 0)
