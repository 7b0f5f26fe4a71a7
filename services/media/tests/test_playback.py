"""The playback machine: protocol 2.5 to 2.8 and orders O11, O15, O17 to O22."""

import base64
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dialbus.contracts.commands import Interrupt, Pause, Play, Resume, Tts
from dialbus.contracts.options import SynthesisOption
from dialbus.contracts.speech import Speak
from dialbus.speakable import without_emoji
from media.turn.fragments import FragmentBuffer
from media.turn.input_timeout import InputTimeout
from media.turn.playback import (
    TICK,
    CancelSpeech,
    Close,
    Ended,
    Failed,
    FileFailed,
    FileLoaded,
    InputHeard,
    Interrupted,
    Limits,
    LoadFile,
    Loop,
    Playback,
    PlaybackEffect,
    PlaybackInput,
    Refused,
    SpeechAudio,
    SpeechCompleted,
    SpeechDone,
    SpeechFailed,
    SpeechLine,
    SpeechTiming,
    Started,
    Stop,
)

RATE_HZ = 8000
FRAME = 160
LINE = SpeechLine("c", RATE_HZ)
EVENTS = (Started, Ended, Interrupted, Failed, Refused, InputTimeout)


def tone(ms: int, value: int = 1000) -> np.ndarray:
    return np.full(ms * RATE_HZ // 1000, value, dtype=np.int16)


class Leg:
    """A playback on a 20 ms clock, with a synthesiser that the test speaks for; keeps (ms, effect) and the sound."""

    def __init__(self, *, defaults: dict[str, object] | None = None, **settings: Any) -> None:
        option = SynthesisOption.model_validate(defaults or {})
        self.playback = Playback(LINE, option=option, **settings)
        self.ms = 0
        self.log: list[tuple[int, PlaybackEffect]] = []
        self.sound: list[int] = []  # first sample of each frame; 0 for none

    @property
    def now(self) -> float:
        return self.ms / 1000

    def do(self, arrived: PlaybackInput) -> list[PlaybackEffect]:
        effects = self.playback.receive(arrived, self.now)
        self.log += [(self.ms, effect) for effect in effects]
        return effects

    def say(self, text: str, **fields: Any) -> list[PlaybackEffect]:
        return self.do(Tts(text=text, **fields))

    def play(self, url: str, *, loop: bool = False, **fields: Any) -> list[PlaybackEffect]:
        command = Play(url=url, **fields)
        return self.do(Loop(command) if loop else command)

    def interrupt(self, graceful: bool = False, fade_out_ms: int = 0) -> list[PlaybackEffect]:
        return self.do(Interrupt(graceful=graceful, fade_out_ms=fade_out_ms))

    def run(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.do(TICK)
            frame = self.playback.next_frame(FRAME)
            self.sound.append(0 if frame is None else int(frame[0]))
            self.ms += 20

    def requests(self) -> list[Speak]:
        return [effect for _, effect in self.log if isinstance(effect, Speak)]

    def speak(self, text: str, ms: int, value: int = 1000) -> None:
        """The synthesiser delivers an utterance as a whole."""
        key = next(request.utterance_id for request in reversed(self.requests()) if request.text == text)
        self.do(SpeechAudio(key, tone(ms, value)))
        self.do(SpeechDone(key))

    def load(self, ms: int) -> None:
        token = next(effect.token for _, effect in reversed(self.log) if isinstance(effect, LoadFile))
        self.do(FileLoaded(token, tone(ms)))

    def events(self) -> list[tuple[int, PlaybackEffect]]:
        return [(ms, effect) for ms, effect in self.log if isinstance(effect, EVENTS)]

    def kinds(self) -> list[type]:
        return [type(effect) for _, effect in self.events()]


# Orders


def test_o17_tts_starts_reports_its_metrics_and_ends_when_the_last_sample_was_played() -> None:
    leg = Leg(defaults={"provider": "piper", "speaker": "joe"})
    leg.say("Hello.", play_id="p", end_of_stream=True)
    leg.run(100)
    key = leg.requests()[0].utterance_id
    leg.do(SpeechAudio(key, tone(60)))
    leg.do(SpeechDone(key, cached=True, ttfb_ms=80))
    leg.run(200)

    assert leg.log == [
        (0, Started("p")),
        (0, Speak(call_id="c", utterance_id=key, text="Hello.", speaker="joe", rate_hz=RATE_HZ, use_cache=True)),
        (100, SpeechCompleted("piper", "p", 0, 960, True, 80, 100, "joe")),
        (160, Ended("p", 160, auto_hangup=False)),
    ]
    assert leg.sound == [0] * 5 + [1000] * 3 + [0] * 7


def test_o17_silence_follows_the_end_after_wait_input_timeout() -> None:
    leg = Leg()
    leg.say("Hello.", wait_input_timeout=500)
    leg.speak("Hello.", 100)
    leg.run(1000)

    assert leg.events() == [(0, Started(None)), (100, Ended(None, 100, False)), (600, InputTimeout(0.1, 500))]


def test_o17_play_starts_at_once_and_ends_after_its_last_sample() -> None:
    leg = Leg()
    leg.play("http://host/a.wav", wait_input_timeout=100)
    leg.run(40)
    leg.load(60)
    leg.run(300)

    assert leg.log == [
        (0, Started("http://host/a.wav")),
        (0, LoadFile("file-1", "http://host/a.wav")),
        (100, Ended("http://host/a.wav", 100, False)),
        (200, InputTimeout(0.1, 100)),
    ]


def test_o18_auto_hangup_fires_with_the_end() -> None:
    leg = Leg()
    leg.say("Bye.", play_id="p", auto_hangup=True, wait_input_timeout=100)
    leg.speak("Bye.", 40)
    leg.run(500)

    assert leg.events() == [(0, Started("p")), (40, Ended("p", 40, auto_hangup=True))]


def test_o19_a_replacement_interrupts_and_ends_the_old_before_the_new_starts() -> None:
    leg = Leg()
    leg.say("First text.", play_id="a", auto_hangup=True)
    leg.speak("First text.", 400)
    leg.run(100)
    leg.say("Second.", play_id="b", end_of_stream=True)
    leg.speak("Second.", 40)
    leg.run(200)

    assert leg.events() == [
        (0, Started("a")),
        (100, Interrupted("a", "First text.", None, total_duration_ms=400, current_ms=100)),
        (100, Ended("a", 100, auto_hangup=False)),
        (100, Started("b")),
        (140, Ended("b", 40, auto_hangup=False)),
    ]


def test_o20_interrupt_stops_at_once() -> None:
    leg = Leg()
    leg.say("Long text.", play_id="a", auto_hangup=True, wait_input_timeout=100)
    leg.say("Never heard.", play_id="a")
    leg.speak("Long text.", 400)
    leg.run(60)
    leg.interrupt()
    leg.run(400)

    assert leg.events() == [
        (0, Started("a")),
        (60, Interrupted("a", "Long text.", None, 400, 60)),
        (60, Ended("a", 60, auto_hangup=False)),
    ]
    assert leg.sound[3:] == [0] * 20
    assert (60, CancelSpeech(leg.requests()[1].utterance_id)) in leg.log


def test_o21_a_graceful_interrupt_lets_the_sounding_segment_end() -> None:
    leg = Leg()
    leg.say("One.", play_id="a", auto_hangup=True, wait_input_timeout=100)
    leg.say("Two.", play_id="a")
    leg.say("Three.", play_id="a")
    leg.speak("One.", 200, value=1)
    leg.speak("Two.", 200, value=2)
    leg.run(60)
    leg.interrupt(graceful=True)
    leg.run(400)

    assert leg.events() == [
        (0, Started("a")),
        (60, Interrupted("a", "One.", None, 200, 60)),
        (200, Ended("a", 200, auto_hangup=False)),
    ]
    assert leg.sound == [1] * 10 + [0] * 13


def test_o21_the_tail_still_receives_the_audio_of_its_segment() -> None:
    leg = Leg()
    leg.say("One.", play_id="a")
    key = leg.requests()[0].utterance_id
    leg.do(SpeechAudio(key, tone(100)))
    leg.run(40)
    leg.interrupt(graceful=True)
    leg.do(SpeechAudio(key, tone(100)))
    leg.do(SpeechDone(key))
    leg.run(400)

    assert leg.events()[-1] == (200, Ended("a", 200, auto_hangup=False))
    assert not any(isinstance(effect, CancelSpeech) for _, effect in leg.log)


def test_o22_a_load_failure_is_an_error_between_start_and_end() -> None:
    leg = Leg()
    leg.play("http://host/gone.wav", play_id="p", auto_hangup=True)
    leg.do(FileFailed("file-1", "404 Not Found", code=404))

    assert leg.events() == [
        (0, Started("p")),
        (0, Failed("filetrack: http://host/gone.wav", 404, "404 Not Found")),
        (0, Ended("p", 0, auto_hangup=True)),
    ]


def test_o11_a_ringtone_is_stopped_without_interruption() -> None:
    leg = Leg()
    leg.play("ring.wav", loop=True)
    leg.load(100)
    leg.run(1000)
    leg.do(Stop())
    leg.run(100)

    assert leg.events() == [(0, Started("ring.wav")), (1000, Ended("ring.wav", 1000, False))]
    assert leg.sound == [1000] * 50 + [0] * 5


@pytest.mark.parametrize(
    ("heard_ms", "kinds"),
    [(20, [Started, Interrupted, Ended]), (100, [Started, Ended]), (600, [Started, Ended])],
)
def test_o15_the_end_of_the_call_interrupts_only_what_was_left_to_hear(heard_ms: int, kinds: list[type]) -> None:
    leg = Leg()
    leg.say("Hello.", play_id="p")
    leg.speak("Hello.", 100)
    leg.run(heard_ms)
    leg.do(Close())
    leg.say("Too late.")
    leg.play("late.wav")
    leg.run(100)

    assert leg.kinds() == kinds
    assert leg.playback.deadline == math.inf


# 2.5.1: joins, queues behind, replaces

A, B = {"play_id": "a"}, {"play_id": "b"}
NONE: dict[str, str] = {}
JOINS = [Started]
BEHIND = [Started]
REPLACES = [Started, Interrupted, Ended, Started]


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (A, A, JOINS),
        (NONE, NONE, JOINS),
        (A | {"end_of_stream": True}, A, BEHIND),
        (NONE | {"end_of_stream": True}, NONE, BEHIND),
        (A, B, REPLACES),
        (A, NONE, REPLACES),
        (NONE, A, REPLACES),
        (A | {"end_of_stream": True}, B, REPLACES),
    ],
)
def test_2_5_1_table(first: dict[str, object], second: dict[str, object], kinds: list[type]) -> None:
    leg = Leg()
    leg.say("First.", **first)
    leg.speak("First.", 400)
    leg.run(40)
    leg.say("Second.", **second)

    assert leg.kinds() == kinds


