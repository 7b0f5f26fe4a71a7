from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wer import wer, word_errors, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Ask not, what YOUR country…", ["ask", "not", "what", "your", "country"]),
        ("don't", ["don't"]),
        ("don’t", ["don't"]),
        ("42", ["42"]),
        ("forty two", ["42"]),
        ("Forty-two!", ["42"]),
        ("table forty, please", ["table", "40", "please"]),
        ("one hundred and five", ["105"]),
        ("one hundred and counting", ["100", "and", "counting"]),
        ("three thousand two hundred and seven", ["3207"]),
        ("3,207", ["3207"]),
        ("two million", ["2000000"]),
        ("nineteen sixty one", ["1961"]),
        ("five five five, one two three four", ["5551234"]),
        ("555-1234", ["5551234"]),
        ("twenty ten", ["2010"]),
        ("seventeen", ["17"]),
        ("zero", ["0"]),
        ("a hundred", ["a", "100"]),
        ("room 12 and 14", ["room", "12", "and", "14"]),
        ("50%", ["50", "percent"]),
        ("fifty percent", ["50", "percent"]),
        ("Grüße an Zoë", ["grüsse", "an", "zoë"]),
    ],
)
def test_words_are_normalised(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "rate"),
    [
        ("", "", 0, 0.0),
        ("one two three", "123", 0, 0.0),
        ("the big dog", "the dog", 1, 1 / 3),
        ("the dog", "the big dog", 1, 1 / 2),
        ("the big dog", "a pig dog", 2, 2 / 3),
        ("number forty two", "number 43", 1, 1 / 2),
        ("hello", "", 1, 1.0),
        ("", "you there", 2, 2.0),
        ("a b c d", "d c b a", 4, 1.0),
    ],
)
def test_errors_are_counted_per_reference_word(reference: str, hypothesis: str, errors: int, rate: float) -> None:
    assert word_errors(reference, hypothesis) == errors
    assert wer(reference, hypothesis) == pytest.approx(rate)


@given(st.text(max_size=60))
def test_any_text_has_no_errors_against_itself_and_normalising_is_idempotent(text: str) -> None:
    assert wer(text, text) == 0
    assert words(" ".join(words(text))) == words(text)


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_errors_are_symmetric_and_bounded(first: list[str], second: list[str]) -> None:
    errors = word_errors(" ".join(first), " ".join(second))
    assert errors == word_errors(" ".join(second), " ".join(first))
    assert abs(len(first) - len(second)) <= errors <= max(len(first), len(second))


UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety"


def _spelt(number: int) -> str:
    units, tens = UNITS.split(), TENS.split()
    if number < 20:
        return units[number]
    if number < 100:
        return tens[number // 10] + (f"-{units[number % 10]}" if number % 10 else "")
    if number < 1000:
        return f"{units[number // 100]} hundred" + (f" and {_spelt(number % 100)}" if number % 100 else "")
    return f"{_spelt(number // 1000)} thousand" + (f" {_spelt(number % 1000)}" if number % 1000 else "")


@given(st.integers(0, 999_999))
def test_numbers_are_the_same_in_words_and_digits(number: int) -> None:
    assert wer(f"it is {_spelt(number)} now", f"it is {number} now") == 0
    assert wer(f"it is {_spelt(number)} now", f"it is {number:,} now") == 0
