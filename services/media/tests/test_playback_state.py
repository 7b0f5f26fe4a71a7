"""A playback that is stored and loaded goes on as if nothing had been; of its audio only the length is kept."""

import base64
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialbus.contracts.commands import Interrupt, Pause, Play, Resume, Tts
from dialbus.contracts.options import SynthesisOption
from dialbus.contracts.speech import Speak
from media.turn.input_timeout import InputTimeout
from media.turn.playback import (
    TICK,
    Close,
    Configure,
    FileFailed,
    FileLoaded,
    InputHeard,
    Limits,
    LoadFile,
    Loop,
    Playback,
    PlaybackInput,
    SpeechAudio,
    SpeechDone,
    SpeechFailed,
    SpeechLine,
    SpeechTiming,
    Stop,
)

RATE_HZ = 8000
TICK_S = 1 / 64  # exact in binary, so that a shifted clock rounds nothing
FRAME = RATE_HZ // 64
LINE = SpeechLine("c", RATE_HZ, providers={"tencent": "piper"})
SETTINGS: dict[str, Any] = {"limits": Limits(segments=4, segment_grace_s=0.25, stream_flush_s=0.125, stream_idle_s=0.5)}
AUDIO = base64.b64encode(np.ones(1600, "<i2").tobytes()).decode()

Step = tuple[int, PlaybackInput]
"""Ticks that pass before the input; the input, whose utterance or file is named by how many came after it."""


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([*[usual] * 4, *others])


def inputs() -> st.SearchStrategy[PlaybackInput]:
    tts = st.builds(
        Tts,
        text=mostly("One.", "", "Two and a half sentences. And", "more of it"),
        play_id=mostly("a", None),
        streaming=mostly(False, True),
        end_of_stream=mostly(False, True),
        auto_hangup=mostly(False, True),
        wait_input_timeout=mostly(None, 0, 250),
        option=mostly(None, {"provider": "nobody"}, {"waitInputTimeout": 125, "speaker": "x"}),
    )
    streamed = st.builds(
        Tts,
        text=st.sampled_from(["Two and a half sentences. And", "more of it, "]),
        play_id=st.just("a"),
        streaming=st.just(True),
    )
    audio = st.builds(Tts, text=st.just(AUDIO), base64=st.just(True), play_id=st.sampled_from([None, "a"]))
    play = st.builds(Play, url=st.just("f.wav"), offset_ms=mostly(0, 30), auto_hangup=mostly(False, True))
    recent = mostly("0", "1", "2")
    pcm = st.sampled_from([1000, 0, 100, 4000]).map(lambda samples: np.ones(samples, np.int16))
    speech_audio = st.builds(SpeechAudio, recent, pcm)
    file_loaded = st.builds(FileLoaded, recent, pcm)
    return st.one_of(
        tts,
        tts,
        streamed,
        audio,
        play,
        st.builds(Loop, play),
        st.builds(Interrupt, graceful=st.booleans(), fade_out_ms=st.sampled_from([None, 50])),
        speech_audio,
        speech_audio,
        st.builds(SpeechDone, recent),
        st.builds(SpeechDone, recent),
        st.builds(SpeechTiming, recent, st.sampled_from([0, 40]), st.sampled_from([0, 4])),
        st.builds(SpeechFailed, recent, st.just(500), st.just("hoarse"), st.booleans()),
        file_loaded,
        file_loaded,
        st.builds(FileFailed, recent, st.just("gone")),
        mostly(TICK, Pause(), Resume(), Stop(), InputHeard(), Close()),
        st.builds(Configure, st.sampled_from([SynthesisOption(), SynthesisOption(wait_input_timeout=375)])),
    )


def steps() -> st.SearchStrategy[list[Step]]:
    return st.lists(st.tuples(st.sampled_from([0, 1, 3, 12]), inputs()), max_size=15)


