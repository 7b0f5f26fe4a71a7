"""Utterances on their way to an asr worker: framing, what may not be sent, and another worker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np
import pytest

from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.options import TranscriptionOption
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, Transcript, TranscriptionOpened
from media.speech import arrival, recognition
from media.speech.recognition import Heard, Recognition


class FakeBus:
    """Answers as a worker would, and keeps what was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers) or [TranscriptionOpened(worker="w1", model="m")]
        self.requests: list[Contract] = []
        self.frames: list[AudioFrame] = []
        self.sent = asyncio.Event()
        self.transcripts: Callable[[Transcript], Awaitable[None]] | None = None
        self.dropped = False

    async def request(self, message: Contract, *, timeout_s: float) -> Contract:
        self.requests.append(message)
        if isinstance(message, CloseTranscription):
            return Taken()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return cast(Contract, answer)

    async def subscribe(self, contract: Any, handler: Any, **subject: str) -> "FakeBus":
        self.transcripts = handler
        return self

    async def drop(self) -> None:
        self.dropped = True

    async def publish_audio(self, frame: AudioFrame) -> None:
        self.frames.append(frame)
        self.sent.set()

    async def last_frames(self, count: int) -> None:
        """Wait for so many last frames."""
        async with asyncio.timeout(2):
            while sum(frame.last for frame in self.frames) < count:
                self.sent.clear()
                await self.sent.wait()


@pytest.fixture
def heard() -> list[Heard]:
    return []


@pytest.fixture
def faults() -> list[tuple[int, str]]:
    return []


def _start(
    bus: FakeBus,
    heard: list[Heard],
    faults: list[tuple[int, str]],
    rate_hz: int = 16000,
    *,
    is_full: Callable[[], bool] = lambda: True,
) -> Recognition:
    started = Recognition(
        cast(Bus, bus),
        "c",
        "main",
        TranscriptionOption(language="en"),
        rate_hz,
        heard=heard.append,
        failed=lambda code, reason: faults.append((code, reason)),
        clock=lambda: 50.0,
        is_full=is_full,
    )
    started.start()
    return started


def _ramp(samples: int, start: int = 0) -> np.ndarray:
    return (np.arange(start, start + samples) % 30000).astype(np.int16)


