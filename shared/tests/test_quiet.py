"""Lines that a stranger can cause stay few, and say how many they stand for."""

from typing import Any

from dialbus.quiet import Quiet


class Clock:
    """A clock that stands until told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_of_one_name_writes_a_burst_then_some_a_second_with_the_count_of_the_rest() -> None:
    clock, lines = Clock(), []
    quiet = Quiet(clock, burst=3, per_s=0.5)

    def write(event: str, **facts: Any) -> None:
        lines.append((clock.now, event, facts))

    for quarter in range(20):
        clock.now = quarter / 4
        quiet.log(write, "sip.bad_message", status=400)

    assert [at for at, _, _ in lines[:3]] == [0, 0.25, 0.5]
    assert [(at, facts) for at, _, facts in lines[3:]] == [
        (2.0, {"status": 400, "suppressed": 5}),
        (4.0, {"status": 400, "suppressed": 7}),
    ]


def test_names_do_not_silence_each_other_and_calm_refills_a_bucket() -> None:
    clock = Clock()
    quiet = Quiet(clock, burst=2, per_s=1)

    assert [quiet.take("a") for _ in range(4)] == [0, 0, None, None]
    assert quiet.take("b") == 0
    clock.now = 1000
    assert [quiet.take("a") for _ in range(3)] == [2, 0, None]
