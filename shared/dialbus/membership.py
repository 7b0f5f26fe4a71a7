"""Queue groups that a worker is in exactly while it has room, so that whoever asks gets one that can take it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from dialbus import telemetry
from dialbus.bus import Subscription
from dialbus.tasks import TaskSet

log = telemetry.get_logger()

RETRY_S = 1.0

Join = Callable[[], Awaitable[Subscription]]
"""Begins to serve as a member of a queue group."""


class Membership:
    """Joins the groups with `start`, follows the room from then on, and is out for good after `leave`.

    A request that was on its way while the worker left is still answered; so handlers look at the room themselves.
    """

    def __init__(self, name: str, joins: Sequence[Join], has_room: Callable[[], bool]) -> None:
        """`name` is for logs; `has_room` is asked after each `room_changed`."""
        self._name = name
        self._joins = joins
        self._has_room = has_room
        self._subscriptions: list[Subscription] = []
        self._leaving: list[Subscription] = []
        self._changed = asyncio.Event()
        self._left = False
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Join; raises what joining raises. Requests come when the bus has been flushed."""
        await self._adjust()
        self._tasks.start(self._follow(), name=f"membership {self._name}")

    def room_changed(self) -> None:
        """Look again whether there is room; never waits."""
        self._changed.set()

    async def leave(self, limit_s: float) -> None:
        """Out of all groups, and answering what was on its way, when this returns; the bus may be away."""
        self._left = True
        self._changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._tasks:
                    await self._tasks.wait()
        await self._tasks.close()
        # Leaving fails while the server is away; the subscriptions must not come back with the connection.
        for subscription in (*self._subscriptions, *self._leaving):
            await subscription.drop()

    async def _follow(self) -> None:
        while not self._left:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._adjust()
            except Exception as error:  # the bus may be away; the room that came meanwhile must not be forgotten
                log.warning("membership.not_joined", group=self._name, error=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def _adjust(self) -> None:
        if self._left or not self._has_room():
            if self._subscriptions:
                log.info("membership.left", group=self._name)
                leaving, self._subscriptions = self._subscriptions, []
                self._leaving += leaving
                self._tasks.start(self._leave(leaving), name=f"leave {self._name}")
            return
        missing = self._joins[len(self._subscriptions) :]
        for join in missing:
            self._subscriptions.append(await join())
        if missing:
            log.info("membership.joined", group=self._name)

    async def _leave(self, leaving: list[Subscription]) -> None:
        await asyncio.gather(*(subscription.leave() for subscription in leaving))
        for subscription in leaving:
            await subscription.drop()  # leaving does nothing while the server is away
            self._leaving.remove(subscription)
