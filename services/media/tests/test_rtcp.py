"""RTCP reports to bytes and back (RFC 3550 §6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.rtp import rtcp
from media.rtp.packet import is_rtcp
from media.rtp.rtcp import Goodbye, ReceiverReport, Report, ReportBlock, SenderReport, SourceDescription

u32 = st.integers(0, 0xFFFFFFFF)
blocks = st.lists(
    st.builds(ReportBlock, u32, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32), max_size=4
).map(tuple)
firsts = st.builds(SenderReport, u32, st.integers(0, 2**64 - 1), u32, u32, u32, blocks) | st.builds(
    ReceiverReport, u32, blocks
)
rests = st.builds(SourceDescription, u32, st.text("abc@.:0", max_size=40)) | st.builds(
    Goodbye, st.lists(u32, max_size=3).map(tuple), st.text("abc ", max_size=20)
)


@given(firsts, st.lists(rests, max_size=3))
def test_building_is_undone_by_parsing(first: Report, rest: list[Report]) -> None:
    data = rtcp.build([first, *rest])
    assert len(data) % 4 == 0
    assert is_rtcp(data)
    assert rtcp.parse(data) == [first, *rest]


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda tail: b"\x81\xc8\x00\x0c" + tail))
def test_garbage_never_raises(data: bytes) -> None:
    reports = rtcp.parse(data)
    assert reports is None or len(reports) > 0


@given(firsts, st.integers(1, 27))
def test_truncated_packets_are_refused(first: Report, cut: int) -> None:
    data = rtcp.build([first])
    assert rtcp.parse(data[: max(len(data) - cut, 1)]) is None


def test_receiver_report_is_laid_out_as_the_rfc_draws_it() -> None:
    block = ReportBlock(0x11223344, 64, -1, 0x00010002, 7, 0xAABBCCDD, 65536)
    assert rtcp.build([ReceiverReport(0x01020304, (block,))]).hex() == (
        "81c90007010203041122334440ffffff0001000200000007aabbccdd00010000"
    )


def test_other_packet_types_are_stepped_over() -> None:
    app = bytes.fromhex("80cc0002010203046e616d65")
    assert rtcp.parse(app + rtcp.build([ReceiverReport(1)])) == [ReceiverReport(1)]


def test_compound_must_start_with_a_report_and_fit_its_count() -> None:
    with pytest.raises(ValueError, match="starts with"):
        rtcp.build([Goodbye((1,))])
    with pytest.raises(ValueError, match="at most 31"):
        rtcp.build([ReceiverReport(1), Goodbye(tuple(range(32)))])


def test_ntp_time_of_the_unix_epoch() -> None:
    assert rtcp.ntp_from_unix(0.5) == (2_208_988_800 << 32) + 0x80000000