class Leg:
    """A playback on its clock; keeps everything that can be noticed of it."""

    def __init__(self, playback: Playback, now: float, utterances: list[str], files: list[str]) -> None:
        self.playback, self.now = playback, now
        self.utterances, self.files = list(utterances), list(files)  # asked for so far
        self.seen: list[Any] = []

    def run(self, course: list[Step]) -> None:
        for ticks, arrived in course:
            for _ in range(ticks):
                self.now += TICK_S
                self.do(TICK)
                self.seen.append(self.playback.next_frame(FRAME) is None)
            self.do(self.named(arrived))
            self.seen += [self.playback.deadline - self.now, self.playback.underruns, repr(self.playback)]

    def do(self, arrived: PlaybackInput) -> None:
        for effect in self.playback.receive(arrived, self.now):
            self.seen.append(effect)
            if isinstance(effect, Speak):
                self.utterances.append(effect.utterance_id)
            elif isinstance(effect, LoadFile):
                self.files.append(effect.token)

    def named(self, arrived: PlaybackInput) -> PlaybackInput:
        match arrived:
            case SpeechAudio() | SpeechTiming() | SpeechDone() | SpeechFailed():
                return replace(arrived, utterance_id=self.recent(self.utterances, arrived.utterance_id))
            case FileLoaded() | FileFailed():
                return replace(arrived, token=self.recent(self.files, arrived.token))
        return arrived

    @staticmethod
    def recent(names: list[str], back: str) -> str:
        return names[-1 - int(back)] if int(back) < len(names) else "none"


def shifted(seen: list[Any], by: float) -> list[Any]:
    return [replace(item, started_at=item.started_at + by) if isinstance(item, InputTimeout) else item for item in seen]


def assert_goes_on_alike(before: list[Step], after: list[Step], by: float) -> None:
    """Store and load between the two, onto a clock that is `by` ahead."""
    leg = Leg(Playback(LINE, **SETTINGS), 1.0, [], [])
    leg.run(before)
    leg.seen.clear()

    state = json.loads(json.dumps(leg.playback.to_state(leg.now)))
    loaded = Playback.from_state(state, leg.now + by, LINE, **SETTINGS)
    other = Leg(loaded, leg.now + by, leg.utterances, leg.files)
    assert loaded.to_state(other.now) == state

    leg.run([*after, (64, TICK)])
    other.run([*after, (64, TICK)])
    assert other.seen == shifted(leg.seen, by)


@settings(max_examples=300)
@given(steps(), steps(), st.sampled_from([0.0, 4096.0]))
def test_any_prefix_stored_and_loaded_leads_to_the_same_rest(before: list[Step], after: list[Step], by: float) -> None:
    assert_goes_on_alike(before, after, by)


