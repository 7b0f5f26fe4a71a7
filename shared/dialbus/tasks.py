"""Ending tasks for certain."""

import asyncio
from collections.abc import Iterable
from typing import Any

_HEARD_S = 0.2


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
