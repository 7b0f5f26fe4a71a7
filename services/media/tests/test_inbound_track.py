"""The remote party's audio on its way in."""

from typing import Any

import numpy as np
import pytest

from media.audio.agc import GainOptions
from media.audio.vad import SpeechWindow
from media.leg.inbound_track import InboundTrack
from media.turn.endpointing import EndpointingOptions, SpeechStarted
from media.turn.utterance import UtteranceEnded, UtteranceStarted

RATE_HZ = 8000
FRAME = np.full(160, 1000, np.int16)


class Detector:
    """Keeps what it is fed."""

    def __init__(self) -> None:
        self.fed: list[np.ndarray] = []
        self.opened: list[int] = []
        self.closed: list[int] = []

    def open(self, rate_hz: int) -> int:
        self.opened.append(rate_hz)
        return 5

    def close(self, row: int) -> None:
        self.closed.append(row)

    def feed(self, row: int, frame: np.ndarray) -> None:
        assert row == 5
        self.fed.append(frame)

    def process(self) -> list[SpeechWindow]:
        return []


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


@pytest.fixture
def detector() -> Detector:
    return Detector()


def test_nobody_is_judged_until_somebody_wants_to_know(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)

    pcm, effects = track.process_inbound(FRAME, 100.0)

    assert pcm is FRAME
    assert (effects, detector.opened, detector.fed) == ([], [], [])


def test_times_are_those_of_the_wall_even_when_ticks_were_skipped(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    track.report_speech(EndpointingOptions(speech_padding_s=0.0))
    for tick in range(5):
        track.process_inbound(FRAME, 100.0 + tick * 0.02)
    assert track.wall(0.1) == pytest.approx(100.08)
    assert track.wall(0.05) == pytest.approx(100.03)
    track.process_inbound(FRAME, 103.0)

    assert track.wall(0.12) == pytest.approx(103.0)
    assert track.on_speech_probability(0.9, 960) == [SpeechStarted(about(0.088))]


def test_a_silenced_caller_is_zeros_for_everyone(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    track.cut_utterances()
    track.silenced = True

    pcm, _ = track.process_inbound(FRAME, 100.0)

    assert not pcm.any()
    assert not detector.fed[0].any()


def test_utterances_cut_from_later_on_have_times_of_the_same_clock(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    track.report_speech(EndpointingOptions())
    for tick in range(50):
        track.process_inbound(FRAME, 100.0 + tick * 0.02)
    track.cut_utterances()
    track.cut_utterances()
    effects: list[object] = []
    for tick in range(50, 100):
        effects += track.process_inbound(FRAME, 100.0 + tick * 0.02)[1]
        if tick % 8 == 7:
            effects += track.on_speech_probability(0.9, (tick + 1) * 160 - 128)
    started = [effect for effect in effects if isinstance(effect, UtteranceStarted)]
    ended = [effect for effect in track.finish() if isinstance(effect, UtteranceEnded)]

    assert len(started) == len(ended) == 1
    assert 1.0 <= started[0].started_at < ended[0].ended_at <= 2.0
    assert detector.closed == [5]


def test_the_same_options_again_do_not_forget_that_speech_goes_on(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    options = EndpointingOptions(speech_padding_s=0.0)
    track.report_speech(options)
    track.process_inbound(np.tile(FRAME, 4), 100.0)
    assert track.on_speech_probability(0.9, 256)

    track.report_speech(EndpointingOptions(speech_padding_s=0.0))

    assert track.on_speech_probability(0.9, 512) == []
    assert detector.opened == [RATE_HZ]


def test_denoising_keeps_the_length_of_frames(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    track.denoise(True)

    assert [len(track.process_inbound(FRAME, 100.0)[0]) for _ in range(10)] == [160] * 10
    track.denoise(False)
    assert track.process_inbound(FRAME, 100.0)[0] is FRAME


def test_utterances_are_numbered_on_after_a_pause(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    track.cut_utterances()

    fed = 0

    def speak(windows: int, probability: float) -> list[object]:
        nonlocal fed
        found: list[object] = []
        for _ in range(windows):
            found += track.process_inbound(np.full(256, 1000, np.int16), 100.0)[1]
            fed += 256
            found += track.on_speech_probability(probability, fed)
        return found

    assert any(isinstance(effect, UtteranceStarted) for effect in speak(20, 0.9))
    assert [effect.index for effect in track.stop_cutting() if isinstance(effect, UtteranceEnded)] == [0]
    assert track.stop_cutting() == []
    assert speak(20, 0.9) == []
    track.cut_utterances()
    speak(20, 0.0)
    assert [effect.index for effect in speak(20, 0.9) if isinstance(effect, UtteranceStarted)] == [1]


def test_gain_is_controlled_behind_the_detector(detector: Detector) -> None:
    track = InboundTrack(RATE_HZ, detector)
    track.control_gain(GainOptions(initial_gain_db=6.0206))

    pcm, _ = track.process_inbound(FRAME, 100.0)

    assert set(detector.fed[0]) == {1000}
    assert pcm[0] == 2000
    assert pcm.min() > 1900
