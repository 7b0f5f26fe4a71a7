"""From a session's audio to its transcripts.

There is one scheduler for all sessions and as many threads as the engine has slots. Everything else happens on the
event loop: frames go into windows (small copies), results go out as transcripts. What the scheduler takes for an
utterance is a segment: all of an utterance, unless that is longer than 30 s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from asr.engine import SAMPLE_RATE_HZ, Hypothesis
from asr.metrics import (
    DECODE_SECONDS,
    DECODES,
    DELTAS_DROPPED,
    FINAL_WITHIN_S,
    FINALS_DROPPED,
    FINALS_LATE,
    REAL_TIME_FACTOR,
)
from asr.scheduler import Job, JobKind, Scheduler, Statistics
from asr.session import Session
from asr.utterance import Segment
from asr.window import UtteranceWindow
from dialbus import telemetry
from dialbus.audio import Pcm
from dialbus.bus import Bus
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import Transcript
from dialbus.tasks import TaskSet

log = telemetry.get_logger()

INTERIM_AT_LEAST_S = 0.3
MAX_PENDING = 16
"""Segments of one session that may wait for their final: 16 MB of audio at the very most."""


class Decoding:
    """Decodes what the sessions hear, `slots` at a time, and publishes what comes of it in order."""

    def __init__(self, bus: Bus, slots: int, max_sessions: int, *, beam: int, now: Callable[[], float]) -> None:
        self._bus = bus
        self._beam = beam
        self._now = now
        self._scheduler = Scheduler(slots, max_sessions)
        self._counted = Statistics()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="decode")
        self._sessions: dict[str, Session] = {}
        self._numbers = itertools.count()
        self._tasks = TaskSet()

    @property
    def has_room(self) -> bool:
        """Whether another session may be opened."""
        return self._scheduler.has_room

    @property
    def queued(self) -> int:
        """Decodes that wait for a thread."""
        return self._scheduler.queued

    def open(self, session: Session) -> None:
        """Hear a session, which fits."""
        self._scheduler.open(session.id)
        self._sessions[session.id] = session

    def close(self, session: Session, *, because: str) -> bool:
        """Give up what a session still waits for; False when it is not open."""
        if self._sessions.pop(session.id, None) is None:
            return False
        if session.pending:
            FINALS_DROPPED.labels(because).inc(session.pending)
            log.warning("asr.finals_dropped", call_id=session.call_id, finals=session.pending, because=because)
        self._scheduler.close(session.id)
        session.give_up()
        return True

    async def stop(self) -> None:
        """Decode nothing more."""
        await self._tasks.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- audio ------------------------------------------------------------------------------------

    def audio(self, session: Session, frame: AudioFrame) -> None:
        """The next audio of a session; of one that is closed it is ignored."""
        if session.id not in self._sessions:
            return
        now = session.heard_at = self._now()
        try:
            utterance = int(frame.utterance)
        except ValueError:
            log.warning("asr.bad_audio", call_id=session.call_id, utterance=frame.utterance[:40])
            return
        if frame.rate_hz == SAMPLE_RATE_HZ:
            pcm = np.frombuffer(frame.pcm, "<i2").astype(np.int16, copy=False)
            ended = session.track.frame(utterance, frame.sequence, pcm, now, last=frame.last)
        else:
            reason = f"audio at {frame.rate_hz} Hz, not {SAMPLE_RATE_HZ}"
            ended = session.track.fail(utterance, reason, now, last=frame.last)
        self._finals(session, ended, now + FINAL_WITHIN_S)
        self._interim(session, now)

    def end(self, session: Session, deadline: float | None = None) -> None:
        """No more comes of the present utterance: its final is wanted, by `deadline`."""
        self._finals(session, session.track.end(), deadline or self._now() + FINAL_WITHIN_S)

    def _finals(self, session: Session, ended: list[Segment], deadline: float) -> None:
        for segment in ended:
            if session.pending >= MAX_PENDING:
                self._overloaded(session, segment)
                continue
            session.wait_for_final(segment)
            self._submit(session, segment, JobKind.FINAL, deadline)
        self._pump()

    def _overloaded(self, session: Session, segment: Segment) -> None:
        """Audio comes faster than it can be heard, for minutes: say so instead of keeping all of it."""
        FINALS_DROPPED.labels("overload").inc()
        session.segments.pop(segment.number, None)
        segment.utterance.failure = "the asr worker is overloaded"
        if segment.last:
            self._tasks.start(self._publish_final(session, segment, None), name=f"final {session.id}")

    def _interim(self, session: Session, now: float) -> None:
        segment = session.track.current
        if segment is None or now < segment.interim_at or segment.window.duration_s < INTERIM_AT_LEAST_S:
            return
        interval = self._scheduler.interim_interval_s
        segment.interim_at = now + interval
        session.segments[segment.number] = segment
        self._submit(session, segment, JobKind.DELTA, now + interval)
        self._pump()

    # -- decodes ----------------------------------------------------------------------------------

    def _submit(self, session: Session, segment: Segment, kind: JobKind, deadline: float) -> None:
        job = Job(next(self._numbers), session.id, segment.number, kind, deadline)
        self._scheduler.submit(job, self._now())

    def _pump(self) -> None:
        """Start what may start."""
        while (job := self._scheduler.next(self._now())) is not None:
            session = self._sessions[job.session_id]
            segment = session.segments.get(job.utterance)
            pcm = _audio_for(job, segment.window) if segment else None
            if segment is None or pcm is None:  # given up, or nothing new since the last one
                self._scheduler.done(job.job_id, self._now())
                continue
            self._tasks.start(self._decode(job, session, segment, pcm, segment.heard_at), name=f"decode {session.id}")
        self._count()

    async def _decode(self, job: Job, session: Session, segment: Segment, pcm: Pcm, heard_at: float) -> None:
        telemetry.adopt_trace(session.trace)
        heard: Hypothesis | None = None
        transcribe = session.engine.transcribe
        try:
            heard = await asyncio.get_running_loop().run_in_executor(
                self._threads, transcribe, pcm, session.language, self._beam
            )
        except Exception as error:  # the boundary: whatever the engine raises, the call goes on
            log.exception("asr.decode_failed", call_id=session.call_id)
            if job.kind is JobKind.FINAL:
                segment.utterance.failure = f"{type(error).__name__}: {error}"
        finally:
            wanted = self._scheduler.done(job.job_id, self._now())
        _measure(job.kind, heard, wanted)
        # Published before anything else of this session may start: that keeps its transcripts in order.
        try:
            if wanted and job.kind is JobKind.FINAL:
                await self._final_heard(session, segment, heard, heard_at)
            elif wanted and heard is not None and (partial := segment.stabiliser.add(heard.text)) is not None:
                await self._publish_delta(session, segment, partial.text, heard, heard_at)
        finally:
            self._pump()

    async def _final_heard(self, session: Session, segment: Segment, heard: Hypothesis | None, heard_at: float) -> None:
        text = segment.stabiliser.finish(heard.text if heard else "")
        segment.utterance.add(text, heard.confidence if heard else 0.0)
        session.segments.pop(segment.number, None)
        try:
            if segment.last:
                await self._publish_final(session, segment, heard, heard_at)
            elif heard is not None:
                await self._publish_delta(session, segment, "", heard, heard_at)
        finally:
            session.final_told()

    # -- transcripts ------------------------------------------------------------------------------

    async def _publish_delta(
        self, session: Session, segment: Segment, end: str, heard: Hypothesis, heard_at: float
    ) -> None:
        text = segment.utterance.changed(end)
        if text is not None:
            await self._publish(session, segment, text, heard, heard_at, confidence=heard.confidence)

    async def _publish_final(
        self, session: Session, segment: Segment, heard: Hypothesis | None, heard_at: float | None = None
    ) -> None:
        utterance = segment.utterance
        text = utterance.text()
        failure = None if text else utterance.failure
        at = segment.heard_at if heard_at is None else heard_at
        await self._publish(
            session, segment, text, heard, at, confidence=utterance.confidence, final=True, failure=failure
        )

    async def _publish(
        self, session: Session, segment: Segment, text: str, heard: Hypothesis | None, heard_at: float, *,
        confidence: float | None, final: bool = False, failure: str | None = None,
    ) -> None:  # fmt: skip
        transcript = Transcript(
            call_id=session.call_id,
            track=session.track_name,
            utterance=segment.utterance.number,
            text=text,
            final=final,
            confidence=confidence,
            decode_ms=round(heard.decode_ms) if heard else 0,
            latency_ms=max(0, round(1000 * (self._now() - heard_at))),
            failure=failure,
        )
        try:
            await self._bus.publish(transcript)
        except Exception as error:  # the bus is away; media asks another worker
            log.warning("asr.not_published", call_id=session.call_id, error=str(error) or type(error).__name__)

    def _count(self) -> None:
        """Carry the scheduler's statistics over to the metrics."""
        before, self._counted = self._counted, self._scheduler.statistics
        DELTAS_DROPPED.inc(self._counted.deltas_dropped - before.deltas_dropped)
        FINALS_LATE.inc(self._counted.late_finals - before.late_finals)


def _audio_for(job: Job, window: UtteranceWindow) -> Pcm | None:
    return window.final() if job.kind is JobKind.FINAL else window.interim(INTERIM_AT_LEAST_S)


def _measure(kind: JobKind, heard: Hypothesis | None, wanted: bool) -> None:
    outcome = "failed" if heard is None else "used" if wanted else "unwanted"
    DECODES.labels(kind.value, outcome).inc()
    if heard is not None:
        DECODE_SECONDS.labels(kind.value).observe(heard.decode_ms / 1000)
        if kind is JobKind.FINAL and heard.audio_ms:
            REAL_TIME_FACTOR.observe(heard.rtf)
