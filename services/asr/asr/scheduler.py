"""Which decode runs next, when many calls share a few decoding slots.

Finals before deltas: someone waits for a final. Among finals and among deltas the earliest deadline first;
since a call has at most one delta waiting, that is also a fair turn for every call. A delta that a newer
one or a final makes pointless is dropped. Sans-IO: `now` is monotonic seconds, and `next` is to be asked
again after every `submit`, `done` and `close`; no time-out is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum


class JobKind(Enum):
    DELTA = "delta"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Job:
    """One decode; a session's utterances are numbered upwards, `deadline` is when it should be done.

    Audio is not part of a job: taking it from the window when the job starts shows the most.
    """

    job_id: int
    session_id: str
    utterance: int
    kind: JobKind
    deadline: float


@dataclass(frozen=True, slots=True)
class Pacing:
    """Seconds between interim decodes of an utterance, without and with queue pressure.

    Half a second costs 114 ms of CPU per second of speech with tiny.en, one second 57 ms.
    """

    idle_s: float = 0.5
    slowest_s: float = 1.5
    stretch: float = 2.0
    """Seconds added to the interval per second of expected waiting."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since the start; `busy_s` sums the running times of all slots, `waited_s` the times in the queue."""

    finals: int = 0
    deltas: int = 0
    deltas_dropped: int = 0
    late_finals: int = 0
    refused_sessions: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiting:
    job: Job
    since: float


@dataclass(slots=True, eq=False)
class _Running:
    job: Job
    since: float
    wanted: bool = True


@dataclass(slots=True, eq=False)
class _Session:
    newest_final: int | None = None
    running: list[_Running] = field(default_factory=list)


_FIRST_COST_S = 0.1  # tiny.en on one thread; replaced by what is measured
_COST_WEIGHT = 0.1


