"""The asr service as a process with the model of the wheel, and the media worker as the test plays it."""

import asyncio
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest_asyncio

from dialbus.bus import Bus
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Taken
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, Transcript, TranscriptionOpened
from tests.harness import ServiceProcess, messages_of, next_message, run_service

Int16 = npt.NDArray[np.int16]

VOICES = Path(__file__).parents[2] / "data" / "voices"
SAID = {
    "jfk": "And so my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country.",
    # "thereunder" in two words, as the model spells it
    "lj": "unless a system is established for the frequent formal review of activities there under. In this regard",
}
RATE_HZ = 16_000
FRAME = RATE_HZ // 10
FINAL_S = 30.0
"""Long, since the machine may be busy; what is measured is asserted where it matters."""


def audio_of(name: str) -> Int16:
    """A human voice."""
    with wave.open(str(VOICES / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


@dataclass
class MediaWorker:
    """One track of one call."""

    bus: Bus
    call_id: str
    transcripts: "asyncio.Queue[Transcript]"
    utterances: int = 0
    heard: list[Transcript] = field(default_factory=list)

    @classmethod
    async def ready(cls, bus: Bus, call_id: str) -> "MediaWorker":
        """Listens to the call's transcripts."""
        return cls(bus, call_id, await messages_of(bus, Transcript, call_id=call_id, track="main"))

    async def open(self, model: str | None = None, language: str | None = None) -> TranscriptionOpened:
        """Ask any asr worker."""
        request = OpenTranscription(call_id=self.call_id, model=model, language=language)
        return await self.bus.request(request, timeout_s=10)

    async def close(self) -> Taken:
        """Say that no more audio comes."""
        return await self.bus.request(CloseTranscription(call_id=self.call_id), timeout_s=5)

    async def frame(self, sequence: int, pcm: Int16, *, last: bool = False, utterance: int = 0) -> None:
        """One frame."""
        await self.bus.publish_audio(
            AudioFrame(self.call_id, "main", str(utterance), sequence, RATE_HZ, pcm.tobytes(), last=last)
        )

    async def say(
        self, pcm: Int16, *, utterance: int = 0, samples: int = FRAME, every_s: float = 0.0, end: bool = True,
        lost: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        """Send an utterance in frames of so many samples, one each `every_s`; `end` sets the last one's flag."""
        starts = range(0, pcm.size, samples)
        for sequence, start in enumerate(starts):
            if sequence not in lost:
                last = end and sequence == len(starts) - 1
                await self.frame(sequence, pcm[start : start + samples], last=last, utterance=utterance)
            await asyncio.sleep(every_s)

    async def final(self, utterance: int = 0) -> Transcript:
        """The final of an utterance; deltas before it are kept in `heard`."""
        while True:
            transcript = await next_message(self.transcripts, FINAL_S)
            self.heard.append(transcript)
            if transcript.final and transcript.utterance == utterance:
                return transcript

    async def rest(self) -> list[Transcript]:
        """Close the session, then everything that came since the last `final`."""
        await self.close()
        await self.bus.flush()
        while not self.transcripts.empty():
            self.heard.append(self.transcripts.get_nowait())
        return self.heard


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asr(nats_url: str) -> AsyncIterator[ServiceProcess]:
    """One asr worker for the tests of a module that leave it as they found it."""
    async with run_service("asr", {"DIALBUS_NATS_URL": nats_url, "DIALBUS_HEALTH_ADDR": "127.0.0.1:0"}) as service:
        yield service


@pytest_asyncio.fixture
async def media(bus: Bus, call_id: str) -> MediaWorker:
    """A call's media worker."""
    return await MediaWorker.ready(bus, call_id)