@pytest.mark.parametrize("second", [A, NONE, {"play_id": "ring.wav"}])
def test_2_5_1_a_tts_replaces_a_file(second: dict[str, object]) -> None:
    leg = Leg()
    leg.play("ring.wav")
    leg.load(400)
    leg.run(40)
    leg.say("Second.", **second)

    assert leg.kinds() == REPLACES
    assert leg.events()[1][1] == Interrupted("ring.wav", None, None, 400, 40)


def test_2_5_1_joined_segments_play_in_order_under_one_start_and_end() -> None:
    leg = Leg()
    leg.say("One.", play_id="a")
    leg.say("Two.", play_id="a", end_of_stream=True)
    leg.speak("Two.", 40, value=2)
    leg.speak("One.", 40, value=1)
    leg.run(200)

    assert leg.sound == [1, 1, 2, 2, 0, 0, 0, 0, 0, 0]
    assert leg.events() == [(0, Started("a")), (80, Ended("a", 80, False))]


def test_2_5_1_a_closed_play_id_queues_behind_and_starts_after_the_old_end() -> None:
    leg = Leg()
    leg.say("One.", play_id="a", end_of_stream=True, wait_input_timeout=100)
    leg.say("Two.", play_id="a")
    leg.say("Three.", play_id="a", end_of_stream=True)
    leg.say("Four.", play_id="a", end_of_stream=True)
    leg.speak("One.", 40)
    leg.run(100)
    leg.speak("Two.", 40)
    leg.speak("Three.", 40)
    leg.run(100)
    leg.speak("Four.", 40)
    leg.run(100)

    assert leg.events() == [
        (0, Started("a")),
        (40, Ended("a", 40, False)),
        (40, Started("a")),
        (180, Ended("a", 140, False)),
        (180, Started("a")),
        (240, Ended("a", 60, False)),
    ]


