"""Length, seams, level and limiting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tts.resample import StreamResampler, gain_of, resample, to_pcm16, with_volume


def tone(samples: int, rate_hz: int, level: float = 0.5) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * 440 * np.arange(samples) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize("to_hz", [8000, 16000, 22050, 24000, 48000])
@pytest.mark.parametrize("samples", [1, 100, 6144, 22051])
def test_feed_and_flush_give_the_whole_length(to_hz: int, samples: int) -> None:
    converter = StreamResampler(22050, to_hz)

    made = sum(converter.feed(piece).size for piece in np.array_split(tone(samples, 22050), 3))
    made += converter.flush().size

    assert abs(made - samples * to_hz / 22050) <= 1


def test_pieces_have_no_seam() -> None:
    source = tone(22050, 22050)
    whole, pieces = StreamResampler(22050, 16000), StreamResampler(22050, 16000)

    expected = np.concatenate([whole.feed(source), whole.flush()])
    got = np.concatenate([*(pieces.feed(part) for part in np.array_split(source, 7)), pieces.flush()])

    assert np.abs(got - expected).max() < 1e-4
    assert np.abs(got - tone(16000, 16000))[500:-500].max() < 1e-2


def test_whole_utterance_changes_rate_and_keeps_level() -> None:
    pcm = to_pcm16(tone(16000, 16000))

    half = resample(pcm, 16000, 8000)

    assert half.size == 8000
    assert np.abs(half[500:-500]).max() == pytest.approx(np.abs(pcm).max(), rel=0.02)
    assert resample(pcm, 16000, 16000) is pcm


@pytest.mark.parametrize(("volume", "gain"), [(0, 0), (2.5, 0.5), (5, 1), (10, 2), (-3, 0), (99, 2)])
def test_volume_five_is_unity(volume: float, gain: float) -> None:
    assert gain_of(volume) == gain


def test_unity_volume_changes_nothing_and_half_halves() -> None:
    pcm = np.array([0, 1000, -20000], dtype=np.int16)

    assert with_volume(pcm, 5) is pcm
    assert with_volume(pcm, 2.5).tolist() == [0, 500, -10000]


@given(st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=50), st.floats(0, 2))
def test_limiter_keeps_sign_and_order_and_never_wraps(values: list[float], gain: float) -> None:
    samples = np.sort(np.array(values, dtype=np.float32))

    pcm = to_pcm16(samples, gain).astype(np.int32)

    assert (np.diff(pcm) >= 0).all()
    assert (np.sign(pcm) * np.sign(samples) >= 0).all()


def test_samples_below_the_knee_are_exact() -> None:
    assert to_pcm16(np.array([0.5, -0.8, 0.0], dtype=np.float32)).tolist() == [16384, -26214, 0]
