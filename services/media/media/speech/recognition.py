"""One track's speech recognition: utterances to an asr worker, transcripts back, and another worker when one dies."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Bus, BusError, NoReply, NoResponder, Refused, Subscription
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.options import TranscriptionOption
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, Transcript
from dialbus.providers import WHISPER
from dialbus.tasks import TaskSet
from media.audio.resample import LiveResampler, live_resampler
from media.speech import arrival

log = telemetry.get_logger()

RATE_HZ = 16000
_OPEN_TIMEOUT_S = 3.0
_RETRY_S = 2.0
_FRAME_SAMPLES = RATE_HZ * 80 // 1000
# An utterance may be cut up to 6 s before its longest length of 28 s (media.turn.utterance): what is sent cannot be
# taken back, so what comes after this much is kept until the utterance has ended.
_SURE_SAMPLES = RATE_HZ * 22
_MAX_UNFINISHED = 8


@dataclass(slots=True)
class Utterance:
    """One stretch of speech on its way to text. Times are Unix seconds."""

    index: int
    started: float
    resampler: LiveResampler
    ended: float | None = None
    first_text_at: float | None = None
    samples: int = 0
    """At 16 kHz, given so far."""
    waiting: list[Pcm] = field(default_factory=list)
    frames: list[AudioFrame] = field(default_factory=list)
    """Kept until the final transcript, to be sent again to another worker."""
    sent: int = 0
    """Frames sent to the present worker."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A transcript and the utterance it is of."""

    utterance: Utterance
    transcript: Transcript
    first: bool
    """The utterance had no text before."""
    provider: str
    """As the client named it."""


