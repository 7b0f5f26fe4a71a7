"""The tts service on the bus: takes `Speak` while there is room, cancels, makes speech ready."""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.config import TtsConfig
from dialbus.contracts.speech import CacheSpeech, CancelCaching, CancelSpeech, Speak, SpeechTaken
from dialbus.membership import Membership
from dialbus.tasks import TaskSet
from tts.cache import SpeechCache
from tts.engine import Synthesiser
from tts.metrics import SYNTHESES
from tts.precaching import Precaching
from tts.requests import VoiceFinder, place_of
from tts.speaking import Key, Speaking, Speech
from tts.store import SpeechStore
from tts.voices import Voices

log = telemetry.get_logger()

QUEUE_GROUP = "tts"
LEAVE_S = 1.0
# Cancellations remembered for a Speak that they may have overtaken (each has its own subscription).
REMEMBERED_CANCELS = 256


class TtsService:
    """Serves `tts.speak` with one engine. `start` it, later `close` it; all on one event loop."""

    def __init__(
        self, engine: Synthesiser, voices: Voices, bus: Bus, config: TtsConfig, store: SpeechStore | None = None
    ) -> None:
        """Without a store, speech is kept in memory."""
        self._bus = bus
        self._room = config.threads + config.max_queue
        self._store = store or SpeechStore(SpeechCache(config.cache_bytes))
        self._finder = VoiceFinder(voices, config.voices_path)
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="synthesis")
        max_kept = max(config.cache_bytes, config.disk_cache_bytes)
        self._membership = Membership(
            QUEUE_GROUP, [lambda: bus.serve(Speak, self._take, queue=QUEUE_GROUP)], lambda: not self._full
        )
        self._speaking = Speaking(
            bus, engine, self._store, self._pool,
            at_once=config.threads, max_kept=max_kept, changed=self._membership.room_changed,
        )  # fmt: skip
        self._precaching = Precaching(
            engine, self._finder, self._store,
            max_queue=config.max_cache_queue, max_kept=max_kept, free=self._speaking.free,
        )  # fmt: skip
        self._precaching_answers = TaskSet()
        self._precaching_served: Subscription | None = None
        self._cancels: deque[Key] = deque(maxlen=REMEMBERED_CANCELS)
        self._closing = False

    @property
    def capacity(self) -> tuple[int, int]:
        """Texts that fit, texts that are here."""
        return self._room, len(self._speaking)

    @property
    def caching(self) -> int:
        """Texts that are being made ready, or wait for that."""
        return len(self._precaching)

    async def start(self) -> None:
        """Listen; when this returns, requests arrive."""
        await self._bus.subscribe(CancelSpeech, self._cancel)
        await self._bus.subscribe(CancelCaching, self._precaching.cancel)
        self._precaching_served = await self._bus.serve_at_once(
            CacheSpeech, self._precaching.make, self._precaching_answers, queue=QUEUE_GROUP
        )
        await self._membership.start()
        await self._bus.flush()

    async def close(self) -> None:
        """Leave the queue group; finish what is spoken now, break off the rest with a failure."""
        self._closing = True
        await self._precaching.close()
        await asyncio.gather(self._leave_precaching(), self._membership.leave(LEAVE_S))
        await self._speaking.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _leave_precaching(self) -> None:
        with suppress(TimeoutError):  # the server may be away
            async with asyncio.timeout(LEAVE_S):
                if self._precaching_served is not None:
                    await self._precaching_served.leave()
                await self._precaching_answers.wait()

    @property
    def _full(self) -> bool:
        return len(self._speaking) >= self._room

    async def _take(self, request: Speak) -> SpeechTaken:
        """Answer a `Speak`. A request repeated because its answer was lost is taken once."""
        try:
            return await self._accept(request)
        except Refused as refused:
            SYNTHESES.labels("refused").inc()
            log.info("speech.refused", call_id=request.call_id, code=refused.code)
            raise

    async def _accept(self, request: Speak) -> SpeechTaken:
        taken_at = time.monotonic()
        taken = SpeechTaken(worker=self._bus.instance)
        if (request.call_id, request.utterance_id) in self._speaking:
            return taken
        self._refuse_without_room()
        speaker, voice = await self._finder.find(request)
        place = await asyncio.to_thread(place_of, request, voice) if request.use_cache else None
        if place is not None:
            await self._store.find(place)  # from now on in memory
        self._refuse_without_room()
        speech = Speech(request, voice, speaker, place, taken_at)
        if speech.key not in self._cancels:
            self._speaking.add(speech)
        return taken

    def _refuse_without_room(self) -> None:
        if self._closing:
            raise Refused(503, "the tts worker is stopping")
        if self._full:
            raise Refused(503, f"no room: {len(self._speaking)} texts are waiting or being spoken")

    async def _cancel(self, message: CancelSpeech) -> None:
        """Forget one text, or every text, of a call; nothing more is published for it."""
        if message.utterance_id is None:
            keys = self._speaking.of_call(message.call_id)
        else:
            keys = [(message.call_id, message.utterance_id)]
        for key in keys:
            self._cancels.append(key)
            self._speaking.cancel(key)