def test_2_5_1_an_empty_repeat_of_end_of_stream_makes_no_playback_of_its_own() -> None:
    leg = Leg()
    leg.say("One.", play_id="a", end_of_stream=True)
    leg.say("", play_id="a", end_of_stream=True, auto_hangup=True)
    leg.speak("One.", 40)
    leg.run(100)

    assert leg.events() == [(0, Started("a")), (40, Ended("a", 40, auto_hangup=True))]


def test_2_5_1_what_is_queued_behind_is_dropped_by_interrupt_replacement_and_hang_up() -> None:
    for cut in (
        lambda leg: leg.interrupt(),
        lambda leg: leg.interrupt(graceful=True),
        lambda leg: leg.say("Other.", play_id="b", end_of_stream=True),
        lambda leg: leg.do(Close()),
    ):
        leg = Leg()
        leg.say("One.", play_id="a", end_of_stream=True)
        leg.say("Behind.", play_id="a")
        leg.speak("One.", 100)
        leg.run(40)
        cut(leg)
        leg.run(500)
        assert [effect.play_id for _, effect in leg.events() if isinstance(effect, Started)] in (["a"], ["a", "b"])
        assert "Behind." not in [request.text for request in leg.requests()]


# 2.5.2: the end of a non-streaming playback


@pytest.mark.parametrize(
    ("fields", "ended_ms"),
    [
        ({"play_id": "p", "end_of_stream": True}, 100),
        ({"play_id": "p", "auto_hangup": True}, 100),
        ({}, 100),
        ({"play_id": "p"}, 2100),
    ],
)
def test_2_5_2_table(fields: dict[str, object], ended_ms: int) -> None:
    leg = Leg()
    leg.say("Hello.", **fields)
    leg.speak("Hello.", 100)
    leg.run(4000)

    assert [(ms, type(effect)) for ms, effect in leg.events()] == [(0, Started), (ended_ms, Ended)]


def test_2_5_2_an_empty_end_of_stream_only_closes() -> None:
    leg = Leg()
    leg.say("Hello.", play_id="p")
    leg.speak("Hello.", 100)
    leg.run(500)
    leg.say("", play_id="p", end_of_stream=True)

    assert leg.events() == [(0, Started("p")), (500, Ended("p", 500, False))]


def test_2_5_2_a_segment_within_the_grace_joins_and_the_grace_begins_again() -> None:
    leg = Leg()
    leg.say("One.", play_id="p")
    leg.speak("One.", 100)
    leg.run(2000)
    leg.say("Two.", play_id="p")
    leg.speak("Two.", 100)
    leg.run(4000)

    assert leg.events() == [(0, Started("p")), (4100, Ended("p", 4100, False))]


def test_2_5_2_wait_input_timeout_counts_from_the_drain_not_from_the_end_of_the_grace() -> None:
    leg = Leg()
    leg.say("One.", play_id="p", wait_input_timeout=3000)
    leg.speak("One.", 100)
    leg.run(4000)

    assert leg.events()[1:] == [(2100, Ended("p", 2100, False)), (3100, InputTimeout(0.1, 3000))]


def test_2_5_2_a_wait_shorter_than_the_grace_is_reported_right_after_the_end() -> None:
    leg = Leg()
    leg.say("One.", play_id="p", wait_input_timeout=500)
    leg.speak("One.", 100)
    leg.run(4000)

    assert leg.events()[1:] == [(2100, Ended("p", 2100, False)), (2100, InputTimeout(0.1, 500))]


def test_2_5_2_input_during_the_grace_cancels_the_wait() -> None:
    leg = Leg()
    leg.say("One.", play_id="p", wait_input_timeout=3000)
    leg.speak("One.", 100)
    leg.run(1000)
    leg.do(InputHeard())
    leg.run(5000)

    assert leg.kinds() == [Started, Ended]


