"""Noise suppression lowers noise, keeps a human voice, and keeps the stream's length."""

import wave
from pathlib import Path

import numpy as np
import pytest

from media.audio.denoise import NoiseSuppressor
from media.audio.resample import resample

VOICES = Path(__file__).parents[3] / "tests" / "data" / "voices"


def voice(rate_hz: int) -> np.ndarray:
    with wave.open(str(VOICES / "lj.wav")) as wav:
        pcm = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
        return resample(pcm, wav.getframerate(), rate_hz)[: 3 * rate_hz]


def run(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    suppressor = NoiseSuppressor(rate_hz)
    return np.concatenate([suppressor.process(frame) for frame in pcm.reshape(-1, rate_hz // 50)])


def power(pcm: np.ndarray) -> float:
    return float(np.mean(pcm.astype(float) ** 2))


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_noise_alone_is_lowered_by_10_db(rate_hz: int) -> None:
    noise = np.random.default_rng(7).normal(0, 800, 3 * rate_hz).astype(np.int16)
    quiet = run(noise, rate_hz)
    assert len(quiet) == len(noise)
    assert 10 * np.log10(power(noise[rate_hz:]) / power(quiet[rate_hz:])) > 10


@pytest.mark.parametrize(("rate_hz", "delay"), [(8000, 63), (16000, 96)])
def test_voice_is_kept_while_the_noise_around_it_is_lowered(rate_hz: int, delay: int) -> None:
    clean = np.concatenate((np.zeros(rate_hz, np.int16), voice(rate_hz))).astype(float)
    noise = np.random.default_rng(7).normal(0, np.sqrt(power(voice(rate_hz)) / 3), len(clean))  # 5 dB below
    noisy = np.clip(clean + noise, -32768, 32767).astype(np.int16)
    cleaned = run(noisy, rate_hz)[delay:].astype(float)
    clean, noisy = clean[:-delay], noisy[:-delay]
    pause, speech = slice(rate_hz // 2, rate_hz), slice(rate_hz, None)
    kept = np.dot(cleaned[speech], clean[speech]) / np.dot(clean[speech], clean[speech])
    assert kept > 0.75  # 2.5 dB
    assert power(noisy[pause]) / power(cleaned[pause]) > 10
    assert power(noisy[speech] - clean[speech]) / power(cleaned[speech] - clean[speech]) > 1.3


def test_what_the_engine_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="10 ms"):
        NoiseSuppressor(16000).process(np.zeros(100, np.int16))
