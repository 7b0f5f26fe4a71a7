from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.scheduler import Job, JobKind, Pacing, Scheduler, Statistics

DELTA, FINAL = JobKind.DELTA, JobKind.FINAL


def scheduler(slots: int = 1, sessions: str = "abc", capacity: int = 10) -> Scheduler:
    subject = Scheduler(slots, capacity)
    for session in sessions:
        assert subject.open(session)
    return subject


def job(job_id: int, session: str = "a", kind: JobKind = DELTA, utterance: int = 0, deadline: float = 1.0) -> Job:
    return Job(job_id, session, utterance, kind, deadline)


def ids(jobs: tuple[Job, ...]) -> list[int]:
    return [each.job_id for each in jobs]


def run_all(subject: Scheduler, now: float = 0.0) -> list[int]:
    """The order in which the waiting jobs run when one runs at a time."""
    order = []
    while (started := subject.next(now)) is not None:
        order.append(started.job_id)
        subject.done(started.job_id, now)
    return order


def test_finals_run_before_deltas_and_earlier_deadlines_before_later_ones() -> None:
    subject = scheduler(sessions="abcd")
    subject.submit(job(1, "a", deadline=0.1), 0.0)
    subject.submit(job(2, "b", FINAL, deadline=0.9), 0.0)
    subject.submit(job(3, "c", FINAL, deadline=0.5), 0.0)
    subject.submit(job(4, "d", deadline=0.05), 0.0)

    assert run_all(subject) == [3, 2, 4, 1]


def test_no_more_jobs_run_than_there_are_slots() -> None:
    subject = scheduler(slots=2)
    for number, session in enumerate("abc"):
        subject.submit(job(number, session), 0.0)

    assert subject.next(0.0) is not None
    assert subject.next(0.0) is not None
    assert subject.next(0.0) is None
    subject.done(0, 0.1)
    assert subject.next(0.1) == job(2, "c")


def test_a_newer_delta_replaces_the_waiting_one_and_takes_its_turn() -> None:
    subject = scheduler()
    subject.submit(job(1, "a", deadline=1.0), 0.0)
    subject.submit(job(2, "b", deadline=1.2), 0.2)

    assert ids(subject.submit(job(3, "a", deadline=1.5), 0.5)) == [1]

    assert run_all(subject) == [3, 2]
    assert subject.statistics.deltas_dropped == 1


def test_a_final_drops_the_waiting_delta_of_its_utterance_but_not_of_the_next() -> None:
    subject = scheduler()
    subject.submit(job(1, utterance=0), 0.0)
    assert ids(subject.submit(job(2, kind=FINAL, utterance=0), 0.1)) == [1]
    subject.submit(job(3, utterance=1), 0.2)
    assert subject.submit(job(4, "b", FINAL, utterance=0), 0.2) == ()

    assert run_all(subject) == [2, 4, 3]


def test_a_delta_after_the_final_of_its_utterance_is_dropped_at_once() -> None:
    subject = scheduler()
    subject.submit(job(1, kind=FINAL, utterance=3), 0.0)
    assert run_all(subject) == [1]

    assert ids(subject.submit(job(2, utterance=3), 0.5)) == [2]
    assert ids(subject.submit(job(3, utterance=2), 0.5)) == [3]
    assert subject.submit(job(4, utterance=4), 0.5) == ()


def test_a_final_overtakes_the_running_delta_whose_result_is_then_unwanted() -> None:
    subject = scheduler(slots=2)
    subject.submit(job(1), 0.0)
    assert subject.next(0.0) == job(1)
    subject.submit(job(2, kind=FINAL), 0.05)

    assert subject.next(0.05) == job(2, kind=FINAL)
    assert subject.done(2, 0.15) is True
    assert subject.done(1, 0.2) is False


def test_results_of_one_session_stay_in_order() -> None:
    subject = scheduler(slots=3)
    subject.submit(job(1, kind=FINAL, utterance=0), 0.0)
    subject.submit(job(2, kind=FINAL, utterance=1), 0.0)
    subject.submit(job(3, utterance=2), 0.0)

    assert subject.next(0.0) == job(1, kind=FINAL, utterance=0)
    assert subject.next(0.0) is None
    subject.done(1, 0.1)
    assert subject.next(0.1) == job(2, kind=FINAL, utterance=1)
    assert subject.next(0.1) is None
    subject.done(2, 0.2)
    assert subject.next(0.2) == job(3, utterance=2)


def test_every_session_gets_its_turn_when_all_speak_without_pause() -> None:
    subject, turns, now = scheduler(sessions="abcdefgh"), dict.fromkeys("abcdefgh", 0), 0.0
    for number in range(0, 800, 8):
        for offset, session in enumerate("abcdefgh"):
            subject.submit(job(number + offset, session, deadline=now + 0.5), now)
        started = subject.next(now)  # the slot does an eighth of what is asked for
        assert started is not None
        turns[started.session_id] += 1
        now += 0.1
        subject.done(started.job_id, now)

    assert max(turns.values()) - min(turns.values()) <= 1


