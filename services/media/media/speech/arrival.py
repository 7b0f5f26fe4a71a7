"""Asking a queue group of speech workers of which nobody may be there yet.

"All are full" and "nobody is there yet" are the same answer of the bus: no responder. Heartbeats, which begin when a
worker is ready, tell them apart: with a ready worker heard before the question, all of them are full, which is an
answer at once. Else one is waited for, as at the start of the exchange; a worker of media that has just begun has heard
nobody either, and finds out within a heartbeat.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from dialbus.bus import Bus, NoResponder
from dialbus.contracts.base import Contract, Request

WAIT_S = 10.0
"""How long a first worker is waited for."""
_LOOK_S = 0.1
_LOOKS = 10  # until it is asked again though nobody was heard: a heartbeat may get lost

R = TypeVar("R", bound=Contract)


async def ask(
    bus: Bus,
    request: Request[R],
    *,
    timeout_s: float,
    is_there: Callable[[], bool],
    waiting: Callable[[], None] = lambda: None,
) -> R:
    """The worker's answer; `is_there` tells whether a ready one has been heard of, `waiting` is called while none was.

    Raises NoResponder when all are full or nobody came, and what `Bus.request` raises.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + WAIT_S
    while True:
        all_full = is_there()  # looked at first: who arrives behind the question is asked again
        try:
            return await bus.request(request, timeout_s=timeout_s)
        except NoResponder:
            if all_full or loop.time() >= give_up_at:
                raise
        waiting()
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_S)
            if is_there():
                break
