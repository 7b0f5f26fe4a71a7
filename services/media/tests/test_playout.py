"""The playout queue: order, positions, underruns, fades."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.turn.playout import Playout, Position


def samples(frame: np.ndarray | None) -> list[int]:
    assert frame is not None
    return [int(sample) for sample in frame]


def tone(samples: int, value: int = 1000) -> np.ndarray:
    return np.full(samples, value, dtype=np.int16)


def drain(playout: Playout, samples: int = 160) -> np.ndarray:
    frames = []
    while (frame := playout.next_frame(samples)) is not None:
        frames.append(frame)
        assert len(frames) < 1000
    return np.concatenate(frames) if frames else tone(0)


def test_nothing_to_play_is_none() -> None:
    playout = Playout()
    assert playout.next_frame(160) is None
    assert (playout.empty, playout.head, playout.sounding) == (True, None, None)

    playout.open("a")
    assert playout.next_frame(160) is None  # awaited, but not begun: no underrun
    assert (playout.empty, playout.sounding, playout.underruns) == (False, None, 0)


def test_segments_play_in_the_order_of_opening_whatever_the_order_of_arrival() -> None:
    playout = Playout()
    playout.open("a")
    playout.open("b")
    playout.enqueue("b", tone(160, 2))
    playout.finish("b")
    playout.enqueue("a", tone(320, 1))
    playout.finish("a")

    assert list(drain(playout)) == [1] * 320 + [2] * 160
    assert playout.passed() == ["a", "b"]
    assert playout.passed() == []


def test_the_end_of_a_segment_is_joined_to_the_next_and_the_last_is_filled_with_silence() -> None:
    playout = Playout()
    for key, samples in (("a", 100), ("b", 100)):
        playout.open(key)
        playout.enqueue(key, tone(samples, 7))
        playout.finish(key)

    assert list(drain(playout)) == [7] * 200 + [0] * 120


def test_position_counts_samples_handed_out() -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(800))
    playout.next_frame(160)
    playout.next_frame(160)

    assert playout.sounding == playout.head == Position("a", received=800, played=320)
    assert playout.waiting_samples == 480


def test_late_audio_inside_a_segment_is_silence_that_does_not_move_the_position() -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(200))
    playout.next_frame(160)

    assert samples(playout.next_frame(160)) == [0] * 160  # 40 samples are there, not a whole frame
    assert playout.sounding == Position("a", received=200, played=160)
    assert playout.underruns == 1

    playout.enqueue("a", tone(120))
    assert samples(playout.next_frame(160)) == [1000] * 160


def test_a_segment_that_ends_without_further_audio_is_passed() -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(160))
    playout.next_frame(160)
    assert not playout.empty
    playout.finish("a")

    assert playout.empty
    assert playout.underruns == 0


def test_flush_drops_everything_at_once() -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(800))
    playout.open("b")
    playout.next_frame(160)
    playout.flush()

    assert playout.next_frame(160) is None
    assert playout.empty
    playout.enqueue("a", tone(160))  # late
    assert playout.next_frame(160) is None


def test_flush_behind_lets_the_sounding_segment_end() -> None:
    playout = Playout()
    for key in "abc":
        playout.open(key)
        playout.enqueue(key, tone(320, ord(key)))
        playout.finish(key)
    playout.next_frame(160)
    playout.flush_behind()

    assert list(drain(playout)) == [ord("a")] * 160


def test_a_fade_falls_linearly_to_nothing_and_ends() -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(8000, 1000))
    playout.next_frame(160)
    playout.fade_out(400)
    faded = drain(playout)

    assert len(faded) == 480
    assert faded[0] == 1000
    assert faded[200] == 500
    assert list(faded[400:]) == [0] * 80
    assert np.all(np.diff(faded[:401]) <= 0)
    assert playout.empty


def test_a_fade_ends_with_the_audio_and_does_not_touch_what_comes_later() -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(320))
    playout.next_frame(160)
    playout.fade_out(8000)
    assert len(drain(playout)) == 160
    assert playout.empty

    playout.open("b")
    playout.enqueue("b", tone(160))
    assert samples(playout.next_frame(160)) == [1000] * 160


def test_a_fade_with_no_audio_left_is_over_at_once() -> None:
    playout = Playout()
    playout.open("a")
    playout.fade_out(800)
    assert playout.empty

    playout.open("b")
    playout.enqueue("b", tone(1600))
    assert [samples(playout.next_frame(160)) for _ in range(5)] == [[1000] * 160] * 5


def test_a_loop_wraps_without_a_gap() -> None:
    playout = Playout()
    loop = np.arange(100, dtype=np.int16)
    playout.open("moh", loop=loop)
    playout.enqueue("moh", loop[90:])
    heard = np.concatenate([playout.next_frame(160) for _ in range(5)])

    np.testing.assert_array_equal(heard, (np.arange(800) + 90) % 100)
    assert playout.underruns == 0


def test_a_frame_inside_one_chunk_is_not_copied() -> None:
    pcm = tone(800)
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", pcm)

    assert np.shares_memory(playout.next_frame(160), pcm)


@given(
    segments=st.lists(st.lists(st.integers(0, 500), max_size=5), max_size=5),
    samples=st.sampled_from([80, 160, 320, 960]),
)
def test_every_sample_is_played_once_in_order(segments: list[list[int]], samples: int) -> None:
    total = sum(map(sum, segments))
    source = (np.arange(total) + 1).astype(np.int16)
    playout = Playout()
    at = 0
    for number, chunks in enumerate(segments):
        playout.open(str(number))
        for size in chunks:
            playout.enqueue(str(number), source[at : at + size])
            at += size
        playout.finish(str(number))
    heard = drain(playout, samples)

    assert len(heard) == -(-total // samples) * samples
    np.testing.assert_array_equal(heard[:total], source)
    assert not heard[total:].any()
    assert playout.passed() == [str(number) for number in range(len(segments))]


@pytest.mark.parametrize("samples", [160, 320])
def test_frames_may_have_any_length(samples: int) -> None:
    playout = Playout()
    playout.open("a")
    playout.enqueue("a", tone(1000))
    playout.finish("a")

    assert len(drain(playout, samples)) % samples == 0
