"""One leg as its owner and the engine drive it, on a bus that only keeps events."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio

from dialbus.audio import Pcm
from dialbus.bus import Bus, Refused
from dialbus.config import Config
from dialbus.contracts.commands import Interrupt, Pause, Play
from dialbus.contracts.events import Event
from dialbus.contracts.media import AllocateLeg, ConfigureLeg, RemoteMedia
from dialbus.contracts.options import AmbianceOption
from media.endpoint.rtp import RtpEndpoint
from media.files.loader import Loader, LoadError
from media.leg.leg import Leg
from media.leg.resources import Resources
from media.rtp.source import MediaSource

REMOTE = RemoteMedia(address="192.0.2.7", port=4000, codec="pcmu", payload_type=0)


class KeptBus:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def emit(self, _call_id: str, event: Event) -> int:
        self.events.put_nowait(event)
        return 1

    async def subscribe_audio(self, *_: Any) -> "KeptBus":
        return self

    async def drop(self) -> None:
        """Nothing to forget."""

    async def named(self, name: str) -> dict[str, Any]:
        """The next event of a kind."""
        async with asyncio.timeout(5):
            while True:
                event = await self.events.get()
                if event.event == name:
                    return event.model_dump(by_alias=True, exclude_none=True)


class Line:
    """An `RtpTransport` on which nothing comes."""

    ready = True

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.sent: list[bytes] = []

    def receive(self) -> None:
        """Nothing."""

    def receive_control(self) -> None:
        """Nothing."""

    def send(self, data: bytes, _destination: tuple[str, int]) -> None:
        self.sent.append(data)

    def send_control(self, data: bytes, _destination: tuple[str, int]) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        """Nothing is open."""


class Files:
    """A loader whose decoder breaks on some files."""

    async def load(self, url: str, rate_hz: int) -> Pcm:
        if url == "broken":
            raise ZeroDivisionError("in the decoder")
        if url == "missing":
            raise LoadError("there is no such file", 404)
        return np.ones(rate_hz, np.int16)


@pytest.fixture
def bus() -> KeptBus:
    return KeptBus()


@pytest_asyncio.fixture
async def leg(bus: KeptBus) -> AsyncIterator[Leg]:
    kept, files = cast(Bus, bus), cast(Loader, Files())
    resources = Resources(kept, Config(), cast(Any, None), cast(Any, None), files, lambda _service: True)
    allocation = AllocateLeg(call_id="c", main_track="c", server_track="server")
    endpoint = RtpEndpoint(Line(), MediaSource(latching=False), ssrc=1, sequence=0, timestamp=0)
    leg = Leg(resources, allocation, endpoint)
    await leg.start()
    yield leg
    await leg.close()


async def test_a_leg_says_in_a_line_how_it_is(leg: Leg) -> None:
    assert repr(leg) == "<Leg c/main rtp no codec yet in=0 out=0>"
    leg.connect(REMOTE)
    assert repr(leg).startswith("<Leg c/main rtp pcmu <Playback")
    assert repr(leg).endswith(" in=0 out=0>")


async def test_what_can_be_done_before_there_is_a_codec(leg: Leg) -> None:
    leg.command(Interrupt())
    with pytest.raises(Refused, match="track not found: server"):
        leg.command(Pause())
    with pytest.raises(Refused, match="play: the leg has no media yet"):
        leg.command(Play(url="tone"))


@pytest.mark.parametrize(("url", "code"), [("missing", 404), ("broken", 500)])
async def test_a_file_that_cannot_be_played_ends_its_playback_whatever_went_wrong(
    leg: Leg, bus: KeptBus, url: str, code: int
) -> None:
    leg.connect(REMOTE)
    leg.command(Play(url=url))
    told = await bus.named("error")
    assert (told["trackId"], told["code"]) == ("server", code)
    assert leg.audio is not None
    assert not leg.audio.playing.playback.playing


@pytest.mark.parametrize(("path", "code"), [("missing", 404), ("broken", 500)])
async def test_an_ambiance_that_cannot_be_played_is_told_whatever_went_wrong(
    leg: Leg, bus: KeptBus, path: str, code: int
) -> None:
    leg.configure(ConfigureLeg(call_id="c", ambiance=AmbianceOption(path=path)))
    leg.connect(REMOTE)
    told = await bus.named("error")
    assert (told["trackId"], told["sender"], told["code"]) == ("c", "ambiance", code)
    assert leg.mix.ambiance is None


async def test_errors_of_options_wait_for_the_answer(leg: Leg, bus: KeptBus) -> None:
    leg.configure(ConfigureLeg(call_id="c", answered=False, unsupported=["eou"]))
    leg.connect(REMOTE)
    await leg.stop_playback(interruption=False)
    assert bus.events.empty()

    leg.configure(ConfigureLeg(call_id="c", answered=True))

    assert (await bus.named("error"))["sender"] == "eou"
