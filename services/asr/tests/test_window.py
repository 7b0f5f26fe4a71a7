from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AudioNotAccepted
from asr.window import UtteranceWindow


def frame(value: int, samples: int = 4) -> npt.NDArray[np.int16]:
    return np.full(samples, value, np.int16)


def small(max_frames: int = 10) -> UtteranceWindow:
    """Frames of 4 samples at 40 Hz: ten frames a second."""
    return UtteranceWindow(frame_samples=4, rate_hz=40, max_s=max_frames / 10)


def frames_of(audio: npt.NDArray[np.int16]) -> list[int]:
    return [int(value) for value in audio[::4]]


def test_frames_come_out_in_the_order_of_their_numbers() -> None:
    window = small()

    assert [window.add(sequence, frame(sequence)) for sequence in (7, 9, 8)] == [True] * 3

    assert frames_of(window.final()) == [7, 8, 9]
    assert window.duration_s == pytest.approx(0.3)
    assert window.next_sequence == 10


def test_a_lost_frame_is_silence_until_it_arrives_after_all() -> None:
    window = small()
    window.add(1, frame(1))
    window.add(4, frame(4))

    assert frames_of(window.final()) == [1, 0, 0, 4]
    assert window.missing == 2

    assert window.add(2, frame(2))
    assert frames_of(window.final()) == [1, 2, 0, 4]
    assert window.missing == 1


def test_repeats_and_frames_from_before_the_utterance_are_refused() -> None:
    window = small()
    window.add(5, frame(5))

    assert not window.add(5, frame(9))
    assert not window.add(4, frame(4))
    assert frames_of(window.final()) == [5]
    assert window.late == 1


def test_nothing_grows_beyond_the_limit() -> None:
    window = small(max_frames=3)
    taken = [window.add(sequence, frame(sequence)) for sequence in range(1, 6)]

    assert taken == [True, True, True, False, False]
    assert window.full
    assert not window.add(10**12, frame(1))
    assert frames_of(window.final()) == [1, 2, 3]


def test_thirty_seconds_of_20_ms_frames_fit() -> None:
    window = UtteranceWindow()
    for sequence in range(1501):
        window.add(sequence, frame(sequence % 100, 320))

    assert window.final().shape == (480_000,)
    assert window.duration_s == 30.0
    assert window.full


def test_an_interim_window_is_given_only_when_there_is_more_to_hear() -> None:
    window = small()
    window.add(0, frame(1))
    assert window.interim() is None  # 0.1 s is too short for a word
    window.add(1, frame(2))
    window.add(2, frame(3))
    assert window.grown_s == pytest.approx(0.3)

    shown = window.interim()

    assert shown is not None
    assert frames_of(shown) == [1, 2, 3]
    assert window.interim() is None
    window.add(3, frame(4))
    assert window.grown_s == pytest.approx(0.1)
    assert window.interim() is not None


def test_windows_are_copies() -> None:
    window = small()
    window.add(0, frame(1))
    window.final()[:] = 9

    assert frames_of(window.final()) == [1]


def test_a_short_frame_is_completed_with_silence_and_others_are_refused() -> None:
    window = small()
    assert window.add(0, frame(1, 2))
    assert window.final().tolist() == [1, 1, 0, 0]

    wrong: Any
    for wrong in (frame(1, 5), frame(1).astype(np.float32), frame(1).reshape(2, 2)):
        with pytest.raises(AudioNotAccepted):
            window.add(1, wrong)


def test_a_split_is_at_the_quietest_frame_and_loses_nothing() -> None:
    window = small()
    for sequence, value in enumerate([50, 60, 70, 1, 80, 90, 60], start=100):
        window.add(sequence, frame(value))

    rest = window.split()

    assert frames_of(window.final()) == [50, 60, 70]
    assert frames_of(rest.final()) == [1, 80, 90, 60]
    assert not window.add(103, frame(9))
    assert rest.next_sequence == 107
    assert rest.add(107, frame(7))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.sets(st.integers(1, 29)))
def test_a_split_keeps_all_frames_and_what_is_missing(values: list[int], lost: set[int]) -> None:
    window = small(max_frames=30)
    for sequence, value in enumerate(values):
        if sequence not in lost:
            window.add(sequence, frame(value))
    before, missing = window.final(), window.missing

    rest = window.split()

    assert np.array_equal(np.concatenate([window.final(), rest.final()]), before)
    assert window.missing + rest.missing == missing
    assert len(window.final()) > 0


@given(st.permutations(list(range(12))))
def test_the_order_of_arrival_does_not_matter_once_the_first_frame_is_there(order: list[int]) -> None:
    window = small(max_frames=13)
    window.add(0, frame(0))
    for sequence in order:
        window.add(sequence + 1, frame(sequence + 1))

    assert frames_of(window.final()) == list(range(13))
    assert window.missing == 0
