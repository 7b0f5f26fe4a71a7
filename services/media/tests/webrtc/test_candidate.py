"""Candidates as browsers, pion and careless clients write them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media.webrtc.candidate import Candidate, CandidateError, parse

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOST = "842163049 1 udp 1677729535 203.0.113.9 50321"


@pytest.mark.parametrize("prefix", ["", "candidate:", "a=candidate:", "  a=candidate:"])
def test_the_prefix_may_be_there_or_not(prefix: str) -> None:
    found = parse(f"{prefix}{HOST} typ srflx raddr 10.0.0.5 rport 50321 generation 0 ufrag abcd network-cost 999")

    assert found == Candidate(
        "842163049", 1, "udp", 1677729535, "203.0.113.9", 50321, "srflx", related=("10.0.0.5", 50321)
    )
    assert str(found) == f"{HOST} typ srflx raddr 10.0.0.5 rport 50321"
    assert found.is_usable


@pytest.mark.parametrize("text", ["", "  ", "candidate:", "a=candidate:", "end-of-candidates", "a=end-of-candidates"])
def test_the_empty_one_is_the_last(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "usable", "ipv6", "mdns"),
    [
        ("1 1 UDP 1 192.0.2.1 9 typ host", True, False, False),
        ("1 2 udp 1 192.0.2.1 9 typ host", False, False, False),  # RTCP of its own
        ("1 1 tcp 1 192.0.2.1 9 typ host tcptype active", False, False, False),
        ("1 1 udp 1 192.0.2.1 0 typ host", False, False, False),
        ("1 1 udp 1 192.0.2.1 9 typ future", False, False, False),
        ("1 1 udp 1 2001:db8::1 9 typ relay raddr :: rport 9", True, True, False),
        ("1 1 udp 1 0A6C1F3E-8f4d-4c5e-9d0c-1234567890ab.local 9 typ host", True, False, True),
        ("1 1 udp 1 192.0.2.1 9 typ srflx raddr nonsense rport 9", True, False, False),
    ],
)
def test_what_it_is_good_for(text: str, usable: bool, ipv6: bool, mdns: bool) -> None:
    found = parse(text)

    assert found is not None
    assert (found.is_usable, found.is_ipv6, found.is_mdns) == (usable, ipv6, mdns)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "1 1 udp 1 192.0.2.1 9",
        "1 1 udp 1 192.0.2.1 9 is host",
        "1 x udp 1 192.0.2.1 9 typ host",
        "1 0 udp 1 192.0.2.1 9 typ host",
        "1 1 udp 99999999999 192.0.2.1 9 typ host",
        "1 1 udp 1 192.0.2.1 65536 typ host",
        "1 1 udp 1 192.0.2.1 -1 typ host",
        "1 1 udp 1 192.0.2.256 9 typ host",
        "1 1 udp 1 a..b 9 typ host",
        "1 1 udp 1 " + "a" * 300 + " 9 typ host",
        "1 1 udp 1 exa$mple.local 9 typ host",
        "1 1 udp 1 192.0.2.1 9 typ host " + "x " * 600,
        "§ 1 udp 1 192.0.2.1 9 typ host",
    ],
)
def test_what_is_none_is_said(text: str) -> None:
    with pytest.raises(CandidateError):
        parse(text)


@PATIENT
@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        found = parse(text)
    except CandidateError:
        return
    assert found is None or parse(str(found)) == found
