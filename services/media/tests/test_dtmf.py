"""telephone-event: one digit per key press, whatever is lost, repeated or late (RFC 4733 §2.5)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.rtp.dtmf import DIGITS, DtmfReceiver, digit_packets


def heard(packets: list[tuple[int, bytes]], receiver: DtmfReceiver | None = None, ssrc: int = 1) -> str:
    receiver = receiver or DtmfReceiver()
    return "".join(receiver.receive(ssrc, timestamp, payload) or "" for timestamp, payload in packets)


def pressed(digits: str, start: int = 0, step: int = 2000) -> list[tuple[int, bytes]]:
    return [
        (packet.timestamp, packet.payload)
        for index, digit in enumerate(digits)
        for packet in digit_packets(digit, (start + index * step) & 0xFFFFFFFF)
    ]


def test_every_digit_is_heard_once_across_the_timestamp_wrap() -> None:
    assert heard(pressed(DIGITS, start=0xFFFFFFFF - 5000)) == DIGITS


def test_first_packet_tells_the_digit() -> None:
    assert heard(pressed("5")[:1]) == "5"


def test_same_key_again_is_a_second_digit() -> None:
    assert heard(pressed("11")) == "11"


@given(st.text(DIGITS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_packet_of_a_press_suffices(digits: str, draw: random.Random) -> None:
    presses = [pressed(digit, start=index * 2000) for index, digit in enumerate(digits)]
    survivors = [packet for press in presses for packet in sorted(draw.sample(press, draw.randint(1, len(press))))]
    assert heard(survivors) == digits


def test_straggler_of_an_earlier_press_is_not_heard_again() -> None:
    packets = pressed("12")
    assert heard([*packets, packets[0], packets[3]]) == "12"


def test_key_held_beyond_one_segment_is_one_press() -> None:
    segments = [(1000, b"\x05\x0a\xff\xff"), (1000 + 0xFFFF, b"\x05\x0a\x10\x00"), (1000 + 0xFFFF, b"\x05\x8a\x10\x00")]
    assert heard(segments) == "5"


def test_same_key_pressed_a_segment_later_is_two_presses() -> None:
    assert heard([(1000, b"\x05\x8a\xff\xff"), (1000 + 0xFFFF, b"\x05\x0a\x10\x00")]) == "55"


def test_new_ssrc_starts_anew() -> None:
    receiver = DtmfReceiver()
    assert heard(pressed("7"), receiver, ssrc=1) + heard(pressed("7"), receiver, ssrc=2) == "77"


@pytest.mark.parametrize("payload", [b"", b"\x01\x0a\x00", b"\x10\x0a\x01\x00", b"\xff\xff\xff\xff"])
def test_malformed_and_other_events_are_no_digits(payload: bytes) -> None:
    assert DtmfReceiver().receive(1, 0, payload) is None


def test_press_is_sent_as_rfc_4733_says() -> None:
    packets = digit_packets("#", 4000, duration_ms=60)
    assert [packet.payload.hex() for packet in packets] == ["0b0a00a0", "0b0a0140", *["0b8a01e0"] * 3]
    assert [packet.marker for packet in packets] == [True, False, False, False, False]
    assert {packet.timestamp for packet in packets} == {4000}


@pytest.mark.parametrize(("digit", "duration"), [("E", 100), ("", 100), ("12", 100), ("1", 0), ("1", 9000)])
def test_what_cannot_be_sent_is_refused(digit: str, duration: int) -> None:
    with pytest.raises(ValueError, match="not a"):
        digit_packets(digit, 0, duration_ms=duration)
