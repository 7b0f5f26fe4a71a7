"""The real engine with the model of the wheel, on human voices."""

from __future__ import annotations

import wave
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from asr.engine import Hypothesis, Transcriber, WhisperTranscriber
from asr.errors import AudioNotAccepted, LanguageNotSupported, ModelUnusable
from asr.models import resolve_model
from asr.stabiliser import Stabiliser
from tests.wer import wer

pytestmark = pytest.mark.model

Int16 = npt.NDArray[np.int16]

VOICES = Path(__file__).parents[3] / "tests" / "data" / "voices"
SAID = {
    "jfk": "And so my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country.",
    # "thereunder" in two words, as the model spells it
    "lj": "unless a system is established for the frequent formal review of activities there under. In this regard",
}


@pytest.fixture(scope="session")
def engine() -> WhisperTranscriber:
    return WhisperTranscriber(resolve_model())


@pytest.fixture(scope="session", params=sorted(SAID))
def voice(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def audio_of(name: str) -> Int16:
    with wave.open(str(VOICES / f"{name}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def resampled(pcm: Int16, up: int, down: int) -> Int16:
    """By a factor up/down, with a windowed sinc of 64 taps a side as low-pass."""
    n = np.arange(-64 * max(up, down), 64 * max(up, down) + 1)
    taps = np.sinc(n / max(up, down)) * np.hanning(n.size) * up / max(up, down)
    stretched = np.zeros(pcm.size * up)
    stretched[::up] = pcm
    return np.clip(np.convolve(stretched, taps, mode="same")[::down], -32768, 32767).astype(np.int16)


def through_mu_law(pcm: Int16) -> Int16:
    """Quantised as G.711 mu-law does it: 8 bits by the continuous form of the law, mu = 255."""
    x = pcm / 32768.0
    code = np.round(127 * np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256))
    y = np.sign(code) * (np.power(256.0, np.abs(code) / 127) - 1) / 255
    quantised: Int16 = np.clip(32768 * y, -32768, 32767).astype(np.int16)
    return quantised


def over_the_telephone(pcm: Int16) -> Int16:
    return resampled(through_mu_law(resampled(pcm, 1, 2)), 2, 1)


def noise(seconds: float, rms: float, seed: int = 1) -> Int16:
    samples = np.random.default_rng(seed).normal(0, rms, int(16_000 * seconds))
    return np.clip(samples, -32768, 32767).astype(np.int16)


def test_a_human_voice_is_understood(engine: WhisperTranscriber, voice: str) -> None:
    heard = engine.transcribe(audio_of(voice), "en")

    assert wer(SAID[voice], heard.text) <= 0.15, heard.text
    assert heard.no_speech_prob < 0.3
    assert 0.5 < heard.confidence <= 1
    assert heard.language == "en"
    assert heard.audio_ms == round(audio_of(voice).size / 16)
    assert heard.decode_ms > 0
    assert heard.words == tuple(heard.text.split())
    assert heard.tokens


def test_a_human_voice_over_a_narrowband_telephone_is_understood(engine: WhisperTranscriber, voice: str) -> None:
    heard = engine.transcribe(over_the_telephone(audio_of(voice)))

    assert wer(SAID[voice], heard.text) <= 0.15, heard.text


def test_int16_and_float32_are_heard_alike(engine: WhisperTranscriber) -> None:
    pcm = audio_of("lj")

    assert engine.transcribe(pcm).text == engine.transcribe(pcm.astype(np.float32) / np.float32(32768)).text


def test_a_wider_beam_hears_the_same_sentence(engine: WhisperTranscriber) -> None:
    assert wer(SAID["jfk"], engine.transcribe(audio_of("jfk"), beam=5).text) <= 0.15


@pytest.mark.parametrize(
    "pcm",
    [
        pytest.param(np.zeros(16_000, np.int16), id="1 s of silence"),
        pytest.param(np.zeros(5_000, np.int16), id="0.3 s of silence"),
        pytest.param(np.zeros(480_000, np.int16), id="30 s of silence"),
        pytest.param(noise(2, rms=30), id="faint noise"),
        pytest.param(noise(2, rms=3000), id="loud noise"),
        pytest.param(np.zeros(1, np.int16), id="one sample"),
        pytest.param(np.zeros(0, np.int16), id="nothing"),
    ],
)
def test_what_is_not_speech_gives_no_text(engine: WhisperTranscriber, pcm: Int16) -> None:
    heard = engine.transcribe(pcm)

    assert (heard.text, heard.words, heard.tokens, heard.confidence) == ("", (), (), 0.0)
    assert heard.no_speech_prob >= 0.5


def test_speech_cut_anywhere_neither_loops_nor_runs_on(engine: WhisperTranscriber) -> None:
    pcm = audio_of("jfk")
    for seconds in (1.0, 2.5, 4.0, 6.5, 9.0):
        heard = engine.transcribe(pcm[: int(16_000 * seconds)])
        assert len(heard.words) <= 4 * seconds + 2, heard.text


def test_half_a_minute_of_speech_is_heard_to_the_end(engine: WhisperTranscriber) -> None:
    pcm = np.concatenate([audio_of("lj"), noise(0.5, 5), audio_of("jfk"), noise(1, 5), audio_of("lj")])

    heard = engine.transcribe(np.pad(pcm, (0, 480_000 - pcm.size)))

    assert heard.audio_ms == 30_000
    assert wer(f"{SAID['lj']} {SAID['jfk']} {SAID['lj']}", heard.text) <= 0.15


def test_what_is_said_twice_is_heard_twice(engine: WhisperTranscriber) -> None:
    heard = engine.transcribe(audio_of("jfk"))

    assert heard.text.count("can do for you") == 2


def test_partials_of_a_growing_utterance_lead_to_the_final(engine: WhisperTranscriber) -> None:
    pcm, stabiliser, shown = audio_of("jfk"), Stabiliser(), []
    for end in range(16_000, pcm.size, 16_000):
        partial = stabiliser.add(engine.transcribe(pcm[:end]).text)
        if partial is not None:
            shown.append(partial)
    final = stabiliser.finish(engine.transcribe(pcm).text)

    assert wer(SAID["jfk"], final) <= 0.15
    assert len(shown) >= 5
    assert all(late.text.startswith(early.stable) for early, late in pairwise(shown))
    assert wer(SAID["jfk"], shown[-1].stable) <= 0.5  # most of it was certain before the end


def test_many_threads_share_one_engine(engine: WhisperTranscriber) -> None:
    voices = ["jfk", "lj"] * 3
    alone = {name: engine.transcribe(audio_of(name)).text for name in SAID}
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda name: engine.transcribe(audio_of(name)).text, voices))

    assert together == [alone[name] for name in voices]