def test_sessions_are_admitted_up_to_the_capacity() -> None:
    subject = scheduler(sessions="ab", capacity=2)

    assert not subject.has_room
    assert not subject.open("c")
    assert subject.open("a")
    subject.close("b")
    assert subject.has_room
    assert subject.open("c")
    assert subject.statistics.refused_sessions == 1


def test_closing_a_session_takes_its_jobs_and_makes_running_ones_unwanted() -> None:
    subject = scheduler(slots=2)
    subject.submit(job(1, "a"), 0.0)
    subject.next(0.0)
    subject.submit(job(2, "a", FINAL), 0.0)
    subject.submit(job(3, "b", FINAL), 0.0)

    assert ids(subject.close("a")) == [2]
    assert subject.done(1, 0.1) is False
    assert run_all(subject) == [3]
    assert subject.close("a") == ()
    with pytest.raises(KeyError):
        subject.submit(job(4, "a"), 0.2)


def test_a_session_opened_again_does_not_inherit_jobs_of_its_past() -> None:
    subject = scheduler()
    subject.submit(job(1, "a"), 0.0)
    subject.next(0.0)
    subject.close("a")
    subject.open("a")

    assert subject.done(1, 0.1) is False
    assert subject.submit(job(2, "a"), 0.1) == ()
    assert run_all(subject) == [2]


def test_the_interim_interval_stretches_with_the_queue_and_comes_back() -> None:
    subject = scheduler(slots=2, sessions="abcdefghijklmnopqrstuvwxyz", capacity=26)
    assert subject.interim_interval_s == 0.5
    subject.submit(job(0, "a"), 0.0)
    subject.next(0.0)
    assert subject.interim_interval_s == 0.5  # one slot is still free

    intervals = []
    for number, session in enumerate("bcdefghijklmnopqrstuvwxyz", start=1):
        subject.submit(job(number, session), 0.0)
        intervals.append(subject.interim_interval_s)

    assert intervals == sorted(intervals)
    assert intervals[4] == pytest.approx(0.5 + 2 * 5 * 0.1 / 2)
    assert intervals[-1] == 1.5
    subject.done(0, 0.1)
    run_all(subject, 0.1)
    assert subject.interim_interval_s == 0.5


def test_slower_decodes_stretch_the_interval_more() -> None:
    intervals = []
    for took in (0.05, 0.4):
        subject, now = scheduler(), 0.0
        for number in range(50):
            subject.submit(job(number, "a"), now)
            subject.next(now)
            now += took
            subject.done(number, now)
        subject.submit(job(100, "a"), now)
        intervals.append(subject.interim_interval_s)

    assert intervals[0] == pytest.approx(0.5 + 2 * 0.05, abs=0.01)
    assert intervals[1] == pytest.approx(0.5 + 2 * 0.4, abs=0.01)


def test_statistics_count_what_happened() -> None:
    subject = scheduler()
    subject.submit(job(1, "a", FINAL, deadline=1.0), 0.0)
    subject.submit(job(2, "b", deadline=1.0), 0.0)
    subject.next(0.5)
    subject.done(1, 1.25)
    subject.next(1.5)
    subject.done(2, 1.75)

    assert subject.statistics == Statistics(
        finals=1, deltas=1, late_finals=1, busy_s=1.0, waited_s=2.0, longest_wait_s=1.5
    )
    assert (subject.queued, subject.running) == (0, 0)


@pytest.mark.parametrize(("slots", "capacity"), [(0, 1), (1, 0)])
def test_a_scheduler_without_slots_or_room_is_refused(slots: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Scheduler(slots, capacity, Pacing())


steps = st.lists(
    st.tuples(st.sampled_from(["delta", "final", "next", "done", "close"]), st.sampled_from("abc")), max_size=60
)


@given(steps, st.integers(1, 3))
def test_every_job_is_dropped_or_done_exactly_once_and_no_slot_is_overbooked(
    script: list[tuple[str, str]], slots: int
) -> None:
    subject = scheduler(slots)
    utterances = dict.fromkeys("abc", 0)
    ended: list[int] = []
    running: list[Job] = []
    submitted = 0
    for now, (action, session) in enumerate(script):
        if action in ("delta", "final"):
            kind = JobKind(action)
            new = job(submitted, session, kind, utterances[session], deadline=now + 1.0)
            submitted += 1
            ended += ids(subject.submit(new, now))
            utterances[session] += kind is FINAL
        elif action == "next" and (started := subject.next(now)) is not None:
            running.append(started)
        elif action == "done" and running:
            ended.append(running[0].job_id)
            subject.done(running.pop(0).job_id, now)
        elif action == "close":
            ended += ids(subject.close(session))
            subject.open(session)
        assert subject.running == len(running) <= slots
        waiting = submitted - len(ended) - len(running)
        assert subject.queued == waiting

    for each in running:
        ended.append(each.job_id)
        subject.done(each.job_id, 100.0)
    assert sorted(ended + run_all(subject, 100.0)) == list(range(submitted))
