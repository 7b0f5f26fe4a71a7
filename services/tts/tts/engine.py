"""Text to speech, behind one protocol; piper is the engine.

Piper (GPL-3.0-or-later, which is why no other service imports it) contributes the phonemes and the voices' format;
the graph is run by onnxruntime, in pieces, so that sound starts before the sentence is computed (`piper_graph`).
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from piper import PiperVoice
from piper.config import PiperConfig

from dialbus.audio import Pcm
from tts.errors import SynthesisFailed, VoiceBroken
from tts.phrasing import phrases_of, spoken_form
from tts.piper_graph import CannotSplit, Samples, SplitVoice, WholeVoice, discard, split
from tts.resample import StreamResampler, to_pcm16
from tts.voices import Voice, Voices, read_config

PROVIDER = "piper"
# Beyond these piper's voices are no longer understood.
SPEED_MIN, SPEED_MAX = 0.25, 4.0
# Voices differ in level by 10 dB. Normalising each sentence, as piper does, needs its end before its start, so the
# gain is measured once per voice instead; peaks of other sentences are up to 4 dB above this one's.
PEAK = 0.7
WARM_UP = "Thank you for calling, please hold the line."
WARM_UP_OTHER = "A, e, i, o, u: 1, 2, 3, 4."


@dataclass(frozen=True)
class AudioChunk:
    """A piece of an utterance: `pcm` is int16[n], mono, n > 0, at `rate_hz`; `phrase` is what is being said."""

    pcm: Pcm
    rate_hz: int
    phrase: str


class Synthesiser(Protocol):
    """Any engine. Thread-safe; `stream` blocks and belongs into a thread, as does each step of what it returns."""

    def stream(
        self,
        text: str,
        *,
        speaker: str | None = None,
        language: str | None = None,
        speed: float = 1.0,
        rate_hz: int = 16000,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[AudioChunk]:
        """The speech of `text`, piece by piece, each as soon as it is computed.

        `speed` is a factor (2 is twice as fast); the volume is the voice's own, and changed behind the engine.
        `cancelled` is asked between pieces; once true, nothing follows. A text without a word gives no chunk. What
        the options may be was judged before, by the contracts. Raises VoiceNotFound, LanguageNotSupported and
        VoiceBroken at once, SynthesisFailed while iterating.
        """
        ...


class PiperSynthesiser:
    """Piper's voices, each loaded on first use; the `max_voices` last used stay in memory (about 100 MB each).

    `cache` keeps the split graphs; None means `dialbus/voices-split` in the user's cache directory.
    """

    def __init__(self, voices: Voices, *, cache: Path | None = None, max_voices: int = 4) -> None:
        self._voices = voices
        self._cache = cache or user_cache() / "voices-split"
        self._max_voices = max_voices
        self._loaded: OrderedDict[Path, LoadedVoice] = OrderedDict()
        self._table = threading.Lock()
        self._loading = threading.Lock()

    def load(self, speaker: str | None = None, language: str | None = None) -> "LoadedVoice":
        """A voice made ready: split, opened, warmed up. Call it at start for the default voice.

        About 0.5 s, and 2 s the first time on a machine. Raises VoiceNotFound, LanguageNotSupported, VoiceBroken.
        """
        return self._ready(self._voices.resolve(speaker, language))

    def stream(
        self,
        text: str,
        *,
        speaker: str | None = None,
        language: str | None = None,
        speed: float = 1.0,
        rate_hz: int = 16000,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[AudioChunk]:
        """See `Synthesiser.stream`. Speed is clamped to 0.25 … 4."""
        voice = self._voices.resolve(speaker, language)
        loaded = self._ready(voice)
        speed = min(max(speed, SPEED_MIN), SPEED_MAX)
        return _utterance(loaded, phrases_of(text), voice.speaker_id, speed, rate_hz, cancelled)

    def _ready(self, voice: Voice) -> "LoadedVoice":
        with self._table:
            loaded = self._loaded.get(voice.model)
            if loaded is not None:
                self._loaded.move_to_end(voice.model)
                return loaded
        # One load at a time: two would double the peak of memory and, for the same voice, the work.
        with self._loading:
            with self._table:
                loaded = self._loaded.get(voice.model)
            if loaded is None:
                loaded = LoadedVoice(voice, self._cache)
                with self._table:
                    self._loaded[voice.model] = loaded
                    while len(self._loaded) > self._max_voices:
                        self._loaded.popitem(last=False)
        return loaded


class LoadedVoice:
    """One voice in memory: phonemes, graph, level. Thread-safe.

    `whole_because` is None, or why this voice cannot stream inside a sentence; worth a line in the log.
    """

    def __init__(self, voice: Voice, cache: Path) -> None:
        self.voice = voice
        self.whole_because: str | None = None
        try:
            self.config = PiperConfig.from_dict(read_config(voice.config))
            self._graph = self._open(cache)
            # Only `phonemize` and `phonemes_to_ids` are used of it; neither touches the session.
            self._phonemes = PiperVoice(session=self._graph.encoder, config=self.config, download_dir=cache)
            self.gain = self._warm_up(voice.model)
        except VoiceBroken:
            raise
        except Exception as error:  # a damaged file raises whatever its reader raises
            reason = str(error).splitlines()[0] if str(error) else ""
            raise VoiceBroken(voice.model, f"{type(error).__name__} {reason[:200]}".strip()) from error
        self.rate_hz = self.config.sample_rate

    def sentences(self, phrase: str) -> list[list[int]]:
        """Phoneme ids of each sentence in the phrase; sentences without a sound are left out."""
        spoken = self._phonemes.phonemize(spoken_form(phrase))
        return [self._phonemes.phonemes_to_ids(sentence) for sentence in spoken if "".join(sentence).strip()]

    def synthesise(
        self, ids: list[int], *, speaker_id: int | None = None, speed: float = 1.0, noise: float = 1.0
    ) -> Iterator[Samples]:
        """One sentence as float32 samples at `rate_hz`, in pieces, at the voice's own level.

        `noise` scales the randomness of timbre and rhythm; 0 makes the result repeatable.
        """
        inputs = self.inputs(ids, speaker_id=speaker_id, speed=speed, noise=noise)
        if isinstance(self._graph, WholeVoice):
            return self._graph.synthesise(inputs)
        return self._graph.decode_in_steps(self._graph.encode(inputs))

    def inputs(
        self, ids: list[int], *, speaker_id: int | None = None, speed: float = 1.0, noise: float = 1.0
    ) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """The graph's inputs for one sentence."""
        config = self.config
        scales = [config.noise_scale * noise, config.length_scale / speed, config.noise_w_scale * noise]
        inputs: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
            "input": np.array([ids], dtype=np.int64),
            "input_lengths": np.array([len(ids)], dtype=np.int64),
            "scales": np.array(scales, dtype=np.float32),
        }
        if config.num_speakers > 1:
            chosen = config.default_speaker_id if speaker_id is None else speaker_id
            inputs["sid"] = np.array([chosen], dtype=np.int64)
        return inputs

    def _open(self, cache: Path) -> SplitVoice | WholeVoice:
        try:
            files = split(self.voice.model, cache)
            try:
                return SplitVoice(files)
            except Exception:  # a cache left damaged by a full disk or a power cut: made anew, once
                discard(files)
                return SplitVoice(split(self.voice.model, cache))
        except (CannotSplit, OSError) as error:
            self.whole_because = str(error)
            return WholeVoice(self.voice.model)

    def _warm_up(self, model: Path) -> float:
        """Run every path once, so that the first caller does not wait for it; the gain to the common level."""
        ids = self.sentences(WARM_UP if self.voice.speaks("en") else WARM_UP_OTHER)[0]
        inputs = self.inputs(ids)
        if isinstance(self._graph, SplitVoice):
            border = self._graph.encode(inputs)
            try:
                self._graph.widen_overlap(border)
            except CannotSplit as error:
                self.whole_because = str(error)
                self._graph = WholeVoice(model)
            else:
                return _gain_to_level(self._graph.decode(border))
        return _gain_to_level(np.concatenate(list(self._graph.synthesise(inputs))))


