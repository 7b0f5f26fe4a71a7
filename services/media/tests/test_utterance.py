"""Utterances for the recogniser: where audio is cut, and that none is lost."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.audio.vad import SileroDetector
from media.turn.utterance import (
    UtteranceAudio,
    UtteranceCutter,
    UtteranceEffect,
    UtteranceEnded,
    UtteranceOptions,
    UtteranceStarted,
)

RATE_HZ = 8000
WINDOW = 256
LEVELS = {"S": 0.9, "w": 0.6, ".": 0.02}


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


def ramp(samples: int) -> np.ndarray:
    """Audio whose every sample tells its position, modulo 2^15."""
    return (np.arange(samples) % 32768).astype(np.int16)


def play(cutter: UtteranceCutter, script: str) -> list[UtteranceEffect]:
    """A script with one letter per window of 32 ms; audio comes in frames of 20 ms, verdicts as soon as can be."""
    pcm = ramp(len(script) * WINDOW)
    effects: list[UtteranceEffect] = []
    judged = 0
    for begin in range(0, len(pcm), 160):
        frame = pcm[begin : begin + 160]
        effects += cutter.hear(frame)
        while (judged + 1) * WINDOW <= begin + len(frame):
            judged += 1
            effects += cutter.judge(LEVELS[script[judged - 1]], judged * WINDOW)
    return effects


def marks(effects: list[UtteranceEffect]) -> list[UtteranceEffect]:
    return [effect for effect in effects if not isinstance(effect, UtteranceAudio)]


def audio(effects: list[UtteranceEffect], index: int) -> np.ndarray:
    parts = [effect.pcm for effect in effects if isinstance(effect, UtteranceAudio) and effect.index == index]
    return np.concatenate(parts)


def positions(begin_s: float, end_s: float) -> np.ndarray:
    return ramp(round(end_s * RATE_HZ))[round(begin_s * RATE_HZ) :]


def test_an_utterance_has_its_pre_roll_its_speech_and_a_little_after() -> None:
    effects = play(UtteranceCutter(RATE_HZ), "." * 50 + "S" * 50 + "." * 50)

    # Onset 50 × 32 ms = 1.6 s, end 3.2 s; 300 ms before and 200 ms after are kept.
    assert marks(effects) == [
        UtteranceStarted(0, 1.6),
        UtteranceEnded(0, 3.2, forced=False, samples=round(2.1 * RATE_HZ)),
    ]
    np.testing.assert_array_equal(audio(effects, 0), positions(1.3, 3.4))


def test_times_are_on_the_tracks_clock() -> None:
    effects = play(UtteranceCutter(RATE_HZ, started_at=1000.0), "." * 50 + "S" * 50 + "." * 50)

    started, ended = marks(effects)
    assert (started.started_at, ended.ended_at) == (1001.6, 1003.2)


def test_speech_at_the_very_beginning_has_no_pre_roll() -> None:
    effects = play(UtteranceCutter(RATE_HZ), "S" * 50 + "." * 50)

    assert marks(effects)[0] == UtteranceStarted(0, 0.0)
    np.testing.assert_array_equal(audio(effects, 0), positions(0.0, 1.8))


def test_the_utterance_ends_half_a_second_after_speech() -> None:
    script = "." * 50 + "S" * 50
    assert len(marks(play(UtteranceCutter(RATE_HZ), script + "." * 15))) == 1  # 480 ms
    assert len(marks(play(UtteranceCutter(RATE_HZ), script + "." * 16))) == 2  # 512 ms


def test_audio_is_sent_while_the_caller_speaks() -> None:
    cutter = UtteranceCutter(RATE_HZ)
    effects = play(cutter, "." * 50 + "S" * 50)

    assert len(audio(effects, 0)) == round(1.9 * RATE_HZ)  # everything so far, pre-roll included


def test_a_short_gap_stays_inside_and_nothing_of_it_is_lost() -> None:
    effects = play(UtteranceCutter(RATE_HZ), "." * 20 + "S" * 20 + "." * 12 + "S" * 20 + "." * 20)

    assert len(marks(effects)) == 2
    np.testing.assert_array_equal(audio(effects, 0), positions(0.34, 2.504))


def test_a_held_back_gap_is_kept_even_when_it_is_longer_than_the_search_for_a_split() -> None:
    options = UtteranceOptions(split_search_s=0.1)
    effects = play(UtteranceCutter(RATE_HZ, options=options), "." * 20 + "S" * 20 + "." * 15 + "S" * 20 + "." * 20)

    np.testing.assert_array_equal(audio(effects, 0), positions(0.34, 2.6))


def test_the_pre_roll_of_the_next_utterance_does_not_repeat_the_last_one() -> None:
    options = UtteranceOptions(trailing_silence_s=0.256, pre_roll_s=0.5)
    effects = play(UtteranceCutter(RATE_HZ, options=options), "." * 20 + "S" * 20 + "." * 10 + "S" * 20 + "." * 20)

    first, second = (effect for effect in effects if isinstance(effect, UtteranceStarted))
    assert first.index == 0
    assert second == UtteranceStarted(1, 1.6)


def test_a_click_is_no_utterance() -> None:
    assert play(UtteranceCutter(RATE_HZ), "." * 20 + "SS" + "." * 40) == []


def test_a_long_utterance_is_split_at_its_weakest_point_and_the_tail_is_sent_again() -> None:
    options = UtteranceOptions(max_length_s=8.0, split_search_s=3.0)
    # 8 s are 250 windows; windows 201 to 203 are the weakest of the last 3 s. Windows 100 to 102 are too old to count.
    script = "S" * 99 + "www" + "S" * 98 + "www" + "S" * 97 + "." * 30
    effects = play(UtteranceCutter(RATE_HZ, options=options), script)

    split_s = 202 * 0.032 - 0.016  # the middle of window 202
    assert marks(effects) == [
        UtteranceStarted(0, 0.0),
        UtteranceEnded(0, about(split_s), forced=True, samples=round(split_s * RATE_HZ)),
        UtteranceStarted(1, about(split_s)),
        UtteranceEnded(1, about(9.6), forced=False, samples=round((9.8 - split_s) * RATE_HZ)),
    ]
    np.testing.assert_array_equal(audio(effects, 0)[: round(split_s * RATE_HZ)], positions(0.0, split_s))
    np.testing.assert_array_equal(audio(effects, 1), positions(split_s, 9.8))


def test_endless_speech_is_cut_into_utterances_below_the_limit_without_loss() -> None:
    effects = play(UtteranceCutter(RATE_HZ), "S" * 3000)  # 96 s

    ends = [effect for effect in effects if isinstance(effect, UtteranceEnded)]
    assert len(ends) == 3
    assert all(end.forced and end.samples <= 28 * RATE_HZ for end in ends)
    heard = [audio(effects, end.index)[: end.samples] for end in ends]
    np.testing.assert_array_equal(np.concatenate(heard), ramp(sum(map(len, heard))))


def test_a_split_that_falls_into_a_pause_waits_for_speech_before_the_next_utterance() -> None:
    options = UtteranceOptions(max_length_s=4.0, split_search_s=1.0)
    script = "S" * 119 + "." * 15 + "S" * 20 + "." * 30  # the limit, window 125, lies in the pause
    effects = play(UtteranceCutter(RATE_HZ, options=options), script)

    first, second = (effect for effect in effects if isinstance(effect, UtteranceEnded))
    assert (first.ended_at, first.forced) == (pytest.approx(119 * 0.032), True)
    assert (second.ended_at, second.forced) == (pytest.approx(154 * 0.032), False)
    starts = [effect for effect in effects if isinstance(effect, UtteranceStarted)]
    assert starts[1] == UtteranceStarted(1, about(134 * 0.032))


def test_the_end_of_the_track_ends_the_utterance() -> None:
    cutter = UtteranceCutter(RATE_HZ)
    play(cutter, "." * 50 + "S" * 50)

    assert marks(cutter.finish()) == [UtteranceEnded(0, 3.2, forced=True, samples=round(1.9 * RATE_HZ))]
    assert cutter.finish() == []


def test_memory_is_bounded_by_the_search_for_a_split() -> None:
    cutter = UtteranceCutter(RATE_HZ)
    play(cutter, "S" * 2000)
    while_speaking = sum(map(len, cutter._frames))
    play(silent := UtteranceCutter(RATE_HZ), "." * 2000)

    assert while_speaking <= 6.1 * RATE_HZ
    assert sum(map(len, silent._frames)) <= 1.0 * RATE_HZ
    assert len(silent._windows) <= 6 / 0.032 + 1


def test_a_human_sentence_between_silences_is_one_utterance() -> None:
    with wave.open(str(Path(__file__).parent / "data" / "lj_8k.wav")) as file:
        spoken = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    silence = np.zeros(RATE_HZ, dtype=np.int16)
    pcm = np.concatenate((silence, spoken, silence))
    detector = SileroDetector.load()
    row = detector.open(RATE_HZ)
    cutter = UtteranceCutter(RATE_HZ)
    effects: list[UtteranceEffect] = []
    for begin in range(0, len(pcm), 160):
        effects += cutter.hear(pcm[begin : begin + 160])
        detector.feed(row, pcm[begin : begin + 160])
        for window in detector.process():
            effects += cutter.judge(window.probability, window.end_sample)

    started, ended = marks(effects)
    assert started.started_at == pytest.approx(1.0, abs=0.2)
    assert ended.ended_at == pytest.approx(5.0, abs=0.3)
    assert len(audio(effects, 0)) == ended.samples
