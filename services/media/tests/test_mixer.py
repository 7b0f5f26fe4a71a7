"""Mixing is exact addition, then saturation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.audio.mixer import Gain, mix

frames = st.integers(1, 5).flatmap(
    lambda legs: st.lists(st.lists(st.integers(-32768, 32767), min_size=4, max_size=4), min_size=legs, max_size=legs)
)


@given(frames)
def test_mix_is_the_saturated_sum(rows: list[list[int]]) -> None:
    expected = [max(-32768, min(32767, sum(column))) for column in zip(*rows, strict=True)]
    assert mix(np.array(rows, np.int16)).tolist() == expected


def test_nobody_sounds_like_silence() -> None:
    assert mix(np.zeros((0, 5), np.int16)).tolist() == [0] * 5


def test_fade_out_is_a_straight_line_across_frames_and_stays_down() -> None:
    gain = Gain()
    gain.fade(0.0, 400)
    faded = np.concatenate([gain.apply(np.full(160, 10000, np.int16)) for _ in range(4)])
    assert faded[:400].tolist() == [round(10000 - 25 * n) for n in range(400)]
    assert not faded[400:].any()
    assert gain.is_settled
    assert gain.level == 0.0


def test_gain_of_one_is_the_same_array() -> None:
    pcm = np.arange(10, dtype=np.int16)
    assert Gain().apply(pcm) is pcm


def test_fade_turned_round_starts_where_the_first_had_come_to() -> None:
    gain = Gain()
    gain.fade(0.0, 320)
    gain.apply(np.full(160, 10000, np.int16))
    assert gain.level == pytest.approx(0.5)
    gain.fade(1.0, 160)
    assert gain.apply(np.full(160, 10000, np.int16))[0] == 5000
    assert gain.level == 1.0


def test_amplification_saturates() -> None:
    assert Gain(4.0).apply(np.array([20000, -20000], np.int16)).tolist() == [32767, -32768]


def test_fade_of_no_length_is_at_once() -> None:
    gain = Gain()
    gain.fade(0.25, 0)
    assert gain.apply(np.array([400], np.int16)).tolist() == [100]
