"""Which silent legs are given up."""

from types import SimpleNamespace
from typing import Any

import pytest

from media.worker.service import ABANDONED_S, is_abandoned

LONG_AGO, NOW = 1000.0, 1000.0 + ABANDONED_S + 1


def _leg(*, heard_at: float | None = LONG_AGO, touched_at: float = LONG_AGO, expects: bool = True) -> Any:
    return SimpleNamespace(endpoint=SimpleNamespace(heard_at=heard_at, expects=expects), touched_at=touched_at)


@pytest.mark.parametrize(
    ("leg", "given_up"),
    [
        (_leg(), True),
        (_leg(heard_at=None), True),
        (_leg(heard_at=NOW - 1), False),
        (_leg(touched_at=NOW - 1), False),
        (_leg(expects=False), False),
    ],
    ids=["silent", "never heard", "heard", "asked for something", "on hold, or a socket that only listens"],
)
def test_a_main_leg_is_given_up_when_nobody_cares(leg: Any, given_up: bool) -> None:
    assert is_abandoned(leg, leg, NOW) == given_up


def test_a_leg_beside_another_one_goes_with_that() -> None:
    ringing = _leg(heard_at=None)
    assert not is_abandoned(ringing, _leg(heard_at=NOW), NOW)
    assert is_abandoned(ringing, ringing, NOW), "the main leg is gone"
