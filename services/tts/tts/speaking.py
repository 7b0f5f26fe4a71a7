"""Texts on their way to audio.

One event loop decides (through `Schedule`), a pool of threads computes, one piece at a time, so that no thread sleeps
for the sake of pacing and a cancelled text costs at most the piece that is being made.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Bus
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import Speak
from dialbus.tasks import TaskSet
from tts.cache import CachedSpeech
from tts.engine import AudioChunk, Synthesiser
from tts.errors import TtsError
from tts.metrics import AUDIO, FIRST_AUDIO, QUEUE, SYNTHESES
from tts.resample import resample, with_volume
from tts.schedule import MAX_AHEAD_S, Schedule
from tts.store import Place, SpeechStore
from tts.voices import Voice

log = telemetry.get_logger()

MESSAGE_MS = 200
"""Audio of one message at most."""
# How long SIGTERM waits for what is being spoken.
GRACE_S = 2.0

Key = tuple[str, str]
"""`call_id` and `utterance_id`."""


@dataclass(slots=True, eq=False)
class Speech:
    """One text on its way to audio."""

    request: Speak
    voice: Voice
    speaker: str | None
    """`request.speaker` in the form that the engine may have."""
    place: Place | None
    """In the cache; None: it has none."""
    taken_at: float
    cached: bool = False
    cancelled: bool = False
    """Read by the synthesising thread between pieces."""
    chunks: Iterator[AudioChunk] | None = None
    kept: list[Pcm] = field(default_factory=list)
    """What was made so far at unity volume, for the cache."""
    worth_keeping: bool = True
    sequence: int = 0
    samples: int = 0
    worked_s: float = 0.0
    first_after_s: float | None = None

    @property
    def key(self) -> Key:
        return self.request.call_id, self.request.utterance_id

    @property
    def begun(self) -> bool:
        """Something of it was made or sent."""
        return self.sequence > 0 or self.chunks is not None


class Speaking:
    """All texts that were taken and have not ended; `changed` is called when one comes or goes."""

    def __init__(
        self,
        bus: Bus,
        engine: Synthesiser,
        store: SpeechStore,
        pool: ThreadPoolExecutor,
        *,
        at_once: int,
        max_kept: int,
        changed: Callable[[], None],
    ) -> None:
        """`at_once` pieces are made at the same time; speech of more than `max_kept` bytes is not kept."""
        self._bus = bus
        self._engine = engine
        self._store = store
        self._pool = pool
        self._max_kept = max_kept
        self._changed = changed
        self._schedule: Schedule[Key] = Schedule(at_once)
        self._speeches: dict[Key, Speech] = {}
        self._gone = asyncio.Event()
        self._freed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = TaskSet()
        QUEUE.set_function(lambda: self._schedule.waiting)

    def __len__(self) -> int:
        return len(self._speeches)

    def __contains__(self, key: Key) -> bool:
        return key in self._speeches

    def of_call(self, call_id: str) -> Iterable[Key]:
        """What a call has here."""
        return [key for key in self._speeches if key[0] == call_id]

    def add(self, speech: Speech) -> None:
        """Speak it when its turn comes; at once what the cache has."""
        self._speeches[speech.key] = speech
        self._changed()
        self._schedule.add(speech.key, speech.request.call_id)
        if not self._replayed(speech):
            self._advance()

    def cancel(self, key: Key) -> None:
        """Forget a text; nothing more is published for it. Harmless when it is not here."""
        speech = self._speeches.get(key)
        if speech is not None:
            self._forget(speech, "cancelled")

    async def free(self) -> None:
        """Until there is a thread that no text to be spoken wants."""
        while not self._schedule.has_room:
            self._freed.clear()
            await self._freed.wait()

    async def close(self) -> None:
        """Finish what is spoken now within `GRACE_S`, break off the rest with a failure."""
        for speech in [speech for speech in self._speeches.values() if not speech.begun]:
            await self._end(speech, "stopped", "the tts worker is stopping")
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._speeches:
                    self._gone.clear()
                    await self._gone.wait()
        for speech in list(self._speeches.values()):
            await self._end(speech, "stopped", "the tts worker is stopping")
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()

    # -- synthesis --------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start what is due and has a thread; wake again when the next is due."""
        now = time.monotonic()
        while (key := self._schedule.take(now)) is not None:
            speech = self._speeches[key]
            if not self._replayed(speech):
                self._start(self._step(speech), speech)
        if self._schedule.has_room:
            self._freed.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._schedule.deadline
        if deadline is not None and deadline > now:
            self._timer = asyncio.get_running_loop().call_later(deadline - now, self._advance)

    async def _step(self, speech: Speech) -> None:
        """Make one piece and send it."""
        loop = asyncio.get_running_loop()
        try:
            chunk = await loop.run_in_executor(self._pool, self._pull, speech)
            if speech.key not in self._schedule or speech.cancelled:
                return
            if chunk is None:
                self._start(self._keep(speech), speech)
                await self._end(speech, "done")
            else:
                self._remember(speech, chunk.pcm)
                await self._send(speech, chunk.pcm)
                if not speech.cancelled:
                    self._schedule.put_back(speech.key, chunk.pcm.size / chunk.rate_hz, time.monotonic())
        except TtsError as error:
            await self._fail(speech, str(error))
        except Exception as error:  # the boundary: one bad text never ends the worker
            log.exception("speech.broken", call_id=speech.request.call_id)
            await self._fail(speech, f"synthesis failed: {type(error).__name__}")
        finally:
            self._advance()

    def _pull(self, speech: Speech) -> AudioChunk | None:
        """In a thread: the next piece, None at the end. The first pull may load the voice."""
        begun = time.perf_counter()
        request = speech.request
        try:
            if speech.chunks is None:
                speech.chunks = self._engine.stream(
                    request.text,
                    speaker=speech.speaker,
                    language=request.language,
                    speed=request.speed,
                    rate_hz=request.rate_hz,
                    cancelled=lambda: speech.cancelled,
                )
            return next(speech.chunks, None)
        finally:
            speech.worked_s += time.perf_counter() - begun

    # -- cache ------------------------------------------------------------------------------------

    def _replayed(self, speech: Speech) -> bool:
        """Send the text from the cache, without waiting for a thread, if it is there and has not begun."""
        if speech.chunks is not None or speech.place is None:
            return False
        found = self._store.recall(speech.place.keys)
        if found is None:
            return False
        speech.cached = True
        self._schedule.remove(speech.key)
        self._start(self._replay(speech, found), speech)
        return True

    async def _replay(self, speech: Speech, found: CachedSpeech) -> None:
        rate_hz = speech.request.rate_hz
        pcm = found.pcm
        if found.rate_hz != rate_hz:  # only under a client's own cacheKey
            pcm = await asyncio.to_thread(resample, pcm, found.rate_hz, rate_hz)
        begun = time.monotonic()
        step = rate_hz  # a second at a time
        for start in range(0, pcm.size, step):
            # Sent at once up to the limit, then as fast as it is heard.
            wait_s = start / rate_hz - MAX_AHEAD_S - (time.monotonic() - begun)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if speech.cancelled:
                return
            await self._send(speech, pcm[start : start + step])
        if not speech.cancelled:
            await self._end(speech, "done")

    def _remember(self, speech: Speech, pcm: Pcm) -> None:
        size = sum(part.nbytes for part in speech.kept) + pcm.nbytes
        speech.worth_keeping = speech.worth_keeping and speech.place is not None and size <= self._max_kept
        if speech.worth_keeping:
            speech.kept.append(pcm)
        else:
            speech.kept.clear()

    async def _keep(self, speech: Speech) -> None:
        if speech.place is not None and speech.worth_keeping and speech.kept:
            made = CachedSpeech(np.concatenate(speech.kept), speech.request.rate_hz)
            await self._store.keep(speech.place, made)

    # -- audio ------------------------------------------------------------------------------------

    async def _send(self, speech: Speech, pcm: Pcm) -> None:
        """Publish a stretch at the asked volume, in messages of at most `MESSAGE_MS`."""
        if speech.first_after_s is None:
            speech.first_after_s = time.monotonic() - speech.taken_at
            FIRST_AUDIO.observe(speech.first_after_s)
        pcm = with_volume(pcm, speech.request.volume)
        size = speech.request.rate_hz * MESSAGE_MS // 1000
        for start in range(0, pcm.size, size):
            if speech.cancelled:
                return
            part = pcm[start : start + size]
            await self._bus.publish_audio(_frame(speech, part.astype("<i2", copy=False).tobytes()))
            speech.samples += part.size
            AUDIO.inc(part.size / speech.request.rate_hz)

    async def _fail(self, speech: Speech, failure: str) -> None:
        if not speech.cancelled:
            log.warning("speech.failed", call_id=speech.request.call_id, utterance=speech.request.utterance_id)
            await self._end(speech, "failed", failure)

    async def _end(self, speech: Speech, outcome: str, failure: str | None = None) -> None:
        """Publish the last frame, which is empty and carries the facts."""
        first_after_s = speech.first_after_s
        facts = {
            "ttfb": _ms(time.monotonic() - speech.taken_at if first_after_s is None else first_after_s),
            "duration": _ms(speech.worked_s),
            "length": _ms(speech.samples / speech.request.rate_hz),
            "cached": "1" if speech.cached else "0",
            "speaker": speech.voice.name,
        }
        last = _frame(speech, b"", last=True, failure=failure, facts=facts)
        self._forget(speech, outcome)
        log.info("speech." + outcome, call_id=speech.request.call_id, utterance=speech.request.utterance_id, **facts)
        await self._bus.publish_audio(last)

    def _forget(self, speech: Speech, outcome: str) -> None:
        speech.cancelled = True
        SYNTHESES.labels(outcome).inc()
        self._schedule.remove(speech.key)
        self._speeches.pop(speech.key, None)
        self._gone.set()
        self._changed()

    def _start(self, work: Any, speech: Speech) -> None:
        self._tasks.start(work, name=f"speech {'/'.join(speech.key)}")


def _frame(speech: Speech, pcm: bytes, **more: Any) -> AudioFrame:
    request = speech.request
    frame = AudioFrame(
        request.call_id, request.track, request.utterance_id, speech.sequence, request.rate_hz, pcm, **more
    )
    speech.sequence += 1
    return frame


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
