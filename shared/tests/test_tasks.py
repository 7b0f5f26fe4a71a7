"""Ending tasks for certain."""

import asyncio

from structlog.testing import capture_logs

from dialbus.tasks import TaskSet, cancel_all


async def test_a_task_that_swallows_its_first_cancellation_is_ended_all_the_same() -> None:
    swallowed = asyncio.Event()
    begun = asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await begun.wait()
    async with asyncio.timeout(5):
        await cancel_all([task])
    assert swallowed.is_set()
    assert task.cancelled()


async def test_tasks_that_are_over_or_fail_are_fine() -> None:
    async def fails() -> None:
        raise ValueError

    over = asyncio.create_task(fails())
    await asyncio.wait([over])
    await cancel_all([over])
    assert isinstance(over.exception(), ValueError)


async def test_what_fails_in_a_set_is_logged_and_told_with_its_name() -> None:
    told: list[tuple[str, Exception]] = []
    tasks = TaskSet(lambda name, error: told.append((name, error)))

    async def fails() -> None:
        raise ValueError("no")

    with capture_logs() as logs:
        task = tasks.start(fails(), name="look-up")
        await asyncio.wait([task])
    assert [(name, str(error)) for name, error in told] == [("look-up", "no")]
    assert [(line["event"], line["task"]) for line in logs] == [("task.failed", "look-up")]
    assert len(tasks) == 0


async def test_a_set_forgets_what_is_over_and_closes_what_is_not() -> None:
    told: list[str] = []
    tasks = TaskSet(lambda name, _: told.append(name))
    waiting = tasks.start(asyncio.Event().wait(), name="waits")
    short = tasks.start(asyncio.sleep(0), name="short")
    await asyncio.wait([short])
    assert list(tasks) == [waiting]
    await tasks.close()
    assert waiting.cancelled()
    await tasks.wait()
    assert told == [], "who is cancelled has not failed"
