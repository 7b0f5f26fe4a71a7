"""What a request to speak stands for: its voice, and its place in the cache."""

import asyncio
import os
from pathlib import Path

from dialbus.bus import Refused
from dialbus.contracts.speech import CacheSpeech, Speak
from dialbus.speakable import without_emoji
from tts.cache import cache_key
from tts.engine import PROVIDER
from tts.errors import LanguageNotSupported, TtsError, VoiceNotFound
from tts.store import Place
from tts.voices import MODEL_SUFFIX, Voice, Voices

USUAL_RATE_HZ = 16000
# Requesters wait 3 s; a voice that takes longer to be found is being downloaded.
RESOLVE_S = 1.5

_Asked = tuple[str | None, str | None]
"""Speaker and language."""


class VoiceFinder:
    """Finds the voices of requests; one that is being downloaded is fetched once, whoever asks for it."""

    def __init__(self, voices: Voices, voices_path: Path | None) -> None:
        self._voices = voices
        self._voices_path = voices_path
        self._resolving: dict[_Asked, asyncio.Task[Voice]] = {}

    async def find(self, request: Speak | CacheSpeech) -> tuple[str | None, Voice]:
        """The speaker as the engine may have it, and its voice. Raises Refused."""
        try:
            speaker = allowed_speaker(request.speaker, self._voices_path)
            return speaker, await self._resolve(speaker, request.language)
        except TtsError as error:
            code = 404 if isinstance(error, LanguageNotSupported) else error.code
            raise Refused(code, str(error)) from None

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

    def _resolved(self, asked: _Asked, task: asyncio.Task[Voice]) -> None:
        del self._resolving[asked]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left


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
