"""Turns and pacing, by the clock that the test holds."""

import pytest

from tts.schedule import MAX_AHEAD_S, Schedule


@pytest.fixture
def schedule() -> Schedule[str]:
    return Schedule(at_once=1)


def test_first_come_first_served(schedule: Schedule[str]) -> None:
    for key in "abc":
        schedule.add(key, f"call {key}")

    taken = []
    while (key_or_none := schedule.take(0.0)) is not None:
        taken.append(key_or_none)
        schedule.remove(key_or_none)

    assert taken == ["a", "b", "c"]


def test_no_more_in_hand_than_allowed() -> None:
    schedule: Schedule[str] = Schedule(at_once=2)
    for key in "abc":
        schedule.add(key, f"call {key}")

    assert [schedule.take(0.0) for _ in range(3)] == ["a", "b", None]
    assert schedule.waiting == 1


def test_there_is_room_for_other_work_while_fewer_are_in_hand_than_allowed() -> None:
    schedule: Schedule[str] = Schedule(at_once=2)
    room = [schedule.has_room]
    for key in "ab":
        schedule.add(key, f"call {key}")
        assert schedule.take(0.0) == key
        room.append(schedule.has_room)
    schedule.put_back("a", 11.0, 0.0)
    room.append(schedule.has_room)
    schedule.remove("b")

    assert [*room, schedule.has_room] == [True, True, False, True, True]


def test_later_text_of_a_call_waits_for_the_earlier_even_with_a_free_thread() -> None:
    schedule: Schedule[str] = Schedule(at_once=3)
    schedule.add("first", "call")
    schedule.add("second", "call")

    assert [schedule.take(0.0), schedule.take(0.0)] == ["first", None]
    schedule.put_back("first", 11.0, 0.0)
    assert schedule.take(0.5) is None, "the first rests, and the second still waits for it"
    schedule.remove("first")
    assert schedule.take(0.5) == "second"


def test_new_text_goes_before_speech_that_is_safely_ahead(schedule: Schedule[str]) -> None:
    schedule.add("long", "a")
    assert schedule.take(0.0) == "long"
    schedule.put_back("long", 2.0, 0.0)
    schedule.add("new", "b")

    assert schedule.take(0.1) == "new"


def test_speech_about_to_fall_silent_goes_before_new_text(schedule: Schedule[str]) -> None:
    schedule.add("long", "a")
    assert schedule.take(0.0) == "long"
    schedule.put_back("long", 2.0, 0.0)
    schedule.add("new", "b")

    assert schedule.take(1.5) == "long"


def test_speech_far_ahead_rests_until_it_is_due(schedule: Schedule[str]) -> None:
    schedule.add("long", "a")
    now = 100.0
    pieces = 0
    while schedule.take(now) is not None:
        schedule.put_back("long", 0.5, now)
        pieces += 1

    assert pieces * 0.5 == pytest.approx(MAX_AHEAD_S, abs=0.6)
    deadline = schedule.deadline
    assert deadline is not None
    assert deadline > now
    assert schedule.take(deadline) == "long"


def test_listener_who_ran_dry_is_counted_from_the_next_piece(schedule: Schedule[str]) -> None:
    schedule.add("late", "a")
    schedule.take(0.0)
    schedule.put_back("late", 1.0, 0.0)
    schedule.take(50.0)
    schedule.put_back("late", 11.0, 50.0)

    assert schedule.deadline == pytest.approx(51.0)


def test_removed_text_frees_its_thread_and_its_call(schedule: Schedule[str]) -> None:
    schedule.add("a", "call")
    schedule.add("b", "call")
    schedule.take(0.0)
    schedule.remove("a")
    schedule.remove("a")

    assert schedule.take(0.0) == "b"
    schedule.remove("b")
    assert (len(schedule), schedule.deadline) == (0, None)