def _utterance(
    voice: LoadedVoice,
    spoken: Iterator[str],
    speaker_id: int | None,
    speed: float,
    rate_hz: int,
    cancelled: Callable[[], bool],
) -> Iterator[AudioChunk]:
    """Phrases to chunks at the caller's rate; one resampler for all, so that no seam is heard."""
    converter = StreamResampler(voice.rate_hz, rate_hz)
    phrase = ""
    for phrase in spoken:
        if cancelled():
            return
        for samples in _pieces(voice, phrase, speaker_id, speed, cancelled):
            pcm = to_pcm16(converter.feed(samples), voice.gain)
            if pcm.size:
                yield AudioChunk(pcm, rate_hz, phrase)
            if cancelled():
                return
    pcm = to_pcm16(converter.flush(), voice.gain)
    if pcm.size:
        yield AudioChunk(pcm, rate_hz, phrase)


def _pieces(
    voice: LoadedVoice, phrase: str, speaker_id: int | None, speed: float, cancelled: Callable[[], bool]
) -> Iterator[Samples]:
    """One phrase's samples. Raises SynthesisFailed for whatever the engine raises."""
    try:
        for ids in voice.sentences(phrase):
            if cancelled():
                return
            yield from voice.synthesise(ids, speaker_id=speaker_id, speed=speed)
    except Exception as error:
        raise SynthesisFailed(phrase, f"{type(error).__name__}: {error}") from error


def _gain_to_level(samples: Samples) -> float:
    peak = float(np.abs(samples).max(initial=0.0))
    return min(max(PEAK / peak, 0.25), 4.0) if peak > 0.0 else 1.0


def user_cache() -> Path:
    """This product's directory under the user's cache directory. Source: XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dialbus"
