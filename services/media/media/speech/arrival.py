"""Asking a queue group of speech workers of which nobody may be there yet, or any more.

"All are full" and "nobody is there" are the same answer of the bus: no responder. Heartbeats, which begin when a worker
is ready and say what room it has, tell them apart: with one that says that it is full, that is an answer at once. Else
one is waited for, as at the start of the exchange, or when one has died whose last heartbeat still told of room. One
that filled up since its last heartbeat says so with the next.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from dialbus.bus import Bus, NoResponder
from dialbus.contracts.base import Contract, Request

WAIT_S = 10.0
"""How long a worker is waited for."""
_AGAIN_S = 0.2

R = TypeVar("R", bound=Contract)


async def ask(
    bus: Bus,
    request: Request[R],
    *,
    timeout_s: float,
    is_full: Callable[[], bool],
    waiting: Callable[[], None] = lambda: None,
) -> R:
    """The worker's answer; `is_full` tells whether one says that it is, `waiting` is called while none is there.

    Raises NoResponder when all are full or nobody came, and what `Bus.request` raises.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + WAIT_S
    while True:
        all_full = is_full()  # looked at first: who makes room behind the question is asked again
        try:
            return await bus.request(request, timeout_s=timeout_s)
        except NoResponder:
            if all_full or loop.time() >= give_up_at:
                raise
        waiting()
        await asyncio.sleep(_AGAIN_S)
