"""The shell of the asr service: sessions on the bus, decodes in threads.

A worker has one scheduler for all its sessions and as many threads as the engine has slots. Everything else
happens on the event loop: frames go into windows (small copies), results go out as transcripts. What
the scheduler takes for an utterance is a segment: all of an utterance, unless that is longer than 30 s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Gauge, Histogram

from asr.engine import SAMPLE_RATE_HZ, Hypothesis, Transcriber
from asr.engines import Engines
from asr.errors import AsrError, ModelNotReady
from asr.scheduler import Job, JobKind, Scheduler, Statistics
from asr.utterance import Segment, Track
from asr.window import UtteranceWindow
from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Taken
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, Transcript, TranscriptionOpened
from dialbus.membership import Membership
from dialbus.tasks import cancel_all

log = telemetry.get_logger()

QUEUE = "asr"
FINAL_WITHIN_S = 0.5
"""A final that comes later counts as late."""
CLOSE_WITHIN_S = 0.7
STOP_WITHIN_S = 2.0
INTERIM_AT_LEAST_S = 0.3
MOST_PENDING = 16
"""Segments of one session that may wait for their final: 16 MB of audio at the very most."""
END_LOST_S = 5.0
"""Audio arrives in real time: an utterance that pauses this long has lost its last frame."""
QUIET_S = 600.0
LOOK_AFTER_S = 30.0
"""How long a session has no audio before its call is looked up, and how often then."""
_SWEEP_S = 1.0

SESSIONS = Gauge("dialbus_asr_sessions", "Open sessions")
DECODES = Counter("dialbus_asr_decodes", "Decodes by kind and outcome", ["kind", "outcome"])
DECODE_SECONDS = Histogram(
    "dialbus_asr_decode_seconds", "Wall time of a decode", ["kind"],
    buckets=(0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
)  # fmt: skip
REAL_TIME_FACTOR = Histogram(
    "dialbus_asr_real_time_factor", "Decoding time per audio time, of finals",
    buckets=(0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0),
)  # fmt: skip
DELTAS_DROPPED = Counter("dialbus_asr_deltas_dropped", "Interim decodes that something newer made pointless")
FINALS_LATE = Counter("dialbus_asr_finals_late", f"Finals that took longer than {FINAL_WITHIN_S} s")
FINALS_DROPPED = Counter("dialbus_asr_finals_dropped", "Finals that were given up", ["because"])


@dataclass(slots=True, eq=False)
class _Session:
    """One track of one call; `id` names this opening of it."""

    id: str
    call_id: str
    track_name: str
    model: str
    engine: Transcriber
    language: str | None
    trace: dict[str, str]
    heard_at: float
    track: Track = field(default_factory=Track)
    subscriptions: list[Subscription] = field(default_factory=list)
    segments: dict[int, Segment] = field(default_factory=dict)
    """By number: those that still grow or wait for their final."""
    pending: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no final is pending."""
    call_seen: bool = False
    look_at: float = 0.0
    """When the call may be looked up again."""