def test_2_5_2_without_grace_the_drain_ends_it() -> None:
    leg = Leg(limits=Limits(segment_grace_s=0))
    leg.say("One.", play_id="p")
    leg.speak("One.", 100)
    leg.run(200)

    assert leg.events()[1] == (100, Ended("p", 100, False))


# 2.5.3: streaming


def test_2_5_3_fragments_cut_anywhere_are_spoken_in_chunks_of_whole_words() -> None:
    leg = Leg()
    for fragment in ("Good mor", "ning to y", "ou. How ca", "n I help", " you toda", "y?"):
        leg.say(fragment, play_id="p", streaming=True)
        leg.run(20)
    leg.say("", play_id="p", streaming=True, end_of_stream=True)

    assert [request.text for request in leg.requests()] == ["Good morning to you.", "How can I help you today?"]
    assert not any(request.use_cache for request in leg.requests())


def test_2_5_3_audio_starts_before_the_text_is_complete_and_the_end_follows_the_drain() -> None:
    leg = Leg()
    leg.say("Good morning to you. How ", play_id="p", streaming=True)
    leg.speak("Good morning to you.", 100, value=1)
    leg.run(60)
    leg.say("are you?", play_id="p", streaming=True, end_of_stream=True)
    leg.speak("How are you?", 60, value=2)
    leg.run(300)

    assert leg.sound[:9] == [1] * 5 + [2] * 3 + [0]
    assert leg.events() == [(0, Started("p")), (160, Ended("p", 160, False))]


def test_2_5_3_g12_without_a_fragment_text_is_flushed_after_800_ms_and_the_playback_ends_after_5_s() -> None:
    leg = Leg()
    leg.say("no full stop", play_id="p", streaming=True)
    assert leg.playback.deadline == pytest.approx(0.8)
    leg.run(900)
    assert [(ms, effect.text) for ms, effect in leg.log if isinstance(effect, Speak)] == [(800, "no full stop")]
    leg.speak("no full stop", 100)
    leg.run(6000)

    assert leg.events() == [(0, Started("p")), (5000, Ended("p", 5000, False))]


def test_2_5_3_a_playback_longer_than_the_idle_time_ends_at_its_drain() -> None:
    leg = Leg()
    leg.say("A long speech.", play_id="p", streaming=True)
    leg.run(800)
    leg.run(20)
    leg.speak("A long speech.", 6000)
    leg.run(8000)

    assert leg.events()[1] == (6820, Ended("p", 6820, False))


def test_2_5_3_auto_hangup_waits_for_the_end_of_the_stream() -> None:
    leg = Leg()
    leg.say("Good bye for now. ", play_id="p", streaming=True, auto_hangup=True)
    leg.speak("Good bye for now.", 100)
    leg.run(1000)
    assert leg.kinds() == [Started]
    leg.say("", play_id="p", streaming=True, end_of_stream=True)

    assert leg.events()[1] == (1000, Ended("p", 1000, auto_hangup=True))


@pytest.mark.parametrize(("first", "expected"), [(True, ["Hello world."]), (False, ["Hello", "world."])])
def test_2_5_3_the_mode_of_the_first_command_wins(first: bool, expected: list[str]) -> None:
    leg = Leg()
    leg.say("Hello", play_id="p", streaming=first)
    leg.say(" world.", play_id="p", streaming=not first, end_of_stream=True)

    assert [request.text for request in leg.requests()] == expected


def test_2_5_3_base64_cannot_be_streamed() -> None:
    leg = Leg()
    leg.say("AAAA", streaming=True, base64=True)

    assert leg.events() == [(0, Refused("tts", 400, "base64 audio cannot be streamed"))]
    assert not leg.playback.playing


# 2.5.4: base64


def encoded(pcm: np.ndarray) -> str:
    return base64.b64encode(pcm.astype("<i2").tobytes()).decode()


