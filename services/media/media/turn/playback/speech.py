"""A client's text as a request to the synthesiser, and a client's base64 as audio. Pure functions."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import soxr
from pydantic import ValidationError

from dialbus import providers
from dialbus.audio import Pcm
from dialbus.contracts.commands import Tts
from dialbus.contracts.options import SynthesisOption
from dialbus.contracts.speech import Speak

_BASE64_RATE_HZ = 16000


class Unspeakable(Exception):
    """No synthesiser of ours takes a text with these options; `code` is that of the client's `error` event."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SpeechLine:
    """Where a leg's speech is asked for and comes back on the bus."""

    call_id: str
    rate_hz: int
    """Of the leg."""
    track: str = "server"
    """Names the audio on the bus; no two legs of a call have the same."""
    providers: Mapping[str, str] = field(default_factory=dict)
    speakers: Mapping[str, str] = field(default_factory=dict)
    """Foreign names and what stands for them here (`dialbus.providers`)."""

    def speak(self, utterance_id: str, text: str, asked: SynthesisOption, *, cacheable: bool) -> Speak:
        """The request for one text; `cacheable` is false for streamed text. Raises Unspeakable."""
        try:
            option = providers.synthesis(asked, self.providers, self.speakers)
            return Speak(
                call_id=self.call_id,
                utterance_id=utterance_id,
                track=self.track,
                text=text,
                speaker=option.speaker,
                language=option.language,
                speed=option.speed or 1.0,
                volume=5.0 if option.volume is None else option.volume,
                rate_hz=self.rate_hz,
                samplerate=option.samplerate,
                cache_key=option.cache_key if cacheable else None,
                use_cache=cacheable,
            )
        except providers.NotAvailable as missing:
            raise Unspeakable(404, str(missing)) from None
        except ValidationError as error:
            raise Unspeakable(400, error.errors(include_url=False)[0]["msg"]) from None


def option_of(command: Tts, call: SynthesisOption) -> SynthesisOption:
    """The call's option with what a command names over it; the command's own `speaker` and `cacheKey` win."""
    asked = command.option
    given = {name: getattr(asked, name) for name in asked.model_fields_set} if asked is not None else {}
    if command.speaker is not None:
        given["speaker"] = command.speaker
    if command.cache_key is not None:
        given["cache_key"] = command.cache_key
    return call.model_copy(update=given)


def audio_of(command: Tts, rate_hz: int) -> Pcm:
    """Base64 of s16le mono PCM as int16[n] at `rate_hz` (protocol 2.5.4). Raises ValueError with the reason."""
    try:
        data = base64.b64decode("".join(command.text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"bad base64 audio: {error}") from error
    given_hz = command.option.samplerate if command.option is not None else None
    source_hz = given_hz or _BASE64_RATE_HZ
    pcm = np.frombuffer(data[: len(data) & ~1], dtype="<i2").astype(np.int16)
    if source_hz == rate_hz or not len(pcm):
        return pcm
    resampled: Pcm = soxr.resample(pcm, source_hz, rate_hz)
    return resampled