class Recognition:
    """Started with `start`; `heard` gets transcripts, `failed(code, reason)` is called once when there is no worker.

    `track` names the audio and the session on the bus; no two legs of a call have the same. `is_full` tells whether
    an asr worker says that it is full.
    """

    def __init__(
        self,
        bus: Bus,
        call_id: str,
        track: str,
        option: TranscriptionOption,
        rate_hz: int,
        *,
        heard: Callable[[Heard], None],
        failed: Callable[[int, str], None],
        clock: Callable[[], float],
        is_full: Callable[[], bool],
    ) -> None:
        self.option = option
        self.worker: str | None = None
        """The asr instance that has the session."""
        self._bus = bus
        self._call_id = call_id
        self._track = track
        self._rate_hz = rate_hz
        self._heard = heard
        self._failed = failed
        self._clock = clock
        self._is_full = is_full
        self._unfinished: dict[int, Utterance] = {}
        self._session = 0  # counts the workers that had the session
        self._told = False
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._all_final = asyncio.Event()
        self._all_final.set()
        self._tasks = TaskSet(lambda _task, error: self._tell(500, f"recognition broke: {type(error).__name__}"))
        self._subscription: Subscription | None = None

    def start(self, after: Awaitable[None] | None = None) -> None:
        """Find a worker, in the background; audio given meanwhile is kept.

        `after` is awaited first: the end of a session before this one, which is spoken to on the same subjects.
        """
        self._tasks.start(self._run(after), name=f"recognition {self._call_id}/{self._track}")

    # -- from the tick ----------------------------------------------------------------------------

    def begin(self, index: int, started: float) -> None:
        """An utterance begins."""
        resampler = live_resampler(self._rate_hz, RATE_HZ)
        self._unfinished[index] = Utterance(index, started, resampler)
        self._all_final.clear()
        while len(self._unfinished) > _MAX_UNFINISHED:
            oldest = next(iter(self._unfinished))
            log.warning("recognition.utterance_dropped", call_id=self._call_id, index=oldest)
            del self._unfinished[oldest]

    def audio(self, index: int, pcm: Pcm) -> None:
        """The next audio of an utterance, at the leg's rate."""
        utterance = self._unfinished.get(index)
        if utterance is None:
            return
        wide = utterance.resampler.process(pcm)
        utterance.waiting.append(wide)
        utterance.samples += len(wide)
        ready = sum(map(len, utterance.waiting))
        if ready >= _FRAME_SAMPLES and utterance.samples <= _SURE_SAMPLES:
            self._frame(utterance, np.concatenate(utterance.waiting), last=False)
            utterance.waiting.clear()

    def end(self, index: int, ended: float, samples: int) -> None:
        """An utterance is complete; only its first `samples`, at the leg's rate, belong to it."""
        utterance = self._unfinished.get(index)
        if utterance is None:
            return
        utterance.ended = max(ended, utterance.started)
        rest = np.concatenate(utterance.waiting) if utterance.waiting else np.zeros(0, np.int16)
        surplus = utterance.samples - samples * RATE_HZ // self._rate_hz
        if surplus > 0:
            rest = rest[: max(0, len(rest) - surplus)]
        utterance.waiting.clear()
        self._frame(utterance, rest, last=True)

    def _frame(self, utterance: Utterance, pcm: Pcm, *, last: bool) -> None:
        utterance.frames.append(
            AudioFrame(
                call_id=self._call_id,
                track=self._track,
                utterance=str(utterance.index),
                sequence=len(utterance.frames),
                rate_hz=RATE_HZ,
                pcm=pcm.astype("<i2", copy=False).tobytes(),
                last=last,
            )
        )
        self._wake.set()

    # -- the worker -------------------------------------------------------------------------------

    def worker_lost(self) -> None:
        """The worker fell silent: find another one and send it everything that is not final."""
        self.worker = None
        self._session += 1
        for utterance in self._unfinished.values():
            utterance.sent = 0
        self._wake.set()

    async def close(self, timeout_s: float) -> None:
        """Wait at most so long for the last finals, then end the session."""
        worker, give_up_at = self.worker, asyncio.get_running_loop().time() + timeout_s
        if worker is not None:
            with suppress(TimeoutError, BusError):
                async with asyncio.timeout_at(give_up_at):
                    await self._send()
            await self._end_session(give_up_at)
        await self._tasks.close()
        if self._subscription is not None:
            await self._subscription.drop()

    async def _end_session(self, give_up_at: float) -> None:
        request = CloseTranscription(call_id=self._call_id, track=self._track)
        left = max(0.05, give_up_at - asyncio.get_running_loop().time())
        with suppress(BusError, Refused, TimeoutError):
            await self._bus.request(request, timeout_s=left)
            # The last transcript was sent before the reply: it is here, or right behind.
            async with asyncio.timeout(0.05):
                await self._all_final.wait()

    async def _run(self, after: Awaitable[None] | None) -> None:
        if after is not None:
            await after
        self._subscription = await self._bus.subscribe(
            Transcript, self._on_transcript, call_id=self._call_id, track=self._track
        )
        while True:
            if self.worker is None and not await self._open():
                await asyncio.sleep(_RETRY_S)
                continue
            self._wake.clear()
            try:
                await self._send()
            except Exception as error:  # the boundary: the bus is away, what was not sent is sent later
                log.warning("recognition.not_sent", error=str(error) or type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            await self._wake.wait()

    async def _open(self) -> bool:
        request = OpenTranscription(
            call_id=self._call_id, track=self._track, model=self.option.model_type, language=self.option.language
        )
        try:
            opened = await arrival.ask(self._bus, request, timeout_s=_OPEN_TIMEOUT_S, is_full=self._is_full)
        except Refused as refused:
            self._tell(refused.code, refused.reason)
            if refused.code != 503:
                await asyncio.get_running_loop().create_future()  # what is not to be had now never will be
            return False
        except (NoResponder, NoReply):
            self._tell(503, "no asr worker has room")
            return False
        log.info("recognition.opened", worker=opened.worker, model=opened.model)
        self.worker = opened.worker
        return True

    def _tell(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            log.warning("recognition.failed", code=code, reason=reason)
            self._failed(code, reason)

    async def _send(self) -> None:
        async with self._sending:
            for utterance in list(self._unfinished.values()):
                while self.worker is not None and utterance.sent < len(utterance.frames):
                    session = self._session
                    await self._bus.publish_audio(utterance.frames[utterance.sent])
                    if session == self._session:  # else everything is sent anew
                        utterance.sent += 1

    async def _on_transcript(self, transcript: Transcript) -> None:
        utterance = self._unfinished.get(transcript.utterance)
        if utterance is None:
            return
        first = utterance.first_text_at is None
        if first:
            utterance.first_text_at = self._clock()
        if transcript.final:
            del self._unfinished[transcript.utterance]
        self._heard(Heard(utterance, transcript, first, self.option.provider or WHISPER))
        if not self._unfinished:
            self._all_final.set()