@pytest.mark.parametrize(
    ("option", "rate_hz"), [({}, 16000), ({"samplerate": 8000}, 8000), ({"samplerate": "24000"}, 24000)]
)
def test_2_5_4_pcm_plays_for_its_length_at_16_khz_or_the_rate_given(option: dict[str, object], rate_hz: int) -> None:
    leg = Leg(default_provider=None)  # no synthesiser is needed
    leg.say(encoded(np.full(rate_hz // 5, 1000, dtype=np.int16)), base64=True, option=option)
    leg.run(400)

    assert leg.events() == [(0, Started(None)), (200, Ended(None, 200, False))]
    assert leg.sound[4:8] == pytest.approx([1000] * 4, abs=10)


def test_2_5_4_an_odd_trailing_byte_is_dropped() -> None:
    leg = Leg()
    leg.say(base64.b64encode(b"\x01\x02" * 160 + b"\x03").decode(), base64=True, option={"samplerate": 8000})
    leg.run(100)

    assert leg.events()[1] == (20, Ended(None, 20, False))
    assert leg.sound[0] == 0x0201


def test_2_5_4_bad_base64_is_an_error_and_the_segment_is_skipped() -> None:
    leg = Leg()
    leg.say("not base64!", base64=True, auto_hangup=True)

    (_, started), (_, failed), (_, ended) = leg.events()
    assert started == Started(None)
    assert (failed.sender, failed.code) == ("tts", 400)
    assert ended == Ended(None, 0, auto_hangup=True)


@pytest.mark.parametrize("samplerate", [0, "x", 4000, 192000])
def test_2_5_4_a_rate_that_is_none_is_no_command(samplerate: object) -> None:
    with pytest.raises(ValidationError):
        Tts(text="AAAA", base64=True, option={"samplerate": samplerate})


def test_2_5_4_audio_and_text_of_one_play_id_keep_their_order() -> None:
    leg = Leg()
    leg.say("One.", play_id="p")
    leg.say(encoded(tone(40, 2)), play_id="p", base64=True, option={"samplerate": 8000})
    leg.say("Three.", play_id="p", end_of_stream=True)
    leg.speak("Three.", 40, value=3)
    leg.speak("One.", 40, value=1)
    leg.run(140)

    assert leg.sound == [1, 1, 2, 2, 3, 3, 0]


# 2.5.5: autoHangup, waitInputTimeout


def test_2_5_5_auto_hangup_is_sticky_for_the_playback() -> None:
    leg = Leg()
    leg.say("One.", play_id="p", auto_hangup=True)
    leg.say("Two.", play_id="p", auto_hangup=False, end_of_stream=True)
    leg.speak("One.", 40)
    leg.speak("Two.", 40)
    leg.run(200)

    assert leg.events()[-1] == (80, Ended("p", 80, auto_hangup=True))


@pytest.mark.parametrize("streaming", [False, True])
def test_2_5_5_auto_hangup_with_empty_text_and_nothing_playing_hangs_up_at_once(streaming: bool) -> None:
    leg = Leg()
    leg.say("", play_id="p", auto_hangup=True, streaming=streaming)

    assert leg.events() == [(0, Started("p")), (0, Ended("p", 0, auto_hangup=True))]


@pytest.mark.parametrize(
    ("defaults", "commands", "fires"),
    [
        ({}, [{"wait_input_timeout": 100}, {"wait_input_timeout": 300}], 300),
        ({}, [{"wait_input_timeout": 100}, {}], 100),
        ({}, [{"wait_input_timeout": 100}, {"wait_input_timeout": 0}], None),
        ({}, [{}, {}], None),
        ({}, [{"option": {"waitInputTimeout": 200}}, {}], 200),  # G16
        ({}, [{"option": {"waitInputTimeout": 200}, "wait_input_timeout": 100}, {}], 100),
        ({"waitInputTimeout": 400}, [{}, {}], 400),
        ({"waitInputTimeout": 400}, [{"wait_input_timeout": 100}, {}], 100),
    ],
)
def test_2_5_5_the_last_wait_given_counts(
    defaults: dict[str, object], commands: list[dict[str, object]], fires: int | None
) -> None:
    leg = Leg(defaults=defaults)
    for text, fields in zip(("One.", "Two."), commands, strict=True):
        leg.say(text, **fields)
        leg.speak(text, 20)
    leg.run(1000)

    timeouts = [effect.duration_ms for _, effect in leg.events() if isinstance(effect, InputTimeout)]
    assert timeouts == ([fires] if fires else [])


def test_2_5_5_input_or_a_new_playback_cancels_the_wait() -> None:
    for something in (
        lambda leg: leg.do(InputHeard()),
        lambda leg: leg.play("b.wav"),
        lambda leg: leg.say("More.", play_id="q"),
        lambda leg: leg.do(Close()),
    ):
        leg = Leg()
        leg.say("One.", wait_input_timeout=500)
        leg.speak("One.", 100)
        leg.run(300)
        something(leg)
        leg.run(1000)
        assert InputTimeout not in leg.kinds()


def test_2_5_5_a_wait_cancelled_by_a_new_playback_stays_cancelled_after_its_end() -> None:
    leg = Leg()
    leg.say("One.", wait_input_timeout=500)
    leg.speak("One.", 100)
    leg.run(300)
    leg.say("Two.")
    leg.interrupt()
    leg.run(1000)

    assert leg.kinds() == [Started, Ended, Started, Interrupted, Ended]


@pytest.mark.parametrize("fields", [{"graceful": True}, {"graceful": False}, {"fade_out_ms": 40}])
def test_2_5_5_an_interruption_does_not_arm_the_wait(fields: dict[str, Any]) -> None:
    leg = Leg()
    leg.say("One.", wait_input_timeout=100)
    leg.speak("One.", 100)
    leg.run(40)
    leg.interrupt(**fields)
    leg.run(1000)

    assert leg.kinds() == [Started, Interrupted, Ended]


# 2.5.6: errors, empty text, emoji


def test_2_5_6_a_failed_segment_is_skipped_and_the_playback_goes_on() -> None:
    leg = Leg()
    leg.say("One.", play_id="p")
    leg.say("Two.", play_id="p", end_of_stream=True)
    leg.do(SpeechFailed(leg.requests()[0].utterance_id, None, "engine broke"))
    leg.speak("Two.", 40, value=2)
    leg.run(100)

    assert leg.events() == [(0, Started("p")), (0, Failed("tts", 500, "engine broke")), (40, Ended("p", 40, False))]
    assert leg.sound[:2] == [2, 2]


def test_2_5_6_what_came_of_a_segment_before_it_failed_is_played() -> None:
    leg = Leg()
    leg.say("One.")
    key = leg.requests()[0].utterance_id
    leg.do(SpeechAudio(key, tone(50)))
    leg.run(20)
    leg.do(SpeechFailed(key, 500, "engine broke"))
    leg.run(100)

    assert leg.sound[:4] == [1000, 1000, 1000, 0]
    assert leg.events()[-1] == (60, Ended(None, 60, False))


@pytest.mark.parametrize("auto_hangup", [True, False])
def test_2_5_6_a_synthesiser_that_cannot_start_ends_the_playback_and_auto_hangup_fires(auto_hangup: bool) -> None:
    leg = Leg()
    leg.say("One.", play_id="p", auto_hangup=auto_hangup)
    for text in ("Two.", "Three."):
        leg.say(text, play_id="p")
    leg.do(SpeechFailed(leg.requests()[0].utterance_id, 500, "no voice", fatal=True))

    assert leg.events() == [(0, Started("p")), (0, Failed("tts", 500, "no voice")), (0, Ended("p", 0, auto_hangup))]


def test_2_5_6_audio_around_a_text_that_cannot_be_spoken_is_heard_in_one_playback() -> None:
    leg = Leg()
    audio: dict[str, Any] = {
        "text": encoded(np.full(320, 700, dtype=np.int16)),
        "option": {"samplerate": 8000},
        "base64": True,
    }  # 40 ms
    leg.say(**audio, play_id="p")
    leg.say("One.", play_id="p")
    leg.do(SpeechFailed(leg.requests()[0].utterance_id, 404, "no voice", fatal=True))
    leg.say(**audio, play_id="p", end_of_stream=True)
    leg.run(200)

    assert leg.kinds() == [Started, Failed, Ended]
    assert leg.sound[:5] == [700, 700, 700, 700, 0]


@pytest.mark.parametrize("text", ["", "  \n", "\U0001f44b\U0001f3fd"])
@pytest.mark.parametrize("fields", [{}, {"play_id": "p"}, {"play_id": "p", "end_of_stream": True}])
def test_2_5_6_empty_text_alone_starts_and_ends_at_once(text: str, fields: dict[str, Any]) -> None:
    leg = Leg()
    leg.say(text, **fields)

    play_id = fields.get("play_id")
    assert leg.events() == [(0, Started(play_id)), (0, Ended(play_id, 0, False))]
    assert leg.requests() == []


def test_2_5_6_no_provider_is_refused_and_changes_nothing() -> None:
    leg = Leg(default_provider=None)
    leg.say("Hello.")
    assert leg.events() == [(0, Refused("command", 400, "no tts option available"))]

    leg.say("Hello.", option={"provider": "piper"})
    assert leg.kinds() == [Refused, Started]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hi \U0001f600 there", "Hi  there"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467 family", " family"),
        ("I \u2764\ufe0f it", "I  it"),
        ("\U0001f1eb\U0001f1f7 flag", " flag"),
        ("press 1\ufe0f\u20e3", "press 1"),
        ("half \ud83d of one", "half  of one"),
        ("3 < 5, 20 €, 你好。", "3 < 5, 20 €, 你好。"),
        ("क्\u200dष", "क्\u200dष"),  # the joiner is a letter's here
    ],
)
def test_2_5_6_emoji_are_stripped(text: str, spoken: str) -> None:
    assert without_emoji(text) == spoken


