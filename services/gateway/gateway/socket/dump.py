"""The event dump: what a client sent and received, in order, one JSON line per item (protocol section 9.3).

Lines are handed over on the event loop and written by a thread, so that a slow disk delays no event. A file that
can't be written costs the dump, never the call.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from dialbus import telemetry
from dialbus.contracts.options import masked
from dialbus.privatefiles import open_private

log = telemetry.get_logger()

Kind = Literal["event", "command"]
Item = tuple[Kind, int, str]


def line(kind: Kind, at_ms: int, content: str) -> str:
    """One line of the dump: `content` is JSON text and stays a string, its secrets masked.

    `at_ms`, milliseconds since 1970, is used unless the item has a `timestamp` of its own. Raises ValueError or
    RecursionError for text that is no JSON, or JSON nested beyond measure.
    """
    value: Any = masked(json.loads(content))
    timestamp = value.get("timestamp") if kind == "event" else None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    item = {"type": kind, "timestamp": at_ms if timestamp is None else timestamp, "content": text}
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n"


class Dump:
    """The dump of one session, to be called with each item: its kind, its time, its JSON. `None`: there is none."""

    def __init__(self, items: "asyncio.Queue[Item | None] | None") -> None:
        self._items = items

    def __call__(self, kind: Kind, at_ms: int, content: str) -> None:
        """Add an item."""
        if self._items is not None:
            self._items.put_nowait((kind, at_ms, content))

    async def settled(self) -> None:
        """Wait until everything added so far is in the file, or could not be written."""
        if self._items is not None:
            await self._items.join()


@asynccontextmanager
async def dump(path: Path | None) -> AsyncIterator[Dump]:
    """Gives what adds items; everything added is in the file when the block is left. None: no dump."""
    if path is None:
        yield Dump(None)
        return
    items: asyncio.Queue[Item | None] = asyncio.Queue()
    writer = asyncio.create_task(_write(path, items), name=f"dump {path.name}")
    try:
        yield Dump(items)
    finally:
        items.put_nowait(None)
        await asyncio.shield(writer)


async def _write(path: Path, items: "asyncio.Queue[Item | None]") -> None:
    usable = True
    ended = False
    while not ended:
        batch = [await items.get()]
        while not items.empty():
            batch.append(items.get_nowait())
        ended = batch[-1] is None
        try:
            if usable:
                await asyncio.to_thread(_append, path, [item for item in batch if item is not None])
        except OSError as error:
            usable = False
            log.warning("dump.not_written", path=str(path), error=str(error))
        finally:
            for _ in batch:
                items.task_done()


def _append(path: Path, items: list[Item]) -> None:
    if not items:
        return
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, below=path.parent)
    with open(descriptor, "a", encoding="utf-8", errors="replace") as file:
        for item in items:
            try:
                file.write(line(*item))
            except (ValueError, RecursionError) as error:
                log.warning("dump.item_left_out", path=str(path), error=str(error)[:200])