class Scheduler:
    """The queue in front of `slots` parallel decodes, for at most `capacity` sessions."""

    def __init__(self, slots: int, capacity: int, pacing: Pacing | None = None) -> None:
        if slots < 1 or capacity < 1:
            raise ValueError(f"slots and capacity are at least 1, not {slots} and {capacity}")
        self.slots = slots
        self.capacity = capacity
        self.statistics = Statistics()
        self._pacing = pacing or Pacing()
        self._sessions: dict[str, _Session] = {}
        self._queue: list[_Waiting] = []
        self._running: dict[int, _Running] = {}
        self._cost_s = dict.fromkeys(JobKind, _FIRST_COST_S)

    # Sessions

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def has_room(self) -> bool:
        """Whether `open` would admit another session; a worker without room leaves its queue group."""
        return self.sessions < self.capacity

    def open(self, session_id: str) -> bool:
        """Admit a session; False when there is no room. Opening an open session again changes nothing."""
        if session_id in self._sessions:
            return True
        if not self.has_room:
            self._count(refused_sessions=1)
            return False
        self._sessions[session_id] = _Session()
        return True

    def close(self, session_id: str) -> tuple[Job, ...]:
        """Forget a session; gives its waiting jobs, which will not run. Results of others are unwanted."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return ()
        for running in session.running:
            running.wanted = False
        return self._drop(lambda job: job.session_id == session_id)

    # Jobs

    def submit(self, job: Job, now: float) -> tuple[Job, ...]:
        """Queue a job; gives the jobs that are dropped for it.

        A delta replaces a waiting delta of its session and takes its place in the queue. A delta of an
        utterance that has its final, waiting or done, is itself what is dropped. A final drops all deltas
        of its utterance and of earlier ones. Raises KeyError for a session that is not open.
        """
        session = self._sessions[job.session_id]
        if job.kind is JobKind.FINAL:
            if session.newest_final is None or job.utterance > session.newest_final:
                session.newest_final = job.utterance
            for running in session.running:
                running.wanted = running.wanted and not _overtaken(running.job, job)
            dropped = self._drop(lambda other: other.session_id == job.session_id and _overtaken(other, job))
            self._queue.append(_Waiting(job, now))
            return dropped
        if session.newest_final is not None and job.utterance <= session.newest_final:
            self._count(deltas_dropped=1)
            return (job,)
        for waiting in self._queue:
            if waiting.job.session_id == job.session_id and waiting.job.kind is JobKind.DELTA:
                replaced, waiting.job = (
                    waiting.job,
                    replace(job, deadline=min(job.deadline, waiting.job.deadline)),
                )
                self._count(deltas_dropped=1)
                return (replaced,)
        self._queue.append(_Waiting(job, now))
        return ()

    def next(self, now: float) -> Job | None:
        """The job to start now, which then counts as running; None when no slot is free or nothing may start.

        Results of one session stay in order: a final waits for the session's running final, a delta for any
        running job of its session.
        """
        if len(self._running) >= self.slots:
            return None
        ready = [waiting for waiting in self._queue if self._may_start(waiting.job)]
        if not ready:
            return None
        chosen = min(ready, key=lambda waiting: (_rank(waiting.job), waiting.job.deadline, waiting.since))
        self._queue.remove(chosen)
        running = _Running(chosen.job, now)
        self._running[chosen.job.job_id] = running
        self._sessions[chosen.job.session_id].running.append(running)
        waited = max(0.0, now - chosen.since)
        self._count(waited_s=waited)
        self.statistics = replace(self.statistics, longest_wait_s=max(waited, self.statistics.longest_wait_s))
        return chosen.job

    def done(self, job_id: int, now: float) -> bool:
        """A running job has ended, well or not; True when its result is still wanted.

        It is not when a final overtook a delta, or the session is closed. Raises KeyError for a job not
        running.
        """
        running = self._running.pop(job_id)
        job, took = running.job, max(0.0, now - running.since)
        session = self._sessions.get(job.session_id)
        if session is not None and running in session.running:
            session.running.remove(running)
        self._cost_s[job.kind] += _COST_WEIGHT * (took - self._cost_s[job.kind])
        if job.kind is JobKind.FINAL:
            self._count(finals=1, late_finals=int(now > job.deadline), busy_s=took)
        else:
            self._count(deltas=1, busy_s=took)
        return running.wanted

    # Load

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def expected_wait_s(self) -> float:
        """How long a new delta would wait for a slot, by measured decode times; 0 when one is free."""
        work = sum(self._cost_s[waiting.job.kind] for waiting in self._queue)
        if len(self._running) >= self.slots:
            work += sum(self._cost_s[running.job.kind] for running in self._running.values()) / 2
        return work / self.slots

    @property
    def interim_interval_s(self) -> float:
        """Seconds between two deltas of an utterance: 0.5 when idle, up to 1.5 under queue pressure."""
        return min(self._pacing.slowest_s, self._pacing.idle_s + self._pacing.stretch * self.expected_wait_s)

    def _may_start(self, job: Job) -> bool:
        others = self._sessions[job.session_id].running
        if job.kind is JobKind.FINAL:
            return all(other.job.kind is JobKind.DELTA for other in others)
        return not others

    def _drop(self, unwanted: Callable[[Job], bool]) -> tuple[Job, ...]:
        dropped = tuple(waiting.job for waiting in self._queue if unwanted(waiting.job))
        self._queue = [waiting for waiting in self._queue if not unwanted(waiting.job)]
        self._count(deltas_dropped=sum(job.kind is JobKind.DELTA for job in dropped))
        return dropped

    def _count(self, **more: float) -> None:
        was = self.statistics
        self.statistics = replace(was, **{name: getattr(was, name) + value for name, value in more.items()})


def _overtaken(delta: Job, final: Job) -> bool:
    return delta.kind is JobKind.DELTA and delta.utterance <= final.utterance


def _rank(job: Job) -> int:
    return 0 if job.kind is JobKind.FINAL else 1