def test_options_of_a_command_override_field_by_field_and_its_speaker_wins() -> None:
    leg = Leg(defaults={"provider": "piper", "speaker": "joe", "speed": 1.2, "volume": None})
    leg.say("Hello.", speaker="ann", option={"speaker": "bob", "volume": 7, "speed": None}, cache_key="k")

    asked = leg.requests()[0]
    assert (asked.speaker, asked.speed, asked.volume, asked.cache_key) == ("ann", 1.2, 7, "k")


def test_q_22_more_than_200_queued_segments_are_refused() -> None:
    leg = Leg()
    for number in range(210):
        leg.say(f"Number {number}.", play_id="p")

    assert leg.kinds() == [Started] + [Refused] * 10
    assert leg.events()[-1][1] == Refused("command", 409, "tts queue is full, at most 200 segments")
    assert len(leg.requests()) == 2  # the synthesiser is asked a little ahead only
    leg.speak("Number 0.", 20)
    leg.run(40)
    leg.say("Fits again.", play_id="p")

    assert leg.kinds() == [Started] + [Refused] * 10
    assert len(leg.requests()) == 3


def test_q_22_a_streamed_flood_is_refused_as_a_whole() -> None:
    leg = Leg(limits=Limits(segments=100))
    leg.say("word " * 10000, play_id="p", streaming=True)

    assert leg.kinds() == [Refused]


# 2.6


def test_2_6_play_replaces_whatever_runs_even_under_the_same_id() -> None:
    leg = Leg()
    leg.play("a.wav")
    leg.load(100)
    leg.run(40)
    leg.play("a.wav", play_id="a.wav")

    assert leg.kinds() == REPLACES


def test_2_6_offset_skips_and_interruption_tells_the_place_in_the_whole_file() -> None:
    leg = Leg()
    leg.play("a.wav", offset_ms=300)
    leg.load(1000)
    leg.run(100)
    leg.interrupt()

    assert leg.events()[1:] == [
        (100, Interrupted("a.wav", None, None, 1000, 400)),
        (100, Ended("a.wav", 100, False)),
    ]


def test_2_6_an_offset_behind_the_end_and_an_empty_file_end_at_once() -> None:
    for offset_ms, length_ms in ((5000, 100), (0, 0)):
        leg = Leg()
        leg.play("a.wav", offset_ms=offset_ms)
        leg.load(length_ms)
        assert leg.kinds() == [Started, Ended]


def test_2_6_a_file_that_comes_after_its_playback_is_ignored() -> None:
    leg = Leg()
    leg.play("a.wav")
    leg.interrupt()
    leg.load(100)
    leg.run(100)

    assert leg.kinds() == [Started, Interrupted, Ended]
    assert not any(leg.sound)


# 2.7


def test_2_7_g4_interrupt_with_nothing_playing_is_silent() -> None:
    leg = Leg()
    for graceful in (False, True):
        assert leg.interrupt(graceful, 100) == []


