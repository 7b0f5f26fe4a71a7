"""Word error rate between what was said and what was understood.

Substitutions, deletions and insertions per word of the reference, by Levenshtein's distance over words.
Before that both sides are normalised, so that spelling conventions do not count: case, punctuation, "42"
and "forty two".
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\d+(?:[.,]\d+)*|%|[^\W\d_]+(?:'[^\W\d_]+)*")
_UNIT_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: value for value, word in enumerate(_UNIT_NAMES.split())}
_TENS = {word: 10 * value for value, word in enumerate(_TEN_NAMES.split(), start=2)}
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_NUMBER_WORDS = {*_UNITS, *_TENS, *_SCALES, "hundred"}


def words(text: str) -> list[str]:
    """The normalised words of a text.

    A run of adjacent numbers, in words or digits, becomes one word of digits, however it was grouped:
    "forty-two" is "42", "nineteen sixty one" is "1961", "555 1234" and "five five five one two three four"
    are "5551234".
    """
    result: list[str] = []
    number = ""
    tokens = [_canonical(token) for token in _WORD.findall(text.casefold().replace("’", "'"))]
    position = 0
    while position < len(tokens):
        digits, taken = _number(tokens, position)
        if taken:
            number += digits
        else:
            result += [number] * bool(number) + [tokens[position]]
            number = ""
        position += taken or 1
    return result + [number] * bool(number)


def word_errors(reference: str, hypothesis: str) -> int:
    """The least number of words to replace, drop or add to turn the hypothesis into the reference."""
    expected, heard = words(reference), words(hypothesis)
    row = list(range(len(heard) + 1))
    for i, want in enumerate(expected, start=1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(heard, start=1):
            diagonal, row[j] = row[j], min(diagonal + (want != got), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def wer(reference: str, hypothesis: str) -> float:
    """`word_errors` per word of the reference, 0 at best and above 1 where many words were invented.

    For a reference without words it is the number of words heard.
    """
    return word_errors(reference, hypothesis) / max(1, len(words(reference)))


def _canonical(token: str) -> str:
    return "percent" if token == "%" else token


def _number(tokens: list[str], start: int) -> tuple[str, int]:
    """The number that begins at a token, as digits, and how many tokens it takes; ("", 0) for none."""
    if tokens[start][0].isdigit():
        return tokens[start].replace(",", ""), 1
    if tokens[start] not in _NUMBER_WORDS:
        return "", 0
    total, group, position = 0, _first_value(tokens[start]), start + 1
    smallest = _magnitude(tokens[start])
    while position < len(tokens):
        skipped = tokens[position] == "and" and smallest >= 100
        word = tokens[position + skipped] if position + skipped < len(tokens) else ""
        if word == "hundred" and 0 < group < 100:
            group, smallest = group * 100, 100
        elif word in _SCALES and group > 0:
            total, group, smallest = total + group * _SCALES[word], 0, 1_000
        elif word in _UNITS | _TENS and _fits(word, group, smallest):
            group, smallest = group + (_UNITS | _TENS)[word], _magnitude(word)
        else:
            break
        position += 1 + skipped
    return str(total + group), position - start


def _first_value(word: str) -> int:
    return (_UNITS | _TENS | _SCALES | {"hundred": 100})[word]


def _magnitude(word: str) -> int:
    """What a following word has to be smaller than to belong to the same number."""
    if word in _TENS:
        return 10
    return 1 if word in _UNITS else _first_value(word)


def _fits(word: str, group: int, smallest: int) -> bool:
    """Whether a unit or a ten continues a number: "forty" + "two" and "hundred" + "ten" do, "two" + "four" do not."""
    value = (_UNITS | _TENS)[word]
    return 0 < value < smallest if smallest >= 10 else False
