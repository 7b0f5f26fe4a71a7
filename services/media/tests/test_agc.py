"""Gain control: levels in, levels out, frame by frame."""

import math
from itertools import pairwise

import numpy as np
import pytest

from media.audio.agc import GainControl, GainOptions

RATE_HZ = 8000


def _sine(dbfs: float, frames: int = 1) -> np.ndarray:
    """A tone of that RMS level."""
    peak = 32768 * 10 ** (dbfs / 20) * math.sqrt(2)
    moments = np.arange(160 * frames) / RATE_HZ
    return np.asarray(np.clip(peak * np.sin(2 * np.pi * 400 * moments), -32768, 32767), np.int16)


def _level(pcm: np.ndarray) -> float:
    return 20 * math.log10(max(1.0, float(np.sqrt(np.mean(pcm.astype(float) ** 2)))) / 32768)


def _run(control: GainControl, dbfs: float, seconds: float, *, speech: bool = True) -> list[np.ndarray]:
    frames = _sine(dbfs, round(seconds * 50)).reshape(-1, 160)
    return [control.process(frame, speech=speech) for frame in frames]


@pytest.mark.parametrize("dbfs", [-50.0, -35.0, -25.0])
def test_quiet_speech_comes_up_to_the_headroom(dbfs: float) -> None:
    control = GainControl(RATE_HZ, GainOptions(headroom_db=12.0))
    out = _run(control, dbfs, 12.0)
    assert _level(out[-1]) == pytest.approx(-12.0, abs=0.5)


def test_speech_that_is_loud_enough_is_left_alone() -> None:
    control = GainControl(RATE_HZ, GainOptions(initial_gain_db=0.0, headroom_db=12.0))
    frame = _sine(-8.0)
    assert np.array_equal(control.process(frame, speech=True), frame)
    _run(control, -8.0, 2.0)
    assert control.gain_db == 0.0


def test_the_gain_begins_at_its_initial_value_and_moves_no_faster_than_asked() -> None:
    control = GainControl(RATE_HZ, GainOptions(initial_gain_db=15.0, max_gain_change_db_per_second=6.0))
    gains = [15.0]
    for frame in _sine(-50.0, 200).reshape(-1, 160):
        control.process(frame, speech=True)
        gains.append(control.gain_db)
    assert max(abs(b - a) for a, b in pairwise(gains)) <= 6.0 / 50 + 1e-9
    assert gains[5] == 15.0, "120 ms of speech are needed before its level counts"
    assert gains[-1] == pytest.approx(15.0 + 6.0 * (200 - 5) / 50, abs=0.2)


def test_the_gain_has_a_limit() -> None:
    control = GainControl(RATE_HZ, GainOptions(max_gain_db=10.0))
    out = _run(control, -50.0, 5.0)
    assert _level(out[-1]) == pytest.approx(-40.0, abs=0.3)


def test_background_noise_is_not_made_louder_than_allowed() -> None:
    control = GainControl(RATE_HZ, GainOptions(max_output_noise_level_dbfs=-45.0))
    for _ in range(4):
        _run(control, -60.0, 1.0, speech=False)
        _run(control, -40.0, 1.0)
    noise = _run(control, -60.0, 1.0, speech=False)
    assert _level(noise[-1]) == pytest.approx(-45.0, abs=0.5)


def test_silence_and_short_sounds_teach_nothing() -> None:
    control = GainControl(RATE_HZ, GainOptions())
    for _ in range(20):
        control.process(np.zeros(160, np.int16), speech=False)
        for _ in range(5):
            control.process(_sine(-10.0), speech=True)  # 100 ms
    assert control.gain_db == 15.0


@pytest.mark.parametrize("limiter", [True, False])
def test_the_limiter_keeps_a_sudden_shout_from_clipping(limiter: bool) -> None:
    control = GainControl(RATE_HZ, GainOptions(limiter=limiter))
    _run(control, -45.0, 5.0)
    shout = control.process(_sine(-12.0), speech=True)
    clipped = np.count_nonzero(np.abs(shout.astype(int)) >= 32767)
    assert (clipped == 0) == limiter
    assert _level(shout) > -6.0
