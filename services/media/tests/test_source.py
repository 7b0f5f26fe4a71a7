"""Which packets are believed, and where ours go."""

import pytest

from media.rtp.packet import RtpPacket
from media.rtp.source import Address, MediaSource, Verdict

SDP: Address = ("192.0.2.1", 4000)
NAT: Address = ("198.51.100.7", 61000)
STRANGER: Address = ("203.0.113.66", 9)


def packet(sequence: int = 0, ssrc: int = 1, payload_type: int = 0) -> RtpPacket:
    return RtpPacket(payload_type, False, sequence & 0xFFFF, sequence * 160, ssrc, bytes(160))


def signalled(
    address: Address | None = SDP, *, latching: bool = True, strangers: bool = False, acknowledged: bool = True
) -> MediaSource:
    """What a call with a phone behind a NAT has agreed on: its signalling comes from the public host."""
    source = MediaSource(latching=latching, strangers=strangers)
    source.signal(address, {0, 101}, now=0.0, signalling_host=NAT[0], acknowledged=acknowledged)
    return source


def feed(source: MediaSource, address: Address, count: int, start: float = 0.0, ssrc: int = 1) -> list[Verdict]:
    return [source.judge(packet(n, ssrc), address, start + n * 0.02) for n in range(count)]


def test_signalled_address_is_believed_at_once() -> None:
    source = signalled()
    assert source.destination == SDP
    assert feed(source, SDP, 2) == [Verdict.ACCEPTED] * 2
    assert source.learnt == SDP


def test_payload_type_that_was_not_negotiated_is_refused() -> None:
    source = signalled()
    assert source.judge(packet(payload_type=96), SDP, 0.0) is Verdict.PAYLOAD_TYPE
    assert source.learnt is None


def test_other_port_of_the_signalled_host_is_latched_at_once() -> None:
    source = signalled()
    assert feed(source, (SDP[0], 4002), 1) == [Verdict.ACCEPTED]
    assert source.destination == (SDP[0], 4002)


@pytest.mark.parametrize("start", [0.0, 60.0])
def test_host_of_the_signalling_is_latched_after_a_running_stream(start: float) -> None:
    source = signalled()
    assert feed(source, NAT, 5, start) == [Verdict.PROBATION] * 3 + [Verdict.ACCEPTED] * 2
    assert source.destination == NAT


@pytest.mark.parametrize(
    ("strangers", "start", "latched"), [(False, 0.0, False), (False, 5.0, False), (True, 0.0, True), (True, 5.0, False)]
)
def test_stranger_is_latched_only_where_allowed_and_at_first(strangers: bool, start: float, latched: bool) -> None:
    source = signalled(strangers=strangers)
    heard = feed(source, STRANGER, 100, start)
    assert (Verdict.ACCEPTED in heard) is latched
    assert source.destination == (STRANGER if latched else SDP)


def test_stranger_is_not_latched_when_the_same_is_signalled_again() -> None:
    source = signalled()
    feed(source, SDP, 10)
    source.signal(SDP, {0}, now=10.0, signalling_host=NAT[0])
    assert set(feed(source, STRANGER, 20, start=10.1)) == {Verdict.SOURCE}
    assert source.destination == SDP


def test_noise_from_a_stranger_is_never_latched() -> None:
    source = signalled(strangers=True)
    jumping = {source.judge(packet(n * 997), STRANGER, n * 0.02) for n in range(50)}
    changing = {source.judge(packet(n, ssrc=n), STRANGER, 1 + n * 0.02) for n in range(50)}
    assert jumping == changing == {Verdict.PROBATION}
    assert source.destination == SDP


def test_signalled_address_takes_back_what_a_faster_stranger_got() -> None:
    source = signalled(strangers=True)
    feed(source, STRANGER, 5)
    assert source.judge(packet(0, ssrc=2), SDP, 0.5) is Verdict.ACCEPTED
    assert feed(source, STRANGER, 9, start=0.52, ssrc=1)[-1] is Verdict.SOURCE
    assert source.destination == SDP


