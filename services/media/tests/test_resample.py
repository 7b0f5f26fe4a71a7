"""Live resampling: level in the pass band, quiet in the stop band, no seam between frames, short delay."""

import numpy as np
import pytest

from media.audio.resample import LiveResampler, live_resampler, resample


def tone(frequency_hz: float, rate_hz: int, seconds: float = 0.4) -> np.ndarray:
    return (10000 * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(np.int16)


def level(pcm: np.ndarray, frequency_hz: float, rate_hz: int) -> float:
    """Amplitude of one frequency in the settled part, relative to the tone's 10000, in dB."""
    tail = pcm[len(pcm) // 4 :].astype(float) * np.hanning(len(pcm) - len(pcm) // 4)
    phase = np.exp(-2j * np.pi * frequency_hz * np.arange(len(tail)) / rate_hz)
    return float(20 * np.log10(4 * abs(np.dot(tail, phase)) / len(tail) / 10000 + 1e-9))


def by_frames(resampler: LiveResampler, pcm: np.ndarray, frame: int) -> np.ndarray:
    return np.concatenate([resampler.process(pcm[at : at + frame]) for at in range(0, len(pcm), frame)])


@pytest.mark.parametrize("frequency_hz", [300, 1000, 3300])
def test_upsampling_keeps_the_tone_and_suppresses_its_image(frequency_hz: int) -> None:
    wide = by_frames(live_resampler(8000, 16000), tone(frequency_hz, 8000), 160)
    assert level(wide, frequency_hz, 16000) == pytest.approx(0, abs=0.2)
    assert level(wide, 8000 - frequency_hz, 16000) < -40


@pytest.mark.parametrize("frequency_hz", [300, 1000, 3300])
def test_downsampling_keeps_the_tone(frequency_hz: int) -> None:
    narrow = by_frames(live_resampler(16000, 8000), tone(frequency_hz, 16000), 320)
    assert level(narrow, frequency_hz, 8000) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("frequency_hz", [4700, 6000, 7900])
def test_downsampling_does_not_alias(frequency_hz: int) -> None:
    narrow = by_frames(live_resampler(16000, 8000), tone(frequency_hz, 16000), 320)
    assert level(narrow, 8000 - frequency_hz, 8000) < -40


@pytest.mark.parametrize(("source", "target"), [(8000, 16000), (16000, 8000)])
def test_frames_join_without_a_seam(source: int, target: int) -> None:
    pcm = np.random.default_rng(5).integers(-20000, 20000, source // 10).astype(np.int16)
    whole = live_resampler(source, target).process(pcm)
    assert len(whole) == len(pcm) * target // source
    assert np.array_equal(by_frames(live_resampler(source, target), pcm, source // 100), whole)


def test_delay_to_and_fro_is_twice_the_one_told() -> None:
    impulse = np.zeros(320, np.int16)
    impulse[100] = 20000
    wide = live_resampler(8000, 16000).process(impulse)
    assert int(np.argmax(wide)) in (200 + 15, 200 + 14)
    narrow = live_resampler(16000, 8000).process(wide)
    assert (int(np.argmax(narrow)) - 100) / 8000 == pytest.approx(2 * 15 / 16000, abs=1.1 / 8000)


def test_full_scale_saturates_instead_of_wrapping() -> None:
    square = np.where(np.arange(320) // 20 % 2, 32767, -32768).astype(np.int16)
    wide = live_resampler(8000, 16000).process(square)
    assert np.all(np.sign(wide[60:600:40].astype(int)) != -np.sign(wide[61:601:40].astype(int)))
    assert (wide.max(), wide.min()) == (32767, -32768)


RATES = [(8000, 48000), (32000, 16000), (24000, 16000), (16000, 24000), (44100, 8000), (8000, 44100), (11025, 16000),
         (8001, 47999)]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), RATES)
def test_any_rate_keeps_the_tone_the_length_and_makes_no_image(source: int, target: int) -> None:
    pcm = tone(1000, source)
    out = by_frames(live_resampler(source, target), pcm, 441)

    assert len(out) == pytest.approx(len(pcm) * target / source, abs=1)
    assert level(out, 1000, target) == pytest.approx(0, abs=0.1)
    if target > source:
        assert level(out, source - 1000, target) < -50


@pytest.mark.parametrize(("source", "target"), [(48000, 16000), (44100, 8000), (48000, 11025)])
def test_any_rate_does_not_alias(source: int, target: int) -> None:
    high = 0.7 * target
    out = by_frames(live_resampler(source, target), tone(high, source), 480)
    assert level(out, target - high, target) < -50


@pytest.mark.parametrize(("source", "target"), RATES)
def test_pieces_of_any_length_join_without_a_seam(source: int, target: int) -> None:
    pcm = np.random.default_rng(5).integers(-20000, 20000, source // 10).astype(np.int16)
    whole = live_resampler(source, target).process(pcm)
    for frame in (1, 7, 441, 5000):
        assert np.array_equal(by_frames(live_resampler(source, target), pcm, frame), whole)


def test_rates_that_live_audio_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="8 to 48 kHz"):
        live_resampler(4000, 8000)
    with pytest.raises(ValueError, match="pairs"):
        live_resampler(16000, 8000).process(np.zeros(3, np.int16))


@pytest.mark.parametrize(("source", "target"), [(22050, 16000), (44100, 8000), (8000, 16000), (16000, 16000)])
def test_whole_recordings_keep_length_and_pitch(source: int, target: int) -> None:
    out = resample(tone(1000, source, 0.5), source, target)
    assert out.dtype == np.int16
    assert len(out) == pytest.approx(target / 2, abs=1)
    assert level(out, 1000, target) == pytest.approx(0, abs=0.2)


def test_silence_stays_silent() -> None:
    assert not resample(np.zeros(1000, np.int16), 22050, 8000).any()


def test_nothing_resampled_is_nothing() -> None:
    assert len(resample(np.zeros(0, np.int16), 8000, 16000)) == 0


@pytest.mark.parametrize("frequency_hz", [300, 1000, 3400, 6500])
def test_a_third_of_the_rate_keeps_the_tone(frequency_hz: int) -> None:
    third = by_frames(live_resampler(48000, 16000), tone(frequency_hz, 48000), 960)
    assert level(third, frequency_hz, 16000) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("frequency_hz", [9200, 12000, 20000])
def test_a_third_of_the_rate_does_not_alias(frequency_hz: int) -> None:
    third = by_frames(live_resampler(48000, 16000), tone(frequency_hz, 48000), 960)
    mirrored = abs(frequency_hz - 16000)
    assert level(third, mirrored, 16000) < -40


def test_thirds_join_without_a_seam() -> None:
    pcm = np.random.default_rng(5).integers(-20000, 20000, 4800).astype(np.int16)
    whole = live_resampler(48000, 16000).process(pcm)
    assert len(whole) == 1600
    assert np.array_equal(by_frames(live_resampler(48000, 16000), pcm, 480), whole)
    with pytest.raises(ValueError, match="threes"):
        live_resampler(48000, 16000).process(pcm[:100])
