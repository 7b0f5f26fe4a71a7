from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.text import normalise


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        (" Hello there. ", "Hello there."),
        ("two  \n\t blanks", "two blanks"),
        ("[BLANK_AUDIO]", ""),
        (" (music)", ""),
        ("((music))", ""),
        ("Hello (laughs), John", "Hello, John"),
        ("*coughs* yes", "yes"),
        ("♪ la la ♪ and then", "and then"),
        ("♪", ""),
        ("...", ""),
        ("call (555) 123-4567", "call (555) 123-4567"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("Stay (", "Stay ("),
        ("It is 42, OK?", "It is 42, OK?"),
        ("about .5 percent", "about .5 percent"),
        ("それは良い", "それは良い"),
    ],
)
def test_only_blanks_and_annotations_go(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@given(st.text(alphabet="ab1 .,()[]*♪\n", max_size=40))
def test_normalising_twice_is_normalising_once(raw: str) -> None:
    once = normalise(raw)
    assert normalise(once) == once
    assert once == once.strip()
    assert "  " not in once
