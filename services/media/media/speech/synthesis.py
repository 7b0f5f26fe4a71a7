"""One leg's speech synthesis: texts to tts workers, audio back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Bus, NoReply, NoResponder, Refused, Subscription
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import CancelSpeech, Speak
from dialbus.tasks import TaskSet
from media.speech import arrival

log = telemetry.get_logger()

WATCHDOG_S = 10.0
"""A worker that sends no audio for so long has failed."""
_ASK_TIMEOUT_S = 3.0


class Listener(Protocol):
    """Gets the answers to requests, in order for each utterance."""

    def speech_audio(self, utterance_id: str, pcm: Pcm) -> None:
        """The next audio, at the leg's rate."""

    def speech_done(self, utterance_id: str, *, cached: bool, ttfb_ms: int | None) -> None:
        """There is no more."""

    def speech_failed(self, utterance_id: str, code: int, reason: str, *, fatal: bool) -> None:
        """There is no more, and something is missing. `fatal`: no use in asking again."""


@dataclass(slots=True)
class _Awaited:
    listener: Listener
    task: asyncio.Task[None]
    asked_at: float
    first_audio_at: float | None = None


class Synthesis:
    """Asks tts workers for one leg."""

    def __init__(
        self,
        bus: Bus,
        call_id: str,
        track: str,
        watchdog_s: float = WATCHDOG_S,
        *,
        is_full: Callable[[], bool],
    ) -> None:
        """`track` names the audio on the bus; no two legs of a call have the same.

        `is_full` tells whether a tts worker says that it is full.
        """
        self._is_full = is_full
        self._log = log.bind(call_id=call_id)
        self._bus = bus
        self._call_id = call_id
        self._track = track
        self._watchdog_s = watchdog_s
        self._loop = asyncio.get_running_loop()
        self._awaited: dict[str, _Awaited] = {}
        self._watchdog: asyncio.TimerHandle | None = None
        self._subscription: Subscription | None = None
        self._asking = TaskSet()
        self._telling = TaskSet()

    async def start(self) -> None:
        """Listen for audio."""
        self._subscription = await self._bus.subscribe_audio(self._call_id, self._track, self._on_frame)

    def request(self, request: Speak, listener: Listener) -> None:
        """Ask for one utterance; the listener gets the answers."""
        task = self._asking.start(self._ask(request), name=f"speak {self._call_id}/{request.utterance_id}")
        self._awaited[request.utterance_id] = _Awaited(listener, task, self._loop.time())
        if len(self._awaited) == 1:
            self._watch()

    def cancel(self, utterance_id: str) -> None:
        """Nobody will hear it: stop its synthesis."""
        awaited = self._forget(utterance_id)
        if awaited is None:
            return
        awaited.task.cancel()
        message = CancelSpeech(call_id=self._call_id, utterance_id=utterance_id)
        self._telling.start(self._bus.publish(message), name=f"cancel {self._call_id}/{utterance_id}")

    async def close(self) -> None:
        """Cancel everything and stop listening."""
        for utterance_id in list(self._awaited):
            self.cancel(utterance_id)
        await self._telling.wait()
        await self._asking.close()
        if self._subscription is not None:
            await self._subscription.drop()

    async def _ask(self, request: Speak) -> None:
        try:
            await arrival.ask(self._bus, request, timeout_s=_ASK_TIMEOUT_S, is_full=self._is_full, waiting=self._watch)
        except Refused as refused:
            self._fail(request.utterance_id, refused.code, refused.reason, fatal=True)
        except NoResponder:
            self._fail(request.utterance_id, 503, "no tts worker has room", fatal=True)
        except NoReply as error:
            awaited = self._awaited.get(request.utterance_id)
            if awaited is not None and awaited.first_audio_at is None:
                self._fail(request.utterance_id, 504, f"the tts worker did not answer: {error}", fatal=True)
        except Exception as error:  # the boundary of one text: it is skipped, and the playback goes on
            self._log.exception("speech.broken", utterance=request.utterance_id)
            self._fail(request.utterance_id, 500, f"the text can't be sent: {type(error).__name__}", fatal=False)

    async def _on_frame(self, frame: AudioFrame) -> None:
        awaited = self._awaited.get(frame.utterance)
        if awaited is None:
            return
        if awaited.first_audio_at is None and frame.pcm:
            awaited.first_audio_at = self._loop.time()
        self._watch()
        if frame.pcm:
            awaited.listener.speech_audio(frame.utterance, np.frombuffer(frame.pcm, "<i2").astype(np.int16, copy=False))
        if frame.failure is not None:
            self._fail(frame.utterance, 500, frame.failure, fatal=False)
        elif frame.last:
            self._forget(frame.utterance)
            awaited.listener.speech_done(
                frame.utterance, cached=_is_true(frame.facts.get("cached")), ttfb_ms=_ttfb(frame, awaited)
            )

    def _watch(self) -> None:
        """Expect a frame within the limit, of whatever utterance: a worker speaks a call's texts one after another."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self._awaited:
            self._watchdog = self._loop.call_later(self._watchdog_s, self._starved)

    def _starved(self) -> None:
        oldest = next(iter(self._awaited))
        self._fail(oldest, 500, f"no audio from tts for {self._watchdog_s:.0f} s", fatal=False)

    def _fail(self, utterance_id: str, code: int, reason: str, *, fatal: bool) -> None:
        if (awaited := self._forget(utterance_id)) is not None:
            self._log.warning("speech.failed", code=code, reason=reason)
            awaited.listener.speech_failed(utterance_id, code, reason, fatal=fatal)

    def _forget(self, utterance_id: str) -> _Awaited | None:
        awaited = self._awaited.pop(utterance_id, None)
        if awaited is not None:
            self._watch()
        return awaited


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "true", "yes")


def _ttfb(frame: AudioFrame, awaited: _Awaited) -> int | None:
    """Milliseconds from our request to the first audio, as we saw it; the worker's word when there was none."""
    if awaited.first_audio_at is not None:
        return max(0, round((awaited.first_audio_at - awaited.asked_at) * 1000))
    told = frame.facts.get("ttfb", "")
    return int(told) if told.isdigit() else None
