"""Requests to one leg that overtake one another."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from dialbus.bus import Refused
from dialbus.config import Config
from dialbus.contracts.media import AllocateLeg, CloseLeg, ConnectLeg, LegClosed, RemoteMedia
from media.audio.vad import SpeechDetector
from media.worker import requests
from media.worker.requests import HeldLeg, LegRequests
from media.worker.service import MediaService

ALLOCATE = AllocateLeg(call_id="c", main_track="c", server_track="server", remote_host="127.0.0.1")
CONNECT = ConnectLeg(call_id="c", remote=RemoteMedia(address="phone.example", port=4000, codec="pcmu", payload_type=0))


class KeptBus:
    """Keeps the handlers; `flushed` is done when the bus is asked to flush."""

    instance = "media-test"
    connected = True

    def __init__(self) -> None:
        self.handlers: dict[Any, Callable[[Any], Awaitable[Any]]] = {}
        self.left = 0
        self.flushed: Callable[[], Awaitable[Any]] | None = None

    async def serve(self, contract: Any, handler: Any, **_: Any) -> "KeptBus":
        self.handlers[contract] = handler
        return self

    async def subscribe_audio(self, *_: Any) -> "KeptBus":
        return self

    async def flush(self) -> None:
        if self.flushed is not None:
            await self.flushed()

    async def leave(self) -> None:
        self.left += 1

    async def drop(self) -> None:
        """Nothing to forget."""


class TouchedLeg:
    """Keeps where it was connected to."""

    call_id, leg_id = "c", "main"

    def __init__(self) -> None:
        self.connected: list[RemoteMedia] = []

    def connect(self, remote: RemoteMedia) -> None:
        self.connected.append(remote)


async def test_a_leg_that_is_closed_while_a_name_is_looked_up_is_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, leg = KeptBus(), TouchedLeg()
    held = HeldLeg(cast(Any, leg))
    await LegRequests(cast(Any, bus), held, cast(Any, AsyncMock())).listen()

    async def literal(_host: str) -> str:
        held.closing = asyncio.create_task(_closed())
        return "192.0.2.1"

    monkeypatch.setattr(requests, "literal", literal)
    with pytest.raises(Refused, match="the leg is closed"):
        await bus.handlers[ConnectLeg](CONNECT)

    assert leg.connected == []
    assert held.closing is not None
    await held.closing


async def test_a_name_that_is_known_is_connected_to_as_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, leg = KeptBus(), TouchedLeg()
    await LegRequests(cast(Any, bus), HeldLeg(cast(Any, leg)), cast(Any, AsyncMock())).listen()

    async def literal(_host: str) -> str:
        return "192.0.2.1"

    monkeypatch.setattr(requests, "literal", literal)
    await bus.handlers[ConnectLeg](CONNECT)

    assert [remote.address for remote in leg.connected] == ["192.0.2.1"]


async def test_a_leg_that_is_closed_while_it_is_opened_is_driven_by_nobody() -> None:
    bus = KeptBus()
    config = Config.model_validate({"rtp_bind_ip": "127.0.0.1", "rtp_start_port": 0})
    me = SimpleNamespace(bus=bus, config=config, instance="media-test")
    media = MediaService(cast(Any, me), cast(SpeechDetector, None))

    async def close() -> None:
        await bus.handlers[CloseLeg](CloseLeg(call_id="c"))

    bus.flushed = close
    with pytest.raises(Refused, match="closed while it was opened"):
        await media.take(ALLOCATE)

    assert media.legs == 0
    assert media._engine.legs == 0
    assert bus.left >= 11, "every request of the leg is listened to no longer"


async def _closed() -> LegClosed:
    return LegClosed()
