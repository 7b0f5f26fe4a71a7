"""Attempts, back-off and giving up of one webhook (protocol section 5.5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_dispatcher.delivery import Attempt, Delivery, Outcome


def delivery(urls: tuple[str, ...] = ("a",), first: int = 0, give_up_at: float = 10.0) -> Delivery:
    return Delivery(urls, first=first, give_up_at=give_up_at)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_2xx_is_success(status: int) -> None:
    one = delivery()
    assert one.start(0.0) == [Attempt("a", 10.0)]
    assert one.responded(status, 0.5, 0.0) == [Outcome(True, status, "", 1)]


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 422])
def test_other_answers_are_final(status: int) -> None:
    one = delivery()
    one.start(0.0)
    assert one.responded(status, 0.5, 0.0) == [Outcome(False, status, f"webhook answered {status}", 1)]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_and_broken_targets_are_tried_again_with_the_time_that_is_left(status: int) -> None:
    one = delivery()
    one.start(0.0)
    assert one.responded(status, 1.0, 0.0) == []
    assert one.deadline == 1.125
    assert one.tick(1.1) == []
    assert one.tick(1.125) == [Attempt("a", 8.875)]
    assert one.responded(204, 2.0, 0.0) == [Outcome(True, 204, "", 2)]


def test_pauses_double_up_to_two_seconds() -> None:
    one, now, pauses = delivery(give_up_at=60.0), 0.0, []
    one.start(now)
    for _ in range(6):
        assert one.failed("refused", now, 1.0, retry=True) == []
        pauses.append(one.deadline - now)
        now = one.deadline
        one.tick(now)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_failure_without_retry_is_final() -> None:
    one = delivery()
    one.start(0.0)
    assert one.failed("webhook timeout", 10.0, 0.0, retry=False) == [Outcome(False, None, "webhook timeout", 1)]


def test_next_url_is_tried_at_once_and_pauses_begin_after_a_round() -> None:
    one = delivery(("a", "b", "c"), first=4)
    (attempt,) = one.start(0.0)
    assert attempt == Attempt("b", 10.0)
    tried = []
    for _ in range(2):
        assert one.failed("refused", 1.0, 0.5, retry=True) == []
        assert one.deadline == 1.0
        tried += one.tick(1.0)
    assert tried == [Attempt("c", 9.0), Attempt("a", 9.0)]
    assert one.failed("refused", 1.0, 0.5, retry=True) == []
    assert one.deadline > 1.0


def test_outcome_comes_at_once_when_the_pause_would_use_up_the_time() -> None:
    one = delivery(give_up_at=1.0)
    one.start(0.0)
    assert one.responded(503, 0.9, 0.0) == [Outcome(False, 503, "webhook answered 503", 1)]


def test_deadline_that_has_passed_means_no_attempt() -> None:
    assert delivery(give_up_at=5.0).start(5.0) == [Outcome(False, None, "no time left to ring", 0)]


def test_delivery_without_urls_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="URL"):
        delivery(())


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.999), st.sampled_from([None, 503, 429, 500])), max_size=200),
    st.integers(1, 4),
    st.floats(0, 20),
)
def test_every_delivery_ends_by_its_deadline(
    results: list[tuple[float, float, int | None]], urls: int, give_up_at: float
) -> None:
    one, now = delivery(tuple("abcd"[:urls]), give_up_at=give_up_at), 0.0
    effects = one.start(now)
    for took, jitter, status in results:
        match effects:
            case [Outcome() as outcome]:
                assert not outcome.delivered
                assert now <= give_up_at + 1e-9
                return
            case [Attempt() as attempt]:
                assert now + attempt.timeout_s <= give_up_at + 1e-9
                now += min(took, attempt.timeout_s)
                effects = (
                    one.failed("refused", now, jitter, retry=True)
                    if status is None
                    else one.responded(status, now, jitter)
                )
            case _:
                now = one.deadline
                assert now < give_up_at
                effects = one.tick(now)
