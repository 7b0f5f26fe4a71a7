from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.stabiliser import Partial, Stabiliser

Shown = list[tuple[str, str] | None]


def play(*hypotheses: str) -> Shown:
    """(text, stable part) after each hypothesis; None where nothing is shown."""
    stabiliser = Stabiliser()
    partials = [stabiliser.add(hypothesis) for hypothesis in hypotheses]
    return [(partial.text, partial.stable) if partial else None for partial in partials]


@pytest.mark.parametrize(
    ("hypotheses", "shown"),
    [
        (["And so"], [("And so", "")]),
        (["And so", "And so my"], [("And so", ""), ("And so my", "And so")]),
        (["And so.", "And so my fell"], [("And so.", ""), ("And so my fell", "And so")]),
        (
            ["ask not what", "ask not watt your", "ask not what your country"],
            [("ask not what", ""), ("ask not watt your", "ask not"), ("ask not what your country", "ask not")],
        ),
        # A later hypothesis takes back a stable word: the stable part stays, the rest follows it.
        (
            ["the big dog", "the big dog ran", "the pig dog ran home"],
            [("the big dog", ""), ("the big dog ran", "the big dog"), ("the big dog ran home", "the big dog ran")],
        ),
        # One that has a word more inside the stable part shows none twice.
        (
            ["the dog ran", "the dog ran", "the big dog ran home"],
            [("the dog ran", ""), None, ("the dog ran home", "the dog ran")],
        ),
        # Nothing is taken back by a hypothesis that is shorter, or empty.
        (
            ["I am here now", "I am here now", "I am", ""],
            [("I am here now", ""), None, None, None],
        ),
        (["", "yes", ""], [None, ("yes", ""), None]),
        (["Hello, John", "Hello, john how"], [("Hello, John", ""), ("Hello, john how", "Hello, john")]),
        (
            ["今日は", "今日は良い", "今日は良い天気"],
            [("今日は", ""), ("今日は良い", "今日は"), ("今日は良い天気", "今日は良い")],
        ),
    ],
)
def test_what_two_hypotheses_begin_with_alike_is_stable(hypotheses: list[str], shown: Shown) -> None:
    assert play(*hypotheses) == shown


def test_closing_punctuation_is_shown_but_not_frozen() -> None:
    stabiliser = Stabiliser()
    stabiliser.add("Good morning.")
    stabiliser.add("good morning. ")

    assert stabiliser.stable == "good morning"
    assert stabiliser.add("Good morning, John") == Partial("good morning, John", len("good morning"))


def test_the_final_is_the_last_hypothesis_even_where_it_corrects_the_stable_part() -> None:
    stabiliser = Stabiliser()
    stabiliser.add("ask nod")
    stabiliser.add("ask nod what")

    assert stabiliser.finish("Ask not what.") == "Ask not what."


def test_an_empty_final_keeps_what_was_certain() -> None:
    stabiliser = Stabiliser()
    stabiliser.add("hello there")
    stabiliser.add("hello there mister")

    assert stabiliser.finish("") == "hello there"
    assert Stabiliser().finish("") == ""


words = st.lists(st.sampled_from(["a", "b", "c.", "D,", "今", "-"]), max_size=6).map(" ".join)


@given(st.lists(words, max_size=8))
def test_the_stable_part_only_grows_and_begins_every_later_partial(hypotheses: list[str]) -> None:
    stabiliser, before = Stabiliser(), ""
    for hypothesis in hypotheses:
        partial = stabiliser.add(hypothesis)
        assert stabiliser.stable.startswith(before)
        if partial is not None:
            assert partial.stable == stabiliser.stable
            assert partial.text.startswith(before)
        before = stabiliser.stable


@given(words)
def test_a_hypothesis_repeated_is_stable_and_shown_once_as_it_is(hypothesis: str) -> None:
    stabiliser = Stabiliser()
    first, second = stabiliser.add(hypothesis), stabiliser.add(hypothesis)

    assert (first.text if first else "") == hypothesis
    assert second is None
    assert hypothesis.startswith(stabiliser.stable)
