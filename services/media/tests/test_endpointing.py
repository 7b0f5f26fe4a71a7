"""Endpointing, protocol 3.4 and VADOption: windows of 32 ms in, speech runs out."""

from typing import Any

import pytest

from media.turn.endpointing import (
    Endpointing,
    EndpointingEvent,
    EndpointingOptions,
    SilenceTimeout,
    SpeechStarted,
    SpeechStopped,
)

WINDOW_S = 0.032


def play(
    endpointing: Endpointing, script: str, levels: dict[str, float] | None = None
) -> list[tuple[int, EndpointingEvent]]:
    """(window number, event) of a script with one letter a window: S speech, m middling, '.' silence."""
    levels = levels or {"S": 0.9, "m": 0.4, ".": 0.02}
    return [
        (number, event)
        for number, letter in enumerate(script, 1)
        for event in endpointing.receive(levels[letter], number * WINDOW_S)
    ]


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


def at(window: int) -> Any:
    return about(window * WINDOW_S)


def test_3_4_speech_is_reported_after_speech_padding_with_its_true_onset() -> None:
    log = play(Endpointing(EndpointingOptions()), "." * 10 + "S" * 20)

    assert log == [(18, SpeechStarted(at(10)))]  # 8 windows = 256 ms are the first to last 250 ms


def test_3_4_silence_is_reported_after_silence_padding_with_the_end_of_speech() -> None:
    log = play(Endpointing(EndpointingOptions()), "S" * 10 + "." * 10)

    assert log[1:] == [(14, SpeechStopped(at(0), at(10), about(0.128)))]  # 4 windows are the first ≥ 100 ms


def test_3_4_a_run_shorter_than_speech_padding_gives_nothing() -> None:
    assert play(Endpointing(EndpointingOptions()), "SSSSSSS" + "." * 20 + "SSS" + "." * 20) == []


@pytest.mark.parametrize(
    ("ratio", "script", "started"),
    [
        (0.5, "SS.SS.SS.SS.SS.SS", [8]),
        (1.0, "SS.SS.SS.SS.SS.SS", []),
        (0.5, "S..S..S..S..S..S..S", []),
        (0.3, "S..S..S..S..S..S..S", [10]),
    ],
)
def test_ratio_is_the_share_of_voiced_windows_since_the_onset(ratio: float, script: str, started: list[int]) -> None:
    log = play(Endpointing(EndpointingOptions(ratio=ratio)), script)

    assert [number for number, event in log if isinstance(event, SpeechStarted)] == started


@pytest.mark.parametrize(("threshold", "starts"), [(0.5, False), (0.4, True), (0.3, True)])
def test_voice_threshold_decides_what_begins_speech(threshold: float, starts: bool) -> None:
    log = play(Endpointing(EndpointingOptions(voice_threshold=threshold)), "m" * 20)

    assert bool(log) is starts


def test_hysteresis_a_middling_window_continues_speech_but_does_not_begin_it() -> None:
    log = play(Endpointing(EndpointingOptions()), "m" * 10 + "S" * 8 + "m" * 20 + "." * 4)

    assert log == [(18, SpeechStarted(at(10))), (42, SpeechStopped(at(10), at(38), about(0.128)))]


def test_a_gap_below_silence_padding_does_not_end_a_run() -> None:
    log = play(Endpointing(EndpointingOptions()), "S" * 10 + "..." + "S" * 10 + "....")

    assert [type(event) for _, event in log] == [SpeechStarted, SpeechStopped]
    assert log[1] == (27, SpeechStopped(at(0), at(23), about(0.128)))


def test_endless_speech_is_split_at_max_buffer_duration() -> None:
    log = play(Endpointing(EndpointingOptions(max_speech_s=0.64)), "S" * 45)

    assert log == [
        (8, SpeechStarted(at(0))),
        (20, SpeechStopped(at(0), at(20), 0.0, forced=True)),
        (20, SpeechStarted(at(20))),
        (40, SpeechStopped(at(20), at(40), 0.0, forced=True)),
        (40, SpeechStarted(at(40))),
    ]


def test_3_4_b_silence_timeout_repeats_in_stretches_that_follow_one_another() -> None:
    log = play(Endpointing(EndpointingOptions(silence_timeout_s=0.32)), "." * 25)

    assert log == [(10, SilenceTimeout(at(0), 0.32)), (20, SilenceTimeout(at(10), 0.32))]


def test_3_4_b_silence_timeout_counts_anew_from_the_end_of_speech_and_not_during_it() -> None:
    log = play(Endpointing(EndpointingOptions(silence_timeout_s=0.32)), "....." + "S" * 30 + "." * 21)

    assert [(number, event) for number, event in log if isinstance(event, SilenceTimeout)] == [
        (45, SilenceTimeout(at(35), 0.32)),
        (55, SilenceTimeout(at(45), 0.32)),
    ]


def test_3_4_b_a_click_does_not_restart_the_silence() -> None:
    log = play(Endpointing(EndpointingOptions(silence_timeout_s=0.32)), "....SS" + "." * 6)

    assert log == [(10, SilenceTimeout(at(0), 0.32))]


def test_every_start_has_one_stop_whatever_comes() -> None:
    endpointing = Endpointing(EndpointingOptions(speech_padding_s=0.064, silence_padding_s=0.0))
    log = play(endpointing, "S.SS..SSS...mSmS.SSSSS" * 20 + "...")

    kinds = [type(event) for _, event in log]
    assert kinds == [SpeechStarted, SpeechStopped] * (len(kinds) // 2)
    assert len(kinds) > 40
    assert all(event.started_at < event.ended_at for _, event in log if isinstance(event, SpeechStopped))