@pytest.mark.parametrize(
    "prepare",
    [
        lambda leg: leg.say("Not sounding yet.", play_id="p"),
        lambda leg: (
            leg.say("Streamed text here. ", play_id="p", streaming=True),
            leg.speak("Streamed text here.", 200),
            leg.run(40),
        ),
        lambda leg: (leg.play("a.wav", play_id="p"), leg.load(200), leg.run(40)),
        lambda leg: (leg.say("Paused."), leg.speak("Paused.", 200), leg.run(40), leg.do(Pause())),
    ],
    ids=["not sounding", "streaming", "file", "paused"],
)
def test_2_7_graceful_is_immediate_where_no_segment_can_finish(prepare: Callable[[Leg], object]) -> None:
    leg = Leg()
    prepare(leg)
    leg.interrupt(graceful=True)

    assert leg.kinds() == [Started, Interrupted, Ended]


def test_2_7_interruption_before_any_audio_has_current_0() -> None:
    leg = Leg()
    leg.say("Hello.", play_id="p")
    leg.interrupt()

    assert leg.events()[1] == (0, Interrupted("p", None, None, 0, 0))


def test_2_7_interruption_tells_the_word_begun_when_timings_are_known() -> None:
    leg = Leg()
    leg.say("One two three")
    key = leg.requests()[0].utterance_id
    leg.do(SpeechAudio(key, tone(600)))
    for at_ms, position in ((0, 0), (200, 4), (400, 8)):
        leg.do(SpeechTiming(key, at_ms, position))
    leg.run(300)
    leg.interrupt()

    assert leg.events()[1] == (300, Interrupted(None, "One two three", 4, 600, 300))


def test_2_7_a_fade_is_heard_before_the_end() -> None:
    leg = Leg()
    leg.say("Hello.", play_id="p", end_of_stream=True)
    leg.speak("Hello.", 1000)
    leg.run(100)
    leg.interrupt(fade_out_ms=80)
    leg.run(200)

    assert leg.events() == [
        (0, Started("p")),
        (100, Interrupted("p", "Hello.", None, 1000, 100)),
        (180, Ended("p", 180, False)),
    ]
    assert leg.sound == [1000] * 5 + [1000, 750, 500, 250] + [0] * 6


def test_2_7_a_second_interrupt_ends_a_tail_or_fade_without_a_second_interruption() -> None:
    for fields in ({"graceful": True}, {"fade_out_ms": 500}):
        leg = Leg()
        leg.say("Hello.", play_id="p")
        leg.speak("Hello.", 1000)
        leg.run(100)
        leg.interrupt(**fields)
        leg.run(100)
        assert leg.interrupt(graceful=True) == []
        leg.interrupt()
        leg.run(100)
        assert leg.events()[1:] == [
            (100, Interrupted("p", "Hello.", None, 1000, 100)),
            (200, Ended("p", 200, False)),
        ]


def test_2_7_a_tts_while_a_graceful_tail_plays_replaces_the_tail_even_under_its_id() -> None:
    leg = Leg()
    leg.say("Hello.", play_id="p")
    leg.speak("Hello.", 1000)
    leg.run(100)
    leg.interrupt(graceful=True)
    leg.run(100)
    leg.say("Next.", play_id="p", end_of_stream=True)

    assert leg.events()[2:] == [(200, Ended("p", 200, False)), (200, Started("p"))]


# 2.8


def test_2_8_pause_freezes_and_resume_continues_at_the_same_place() -> None:
    leg = Leg()
    leg.say("Hello.", auto_hangup=True)
    leg.speak("Hello.", 100)
    leg.run(60)
    leg.do(Pause())
    leg.run(3000)
    leg.do(Resume())
    leg.run(100)

    assert leg.sound == [1000] * 3 + [0] * 150 + [1000] * 2 + [0] * 3
    assert leg.events() == [(0, Started(None)), (3100, Ended(None, 3100, auto_hangup=True))]


def test_2_8_the_end_is_deferred_while_paused() -> None:
    leg = Leg()
    leg.say("Hello.", play_id="p")
    leg.speak("Hello.", 100)
    leg.run(500)
    leg.do(Pause())
    leg.run(5000)
    assert leg.kinds() == [Started]
    assert leg.playback.deadline == math.inf
    leg.do(Resume())

    assert leg.events()[1] == (5500, Ended("p", 5500, False))


def test_2_8_a_new_playback_starts_unpaused() -> None:
    leg = Leg()
    leg.say("Hello.", play_id="a")
    leg.do(Pause())
    leg.say("Next.", play_id="b")
    leg.speak("Next.", 40)
    leg.run(40)

    assert leg.sound == [1000, 1000]


def test_2_8_nothing_playing_is_an_error() -> None:
    playback = Playback(LINE)
    refused = Refused("command", 404, "track not found: server-side-track")

    assert playback.receive(Pause(), 0.0) == [refused]
    assert playback.receive(Resume(), 0.0) == [refused]


# Audio


def test_late_audio_inside_a_segment_is_silence_and_does_not_end_the_playback() -> None:
    leg = Leg()
    leg.say("Hello.")
    key = leg.requests()[0].utterance_id
    leg.do(SpeechAudio(key, tone(40)))
    leg.run(80)
    assert (leg.sound, leg.kinds(), leg.playback.underruns) == ([1000, 1000, 0, 0], [Started], 2)
    leg.do(SpeechAudio(key, tone(40)))
    leg.do(SpeechDone(key))
    leg.run(100)

    assert leg.events()[1] == (120, Ended(None, 120, False))


