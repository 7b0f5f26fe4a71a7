"""Whisper behind the `Transcriber` protocol, for many short utterances at once.

Whisper hears 30 s at a time and costs accordingly, however short the utterance. Here only the utterance and
two seconds of silence are encoded; the decoder then gets this followed by the cached encoding of silence,
up to the 1500 positions it was trained on. That is about five times cheaper for nearly the same text. (Decoding
the short encoding alone is cheaper still, but then the model does not know where to stop and repeats the
sentence.)
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from ctranslate2 import StorageView  # type: ignore[attr-defined]  # the package lists no exports
from ctranslate2.models import Whisper  # type: ignore[attr-defined]  # as above
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer

from asr.errors import AudioNotAccepted, LanguageNotSupported, ModelUnusable
from asr.text import normalise
from dialbus.audio import Pcm

Audio = Pcm | npt.NDArray[np.float32]
"""int16[n], or float32[n] from -1 to 1; mono at `SAMPLE_RATE_HZ`."""

SAMPLE_RATE_HZ = 16_000
MAX_AUDIO_S = 30.0

_MAX_SAMPLES = int(MAX_AUDIO_S * SAMPLE_RATE_HZ)
_SAMPLES_PER_POSITION = 320  # encoder outputs: one per two mel frames, 1500 for 30 s
# Heard as the end of the sentence. With 0.5 s words are invented behind it, with 1 s a last short clause is lost.
_CLOSING_SILENCE = 2 * SAMPLE_RATE_HZ
_NO_SPEECH = 0.5  # non-speech measured >= 0.65, speech <= 0.19
_NO_REPEAT_NGRAM = 3  # for a decode that loops
_TOKENS_PER_S = 8  # quick speech has 6, spelt digits 7
_TOKENS_AT_LEAST = 16
_CONTEXT_TOKENS = 448
_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")
# Codes of ISO 639 that Whisper knows by another name.
_WHISPER_CODES = {"nb": "no", "iw": "he", "in": "id", "fil": "tl", "jv": "jw", "cmn": "zh"}


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What one decode heard.

    `text` is normalised, and "" when the audio is not speech. `language` is a two- or three-letter code,
    given or detected. `confidence` is exp(`avg_logprob`), 0..1: the geometric mean of the probabilities of
    the tokens. `decode_ms` is the wall time of this decode, waiting for a free slot included.
    """

    text: str
    language: str
    no_speech_prob: float
    avg_logprob: float
    audio_ms: int
    decode_ms: float
    tokens: tuple[int, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.text.split())

    @property
    def confidence(self) -> float:
        return min(1.0, math.exp(self.avg_logprob)) if self.text else 0.0

    @property
    def rtf(self) -> float:
        """Decoding time per audio time; 0 for no audio."""
        return self.decode_ms / self.audio_ms if self.audio_ms else 0.0


class Transcriber(Protocol):
    """Speech to text, one utterance per call; blocking, and safe to call from several threads."""

    @property
    def slots(self) -> int:
        """How many calls of `transcribe` make progress at the same time."""

    def check_language(self, language: str | None) -> str | None:
        """The engine's code for a language tag ("en-US" gives "en"); None where the engine will detect it.

        Raises LanguageNotSupported.
        """

    def transcribe(self, pcm: Audio, language: str | None = None, beam: int = 1) -> Hypothesis:
        """What is said in `pcm`: mono at 16 kHz, int16[n] or float32[n] in -1..1, at most 30 s.

        Raises LanguageNotSupported and AudioNotAccepted.
        """