@pytest.mark.parametrize(
    ("asked", "code"), [(None, "en"), ("", "en"), ("auto", "en"), ("en", "en"), ("en-US", "en"), ("EN_gb", "en")]
)
def test_an_english_model_takes_every_form_of_english(engine: WhisperTranscriber, asked: str | None, code: str) -> None:
    assert engine.check_language(asked) == code


@pytest.mark.parametrize("asked", ["de", "zh-CN", "english", "x", "-"])
def test_a_language_the_model_lacks_is_refused_and_named(engine: WhisperTranscriber, asked: str) -> None:
    with pytest.raises(LanguageNotSupported, match=f"'{asked}'.*it knows en"):
        engine.transcribe(audio_of("lj"), asked)


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [
        (np.zeros((2, 100), np.int16), "one dimension"),
        (np.zeros(480_001, np.int16), "30 s"),
        (np.zeros(100, np.float64), "float64"),
    ],
)
def test_audio_of_another_form_is_refused(engine: WhisperTranscriber, pcm: npt.NDArray[np.int16], reason: str) -> None:
    with pytest.raises(AudioNotAccepted, match=reason):
        engine.transcribe(pcm)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"not a model")

    with pytest.raises(ModelUnusable, match=str(tmp_path)):
        WhisperTranscriber(tmp_path)


def test_the_engine_is_a_transcriber(engine: WhisperTranscriber) -> None:
    as_protocol: Transcriber = engine

    assert as_protocol.slots >= 1
    assert not engine.multilingual
    assert isinstance(as_protocol.transcribe(np.zeros(0, np.int16)), Hypothesis)