def test_answers_to_cancelled_utterances_are_ignored() -> None:
    leg = Leg()
    leg.say("Old.", play_id="a")
    key = leg.requests()[0].utterance_id
    leg.say("New.", play_id="b")
    assert leg.do(SpeechAudio(key, tone(100))) == []
    assert leg.do(SpeechDone(key)) == []
    assert leg.do(SpeechFailed(key, 500, "late")) == []
    leg.run(100)

    assert not any(leg.sound)


def test_a_fast_synthesiser_is_not_asked_for_more_than_20_s_ahead() -> None:
    leg = Leg()
    for number in range(10):
        leg.say(f"Number {number}.", play_id="p")
    leg.speak("Number 0.", 15000)
    leg.speak("Number 1.", 15000)
    asked = len(leg.requests())
    leg.run(12000)

    assert asked == 3
    assert len(leg.requests()) == 4


# Streamed text


@pytest.mark.parametrize(
    ("fragments", "chunks", "rest"),
    [
        (["Pi is 3.", "14159 or so."], [], ["Pi is 3.14159 or so."]),
        (["Mr. Smith is here. "], ["Mr. Smith is here."], []),
        (["Yes, of course I can do that, thanks"], ["Yes, of course I can do that,"], ["thanks"]),
        (["你好，很高兴认识你们大家。再见"], ["你好，很高兴认识你们大家。"], ["再见"]),
        (["First line of it\nsecond line"], ["First line of it"], ["second line"]),
        (["   ", " \n "], [], []),
    ],
)
def test_fragments_are_cut_where_a_speaker_would_breathe(
    fragments: list[str], chunks: list[str], rest: list[str]
) -> None:
    buffer = FragmentBuffer()

    assert [chunk for fragment in fragments for chunk in buffer.append(fragment)] == chunks
    assert buffer.flush() == rest
    assert not buffer.pending


@given(st.text(alphabet="ab .,!?\n。", max_size=1500), st.lists(st.integers(1, 40), max_size=200))
def test_fragments_lose_and_reorder_nothing(text: str, sizes: list[int]) -> None:
    buffer = FragmentBuffer()
    chunks: list[str] = []
    at = 0
    for size in [*sizes, len(text)]:
        chunks += buffer.append(text[at : at + size])
        at += size
    chunks += buffer.flush()

    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(0 < len(chunk) <= 401 and chunk == chunk.strip() for chunk in chunks)


# Whatever a client does


def commands() -> st.SearchStrategy[list[tuple[str, dict[str, object]]]]:
    say = st.fixed_dictionaries(
        {
            "text": st.sampled_from(["", "One.", "Two and a half sentences. And"]),
            "play_id": st.sampled_from([None, "a", "b"]),
            "streaming": st.booleans(),
            "end_of_stream": st.booleans(),
            "auto_hangup": st.booleans(),
            "wait_input_timeout": st.sampled_from([None, 0, 100]),
        }
    )
    play = st.fixed_dictionaries({"url": st.just("f.wav"), "auto_hangup": st.booleans()})
    interrupt = st.fixed_dictionaries({"graceful": st.booleans(), "fade_out_ms": st.sampled_from([0, 50])})
    step: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
        st.tuples(st.just("say"), say),
        st.tuples(st.just("play"), play),
        st.tuples(st.just("interrupt"), interrupt),
        st.tuples(st.sampled_from(["pause", "resume", "stop", "run", "answer", "fail"]), st.just({})),
    )
    return st.lists(step, max_size=25)


def perform(leg: Leg, step: str, fields: dict[str, Any]) -> None:
    match step:
        case "say" | "play" | "interrupt":
            getattr(leg, step)(**fields)
        case "pause":
            leg.do(Pause())
        case "resume":
            leg.do(Resume())
        case "stop":
            leg.do(Stop())
        case "answer":
            answer_all(leg)
        case "fail":
            for request in leg.requests()[-1:]:
                leg.do(SpeechFailed(request.utterance_id, 500, "x"))
        case _:
            leg.run(60)


def answer_all(leg: Leg) -> None:
    for _, effect in list(leg.log):
        if isinstance(effect, Speak):
            leg.do(SpeechAudio(effect.utterance_id, tone(50)))
            leg.do(SpeechDone(effect.utterance_id))
        elif isinstance(effect, LoadFile):
            leg.do(FileLoaded(effect.token, tone(50)))


def grouped(log: list[tuple[int, PlaybackEffect]]) -> Iterator[list[PlaybackEffect]]:
    """The events of each playback; fails where they overlap."""
    current: list[PlaybackEffect] | None = None
    for _, effect in log:
        if isinstance(effect, Started):
            assert current is None
            current = [effect]
        elif isinstance(effect, Interrupted | Ended):
            assert current is not None
            current.append(effect)
            if isinstance(effect, Ended):
                yield current
                current = None
    assert current is None


@given(commands())
def test_every_playback_starts_once_ends_once_and_is_interrupted_at_most_once(
    steps: list[tuple[str, dict[str, object]]],
) -> None:
    leg = Leg()
    for step, fields in steps:
        perform(leg, step, fields)
    leg.do(Close())

    for events in grouped(leg.log):
        assert len({event.play_id for event in events}) == 1
        assert [type(event) for event in events] in ([Started, Ended], [Started, Interrupted, Ended])
        assert not (len(events) == 3 and events[-1].auto_hangup)


@given(commands())
def test_every_playback_that_is_answered_and_not_paused_ends_by_itself(
    steps: list[tuple[str, dict[str, object]]],
) -> None:
    leg = Leg()
    for step, fields in steps:
        perform(leg, step, fields)
    leg.do(Resume())
    for _ in range(20):
        leg.run(820)
        answer_all(leg)

    assert not leg.playback.playing
    assert all(isinstance(events[-1], Ended) for events in grouped(leg.log))