class Worker:
    """Serves transcription sessions on the bus, at most `max_sessions` at a time.

    `call_exists` says whether a call is known to the exchange; sessions of calls that were and are no longer
    close themselves. As many decodes run at once as the configured engine has slots.
    """

    def __init__(
        self,
        bus: Bus,
        engines: Engines,
        call_exists: Callable[[str], Awaitable[bool]],
        *,
        max_sessions: int,
        beam: int = 1,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._bus = bus
        self._engines = engines
        self._call_exists = call_exists
        self._beam = beam
        self._max_sessions = max_sessions
        slots = engines.default.engine.slots
        self._scheduler = Scheduler(slots, max_sessions)
        self._counted = Statistics()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="decode")
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._by_id: dict[str, _Session] = {}
        self._numbers = itertools.count()
        self._membership = Membership(
            QUEUE,
            [lambda: bus.serve(OpenTranscription, self._open, queue=QUEUE)],
            has_room=lambda: self._scheduler.has_room,
        )
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._now = now or asyncio.get_running_loop().time

    # -- life -------------------------------------------------------------------------------------

    @property
    def capacity(self) -> tuple[int | None, int]:
        """Most sessions at once, sessions now."""
        return self._max_sessions, len(self._sessions)

    @property
    def queued(self) -> int:
        """Decodes that wait for a thread."""
        return self._scheduler.queued

    async def start(self) -> None:
        """Join the queue group; sessions may come."""
        await self._membership.start()
        await self._bus.flush()
        self._spawn(self._sweep(), "sweep")

    async def stop(self) -> None:
        """Leave the queue group, finish the finals of ended utterances within two seconds, end everything."""
        self._stopping = True
        await self._membership.leave(STOP_WITHIN_S)
        waiting = [asyncio.create_task(session.settled.wait()) for session in self._sessions.values()]
        if waiting:
            _done, late = await asyncio.wait(waiting, timeout=STOP_WITHIN_S)
            for wait in late:
                wait.cancel()
        for session in list(self._sessions.values()):
            self._forget(session, because="stopped")
        await cancel_all(self._tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- sessions ---------------------------------------------------------------------------------

    async def _open(self, request: OpenTranscription) -> TranscriptionOpened:
        key = (request.call_id, request.track)
        if self._stopping or not (self._scheduler.has_room or key in self._sessions):
            raise Refused(503, "this asr worker has no room")
        try:
            in_use = {session.model for session in self._sessions.values()}
            model = await self._engines.get(request.model, in_use)
            language = model.engine.check_language(request.language)
        except ModelNotReady as error:
            raise Refused(503, str(error)) from None
        except AsrError as error:
            raise Refused(404, str(error)) from None
        if (old := self._sessions.get(key)) is not None:
            self._forget(old, because="replaced")
        session = _Session(
            f"{request.call_id}/{request.track}/{next(self._numbers)}", *key, model.name, model.engine, language,
            telemetry.trace_headers(), self._now(),
        )  # fmt: skip
        session.settled.set()
        self._scheduler.open(session.id)
        self._sessions[key] = self._by_id[session.id] = session
        self._room_changed()
        await self._listen(session)
        log.info("asr.opened", call_id=session.call_id, model=session.model, language=language)
        return TranscriptionOpened(worker=self._bus.instance, model=model.name)

    async def _listen(self, session: _Session) -> None:
        """Hear the call's audio; when this returns the server knows that we do, and that we left if we are full."""

        async def audio(frame: AudioFrame) -> None:
            self._audio(session, frame)

        async def close(_request: CloseTranscription) -> Taken:
            return await self._close(session)

        call_id, track = session.call_id, session.track_name
        try:
            for subscription in (
                self._bus.subscribe_audio(call_id, track, audio),
                self._bus.serve(CloseTranscription, close, call_id=call_id, track=track),
            ):
                session.subscriptions.append(await subscription)
            await self._bus.flush()
        except Exception as error:
            self._forget(session, because="failed")
            raise Refused(503, f"the bus does not listen: {type(error).__name__}") from error

    async def _close(self, session: _Session) -> Taken:
        """Give what was said until now its finals, in the time there is."""
        give_up_at = self._now() + CLOSE_WITHIN_S
        with suppress(TimeoutError):
            async with asyncio.timeout_at(give_up_at):
                await session.subscriptions[0].leave()  # what has arrived is still heard
                self._finals(session, session.track.end(), deadline=give_up_at)
                await session.settled.wait()
        self._forget(session, because="closed")
        log.info("asr.closed", call_id=session.call_id)
        return Taken()

    def _forget(self, session: _Session, *, because: str) -> None:
        """End a session now. Harmless when it has ended."""
        if self._by_id.pop(session.id, None) is None:
            return
        key = (session.call_id, session.track_name)
        if self._sessions.get(key) is session:
            del self._sessions[key]
        if session.pending:
            FINALS_DROPPED.labels(because).inc(session.pending)
            log.warning("asr.finals_dropped", call_id=session.call_id, finals=session.pending, because=because)
        self._scheduler.close(session.id)
        session.segments.clear()
        session.settled.set()
        self._room_changed()
        # In a task of its own: a subscription that ends cancels its handler, and that may be who calls.
        self._spawn(_leave(session.subscriptions), "leave")

    def _room_changed(self) -> None:
        SESSIONS.set(len(self._sessions))
        self._membership.room_changed()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for session in list(self._sessions.values()):
                try:
                    await self.look_after(session)
                except Exception as error:  # the bus may be away; the next round asks again
                    log.warning("asr.sweep_failed", call_id=session.call_id, error=str(error) or type(error).__name__)

    async def look_after(self, session: _Session) -> None:
        """End an utterance whose last frame is lost, and a session that nobody will close any more."""
        quiet = self._now() - session.heard_at
        if quiet >= END_LOST_S and session.track.current is not None:
            self._finals(session, session.track.end())
        if quiet >= QUIET_S:
            self._forget(session, because="quiet")
        elif self._now() >= session.look_at and (quiet >= LOOK_AFTER_S or not session.call_seen):
            session.look_at = self._now() + LOOK_AFTER_S
            exists = await self._call_exists(session.call_id)
            if session.call_seen and not exists:
                log.info("asr.call_gone", call_id=session.call_id)
                self._forget(session, because="call gone")
            session.call_seen = session.call_seen or exists

    # -- audio ------------------------------------------------------------------------------------

    def _audio(self, session: _Session, frame: AudioFrame) -> None:
        if session.id not in self._by_id:
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
        self._finals(session, ended)
        self._interim(session, now)

    def _finals(self, session: _Session, ended: list[Segment], deadline: float | None = None) -> None:
        now = self._now()
        for segment in ended:
            if session.pending >= MOST_PENDING:
                self._overloaded(session, segment)
                continue
            session.segments[segment.number] = segment
            session.pending += 1
            session.settled.clear()
            self._submit(session, segment, JobKind.FINAL, deadline or now + FINAL_WITHIN_S)
        self._pump()

    def _overloaded(self, session: _Session, segment: Segment) -> None:
        """Audio comes faster than it can be heard, for minutes: say so instead of keeping all of it."""
        FINALS_DROPPED.labels("overload").inc()
        session.segments.pop(segment.number, None)
        segment.utterance.failure = "the asr worker is overloaded"
        if segment.last:
            self._spawn(self._publish_final(session, segment, None), "final")

    def _interim(self, session: _Session, now: float) -> None:
        segment = session.track.current
        if segment is None or now < segment.interim_at or segment.window.duration_s < INTERIM_AT_LEAST_S:
            return
        interval = self._scheduler.interim_interval_s
        segment.interim_at = now + interval
        session.segments[segment.number] = segment
        self._submit(session, segment, JobKind.DELTA, now + interval)
        self._pump()

    # -- decodes ----------------------------------------------------------------------------------

    def _submit(self, session: _Session, segment: Segment, kind: JobKind, deadline: float) -> None:
        job = Job(next(self._numbers), session.id, segment.number, kind, deadline)
        self._scheduler.submit(job, self._now())

    def _pump(self) -> None:
        """Start what may start."""
        while (job := self._scheduler.next(self._now())) is not None:
            session = self._by_id[job.session_id]
            segment = session.segments.get(job.utterance)
            pcm = _audio_for(job, segment.window) if segment else None
            if segment is None or pcm is None:  # given up, or nothing new since the last one
                self._scheduler.done(job.job_id, self._now())
                continue
            self._spawn(self._decode(job, session, segment, pcm, segment.heard_at), "decode")
        self._count()

    async def _decode(
        self, job: Job, session: _Session, segment: Segment, pcm: npt.NDArray[np.int16], heard_at: float
    ) -> None:
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

    async def _final_heard(
        self, session: _Session, segment: Segment, heard: Hypothesis | None, heard_at: float
    ) -> None:
        text = segment.stabiliser.finish(heard.text if heard else "")
        segment.utterance.add(text, heard.confidence if heard else 0.0)
        session.segments.pop(segment.number, None)
        try:
            if segment.last:
                await self._publish_final(session, segment, heard, heard_at)
            elif heard is not None:
                await self._publish_delta(session, segment, "", heard, heard_at)
        finally:
            session.pending -= 1
            if session.pending == 0:
                session.settled.set()

    # -- transcripts ------------------------------------------------------------------------------

    async def _publish_delta(
        self, session: _Session, segment: Segment, end: str, heard: Hypothesis, heard_at: float
    ) -> None:
        text = segment.utterance.changed(end)
        if text is not None:
            await self._publish(session, segment, text, heard, heard_at, confidence=heard.confidence)

    async def _publish_final(
        self, session: _Session, segment: Segment, heard: Hypothesis | None, heard_at: float | None = None
    ) -> None:
        utterance = segment.utterance
        text = utterance.text()
        failure = None if text else utterance.failure
        at = segment.heard_at if heard_at is None else heard_at
        await self._publish(
            session, segment, text, heard, at, confidence=utterance.confidence, final=True, failure=failure
        )

    async def _publish(
        self, session: _Session, segment: Segment, text: str, heard: Hypothesis | None, heard_at: float, *,
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

    # -- the rest ---------------------------------------------------------------------------------

    def _count(self) -> None:
        """Carry the scheduler's statistics over to the metrics."""
        before, self._counted = self._counted, self._scheduler.statistics
        DELTAS_DROPPED.inc(self._counted.deltas_dropped - before.deltas_dropped)
        FINALS_LATE.inc(self._counted.late_finals - before.late_finals)

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _audio_for(job: Job, window: UtteranceWindow) -> npt.NDArray[np.int16] | None:
    return window.final() if job.kind is JobKind.FINAL else window.interim(INTERIM_AT_LEAST_S)


async def _leave(subscriptions: list[Subscription]) -> None:
    for subscription in subscriptions:
        await subscription.leave()


def _measure(kind: JobKind, heard: Hypothesis | None, wanted: bool) -> None:
    outcome = "failed" if heard is None else "used" if wanted else "unwanted"
    DECODES.labels(kind.value, outcome).inc()
    if heard is not None:
        DECODE_SECONDS.labels(kind.value).observe(heard.decode_ms / 1000)
        if kind is JobKind.FINAL and heard.audio_ms:
            REAL_TIME_FACTOR.observe(heard.rtf)
