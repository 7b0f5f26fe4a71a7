"""Tasks that belong to something: begun with a name, watched, and ended for certain."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from dialbus import telemetry

log = telemetry.get_logger()

_HEARD_S = 0.2


class TaskSet:
    """What runs beside something (a call, a leg, a worker) and ends with it at the latest.

    A task that fails is logged with the context it was begun in (`call_id` and all), and told to `failed`, so that
    its owner can make an input of it. Nothing that happens in one is lost.
    """

    def __init__(self, failed: Callable[[str, Exception], None] | None = None, **facts: str) -> None:
        """`failed` hears the task's name and what it raised; it must not wait.

        `facts` (`call_id=…`) are bound to every log line of its tasks, wherever they are begun.
        """
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed = failed
        self._facts = facts

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator["asyncio.Task[Any]"]:
        return iter(tuple(self._tasks))

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]":
        """Run a coroutine beside its owner."""
        with telemetry.bound(**self._facts):
            task = asyncio.get_running_loop().create_task(work, name=name)
            self._tasks.add(task)
            task.add_done_callback(self._done)
        return task

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until all of them are over, or the time is."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def cancel(self) -> None:
        """Ask all of them to end; `close` also waits."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Cancel all of them and wait until they are over."""
        await cancel_all(tuple(self._tasks))

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            log.error("task.failed", task=task.get_name(), exc_info=error)
            if self._failed is not None:
                self._failed(task.get_name(), error)


async def cancel_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and wait until they are over; what they raise is theirs.

    Asked again until it is heard: until Python 3.12 `asyncio.wait_for` swallows a cancellation that meets its
    result (bpo-37658), and nats-py waits with it.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_HEARD_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen
