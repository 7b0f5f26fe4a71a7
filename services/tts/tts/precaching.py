"""Speech made before a call asks for it: one text at a time, behind everything that is spoken."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Refused
from dialbus.contracts.speech import Cached, CacheSpeech, CancelCaching
from dialbus.tasks import cancel_all
from tts.cache import CachedSpeech
from tts.engine import AudioChunk, Synthesiser
from tts.errors import TtsError
from tts.metrics import SYNTHESES
from tts.requests import VoiceFinder, place_of, spoken_text
from tts.resample import resample
from tts.store import SpeechStore
from tts.voices import Voice

log = telemetry.get_logger()

# Askers who left, remembered for requests that their leaving may have overtaken (each has its own subscription).
REMEMBERED = 256


class Precaching:
    """Answers `CacheSpeech`: first come, first served, for those who still wait.

    It has a thread of its own, so that no text to be spoken ever stands behind it in a queue, and makes a piece only
    while there is a thread that none of them wants.
    """

    def __init__(
        self,
        engine: Synthesiser,
        finder: VoiceFinder,
        store: SpeechStore,
        *,
        max_queue: int,
        max_kept: int,
        free: Callable[[], Awaitable[None]],
    ) -> None:
        """More than `max_queue` texts, and speech of more than `max_kept` bytes, are refused.

        `free` returns when a piece may be made.
        """
        self._engine = engine
        self._finder = finder
        self._store = store
        self._max_queue = max_queue
        self._max_kept = max_kept
        self._free = free
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="caching")
        self._turn = asyncio.Lock()
        self._jobs: dict[asyncio.Task[Cached], str] = {}
        """What is made or waits, and who asked for it."""
        self._left: deque[str] = deque(maxlen=REMEMBERED)
        self._stopping = False

    def __len__(self) -> int:
        return len(self._jobs)

    async def close(self) -> None:
        """Refuse what waits and what is being made."""
        self._stopping = True
        await cancel_all(tuple(self._jobs))
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def cancel(self, message: CancelCaching) -> None:
        """Drop what an asker wanted who left; at most the piece that is being made is still finished."""
        self._left.append(message.asker)
        for job in [job for job, asker in self._jobs.items() if asker == message.asker]:
            job.cancel()

    async def make(self, request: CacheSpeech) -> Cached:
        """Have the speech in the cache. Raises Refused, with 503 at once when too many wait."""
        self._refuse_without_room(request.asker)
        job = asyncio.get_running_loop().create_task(self._made(request), name="caching")
        self._jobs[job] = request.asker
        job.add_done_callback(self._jobs.pop)
        await asyncio.wait({job}, timeout=request.wait_ms / 1000)
        if job.done() and not job.cancelled():
            return job.result()
        SYNTHESES.labels("refused").inc()
        if job.done():
            raise Refused(503, "the tts worker is stopping" if self._stopping else "whoever asked has left")
        job.cancel()
        raise Refused(503, "others are served first; its turn did not come in time")

    def _refuse_without_room(self, asker: str) -> None:
        reason = None
        if self._stopping:
            reason = "the tts worker is stopping"
        elif asker and asker in self._left:
            reason = "whoever asked has left"
        elif len(self._jobs) >= self._max_queue:
            reason = f"no room: {len(self._jobs)} texts wait to be made ready"
        if reason is not None:
            SYNTHESES.labels("refused").inc()
            raise Refused(503, reason)

    async def _made(self, request: CacheSpeech) -> Cached:
        speaker, voice = await self._finder.find(request)
        cached = await self._found(request, voice)
        if cached is not None:
            return cached
        async with self._turn:  # in the order of arrival
            cached = await self._found(request, voice)  # somebody before may have wanted the same
            if cached is not None:
                return cached
            try:
                made = CachedSpeech(await self._whole(request, speaker), request.rate_hz)
            except TtsError as error:
                SYNTHESES.labels("failed").inc()
                raise Refused(error.code, str(error)) from None
            SYNTHESES.labels("cached").inc()
            log.info("speech.cached", length=str(round(1000 * made.pcm.size / made.rate_hz)), speaker=voice.name)
            return await self._kept(request, voice, made, existed=False)

    async def _found(self, request: CacheSpeech, voice: Voice) -> Cached | None:
        """The answer when it is there at the first rate; what lacks at others is converted."""
        place = await asyncio.to_thread(place_of, request, voice)
        found = await self._store.find(place)
        return None if found is None else await self._kept(request, voice, found, existed=True)

    async def _kept(self, request: CacheSpeech, voice: Voice, speech: CachedSpeech, *, existed: bool) -> Cached:
        """The answer, when the speech is kept at each rate. Raises Refused when it does not fit."""
        first = await asyncio.to_thread(place_of, request, voice)
        fits = existed or await self._store.keep(first, speech)
        existed_everywhere = existed
        for rate_hz in request.other_rates_hz:
            place = await asyncio.to_thread(place_of, request.model_copy(update={"rate_hz": rate_hz}), voice)
            if await self._store.find(place) is None:
                existed_everywhere = False
                pcm = await asyncio.to_thread(resample, speech.pcm, speech.rate_hz, rate_hz)
                fits = await self._store.keep(place, CachedSpeech(pcm, rate_hz)) and fits
        if not fits:
            raise Refused(413, "the speech does not fit into the cache")
        return Cached(cache_key=first.keys[0], size_bytes=speech.size_bytes, existed=existed_everywhere)

    async def _whole(self, request: CacheSpeech, speaker: str | None) -> Pcm:
        """All of a text's speech, piece by piece, each when nothing that is spoken wants the thread."""
        loop = asyncio.get_running_loop()
        text = spoken_text(request.text)
        chunks: Iterator[AudioChunk] | None = None
        over = False

        def pull() -> AudioChunk | None:
            nonlocal chunks
            if chunks is None:
                chunks = self._engine.stream(
                    text,
                    speaker=speaker,
                    language=request.language,
                    speed=request.speed,
                    rate_hz=request.rate_hz,
                    cancelled=lambda: over,
                )
            return next(chunks, None)

        parts: list[Pcm] = []
        size = 0
        try:
            while True:
                await self._free()
                chunk = await loop.run_in_executor(self._pool, pull)
                if chunk is None:
                    break
                parts.append(chunk.pcm)
                size += chunk.pcm.nbytes
                if size > self._max_kept:
                    raise Refused(413, "the speech does not fit into the cache")
        finally:
            over = True
        if not parts:
            raise Refused(400, "text: there is no word in it")
        return np.concatenate(parts)
