"""Concealment goes on with the pitch, fades out, and joins what follows without a click."""

import numpy as np
import pytest

from media.audio.concealment import Concealer


def voiced(rate_hz: int, seconds: float = 0.4, pitch_hz: float = 125) -> np.ndarray:
    time = np.arange(int(rate_hz * seconds)) / rate_hz
    return sum(4000 / n * np.sin(2 * np.pi * n * pitch_hz * time) for n in range(1, 6)).astype(np.int16)


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_lost_frame_of_a_vowel_is_nearly_what_was_lost(rate_hz: int) -> None:
    frames = voiced(rate_hz).reshape(-1, rate_hz // 50)
    concealer = Concealer(rate_hz)
    for frame in frames[:5]:
        assert concealer.good(frame) is frame
    stand_in = concealer.lost(rate_hz // 50).astype(float)
    likeness = np.dot(stand_in, frames[5]) / np.linalg.norm(stand_in) / np.linalg.norm(frames[5].astype(float))
    assert likeness > 0.95
    assert np.linalg.norm(stand_in) < np.linalg.norm(frames[5].astype(float))


def test_long_loss_is_silence_after_60_ms() -> None:
    concealer = Concealer(8000)
    concealer.good(voiced(8000)[:480])
    frames = [concealer.lost(160) for _ in range(4)]
    powers = [float(np.mean(frame.astype(float) ** 2)) for frame in frames]
    assert powers[0] > powers[1] > powers[2] > 0
    assert powers[3] == 0


def test_return_of_audio_is_faded_in_and_leaves_the_frame_alone() -> None:
    concealer = Concealer(8000)
    pcm = voiced(8000)
    concealer.good(pcm[:800])
    concealer.lost(160)
    frame = pcm[960:1120].copy()
    joined = concealer.good(frame)
    assert np.array_equal(frame, pcm[960:1120])
    assert np.array_equal(joined[32:], frame[32:])
    assert not np.array_equal(joined[:32], frame[:32])


def test_loss_after_silence_is_silence() -> None:
    concealer = Concealer(8000)
    assert not concealer.lost(160).any()
    concealer.good(voiced(8000)[:480])
    concealer.silence()
    assert not concealer.lost(160).any()


@pytest.mark.parametrize("seed", range(5))
def test_noise_at_full_scale_never_wraps(seed: int) -> None:
    concealer = Concealer(16000)
    noise = np.random.default_rng(seed).integers(-32768, 32767, 640).astype(np.int16)
    concealer.good(noise)
    assert np.max(np.abs(concealer.lost(320).astype(int))) <= 32768
    assert len(concealer.good(noise[:320])) == 320
