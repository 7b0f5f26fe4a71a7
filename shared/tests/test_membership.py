"""In the queue groups exactly while there is room, whatever the bus does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_asyncio

from dialbus import membership
from dialbus.bus import Subscription
from dialbus.membership import Membership


class Group:
    """A queue group, told apart from others by name; `away` lets joining fail and leaving hang."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self.away = False
        self.news = asyncio.Event()

    def join(self, name: str) -> Callable[[], Any]:
        async def join() -> Subscription:
            if self.away:
                raise ConnectionError("the bus is away")
            member = Member(self, name)
            self._members.append(member)
            self.news.set()
            return cast(Subscription, member)

        return join

    @property
    def members(self) -> list[str]:
        return [member.name for member in self._members]

    def drop(self, member: "Member") -> None:
        if member in self._members:
            self._members.remove(member)
            self.news.set()

    async def until(self, *members: str) -> None:
        async with asyncio.timeout(5):
            while self.members != list(members):
                self.news.clear()
                await self.news.wait()


class Member:
    def __init__(self, group: Group, name: str) -> None:
        self.group = group
        self.name = name

    async def leave(self) -> None:
        if self.group.away:
            await asyncio.get_running_loop().create_future()
        await self.drop()

    async def drop(self) -> None:
        self.group.drop(self)


class Room:
    def __init__(self) -> None:
        self.free = True


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def group() -> Group:
    return Group()


@pytest_asyncio.fixture
async def member(group: Group, room: Room, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Membership]:
    monkeypatch.setattr(membership, "RETRY_S", 0.01)
    joined = Membership("test", [group.join("rtp"), group.join("socket")], lambda: room.free)
    yield joined
    await joined.leave(0.0)
    assert group.members == []


async def test_is_in_every_group_when_started(member: Membership, group: Group) -> None:
    await member.start()
    assert group.members == ["rtp", "socket"]


async def test_leaves_when_full_and_comes_back(member: Membership, group: Group, room: Room) -> None:
    await member.start()
    room.free = False
    member.room_changed()
    await group.until()

    room.free = True
    member.room_changed()
    await group.until("rtp", "socket")


async def test_a_worker_that_starts_full_waits_for_room(member: Membership, group: Group, room: Room) -> None:
    room.free = False
    await member.start()
    assert group.members == []
    room.free = True
    member.room_changed()
    await group.until("rtp", "socket")


async def test_a_bus_that_is_away_is_asked_again(member: Membership, group: Group, room: Room) -> None:
    room.free = False
    await member.start()
    group.away, room.free = True, True
    member.room_changed()
    await asyncio.sleep(0)
    assert group.members == []
    group.away = False
    await group.until("rtp", "socket")


async def test_leaving_a_bus_that_is_away_takes_no_longer_than_it_may(member: Membership, group: Group) -> None:
    await member.start()
    group.away = True
    async with asyncio.timeout(5):
        await member.leave(0.01)
    assert group.members == []


async def test_room_that_comes_after_leaving_brings_nobody_back(member: Membership, group: Group) -> None:
    await member.start()
    await member.leave(5.0)
    member.room_changed()
    await asyncio.sleep(0)
    assert group.members == []
