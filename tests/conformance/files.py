"""What calls leave behind: recordings, dumps, records."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.parties import amplitude
from tests.ensemble import Exchange, Pcm, read_wav
from tests.harness import eventually


async def recording(exchange: Exchange, call_id: str, *, path: Path | None = None) -> tuple[Pcm, int]:
    """The recording of a call that is over: int16[n, 2] and its rate."""
    path = path or exchange.recordings / f"{call_id}.wav"
    await eventually(path.exists, 15, what=str(path))
    return read_wav(path)


def tones_in(pcm: Pcm, rate_hz: int, frequency_hz: float) -> bool:
    """Whether a tone sounds in at least 0.2 s of this."""
    size = rate_hz // 10
    parts = [amplitude(pcm[start : start + size], rate_hz, frequency_hz) for start in range(0, len(pcm) - size, size)]
    return sum(part > 0.03 for part in parts) >= 2


async def dump(exchange: Exchange, call_id: str, *, last: str = "hangup") -> list[dict[str, Any]]:
    """The lines of a call's event dump, once an event of this name is in it."""
    path = exchange.recordings / f"{call_id}.events.jsonl"

    def read() -> list[dict[str, Any]] | None:
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()] if text.endswith("\n") else []
        there = any(json.loads(line["content"]).get("event") == last for line in lines)
        return lines if there else None

    return await eventually(read, 15, what=str(path))


async def record(folder: Path, call_id: str) -> dict[str, Any]:
    """The call record of a call that is over."""

    def find() -> Path | None:
        return next(iter(folder.rglob(f"*_{call_id}.json")), None)

    path = await eventually(find, 15, what=f"the record of {call_id}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def silent(pcm: Pcm) -> bool:
    """Whether nothing can be heard in this."""
    return not len(pcm) or int(np.abs(pcm.astype(np.int32)).max()) < 200
