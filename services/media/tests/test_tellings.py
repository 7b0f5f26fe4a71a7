"""What the owner of a call is told, until it has taken it."""

import asyncio
from typing import Any, cast

import pytest

from dialbus.bus import Bus, BusError, NoReply, NoResponder, Refused
from dialbus.contracts.base import Taken
from dialbus.contracts.media import AllocateLeg, LegLost, PlaybackEnded
from dialbus.tasks import TaskSet
from media.leg import tellings
from media.leg.outbox import Outbox
from media.leg.tellings import Tellings


class Owner:
    """Fails as often as the test wants before it takes what it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.told: list[Any] = []
        self.asked = 0
        self.taken = asyncio.Event()

    async def request(self, message: Any) -> Taken:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        self.told.append(message)
        self.taken.set()
        return Taken()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tellings, "_RETRY_S", 0.0)


def _tellings(owner: Owner) -> tuple[Tellings, Outbox, TaskSet]:
    tasks = TaskSet()
    bus = cast(Bus, owner)
    outbox = Outbox(bus, "c")
    allocation = AllocateLeg(call_id="c", leg_id="refer", main_track="main", server_track="server")
    return Tellings(bus, allocation, outbox, tasks), outbox, tasks


async def test_the_end_of_a_playback_is_told_again_until_it_is_taken() -> None:
    owner = Owner(NoReply("slow"), Refused(409, "busy"), NoResponder("nobody"))
    told, outbox, tasks = _tellings(owner)

    told.playback_ended()
    async with asyncio.timeout(5):
        await owner.taken.wait()

    assert owner.told == [PlaybackEnded(call_id="c")]
    await outbox.close(1.0)
    await tasks.close()


async def test_a_lost_leg_is_told_again_when_the_owner_does_not_answer() -> None:
    owner = Owner(NoReply("slow"), BusError("away"))
    told, outbox, _ = _tellings(owner)

    await told.lost("ice", hung_up=True)

    assert owner.told == [LegLost(call_id="c", leg_id="refer", reason="ice", hung_up=True)]
    await outbox.close(1.0)


async def test_a_lost_leg_without_an_owner_is_known_at_once() -> None:
    owner = Owner(NoResponder("nobody"))
    told, outbox, _ = _tellings(owner)

    with pytest.raises(NoResponder):
        await told.lost("ice", hung_up=False)

    assert owner.asked == 1
    await outbox.close(1.0)


async def test_an_owner_that_never_answers_is_given_up() -> None:
    owner = Owner(*(NoReply("slow") for _ in range(50)))
    told, outbox, _ = _tellings(owner)

    await told.lost("ice", hung_up=False)

    assert (owner.asked, owner.told) == (5, [])
    await outbox.close(1.0)