class WhisperTranscriber:
    """A CTranslate2 Whisper model in int8, shared by all calls of the process.

    `slots` decodes run in parallel, each on `threads_per_slot` threads; more callers than slots wait in the
    engine's queue. The interpreter lock is released while encoding and decoding. Raises ModelUnusable.
    """

    def __init__(self, model: Path, slots: int | None = None, threads_per_slot: int = 1) -> None:
        self._slots = slots or os.cpu_count() or 1
        try:
            self._whisper = Whisper(
                str(model),
                device="cpu",
                compute_type="int8",
                inter_threads=self._slots,
                intra_threads=threads_per_slot,
            )
            self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        except Exception as error:  # both libraries raise bare RuntimeError and Exception
            raise ModelUnusable(model, str(error)) from error
        self._features: Any = FeatureExtractor(self._whisper.n_mels)  # type: ignore[no-untyped-call]  # the package has no annotations
        self._prompts = self._prompt_per_language(model)
        self._silence = self._encode(np.zeros(_MAX_SAMPLES, np.float32))

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def multilingual(self) -> bool:
        return bool(self._whisper.is_multilingual)

    def check_language(self, language: str | None) -> str | None:
        """As `Transcriber.check_language`; an English-only model takes None for English."""
        if not language or language.lower() == "auto":
            return None if self.multilingual else "en"
        primary = re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]
        code = _WHISPER_CODES.get(primary, primary)
        if code not in self._prompts:
            raise LanguageNotSupported(language, self._prompts)
        return code

    def transcribe(self, pcm: Audio, language: str | None = None, beam: int = 1) -> Hypothesis:
        """As `Transcriber.transcribe`; `beam` 5 costs about a third more than 1 and gains little."""
        began = time.perf_counter()
        code = self.check_language(language)
        audio = _as_float(pcm)
        audio_ms = round(1000 * audio.size / SAMPLE_RATE_HZ)
        if audio.size == 0:
            return Hypothesis("", code or "", 1.0, 0.0, 0, 0.0)

        encoded = StorageView.from_array(self._encode_with_silence(audio))
        code = code or self._detected_language(encoded)
        result = self._decode(encoded, code, audio.size / SAMPLE_RATE_HZ, beam)

        spoken = result.no_speech_prob < _NO_SPEECH
        tokens = tuple(result.sequences_ids[0]) if spoken else ()
        text = normalise(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
        decode_ms = 1000 * (time.perf_counter() - began)
        return Hypothesis(
            text, code, result.no_speech_prob, result.scores[0], audio_ms, decode_ms, tokens if text else ()
        )

    def _decode(self, encoded: StorageView, language: str, seconds: float, beam: int) -> Any:
        """The engine's result, once more with repetition forbidden where the model did not stop by itself.

        Speech cut mid-sentence can end in "ask you to ask you to …". Forbidding that from the start would
        also forbid what people do repeat: "what your country can do for you … do for your country", "five
        five five five".
        """
        limit = min(_CONTEXT_TOKENS // 2, math.ceil(_TOKENS_PER_S * seconds) + _TOKENS_AT_LEAST)
        result = self._generate(encoded, language, limit, beam, no_repeat_ngram=0)
        if len(result.sequences_ids[0]) >= limit:
            result = self._generate(encoded, language, limit, beam, no_repeat_ngram=_NO_REPEAT_NGRAM)
        return result

    def _generate(self, encoded: StorageView, language: str, limit: int, beam: int, *, no_repeat_ngram: int) -> Any:
        return self._whisper.generate(
            encoded,
            [self._prompts[language]],
            beam_size=beam,
            max_length=2 * limit,  # the engine keeps half of it for a prompt of earlier text
            no_repeat_ngram_size=no_repeat_ngram,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]

    def _detected_language(self, encoded: StorageView) -> str:
        token, _probability = self._whisper.detect_language(encoded)[0][0]
        return str(token).strip("<|>")

    def _encode_with_silence(self, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32[1, 1500, width]: the utterance, then silence."""
        length = audio.size + _CLOSING_SILENCE
        length += -length % _SAMPLES_PER_POSITION
        speech = self._encode(np.pad(audio, (0, min(length, _MAX_SAMPLES) - audio.size)))
        return np.concatenate([speech, self._silence[:, speech.shape[1] :]], axis=1)

    def _encode(self, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32[1, n / 320, width] of float32[n]."""
        mel = np.ascontiguousarray(self._features(audio, padding=0)[np.newaxis], dtype=np.float32)
        return np.array(self._whisper.encode(StorageView.from_array(mel), to_cpu=True))

    def _prompt_per_language(self, model: Path) -> dict[str, list[int]]:
        """Tokens that start a transcript, by language code; English-only models have no language token."""
        start, plain = self._token(model, "<|startoftranscript|>"), self._token(model, "<|notimestamps|>")
        if not self._whisper.is_multilingual:
            return {"en": [start, plain]}
        task = self._token(model, "<|transcribe|>")
        codes = {
            token: match[1] for token in self._tokenizer.get_vocab() if (match := _LANGUAGE_TOKEN.fullmatch(token))
        }
        return {code: [start, self._token(model, token), task, plain] for token, code in codes.items()}

    def _token(self, model: Path, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ModelUnusable(model, f"its tokenizer has no {token}, so this is not Whisper")
        return int(number)


def _as_float(pcm: Audio) -> npt.NDArray[np.float32]:
    if pcm.ndim != 1:
        raise AudioNotAccepted(f"one dimension expected, got the shape {pcm.shape}")
    if pcm.size > _MAX_SAMPLES:
        raise AudioNotAccepted(f"{pcm.size / SAMPLE_RATE_HZ:.2f} s is more than {MAX_AUDIO_S:.0f} s")
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32) / np.float32(32768)
    if pcm.dtype == np.float32:
        return pcm.astype(np.float32, copy=False)
    raise AudioNotAccepted(f"int16 or float32 expected, got {pcm.dtype}")
