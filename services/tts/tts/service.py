"""Shell of the tts service: `Speak` in, audio frames out.

One event loop decides (through `Schedule`), a pool of threads computes, one piece at a time, so that no thread sleeps
for the sake of pacing and a cancelled text costs at most the piece that is being made.
"""

import asyncio
import math
import os
import re
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram

from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.config import TtsConfig
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import Cached, CacheSpeech, CancelSpeech, Speak, SpeechTaken
from dialbus.membership import Membership
from dialbus.speakable import without_emoji
from dialbus.tasks import cancel_all
from tts.cache import CachedSpeech, SpeechCache, cache_key
from tts.engine import PROVIDER, AudioChunk, Synthesiser
from tts.errors import LanguageNotSupported, TtsError, VoiceNotFound
from tts.resample import resample, with_volume
from tts.schedule import MOST_AHEAD_S, Schedule
from tts.store import Place, SpeechStore
from tts.voices import MODEL_SUFFIX, Voice, Voices

log = telemetry.get_logger()

QUEUE_GROUP = "tts"
USUAL_RATE_HZ = 16000
FRAME_MS = 200
MAX_TEXT_BYTES = 64 << 10
# Requesters wait 2 s; a voice that takes longer to be found is being downloaded.
RESOLVE_S = 1.5
# How long SIGTERM waits for what is being spoken.
GRACE_S = 2.0
LEAVE_S = 1.0
# Cancellations remembered for a Speak that they may have overtaken (each has its own subscription).
REMEMBERED_CANCELS = 256

_TRACK = re.compile(r"[A-Za-z0-9_-]{1,64}")  # becomes a subject token
_UTTERANCE = re.compile(r"[!-~]{1,256}")  # becomes a header

SYNTHESES = Counter("dialbus_tts_syntheses", "Texts by how they ended", ["outcome"])
AUDIO = Counter("dialbus_tts_audio_seconds", "Seconds of audio sent")
FIRST_AUDIO = Histogram(
    "dialbus_tts_first_audio_seconds",
    "From taking a text to its first audio",
    buckets=(0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10),
)
QUEUE = Gauge("dialbus_tts_queue_length", "Texts taken whose synthesis has not begun")

Key = tuple[str, str]
Pcm = NDArray[np.int16]


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


