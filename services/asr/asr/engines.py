"""The speech models of one worker: the configured one, and a few that calls ask for by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from asr.engine import Transcriber
from asr.errors import ModelNotReady

MAX_MODELS = 2
"""tiny.en takes 75 MB, base 150 MB, small 480 MB."""
LOAD_WAIT_S = 1.5
"""How long a session waits for its model; the model is loaded to the end all the same, for the next one."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model by the name it was asked for."""

    name: str
    engine: Transcriber


class Engines:
    """At most `MAX_MODELS` models. `load` gives the engine for a name; it blocks, and runs in a thread.

    `load` raises ModelNotFound or ModelUnusable.
    """

    def __init__(self, default: Loaded, load: Callable[[str], Transcriber]) -> None:
        self.default = default
        self._load = load
        self._others: dict[str, Loaded] = {}
        self._loading: dict[str, asyncio.Task[Transcriber]] = {}

    async def get(self, name: str | None, in_use: Collection[str]) -> Loaded:
        """The model called `name`, or the configured one; models not `in_use` may make room for it.

        Raises ModelNotFound, ModelUnusable and ModelNotReady; never gives another model than the one named.
        """
        if not name or name == self.default.name:
            return self.default
        if (known := self._others.get(name)) is not None:
            return known
        task = self._loading.get(name) or self._begin(name, in_use)
        done, _ = await asyncio.wait([task], timeout=LOAD_WAIT_S)
        if not done:
            raise ModelNotReady(name, "it is being loaded, try again")
        self._loading.pop(name, None)
        loaded = self._others[name] = Loaded(name, task.result())
        return loaded

    def _begin(self, name: str, in_use: Collection[str]) -> asyncio.Task[Transcriber]:
        if 1 + len(self._others) + len(self._loading) >= MAX_MODELS:
            self._make_room(name, in_use)
        task = asyncio.create_task(asyncio.to_thread(self._load, name), name=f"load {name}")
        self._loading[name] = task
        return task

    def _make_room(self, name: str, in_use: Collection[str]) -> None:
        for other, task in list(self._loading.items()):
            if task.done():  # nobody came back for it
                task.exception()
                del self._loading[other]
                return
        idle = next((other for other in self._others if other not in in_use), None)
        if idle is None:
            raise ModelNotReady(name, f"{MAX_MODELS} other models are in use")
        del self._others[idle]
