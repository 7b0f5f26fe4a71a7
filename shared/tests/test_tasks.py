"""Ending tasks for certain."""

import asyncio

from dialbus.tasks import cancel_all


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