def test_learnt_source_is_kept_against_any_other_later() -> None:
    source = signalled()
    feed(source, NAT, 300)  # six seconds
    assert set(feed(source, STRANGER, 20, start=6.0)) == {Verdict.SOURCE}
    assert source.judge(packet(0, ssrc=2), SDP, 60.0) is Verdict.SOURCE
    assert source.destination == NAT
    assert source.rejected[Verdict.SOURCE] == 21


def test_signalling_lets_a_new_address_be_learnt() -> None:
    source = signalled()
    feed(source, SDP, 10)
    source.signal(("192.0.2.9", 5000), {8}, now=10.0)
    assert source.destination == ("192.0.2.9", 5000)
    assert source.judge(packet(payload_type=8, ssrc=9), ("192.0.2.9", 5000), 10.1) is Verdict.ACCEPTED


def test_unchanged_signalling_interrupts_nothing() -> None:
    source = signalled()
    feed(source, NAT, 10)
    source.signal(SDP, {0}, now=10.0, signalling_host=NAT[0])
    assert source.destination == NAT
    assert source.judge(packet(11), NAT, 10.1) is Verdict.ACCEPTED


def test_source_behind_a_nat_may_move_when_signalled_again() -> None:
    source = signalled()
    feed(source, NAT, 10)
    source.signal(SDP, {0}, now=10.0, signalling_host=NAT[0])
    moved = (NAT[0], 61001)
    assert feed(source, moved, 4, start=10.1)[-1] is Verdict.ACCEPTED
    assert source.destination == moved


def test_second_ssrc_is_refused_while_the_first_is_heard() -> None:
    source = signalled()
    feed(source, SDP, 10)
    assert source.judge(packet(0, ssrc=2), SDP, 0.2) is Verdict.SSRC
    assert source.judge(packet(0, ssrc=2), SDP, 0.4) is Verdict.ACCEPTED
    assert source.judge(packet(11, ssrc=1), SDP, 0.41) is Verdict.SSRC


def test_without_latching_ours_go_where_the_sdp_says() -> None:
    source = signalled(latching=False)
    assert set(feed(source, NAT, 10)) == {Verdict.SOURCE}
    assert feed(source, (SDP[0], 4002), 1) == [Verdict.ACCEPTED]
    assert source.destination == SDP


@pytest.mark.parametrize(("address", "believed"), [(SDP, True), ((SDP[0], 4001), True), (STRANGER, False)])
def test_rtcp_is_believed_by_host(address: Address, believed: bool) -> None:
    assert signalled().accepts_control(address) is believed


def test_unacknowledged_nothing_goes_to_a_third_host() -> None:
    source = signalled(acknowledged=False)
    assert source.destination is None
    assert set(feed(source, STRANGER, 20)) == {Verdict.SOURCE}
    assert source.destination is None
    source.signal(SDP, {0}, now=1.0, signalling_host=NAT[0])
    assert source.destination == SDP


@pytest.mark.parametrize("latching", [True, False])
def test_unacknowledged_the_third_host_is_sent_to_once_it_is_heard(latching: bool) -> None:
    source = signalled(acknowledged=False, latching=latching)
    assert feed(source, (SDP[0], 4002), 1) == [Verdict.ACCEPTED]
    assert source.destination == ((SDP[0], 4002) if latching else SDP)


def test_unacknowledged_a_phone_behind_a_nat_is_sent_to_once_it_is_heard() -> None:
    source = signalled(acknowledged=False)
    feed(source, NAT, 4)
    assert source.destination == NAT


def test_unacknowledged_the_host_of_the_signalling_is_sent_to() -> None:
    source = signalled((NAT[0], 4000), acknowledged=False)
    assert source.destination == (NAT[0], 4000)


def test_unacknowledged_again_what_was_heard_elsewhere_vouches_for_nothing() -> None:
    source = signalled(acknowledged=False)
    feed(source, SDP, 10)
    source.signal(("192.0.2.9", 5000), {0}, now=1.0, signalling_host=NAT[0], acknowledged=False)
    assert source.destination is None


def test_without_an_address_there_is_nowhere_to_send() -> None:
    source = signalled(None)
    assert source.destination is None
    assert not source.accepts_control(SDP)
    assert feed(source, NAT, 4)[-1] is Verdict.ACCEPTED
