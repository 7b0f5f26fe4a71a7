"""RTP packets: RFC 3550 §5, and what arrives on an open port instead of them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.rtp.packet import (
    RtpPacket,
    RtpStream,
    is_rtcp,
    pack,
    parse,
    sequence_delta,
    timestamp_delta,
)

PLAIN = bytes.fromhex("8080123401020304deadbeef") + b"audio"

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    marker=st.booleans(),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=400),
    csrc=st.lists(st.integers(0, 0xFFFFFFFF), max_size=15).map(tuple),
    extension=st.none()
    | st.tuples(st.integers(0, 0xFFFF), st.integers(0, 5).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))),
)


def test_header_fields_are_where_rfc_3550_puts_them() -> None:
    assert parse(PLAIN) == RtpPacket(0, True, 0x1234, 0x01020304, 0xDEADBEEF, b"audio")


@given(packets)
def test_packing_is_undone_by_parsing(packet: RtpPacket) -> None:
    assert parse(pack(packet)) == packet


@given(packets, st.integers(1, 255))
def test_padding_is_taken_off(packet: RtpPacket, count: int) -> None:
    data = bytearray(pack(packet) + bytes(count - 1) + bytes([count]))
    data[0] |= 0x20
    assert parse(bytes(data)) == packet


@given(st.binary(max_size=80))
def test_garbage_is_none_or_a_packet_but_never_raises(data: bytes) -> None:
    packet = parse(data)
    assert packet is None or (data[0] >> 6 == 2 and len(packet.payload) <= len(data) - 12)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:11],
        b"\x40" + PLAIN[1:],  # version 1
        b"\x8f" + PLAIN[1:],  # 15 CSRCs announced, none there
        b"\x90" + PLAIN[1:12],  # extension announced, none there
        b"\x90" + PLAIN[1:12] + struct.pack("!HH", 1, 9) + bytes(8),  # shorter than it tells
        b"\xa0" + PLAIN[1:] + b"\x00",  # padding of 0 octets
        b"\xa0" + PLAIN[1:] + b"\x07",  # more padding than payload
        b"\xa0" + PLAIN[1:12],  # padding announced, nothing there
    ],
)
def test_malformed_packets_are_none(data: bytes) -> None:
    assert parse(data) is None


def test_packing_refuses_what_no_header_can_hold() -> None:
    packet = RtpPacket(0, False, 1, 2, 3, b"")
    with pytest.raises(ValueError, match="15 CSRCs"):
        pack(packet._replace(csrc=tuple(range(16))))
    with pytest.raises(ValueError, match="32-bit words"):
        pack(packet._replace(extension=(1, b"abc")))


@pytest.mark.parametrize(("second", "rtcp"), [(200, True), (192, True), (223, True), (0x80, False), (224, False)])
def test_rtcp_is_told_from_rtp_by_rfc_5761(second: int, rtcp: bool) -> None:
    assert is_rtcp(bytes([0x80, second]) + bytes(10)) is rtcp


def test_stun_on_the_media_port_is_not_rtcp() -> None:
    assert not is_rtcp(b"\x00\xc8" + bytes(18))


@given(st.integers(0, 0xFFFF), st.integers(-0x8000, 0x7FFF))
def test_sequence_delta_survives_the_wrap(older: int, delta: int) -> None:
    assert sequence_delta((older + delta) & 0xFFFF, older) == delta


@given(st.integers(0, 0xFFFFFFFF), st.integers(-(2**31), 2**31 - 1))
def test_timestamp_delta_survives_the_wrap(older: int, delta: int) -> None:
    assert timestamp_delta((older + delta) & 0xFFFFFFFF, older) == delta


def test_stream_numbers_packets_across_the_wrap_and_marks_talk_spurts() -> None:
    stream = RtpStream(ssrc=7, sequence=0xFFFF, timestamp=0xFFFFFFFF - 159, payload_type=8)
    sent = [stream.send(b"a" * 160, 160), stream.send(b"b" * 160, 160)]
    stream.skip(320)
    sent.append(stream.send(b"c" * 160, 160))
    parsed = [parse(data) for data in sent]
    assert [(p.sequence, p.timestamp, p.marker) for p in parsed if p] == [
        (0xFFFF, 0xFFFFFF60, True),
        (0, 0, False),
        (1, 480, True),
    ]
    assert (stream.packet_count, stream.octet_count) == (3, 480)


def test_events_share_the_sequence_but_not_the_clock() -> None:
    stream = RtpStream(ssrc=7, sequence=5, timestamp=1000, payload_type=0)
    event = parse(stream.send_event(101, True, 1000, b"\1\2\3\4"))
    assert event == RtpPacket(101, True, 5, 1000, 7, b"\1\2\3\4")
    assert (stream.sequence, stream.timestamp) == (6, 1000)