PCM = np.ones(1000, np.int16)  # 8 ticks
ONE = Tts(text="One.", play_id="a")
NOTHING = SpeechTiming("99", 0, 0)  # of an utterance that nobody asked for
COURSES: dict[str, list[Step]] = {
    "interrupted at a word": [
        (0, ONE), (0, SpeechAudio("0", PCM)), (0, SpeechTiming("0", 0, 0)), (0, SpeechTiming("0", 40, 4)),
        (6, Interrupt()),
    ],
    "faded": [(0, ONE), (0, SpeechAudio("0", PCM)), (3, Interrupt(fade_out_ms=50)), (1, TICK), (1, TICK), (1, TICK)],
    "a graceful tail that is paused": [
        (0, ONE), (0, ONE), (0, SpeechAudio("1", PCM)), (2, Interrupt(graceful=True)), (1, Pause()), (9, Resume()),
        (0, SpeechAudio("1", PCM)), (0, SpeechDone("1")),
    ],
    "counted": [
        (0, ONE), (0, SpeechAudio("0", PCM)), (1, SpeechAudio("0", PCM)), (1, SpeechDone("0", cached=True)), (1, ONE),
        (0, SpeechDone("0")),
    ],
    "streamed": [
        (0, Tts(text="A first sentence. And ", play_id="a", streaming=True)), (1, SpeechAudio("0", PCM)),
        (1, Tts(text="a short one. Then a long one, longer", play_id="a", streaming=True)), (1, SpeechDone("0")),
        (12, SpeechDone("0")), (30, SpeechDone("0")), (20, TICK),
    ],
    "the synthesiser cannot work": [
        (0, ONE), (0, ONE), (0, ONE), (0, Tts(text=AUDIO, base64=True, play_id="a")), (0, SpeechAudio("1", PCM)),
        (1, SpeechFailed("1", 503, "nobody", fatal=True)), (4, TICK), (8, TICK), (8, TICK),
    ],
    "a queue that is full until a segment was heard": [
        *[(0, ONE)] * 5, (0, SpeechAudio("1", PCM)), (0, SpeechDone("1")), (8, ONE), (0, ONE), (0, ONE),
    ],
    "behind one another, the last hangs up": [
        (0, Tts(text="One.", play_id="a", end_of_stream=True)),
        (0, Tts(text="Two.", play_id="a", end_of_stream=True, auto_hangup=True, wait_input_timeout=250)),
        (0, SpeechAudio("0", PCM)), (0, SpeechDone("0")), (9, SpeechAudio("0", PCM)), (0, SpeechDone("0")), (9, TICK),
    ],
    "an answer is waited for from the drain on": [
        (0, Tts(text="One.", play_id="a", wait_input_timeout=375)), (0, SpeechDone("0")), (4, TICK), (20, TICK),
    ],
    "the caller answers within the grace": [
        (0, Tts(text="One.", play_id="a", wait_input_timeout=375)), (0, SpeechDone("0")), (4, InputHeard()), (20, TICK),
    ],
    "a file from its middle": [
        (0, Play(url="f", offset_ms=30, wait_input_timeout=125)), (1, FileLoaded("0", PCM)), (2, Interrupt()),
        (0, Play(url="f", auto_hangup=True)), (0, FileFailed("0", "gone", 404)), (0, Loop(Play(url="f", offset_ms=30))),
        (0, FileLoaded("0", PCM)), (30, Stop()),
    ],
    "the call's options": [
        (0, Configure(SynthesisOption(provider="tencent", speaker="x", wait_input_timeout=250))), (0, ONE),
        (0, ONE), (1, SpeechDone("0")), (1, SpeechDone("1")), (40, TICK),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COURSES)
def test_a_course_is_the_same_wherever_it_is_stored_and_loaded(name: str) -> None:
    course = COURSES[name]
    for cut in range(len(course) + 1):
        for ticks in range(12):  # and while it goes on by itself
            assert_goes_on_alike([*course[:cut], (ticks, NOTHING)], course[cut:], 4096.0)


def test_accounts_at_vendors_are_not_stored() -> None:
    playback = Playback(LINE, option=SynthesisOption(provider="tencent", app_id="1", secret_id="2", secret_key="3"))
    playback.receive(Tts(text="One."), 0.0)

    assert not any(secret in json.dumps(playback.to_state(0.0)) for secret in ("appId", "secretId", "secretKey"))


def test_what_was_waiting_sounds_as_silence_of_its_length() -> None:
    playback = Playback(LINE)
    playback.receive(Tts(text="One."), 0.0)
    playback.receive(SpeechAudio("speech-1", np.full(2 * FRAME, 1000, np.int16)), 0.0)
    playback.receive(SpeechDone("speech-1"), 0.0)

    loaded = Playback.from_state(playback.to_state(0.0), 0.0, LINE)
    frames = [loaded.next_frame(FRAME) for _ in range(3)]

    assert [None if frame is None else frame.tolist() for frame in frames] == [[0] * FRAME, [0] * FRAME, None]
    assert loaded.deadline == math.inf
