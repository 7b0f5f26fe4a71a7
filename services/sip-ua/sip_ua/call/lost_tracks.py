"""The last events of tracks that a lost media worker began and can't end any more."""

import asyncio
import json
from collections import Counter
from contextlib import aclosing
from datetime import UTC, datetime

from dialbus.bus import Bus
from dialbus.contracts.events import TrackEnd

WAIT_S = 2.0

Track = tuple[str, str | None]
"""`trackId` and `playId`."""


async def end_lost_tracks(
    bus: Bus, call_id: str, ours: tuple[str, ...], *, first_sequence: int, last_sequence: int
) -> None:
    """Emit a trackEnd for each track that has none; `ours` are ended by the call itself, and so is the main one.

    What the worker had begun is in the stream between `first_sequence` and `last_sequence`, the call's latest event.
    """
    begun: Counter[Track] = Counter()
    since_ms: dict[Track, int] = {}
    async with asyncio.timeout(WAIT_S), aclosing(bus.events(call_id, first_sequence)) as events:
        async for event in events:
            fields = json.loads(event.data)
            track = (str(fields.get("trackId")), fields.get("playId"))
            if event.name == "trackStart" and track[0] != call_id:
                begun[track] += 1
                since_ms[track] = fields["timestamp"]
            elif event.name == "trackEnd":
                begun[track] -= 1
            if event.sequence >= last_sequence:
                break
    begun.subtract((track, None) for track in ours)
    for track_id, play_id in reversed(list(begun.elements())):
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        duration = max(0, now_ms - since_ms[track_id, play_id])  # another machine's clock may be ahead
        end = TrackEnd(track_id=track_id, timestamp=now_ms, duration=duration, ssrc=0, play_id=play_id)
        await bus.emit(call_id, end)
