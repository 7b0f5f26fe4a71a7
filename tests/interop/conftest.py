"""Fixtures of the interop tests: the ensemble as processes, and other people's phones."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.ensemble import VOICES, Exchange, exchange, transcribe
from tests.interop.baresip import Baresip
from tests.interop.sipp import Sipp

__all__ = ["exchange", "transcribe"]

StartBaresip = Callable[..., Awaitable[Baresip]]
SippCalls = Callable[..., Awaitable[Sipp]]
SippListens = Callable[..., Awaitable[Sipp]]


@pytest.fixture
async def baresip(tmp_path: Path) -> AsyncIterator[StartBaresip]:
    """Start a phone: `await baresip("G722")`; it speaks jfk.wav."""
    async with AsyncExitStack() as phones:

        async def start(codec: str, voice: Path = VOICES / "jfk.wav") -> Baresip:
            return await phones.enter_async_context(Baresip.open(tmp_path, codec, voice))

        yield start


@pytest.fixture
async def sipp_calls(tmp_path: Path, exchange: Exchange) -> AsyncIterator[SippCalls]:
    """Let sipp call a number of the ensemble: `await sipp_calls("uac_bye", number)`."""
    async with AsyncExitStack() as started:

        async def start(scenario: str, number: str, *arguments: str, rtp_port: int | None = None) -> Sipp:
            sipp = Sipp.open(tmp_path, scenario, "-s", number, *arguments, remote=exchange.sip, rtp_port=rtp_port)
            return await started.enter_async_context(sipp)

        yield start


@pytest.fixture
async def sipp_listens(tmp_path: Path) -> AsyncIterator[SippListens]:
    """Let sipp wait for one call: `(await sipp_listens("uas_rings")).address` is whom to call."""
    async with AsyncExitStack() as started:

        async def start(scenario: str, *, rtp_port: int | None = None) -> Sipp:
            return await started.enter_async_context(Sipp.open(tmp_path, scenario, rtp_port=rtp_port))

        yield start