async def test_an_utterance_arrives_whole_in_frames_of_at_least_80_ms(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    bus = FakeBus()
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    for position in range(0, 16000, 320):
        session.audio(0, _ramp(320, position))
    session.end(0, 11.0, 16000)
    await bus.last_frames(1)
    await session.close(0.2)

    assert np.frombuffer(b"".join(frame.pcm for frame in bus.frames), "<i2").tolist() == _ramp(16000).tolist()
    assert [frame.sequence for frame in bus.frames] == list(range(len(bus.frames)))
    assert all(len(frame.pcm) >= 2 * 1280 for frame in bus.frames[:-1])
    assert [frame.last for frame in bus.frames] == [False] * (len(bus.frames) - 1) + [True]
    assert isinstance(bus.requests[-1], CloseTranscription)
    assert bus.dropped


async def test_narrowband_audio_is_sent_at_16_khz(heard: list[Heard], faults: list[tuple[int, str]]) -> None:
    bus = FakeBus()
    session = _start(bus, heard, faults, rate_hz=8000)
    session.begin(0, 10.0)
    session.audio(0, _ramp(8000))
    session.end(0, 11.0, 8000)
    await bus.last_frames(1)
    await session.close(0.2)

    assert sum(len(frame.pcm) for frame in bus.frames) == 2 * 16000


@pytest.mark.parametrize("kept_s", [22, 25, 28])
async def test_audio_behind_a_late_cut_never_reaches_the_utterance(
    heard: list[Heard], faults: list[tuple[int, str]], kept_s: int
) -> None:
    bus = FakeBus()
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    for position in range(0, 28 * 16000, 320):
        session.audio(0, _ramp(320, position))
    session.end(0, 38.0, kept_s * 16000)
    await bus.last_frames(1)
    await session.close(0.2)

    sent = np.frombuffer(b"".join(frame.pcm for frame in bus.frames), "<i2")
    assert sent.tolist() == _ramp(kept_s * 16000).tolist()


async def test_transcripts_come_with_their_utterance_and_nothing_follows_a_final(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    bus = FakeBus()
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    session.end(0, 11.0, 0)
    await bus.last_frames(1)
    assert bus.transcripts is not None
    for text, final in (("a", False), ("ab", False), ("abc", True), ("late", True)):
        await bus.transcripts(Transcript(call_id="c", utterance=0, text=text, final=final))
    await bus.transcripts(Transcript(call_id="c", utterance=7, text="unknown", final=True))
    await session.close(0.2)

    assert [(item.transcript.text, item.first) for item in heard] == [("a", True), ("ab", False), ("abc", False)]
    assert heard[0].utterance.first_text_at == 50.0
    assert heard[-1].utterance.ended == 11.0


async def test_everything_unfinished_is_sent_again_to_another_worker(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    bus = FakeBus(TranscriptionOpened(worker="w1", model="m"), TranscriptionOpened(worker="w2", model="m"))
    session = _start(bus, heard, faults)
    for index in (0, 1):
        session.begin(index, 10.0)
        session.audio(index, _ramp(2000))
        session.end(index, 11.0, 2000)
    await bus.last_frames(2)
    assert bus.transcripts is not None
    await bus.transcripts(Transcript(call_id="c", utterance=0, text="done", final=True))
    before = [frame for frame in bus.frames if frame.utterance == "1"]

    session.worker_lost()
    await bus.last_frames(3)

    assert session.worker == "w2"
    again = bus.frames[-len(before) :]
    assert again == before
    await session.close(0.2)
    assert not faults


async def test_no_worker_is_told_once_and_asked_for_again(
    heard: list[Heard], faults: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "_RETRY_S", 0.0)
    opened = TranscriptionOpened(worker="w1", model="m")
    bus = FakeBus(NoResponder("asr.open"), Refused(503, "full"), opened)
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    session.audio(0, _ramp(1600))
    session.end(0, 11.0, 1600)
    await bus.last_frames(1)
    await session.close(0.2)

    assert faults == [(503, "no asr worker has room")]
    assert sum(len(frame.pcm) for frame in bus.frames) == 3200


async def test_what_is_not_to_be_had_is_asked_for_once(
    heard: list[Heard], faults: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "_RETRY_S", 0.0)
    bus = FakeBus(Refused(404, "no model for xx"))
    session = _start(bus, heard, faults)
    for _ in range(10):
        await asyncio.sleep(0)
    await session.close(0.2)

    assert faults == [(404, "no model for xx")]
    assert [type(request) for request in bus.requests] == [OpenTranscription]


async def test_a_session_begins_only_when_the_one_before_has_ended(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    bus = FakeBus()
    ended = asyncio.get_running_loop().create_future()

    async def before() -> None:
        await ended

    session = Recognition(
        cast(Bus, bus), "c", "main", TranscriptionOption(), 16000,
        heard=heard.append, failed=lambda code, reason: None, clock=lambda: 0.0,
        is_full=lambda: True,
    )  # fmt: skip
    session.start(after=before())
    session.begin(0, 1.0)
    session.end(0, 1.0, 0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not bus.requests
    ended.set_result(None)
    await bus.last_frames(1)
    await session.close(0.2)


async def test_what_is_said_before_the_first_worker_is_there_is_recognised_in_order(
    heard: list[Heard], faults: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "_AGAIN_S", 0.001)
    bus = FakeBus(*[NoResponder("asr.open")] * 5, TranscriptionOpened(worker="w1", model="m"))
    session = _start(bus, heard, faults, is_full=lambda: False)
    for index in (0, 1):
        session.begin(index, 10.0)
        session.audio(index, _ramp(2000, index))
        session.end(index, 11.0, 2000)
    await bus.last_frames(2)
    await session.close(0.2)

    assert [(frame.utterance, frame.sequence) for frame in bus.frames] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    assert not faults


async def test_text_that_overtakes_the_end_of_its_audio_is_heard(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    class Prompt(FakeBus):
        async def publish_audio(self, frame: AudioFrame) -> None:
            if frame.last:
                assert self.transcripts is not None
                await self.transcripts(Transcript(call_id="c", utterance=0, text="known", final=True))
            await super().publish_audio(frame)

    bus = Prompt()
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    session.end(0, 11.0, 0)
    await bus.last_frames(1)
    await session.close(0.2)

    assert [item.transcript.text for item in heard] == ["known"]


async def test_the_last_text_that_overtakes_the_answer_to_close_is_not_waited_for(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    class Closing(FakeBus):
        async def request(self, message: Contract, *, timeout_s: float) -> Contract:
            if isinstance(message, CloseTranscription):
                assert self.transcripts is not None
                await self.transcripts(Transcript(call_id="c", utterance=0, text="bye", final=True))
            return await super().request(message, timeout_s=timeout_s)

    bus = Closing()
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    session.end(0, 11.0, 0)
    await bus.last_frames(1)
    async with asyncio.timeout(2):
        await session.close(60.0)

    assert [item.transcript.text for item in heard] == ["bye"]


async def test_a_worker_that_is_lost_while_its_audio_is_sent_is_not_taken_for_the_next_one(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    class Losing(FakeBus):
        async def publish_audio(self, frame: AudioFrame) -> None:
            if session.worker == "w1":
                session.worker_lost()
            await super().publish_audio(frame)

    bus = Losing(TranscriptionOpened(worker="w1", model="m"), TranscriptionOpened(worker="w2", model="m"))
    session = _start(bus, heard, faults)
    session.begin(0, 10.0)
    session.audio(0, _ramp(2000))
    session.end(0, 11.0, 2000)
    await bus.last_frames(1)
    await session.close(0.2)

    assert session.worker == "w2"
    assert [frame.sequence for frame in bus.frames] == [0, 0, 1]


async def test_an_option_that_no_message_can_carry_is_one_error(
    heard: list[Heard], faults: list[tuple[int, str]]
) -> None:
    session = _start(FakeBus(ValueError("surrogates not allowed")), heard, faults)
    async with asyncio.timeout(2):
        while session._tasks:
            await session._tasks.wait()
    await session.close(0.2)

    assert faults == [(500, "recognition broke: ValueError")]
