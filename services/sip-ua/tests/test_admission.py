"""Which INVITEs of strangers are taken: tables and short stories, at moments that are made up."""

from typing import Any

import pytest

from dialbus.config import UaConfig
from sip_ua.admission import MAX_IDLE, RETRY_S, Admission, Refusal, Seat, Stage

A, B = "192.0.2.1", "192.0.2.2"
REGISTRAR, TRUNK = "198.51.100.1", "203.0.113.7"


def admission(**settings: Any) -> Admission:
    """Of 40 calls: a source has 10 pending, 20 in all and 3 unacknowledged; 4 are reserved."""
    defaults = {"max_calls": 40, "source_unacknowledged": 3, "trusted_sources": ["203.0.113.0/24", "127.0.0.0/8"]}
    return Admission(UaConfig.model_validate(defaults | settings), {REGISTRAR})


def seats(one: Admission, host: str, count: int, stage: Stage = Stage.PENDING, *, live: int = 0) -> list[Seat]:
    """So many calls of a host, all admitted."""
    taken = []
    for _ in range(count):
        seat = one.admit(host, live, 0)
        assert isinstance(seat, Seat)
        seat.move(stage)
        taken.append(seat)
    return taken


@pytest.mark.parametrize(
    ("stage", "count", "reason"),
    [
        (Stage.PENDING, 10, "too many pending calls"),
        (Stage.UNACKNOWLEDGED, 3, "answers are not acknowledged"),
        (Stage.ESTABLISHED, 20, "too many calls"),
    ],
)
def test_a_source_has_its_share_and_no_more_until_a_call_ends(stage: Stage, count: int, reason: str) -> None:
    one = admission()
    taken = seats(one, A, count, stage)

    assert one.admit(A, count, 0) == Refusal(reason, RETRY_S)
    assert isinstance(one.admit(B, count, 0), Seat)
    taken[0].leave()
    assert isinstance(one.admit(A, count, 0), Seat)


@pytest.mark.parametrize("stage", [Stage.UNACKNOWLEDGED, Stage.ESTABLISHED])
def test_pending_calls_that_go_on_make_room_for_others(stage: Stage) -> None:
    one = admission()
    for seat in seats(one, A, 10)[:2]:
        seat.move(stage)

    seats(one, A, 2)
    assert one.admit(A, 12, 0) == Refusal("too many pending calls", RETRY_S)


def test_an_acknowledged_call_is_of_the_small_share_no_more() -> None:
    one = admission()
    seats(one, A, 3, Stage.UNACKNOWLEDGED)[0].move(Stage.ESTABLISHED)

    seats(one, A, 1, Stage.UNACKNOWLEDGED)
    assert isinstance(one.admit(A, 4, 0), Refusal)


@pytest.mark.parametrize(
    ("host", "live", "taken"),
    [(A, 35, True), (A, 36, False), (REGISTRAR, 36, True), (REGISTRAR, 39, True), (TRUNK, 39, True)],
)
def test_the_last_calls_are_for_those_whom_we_know(host: str, live: int, taken: bool) -> None:
    assert isinstance(admission().admit(host, live, 0), Refusal) is not taken


def test_the_server_of_an_account_may_hold_more_established_calls_but_not_more_pending_ones() -> None:
    one = admission()
    seats(one, REGISTRAR, 30, Stage.ESTABLISHED)
    seats(one, REGISTRAR, 10)
    assert one.admit(REGISTRAR, 39, 0) == Refusal("too many pending calls", RETRY_S)


def test_a_source_has_a_burst_and_then_a_rate() -> None:
    one = admission(source_invites_per_s=2, source_invite_burst=3)
    for seat in seats(one, A, 3):
        seat.leave()

    assert one.admit(A, 0, 0) == Refusal("too many INVITEs", 1)
    assert isinstance(one.admit(A, 0, 0.5), Seat)
    assert isinstance(one.admit(A, 0, 0.9), Refusal)
    assert isinstance(one.admit(B, 0, 0.9), Seat)
    assert admission(source_invites_per_s=0.1, source_invite_burst=1).admit(A, 0, 0) is not None


def test_retry_after_says_when_the_next_one_would_be_taken() -> None:
    one = admission(source_invites_per_s=0.1, source_invite_burst=1)
    seats(one, A, 1)

    assert one.admit(A, 1, 0) == Refusal("too many INVITEs", 10)
    assert one.admit(A, 1, 4) == Refusal("too many INVITEs", 6)
    assert isinstance(one.admit(A, 1, 10), Seat)


@pytest.mark.parametrize("host", [TRUNK, "127.0.0.9", "::ffff:203.0.113.9"])
def test_trusted_sources_are_not_counted(host: str) -> None:
    one = admission(source_invite_burst=1)

    assert [one.admit(host, 0, 0) for _ in range(1000)] == [None] * 1000
    assert len(one) == 0


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        (A, f"::ffff:{A}", True),
        (A, B, False),
    ],
)
def test_what_one_source_is(first: str, second: str, same: bool) -> None:
    one = admission(max_calls=4)
    seats(one, first, 1)

    assert isinstance(one.admit(second, 1, 0), Refusal) is same


def test_loopback_alone_is_trusted_unless_said() -> None:
    one = Admission(UaConfig())

    assert one.admit("127.0.0.66", 0, 0) is None
    assert one.admit("::1", 0, 0) is None
    assert isinstance(one.admit("10.0.0.1", 0, 0), Seat)


def test_many_sources_are_no_memory_and_those_with_calls_are_never_forgotten() -> None:
    one = admission()
    seats(one, A, 10)
    for number in range(2 * MAX_IDLE):
        seat = one.admit(f"10.0.{number >> 8}.{number & 255}", 0, 0)
        assert isinstance(seat, Seat)
        seat.leave()
    for number in range(2 * MAX_IDLE):  # refused at once
        one.admit(f"10.1.{number >> 8}.{number & 255}", 40, 0)

    assert len(one) == MAX_IDLE + 1
    assert isinstance(one.admit(A, 10, 0), Refusal)


def test_a_source_that_forgets_its_calls_finds_its_bucket_as_it_was() -> None:
    one = admission(source_invite_burst=1)
    seats(one, A, 1)[0].leave()

    assert one.admit(A, 0, 0) == Refusal("too many INVITEs", 1)
