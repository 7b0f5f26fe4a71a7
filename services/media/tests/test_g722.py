"""G.722: a wideband tone survives, state is kept between frames and not shared between legs."""

import numpy as np
import pytest

from media.audio.g722 import G722Decoder, G722Encoder


def tone(frequency_hz: float, samples: int = 6400) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / 16000)).astype(np.int16)


def through(pcm: np.ndarray) -> np.ndarray:
    encoder, decoder = G722Encoder(), G722Decoder()
    return np.concatenate([decoder.decode(encoder.encode(frame)) for frame in pcm.reshape(-1, 320)])


@pytest.mark.parametrize("frequency_hz", [300, 1000, 3000, 6000])
def test_tone_comes_back_at_its_level_and_rate(frequency_hz: int) -> None:
    spectrum = np.abs(np.fft.rfft(through(tone(frequency_hz))[3200:].astype(float)))
    assert np.argmax(spectrum) * 16000 / 3200 == frequency_hz
    assert np.max(spectrum) / 1600 == pytest.approx(8000, rel=0.1)


def test_delay_of_both_ends_is_22_samples() -> None:
    pcm = np.random.default_rng(1).normal(0, 2000, 3200).astype(np.int16)
    back = through(pcm).astype(float)
    likeness = [float(np.dot(pcm[:3000], back[lag : lag + 3000])) for lag in range(60)]
    assert int(np.argmax(likeness)) == 22


def test_160_octets_a_frame_whatever_came_before() -> None:
    encoder = G722Encoder()
    first, second = encoder.encode(tone(440, 320)), encoder.encode(tone(440, 320))
    assert len(first) == len(second) == 160
    assert first != second
    assert G722Encoder().encode(tone(440, 320)) == first


def test_odd_samples_are_refused_and_nothing_is_nothing() -> None:
    with pytest.raises(ValueError, match="pairs"):
        G722Encoder().encode(np.zeros(3, np.int16))
    assert len(G722Decoder().decode(b"")) == 0
