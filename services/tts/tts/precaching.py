"""Speech made before a call asks for it."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Refused
from dialbus.contracts.speech import Cached, CacheSpeech
from tts.cache import CachedSpeech
from tts.engine import AudioChunk, Synthesiser
from tts.errors import TtsError
from tts.metrics import SYNTHESES
from tts.requests import VoiceFinder, place_of, spoken_text
from tts.store import SpeechStore

log = telemetry.get_logger()


class Precaching:
    """Answers `CacheSpeech`. The bus hands them over one by one, so they never take more than one thread."""

    def __init__(
        self, engine: Synthesiser, finder: VoiceFinder, store: SpeechStore, pool: ThreadPoolExecutor, max_kept: int
    ) -> None:
        """Speech of more than `max_kept` bytes is refused."""
        self._engine = engine
        self._finder = finder
        self._store = store
        self._pool = pool
        self._max_kept = max_kept
        self._stopping = False

    def stop(self) -> None:
        """Refuse what is being made."""
        self._stopping = True

    async def make(self, request: CacheSpeech) -> Cached:
        """Have the speech in the cache. Raises Refused."""
        speaker, voice = await self._finder.find(request)
        place = await asyncio.to_thread(place_of, request, voice)
        found = await self._store.find(place)
        if found is not None:
            return Cached(cache_key=place.keys[0], size_bytes=found.size_bytes, existed=True)
        try:
            made = CachedSpeech(await self._whole(request, speaker), request.rate_hz)
        except TtsError as error:
            SYNTHESES.labels("failed").inc()
            raise Refused(error.code, str(error)) from None
        if not await self._store.keep(place, made):
            raise Refused(413, "the speech does not fit into the cache")
        SYNTHESES.labels("cached").inc()
        log.info("speech.cached", length=str(round(1000 * made.pcm.size / made.rate_hz)), speaker=voice.name)
        return Cached(cache_key=place.keys[0], size_bytes=made.size_bytes, existed=False)

    async def _whole(self, request: CacheSpeech, speaker: str | None) -> Pcm:
        """All of a text's speech, piece by piece, so that texts that are spoken get threads between them."""
        loop = asyncio.get_running_loop()
        text = spoken_text(request.text)
        chunks: Iterator[AudioChunk] | None = None

        def pull() -> AudioChunk | None:
            nonlocal chunks
            if chunks is None:
                chunks = self._engine.stream(
                    text, speaker=speaker, language=request.language, speed=request.speed, rate_hz=request.rate_hz
                )
            return next(chunks, None)

        parts: list[Pcm] = []
        size = 0
        while (chunk := await loop.run_in_executor(self._pool, pull)) is not None:
            if self._stopping:
                raise Refused(503, "the tts worker is stopping")
            parts.append(chunk.pcm)
            size += chunk.pcm.nbytes
            if size > self._max_kept:
                raise Refused(413, "the speech does not fit into the cache")
        if not parts:
            raise Refused(400, "text: there is no word in it")
        return np.concatenate(parts)
