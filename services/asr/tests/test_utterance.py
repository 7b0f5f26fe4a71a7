"""Frames to segments: nothing is lost, doubled or out of place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from asr.utterance import Segment, Track, Utterance

RATE = 16_000


def ramp(samples: int) -> npt.NDArray[np.int16]:
    """Audio in which every sample is recognisable, none of it zero."""
    return (np.arange(samples) % 30_000 + 1).astype(np.int16)


def audio_of(segments: list[Segment]) -> npt.NDArray[np.int16]:
    return np.concatenate([segment.window.final() for segment in segments])


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=20))
def test_frames_of_any_length_give_the_same_audio(sizes: list[int]) -> None:
    audio = ramp(sum(sizes))
    track, start = Track(), 0
    ended: list[Segment] = []
    for sequence, size in enumerate(sizes):
        ended += track.frame(7, sequence, audio[start : start + size], 0.0, last=sequence == len(sizes) - 1)
        start += size

    (segment,) = ended
    assert segment.last
    assert segment.utterance.number == 7
    heard = segment.window.final()
    assert heard.size - audio.size < 320
    assert heard[: audio.size].tolist() == audio.tolist()
    assert not heard[audio.size :].any()


def test_lost_frames_are_silence_of_their_length() -> None:
    track = Track()
    track.frame(0, 0, ramp(1_600), 0.0)
    (segment,) = track.frame(0, 3, ramp(1_600), 0.0, last=True)

    heard = segment.window.final()
    assert heard.size == 4 * 1_600
    assert not heard[1_600:4_800].any()
    assert heard[4_800:].tolist() == ramp(1_600).tolist()


def test_repeated_and_late_frames_are_not_heard_but_still_end_the_utterance() -> None:
    track = Track()
    track.frame(0, 0, ramp(320), 0.0)
    track.frame(0, 1, ramp(320), 0.0)
    (segment,) = track.frame(0, 0, ramp(320), 0.0, last=True)

    assert segment.window.final().size == 640
    assert track.late == 1
    assert track.frame(0, 2, ramp(320), 0.0, last=True) == []
    assert track.late == 2


def test_the_next_utterance_ends_the_one_whose_last_frame_is_lost() -> None:
    track = Track()
    track.frame(0, 0, ramp(320), 0.0)
    ended = track.frame(1, 0, ramp(640), 0.0, last=True)

    assert [(segment.utterance.number, segment.last, segment.number) for segment in ended] == [
        (0, True, 0),
        (1, True, 1),
    ]
    assert [segment.window.final().size for segment in ended] == [320, 640]


def test_a_long_utterance_has_several_segments_with_all_of_its_audio() -> None:
    audio = ramp(70 * RATE)
    track = Track()
    ended: list[Segment] = []
    for sequence, start in enumerate(range(0, audio.size, 1_600)):
        ended += track.frame(0, sequence, audio[start : start + 1_600], 0.0, last=start + 1_600 == audio.size)

    assert [segment.last for segment in ended] == [False] * (len(ended) - 1) + [True]
    assert len({segment.utterance for segment in ended}) == 1
    assert all(segment.window.duration_s <= 30 for segment in ended)
    assert audio_of(ended).tolist() == audio.tolist()


def test_a_jump_of_the_numbers_by_hours_is_no_hours_of_silence() -> None:
    track = Track()
    track.frame(0, 0, ramp(1_600), 0.0)
    ended = track.frame(0, 10**9, ramp(1_600), 0.0, last=True)

    assert sum(segment.window.duration_s for segment in ended) < 31


def test_the_text_of_an_utterance_is_that_of_its_segments() -> None:
    utterance = Utterance(0)
    assert utterance.changed("") is None
    assert utterance.changed("And so") == "And so"
    assert utterance.changed("And so") is None
    utterance.add("And so, my fellow", 0.9)
    utterance.add("", 0.1)
    assert utterance.changed("Americans") == "And so, my fellow Americans"
    utterance.add("Americans.", 0.8)
    assert (utterance.text(), utterance.confidence) == ("And so, my fellow Americans.", 0.8)
