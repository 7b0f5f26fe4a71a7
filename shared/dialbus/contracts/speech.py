"""Between media, asr and tts: utterances to text, text to audio.

What a text to be spoken may hold is said by the types here, once: whoever makes the request is refused what tts would.
"""

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from dialbus.contracts.base import CallId, Contract, Request, Taken

RateHz = Annotated[int, Field(ge=8000, le=48000)]


MAX_TEXT_BYTES = 64 << 10
"""What one `tts` may ask to be spoken; audio as base64 may fill the frame."""
_TRACK = re.compile(r"[A-Za-z0-9_-]{1,64}")  # becomes a subject token
_UTTERANCE = re.compile(r"[!-~]{1,256}")  # becomes a header


def _fitting(expected: str, fits: Callable[[Any], bool]) -> AfterValidator:
    """A value for which `fits`; the fault names the field and says what is `expected`, in words for a client."""

    def check(value: Any, field: ValidationInfo) -> Any:
        if not fits(value):
            raise PydanticCustomError("unfit", "{name}: expected {what}", {"name": field.field_name, "what": expected})
        return value

    return AfterValidator(check)


SpokenText = Annotated[
    str, _fitting(f"at most {MAX_TEXT_BYTES} bytes", lambda text: len(text.encode(errors="replace")) <= MAX_TEXT_BYTES)
]
Speaker = Annotated[
    str, _fitting("at most 1024 printable characters", lambda name: len(name) <= 1024 and name.isprintable())
]
Language = Annotated[str, _fitting("at most 64 characters", lambda tag: len(tag) <= 64)]
Speed = Annotated[float, _fitting("a number above 0", lambda speed: math.isfinite(speed) and speed > 0)]
Volume = Annotated[float, _fitting("a number from 0 to 10", lambda volume: 0 <= volume <= 10)]
CacheKey = Annotated[str, _fitting("1 to 256 characters", lambda key: 0 < len(key) <= 256)]
SpeechTrack = Annotated[str, _fitting("letters, digits, - and _", lambda track: bool(_TRACK.fullmatch(track)))]
UtteranceId = Annotated[
    str, _fitting("1 to 256 visible ASCII characters", lambda name: bool(_UTTERANCE.fullmatch(name)))
]


class TranscriptionOpened(Contract):
    """An asr worker took the session."""

    SUBJECT: ClassVar[str] = "_reply.transcription_opened"

    worker: str
    model: str


class OpenTranscription(Request[TranscriptionOpened]):
    """Recognise one track of a call. Audio follows on `call.<id>.audio.<track>`, 16 kHz, utterance by utterance.

    Refused with 404 when the model or its language is not to be had, 503 when there is no room.
    """

    SUBJECT: ClassVar[str] = "asr.open"

    call_id: CallId
    track: str = "main"
    model: str | None = None
    language: str | None = None


class CloseTranscription(Request[Taken]):
    """No more audio; the reply comes after the last transcript was sent or dropped."""

    SUBJECT: ClassVar[str] = "call.{call}.asr.{track}"

    call_id: CallId
    track: str = "main"


class Transcript(Contract):
    """What an utterance sounds like so far, or for good. From asr to the media worker that sent the audio."""

    SUBJECT: ClassVar[str] = "call.{call}.transcript.{track}"

    call_id: CallId
    track: str = "main"
    utterance: int
    text: str
    final: bool
    confidence: float | None = None
    decode_ms: int = 0
    latency_ms: int = 0
    """From the arrival of the last audio used to this text."""
    failure: str | None = None
    """Why there is no text (the engine failed); then `text` is empty and `final` true."""


class SpeechTaken(Contract):
    """A tts worker will speak."""

    SUBJECT: ClassVar[str] = "_reply.speech_taken"

    worker: str


class Speak(Request[SpeechTaken]):
    """Synthesise one text. Audio comes back on `call.<id>.audio.<track>` as int16 mono at `rate_hz`.

    Refused with 404 for a voice or language that is not to be had, 503 when there is no room.
    """

    SUBJECT: ClassVar[str] = "tts.speak"

    call_id: CallId
    utterance_id: UtteranceId
    track: SpeechTrack = "server"
    text: SpokenText
    speaker: Speaker | None = None
    language: Language | None = None
    speed: Speed = 1.0
    volume: Volume = 5.0
    rate_hz: RateHz = 16000
    samplerate: RateHz | None = None
    """What the client named; speech kept for that rate will do as well, and is converted."""
    cache_key: CacheKey | None = None
    use_cache: bool = True
    """False for streamed text: neither looked for nor kept (protocol 2.5.3)."""


class CancelSpeech(Contract):
    """Nobody will hear the rest: stop synthesis. Heard by the tts worker that speaks."""

    SUBJECT: ClassVar[str] = "call.{call}.tts.cancel"

    call_id: CallId
    utterance_id: str | None = None
    """None: everything of this call."""


class Cached(Contract):
    """The audio is in the cache."""

    SUBJECT: ClassVar[str] = "_reply.cached"

    cache_key: str
    size_bytes: int
    existed: bool
    """It was there before."""


class CacheSpeech(Request[Cached]):
    """Synthesise a text now so that a later `Speak` of the same text, voice and rate starts at once.

    Refused like `Speak`; 500 when synthesis fails, 503 when too many wait or its turn did not come within `wait_ms`.
    """

    SUBJECT: ClassVar[str] = "tts.cache"

    text: SpokenText
    speaker: Speaker | None = None
    language: Language | None = None
    speed: Speed = 1.0
    volume: Volume = 5.0
    rate_hz: RateHz = 16000
    cache_key: CacheKey | None = None
    other_rates_hz: tuple[RateHz, ...] = ()
    """Kept at these rates as well, converted; the answer tells of `rate_hz`."""
    asker: str = ""
    """Who may withdraw it by `CancelCaching`."""
    wait_ms: Annotated[int, Field(gt=0)] = 120_000
    """How long the asker waits for an answer; what is not made by then is dropped."""


class CancelCaching(Contract):
    """The asker has left: drop its `CacheSpeech`, begun or not. Heard by all tts workers."""

    SUBJECT: ClassVar[str] = "tts.cache.cancel"

    asker: str
