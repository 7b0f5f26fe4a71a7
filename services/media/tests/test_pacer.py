"""The 20 ms clock: deadlines that do not drift, delays that are made up for in bounds."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialbus.audio import FRAME_S
from media.worker.pacer import MAX_AT_ONCE, Due, Pacer, Schedule


def test_ticks_in_time_follow_one_another_without_drift() -> None:
    schedule = Schedule(start=10.0)

    moments = [schedule.due(schedule.deadline + 0.003).ticks[0] for _ in range(5000)]

    assert moments[0] == 10.0
    assert moments[-1] == pytest.approx(10.0 + 4999 * FRAME_S, abs=1e-9)


@pytest.mark.parametrize(
    ("late_s", "ticks", "skipped"), [(0.0, 1, 0), (0.019, 1, 0), (0.021, 2, 0), (0.065, 4, 0), (1.0, 4, 47)]
)
def test_a_late_wake_up_makes_up_for_a_few_ticks_and_skips_the_rest(late_s: float, ticks: int, skipped: int) -> None:
    schedule = Schedule(start=5.0)

    due = schedule.due(5.0 + late_s)

    assert (len(due.ticks), due.skipped) == (ticks, skipped)
    assert schedule.deadline == pytest.approx(5.0 + (ticks + skipped) * FRAME_S)
    assert due.ticks[-1] <= 5.0 + late_s + 1e-6


def test_a_wake_up_that_is_early_by_rounding_ticks_once() -> None:
    assert Schedule(start=5.0).due(5.0 - 1e-9) == Due((5.0,), 0)


@given(st.lists(st.floats(min_value=0.0, max_value=2.0), max_size=50))
def test_every_tick_is_made_once_or_skipped(delays: list[float]) -> None:
    schedule = Schedule(start=0.0)
    made = skipped = 0
    last = -1.0
    for delay in delays:
        due = schedule.due(schedule.deadline + delay)
        assert 1 <= len(due.ticks) <= MAX_AT_ONCE
        assert due.ticks[0] > last
        last = due.ticks[-1]
        made, skipped = made + len(due.ticks), skipped + due.skipped

    assert schedule.deadline == pytest.approx((made + skipped) * FRAME_S)


async def test_the_pacer_ticks_until_it_is_stopped() -> None:
    ticks: list[float] = []
    enough = asyncio.Event()

    def tick(moment: float) -> None:
        ticks.append(moment)
        if len(ticks) == 4:
            pacer.stop()
            enough.set()

    pacer = Pacer(tick, lambda skipped: None)
    pacer.start()
    async with asyncio.timeout(5):
        await enough.wait()

    assert ticks == sorted(ticks)
    assert len(ticks) == 4


async def test_a_tick_that_fails_does_not_stop_the_clock() -> None:
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    ticked_again = asyncio.Event()

    def tick(_: float) -> None:
        if not failures:
            raise RuntimeError("one bad tick")
        ticked_again.set()

    pacer = Pacer(tick, lambda skipped: None)
    pacer.start()
    async with asyncio.timeout(5):
        await ticked_again.wait()
    pacer.stop()

    assert len(failures) >= 1