class Worker:
    """Serves `tts.speak` with one engine. `start` it, later `close` it; all on one event loop."""

    def __init__(
        self, engine: Synthesiser, voices: Voices, bus: Bus, config: TtsConfig, store: SpeechStore | None = None
    ) -> None:
        """Without a store, speech is kept in memory."""
        self._engine = engine
        self._voices = voices
        self._bus = bus
        self._voices_path = config.voices_path
        self._room = config.threads + config.max_queue
        self._schedule: Schedule[Key] = Schedule(config.threads)
        self._speeches: dict[Key, Speech] = {}
        self._store = store or SpeechStore(SpeechCache(config.cache_bytes))
        self._most_kept = max(config.cache_bytes, config.disk_cache_bytes)
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="synthesis")
        self._resolving: dict[tuple[str | None, str | None], asyncio.Task[Voice]] = {}
        self._cancels: deque[Key] = deque(maxlen=REMEMBERED_CANCELS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._membership = Membership(
            QUEUE_GROUP,
            [lambda: bus.serve(Speak, self._take, queue=QUEUE_GROUP)],
            has_room=lambda: not self._full,
        )
        self._precaching: Subscription | None = None
        self._changed = asyncio.Event()
        self._closing = False
        QUEUE.set_function(lambda: self._schedule.waiting)

    @property
    def capacity(self) -> tuple[int, int]:
        """Texts that fit, texts that are here."""
        return self._room, len(self._speeches)

    async def start(self) -> None:
        """Listen; when this returns, requests arrive."""
        await self._bus.subscribe(CancelSpeech, self._cancel)
        self._precaching = await self._bus.serve(CacheSpeech, self._precache, queue=QUEUE_GROUP)
        await self._membership.start()
        await self._bus.flush()

    async def close(self) -> None:
        """Leave the queue group; finish what is spoken now within `GRACE_S`, break off the rest with a failure."""
        self._closing = True
        with suppress(TimeoutError):  # the server may be away
            async with asyncio.timeout(LEAVE_S):
                if self._precaching is not None:
                    await self._precaching.leave()
        await self._membership.leave(LEAVE_S)
        for speech in [speech for speech in self._speeches.values() if speech.sequence == 0 and not speech.chunks]:
            await self._end(speech, "stopped", "the tts worker is stopping")
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._speeches:
                    self._changed.clear()
                    await self._changed.wait()
        for speech in list(self._speeches.values()):
            await self._end(speech, "stopped", "the tts worker is stopping")
        if self._timer is not None:
            self._timer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await cancel_all(self._tasks)

    # -- requests ---------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return len(self._speeches) >= self._room

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
        check(request)
        if (request.call_id, request.utterance_id) in self._speeches:
            return taken
        self._refuse_without_room()
        speaker, voice = await self._voice_of(request)
        place = await asyncio.to_thread(place_of, request, voice) if request.use_cache else None
        if place is not None:
            await self._store.find(place)  # from now on in memory
        self._refuse_without_room()
        speech = Speech(request, voice, speaker, place, taken_at)
        if speech.key in self._cancels:
            return taken
        self._speeches[speech.key] = speech
        self._membership.room_changed()
        self._schedule.add(speech.key, request.call_id)
        if not self._replayed(speech):
            self._advance()
        return taken

    async def _voice_of(self, request: Speak | CacheSpeech) -> tuple[str | None, Voice]:
        """The speaker as the engine may have it, and its voice. Raises Refused."""
        try:
            speaker = allowed_speaker(request.speaker, self._voices_path)
            return speaker, await self._resolve(speaker, request.language)
        except TtsError as error:
            code = 404 if isinstance(error, LanguageNotSupported) else error.code
            raise Refused(code, str(error)) from None

    def _refuse_without_room(self) -> None:
        if self._closing:
            raise Refused(503, "the tts worker is stopping")
        if self._full:
            raise Refused(503, f"no room: {len(self._speeches)} texts are waiting or being spoken")

    async def _resolve(self, speaker: str | None, language: str | None) -> Voice:
        """The voice, without waiting for a download to end: that is refused, and the next request finds it."""
        asked = speaker, language
        task = self._resolving.get(asked)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._voices.resolve, speaker, language), name="voice")
            self._resolving[asked] = task
            task.add_done_callback(lambda done: self._resolved(asked, done))
        try:
            async with asyncio.timeout(RESOLVE_S):
                return await asyncio.shield(task)
        except TimeoutError:
            raise Refused(503, f"voice {speaker!r} is not here yet, ask again") from None

    def _resolved(self, asked: tuple[str | None, str | None], task: asyncio.Task[Voice]) -> None:
        del self._resolving[asked]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left

    async def _cancel(self, message: CancelSpeech) -> None:
        """Forget one text, or every text, of a call; nothing more is published for it."""
        if message.utterance_id is None:
            keys = [key for key in self._speeches if key[0] == message.call_id]
        else:
            keys = [(message.call_id, message.utterance_id)]
        for key in keys:
            self._cancels.append(key)
            speech = self._speeches.get(key)
            if speech is not None:
                self._forget(speech, "cancelled")

    # -- synthesis --------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start what is due and has a thread; wake again when the next is due."""
        now = time.monotonic()
        while (key := self._schedule.take(now)) is not None:
            speech = self._speeches[key]
            if not self._replayed(speech):
                self._spawn(self._step(speech))
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
                self._spawn(self._keep(speech))
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
        self._spawn(self._replay(speech, found))
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
            wait_s = start / rate_hz - MOST_AHEAD_S - (time.monotonic() - begun)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if speech.cancelled:
                return
            await self._send(speech, pcm[start : start + step])
        if not speech.cancelled:
            await self._end(speech, "done")

    def _remember(self, speech: Speech, pcm: Pcm) -> None:
        size = sum(part.nbytes for part in speech.kept) + pcm.nbytes
        speech.worth_keeping = speech.worth_keeping and speech.place is not None and size <= self._most_kept
        if speech.worth_keeping:
            speech.kept.append(pcm)
        else:
            speech.kept.clear()

    async def _keep(self, speech: Speech) -> None:
        if speech.place is not None and speech.worth_keeping and speech.kept:
            made = CachedSpeech(np.concatenate(speech.kept), speech.request.rate_hz)
            await self._store.keep(speech.place, made)

    async def _precache(self, request: CacheSpeech) -> Cached:
        """Answer a `CacheSpeech`. The bus hands them over one by one, so they never take more than one thread."""
        check(request)
        speaker, voice = await self._voice_of(request)
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
        log.info("speech.cached", length=_ms(made.pcm.size / made.rate_hz), speaker=voice.name)
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
            if self._closing:
                raise Refused(503, "the tts worker is stopping")
            parts.append(chunk.pcm)
            size += chunk.pcm.nbytes
            if size > self._most_kept:
                raise Refused(413, "the speech does not fit into the cache")
        if not parts:
            raise Refused(400, "text: there is no word in it")
        return np.concatenate(parts)

    # -- audio ------------------------------------------------------------------------------------

    async def _send(self, speech: Speech, pcm: Pcm) -> None:
        """Publish a stretch at the asked volume, in frames of at most `FRAME_MS`."""
        if speech.first_after_s is None:
            speech.first_after_s = time.monotonic() - speech.taken_at
            FIRST_AUDIO.observe(speech.first_after_s)
        pcm = with_volume(pcm, speech.request.volume)
        size = speech.request.rate_hz * FRAME_MS // 1000
        for start in range(0, pcm.size, size):
            if speech.cancelled:
                return
            part = pcm[start : start + size]
            await self._bus.publish_audio(self._frame(speech, part.astype("<i2", copy=False).tobytes()))
            speech.samples += part.size
            AUDIO.inc(part.size / speech.request.rate_hz)

    def _frame(self, speech: Speech, pcm: bytes, **more: Any) -> AudioFrame:
        request = speech.request
        frame = AudioFrame(
            request.call_id, request.track, request.utterance_id, speech.sequence, request.rate_hz, pcm, **more
        )
        speech.sequence += 1
        return frame

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
        last = self._frame(speech, b"", last=True, failure=failure, facts=facts)
        self._forget(speech, outcome)
        log.info("speech." + outcome, call_id=speech.request.call_id, utterance=speech.request.utterance_id, **facts)
        await self._bus.publish_audio(last)

    def _forget(self, speech: Speech, outcome: str) -> None:
        speech.cancelled = True
        SYNTHESES.labels(outcome).inc()
        self._schedule.remove(speech.key)
        self._speeches.pop(speech.key, None)
        self._changed.set()
        self._membership.room_changed()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="speech")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def check(request: Speak | CacheSpeech) -> None:
    """Raises Refused 400 for what no voice could speak, or no subject or header could carry."""
    faults = {
        "text": len(request.text.encode()) > MAX_TEXT_BYTES,
        "speed": not (math.isfinite(request.speed) and request.speed > 0),
        "volume": not (math.isfinite(request.volume) and 0 <= request.volume <= 10),
        "track": isinstance(request, Speak) and not _TRACK.fullmatch(request.track),
        "utterance_id": isinstance(request, Speak) and not _UTTERANCE.fullmatch(request.utterance_id),
        "cache_key": request.cache_key is not None and not 0 < len(request.cache_key) <= 256,
        "speaker": len(request.speaker or "") > 1024 or not (request.speaker or "").isprintable(),
        "language": len(request.language or "") > 64,
    }
    expected = {
        "text": f"at most {MAX_TEXT_BYTES} bytes",
        "speed": "a number above 0",
        "volume": "a number from 0 to 10",
        "track": "letters, digits, - and _",
        "utterance_id": "1 to 256 visible ASCII characters",
        "cache_key": "1 to 256 characters",
        "speaker": "at most 1024 printable characters",
        "language": "at most 64 characters",
    }
    for name, faulty in faults.items():
        if faulty:
            raise Refused(400, f"{name}: expected {expected[name]}")


