"""The bridges of one leg: two-way audio patches to the remote parties of other calls, on any worker (protocol 2.13)."""

import asyncio

import numpy as np

from dialbus.audio import Pcm
from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts.audio import BRIDGE, AudioFrame
from dialbus.contracts.media import MAX_BRIDGES
from media.mix.live import BridgeFeed
from media.mix.mixing import BridgedPartySource, Mix

_RATES_HZ = (8000, 16000)


class Patches:
    """While there is at least one bridge, the leg's remote party goes out; what comes in of each is mixed."""

    def __init__(self, bus: Bus, call_id: str, mix: Mix, feed: BridgeFeed) -> None:
        self._bus = bus
        self._call_id = call_id
        self._mix = mix
        self._feed = feed
        self._subscriptions: dict[str, Subscription] = {}
        self._changing = asyncio.Lock()
        self._closed = False

    async def add(self, other: str) -> None:
        """Hear the remote party of another call, and let it be heard there; the same call again begins anew."""
        if other == self._call_id:
            raise Refused(400, "a call can't be bridged to itself")
        async with self._changing:
            if self._closed:
                raise Refused(409, "the leg is closed")
            if other not in self._subscriptions and len(self._subscriptions) >= MAX_BRIDGES:
                raise Refused(409, f"the call has {MAX_BRIDGES} bridges already")
            await self._remove(other)
            source = BridgedPartySource(f"bridge:{self._call_id}:to:{other}")

            async def heard(frame: AudioFrame) -> None:
                if frame.rate_hz in _RATES_HZ:
                    source.put(frame.rate_hz, _pcm(frame))

            self._subscriptions[other] = await self._bus.subscribe_audio(other, BRIDGE, heard)
            await self._bus.flush()
            self._mix.put(_name(other), source)

    async def remove(self, other: str) -> None:
        """Undo `add`; harmless when there is no such bridge."""
        async with self._changing:
            await self._remove(other)

    async def close(self) -> None:
        """Undo all of them, and those that were asked for and not begun."""
        self._closed = True
        async with self._changing:
            for other in list(self._subscriptions):
                await self._remove(other)

    def put(self, rate_hz: int, pcm: Pcm) -> None:
        """The next 20 ms of the leg's remote party."""
        if self._subscriptions:
            self._feed.put(rate_hz, pcm)

    async def _remove(self, other: str) -> None:
        subscription = self._subscriptions.pop(other, None)
        self._mix.drop(_name(other))
        if subscription is not None:
            await subscription.drop()


def _name(other: str) -> str:
    return f"bridge {other}"


def _pcm(frame: AudioFrame) -> Pcm:
    return np.frombuffer(frame.pcm, "<i2").astype(np.int16, copy=False)
