"""waitInputTimeout, protocol 2.5.5."""

import math

import pytest

from media.turn.input_timeout import InputTimeout, InputTimer


def test_2_5_5_fires_once_with_the_end_of_the_playback_and_the_configured_value() -> None:
    timer = InputTimer()
    timer.arm(10.0, 1500)

    assert timer.deadline == 11.5
    assert timer.tick(11.49) == []
    assert timer.tick(11.52) == [InputTimeout(10.0, 1500)]
    assert timer.tick(20.0) == []
    assert timer.deadline == math.inf


@pytest.mark.parametrize("value", [None, 0])
def test_2_5_5_zero_or_absent_is_off(value: int | None) -> None:
    timer = InputTimer()
    timer.arm(10.0, value)

    assert (timer.deadline, timer.tick(1e9)) == (math.inf, [])


def test_2_5_5_input_cancels_it() -> None:
    timer = InputTimer()
    timer.arm(10.0, 1500)
    timer.cancel()

    assert (timer.deadline, timer.tick(1e9)) == (math.inf, [])