def allowed_speaker(speaker: str | None, voices_path: Path | None) -> str | None:
    """The speaker as the engine may have it: names as they are, paths only below `voices_path`, links followed.

    A relative path is one from `voices_path`. Raises VoiceNotFound for a path that leads elsewhere.
    """
    name, mark, chosen = (speaker or "").strip().partition("#")
    if not (name.endswith(MODEL_SUFFIX) or "/" in name or os.sep in name):
        return speaker
    if voices_path is None:
        raise VoiceNotFound(name, "no voices directory is configured")
    root = Path(os.path.realpath(voices_path))
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(root):
        raise VoiceNotFound(name, "not below the voices directory")
    return f"{path}{mark}{chosen}"


def place_of(request: Speak | CacheSpeech, voice: Voice) -> Place:
    """Where the cache has the text: under the client's key, or protocol 2.5.7's.

    A language without a speaker stands for the voice it chose. Reads the size of the voice's file, by which a voice
    is told from another one of its name.
    """
    if request.cache_key is not None:
        return Place((request.cache_key,), None)
    speaker = request.speaker or (voice.name if request.language else None)
    text = spoken_text(request.text)
    # A text is kept for the rate it was asked at; what was made ready for the client's rate, or the usual one, will do.
    rates_hz = [request.rate_hz]
    if isinstance(request, Speak):
        rates_hz += [request.samplerate or USUAL_RATE_HZ]
    keys = tuple(
        cache_key(provider=PROVIDER, text=text, rate_hz=rate_hz, speaker=speaker, speed=request.speed)
        for rate_hz in dict.fromkeys(rates_hz)
    )
    try:
        size = voice.model.stat().st_size
    except OSError:
        size = 0
    return Place(keys, f"{voice.name} {size}")


def spoken_text(text: str) -> str:
    """The text that is left to be spoken; by it, not by what surrounds it, the cache knows an utterance."""
    return without_emoji(text).strip()


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
