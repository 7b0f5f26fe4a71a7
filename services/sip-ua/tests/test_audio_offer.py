"""Offers and answers for one audio line; the grammar of descriptions is tested with it (`shared/tests/test_sdp.py`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialbus.sdp import G722, OPUS, PCMA, PCMU, TELEPHONE_EVENT, Codec, Description, SdpError, parse, write
from sip_ua.leg import translate as bridge
from sip_ua.sip.audio_offer import NegotiatedAudio, NoCommonCodec, accept_answer, make_answer, make_offer

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DEFAULT_CODECS = (G722, PCMU, PCMA, TELEPHONE_EVENT)
OFFER = make_offer("10.0.0.1", 4000, DEFAULT_CODECS, 7, 1)
SESSION = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def describe(*lines: str) -> Description:
    """A remote description with these lines behind the session's."""
    return parse(SESSION + "".join(f"{line}\r\n" for line in lines))


def answer(
    offer: Description, supported: Sequence[Codec] = DEFAULT_CODECS, **options: Any
) -> tuple[Description, NegotiatedAudio]:
    return make_answer(offer, supported, "10.0.0.9", 5000, 8, 1, **options)


def test_our_offer_is_the_one_protocol_5_7_describes() -> None:
    assert write(OFFER).decode().split("\r\n") == [
        "v=0",
        "o=- 7 1 IN IP4 10.0.0.1",
        "s=-",
        "c=IN IP4 10.0.0.1",
        "t=0 0",
        "m=audio 4000 RTP/AVP 9 0 8 101",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
        "a=rtcp-mux",
        "",
    ]


def test_an_ipv6_offer() -> None:
    text = write(make_offer("2001:db8::1", 4000, [PCMU], 7, 1, ptime=30, direction="sendonly", rtcp_mux=False))
    assert b"c=IN IP6 2001:db8::1\r\n" in text
    assert text.endswith(b"a=ptime:30\r\na=sendonly\r\n")


@pytest.mark.parametrize(
    "line", ["a=rtpmap:96", "a=rtpmap:x y/8000", "a=rtpmap:96 x", "a=rtpmap:96 x/y", "a=rtpmap:300 x/8000"]
)
def test_a_broken_rtpmap_is_an_sdp_error_when_codecs_are_asked_for(line: str) -> None:
    with pytest.raises(SdpError):
        answer(describe("m=audio 4000 RTP/AVP 96 0", line))


LINE = st.sampled_from(
    [
        *SESSION.split("\r\n"),
        "m=audio 4 RTP/AVP 0 8 101",
        "m=audio 4/2 RTP/AVP 9",
        "m=video 0 x y",
        "a=sendonly",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtcp:1",
        "a=ptime:x",
        "a=rtcp-mux",
        "c=IN IP6 ::",
        "a=rtpmap:8 X/1",
        "b=AS:1",
        "m=audio 4 RTP/AVP 300",
        "a=fmtp",
    ]
)


@PATIENT
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(LINE, max_size=20).map(lambda lines: "\r\n".join(lines).encode()),
        st.lists(LINE, max_size=12).map(lambda lines: (SESSION + "\r\n".join(lines)).encode()),
    )
)
def test_any_bytes_become_a_description_or_sdp_error(body: bytes) -> None:
    try:
        description = parse(body)
        assert parse(write(description)) == description
        ours, _chosen = answer(description)
        assert [media.kind for media in ours.media] == [media.kind for media in description.media]
        accept_answer(OFFER, description, DEFAULT_CODECS)
    except SdpError:
        return


# --- answering


def test_the_answer_keeps_the_offerers_order_and_numbers() -> None:
    offer = describe(
        "m=audio 4000 RTP/AVP 18 8 0 96 97 110 13",
        "a=rtpmap:96 telephone-event/8000",
        "a=rtpmap:97 G722/8000",
        "a=rtpmap:110 opus/48000/2",
        "a=ptime:30",
        "a=rtcp-mux",
    )

    ours, chosen = answer(offer)

    assert ours.media[0].formats == ("8", "0", "96", "97")
    assert chosen == NegotiatedAudio("192.0.2.1", 4000, 4000, True, PCMA, 8, 96, 30, "sendrecv", False, 8000)
    assert b"a=rtpmap:97 G722/8000\r\n" in write(ours)
    assert b"a=fmtp:96 0-16\r\n" in write(ours)
    assert (ours.address, ours.media[0].port, ours.session_id) == ("10.0.0.9", 5000, 8)
    assert ours.media[0].attribute("rtcp-mux") is not None


def test_static_payload_types_need_no_rtpmap_and_rtcp_is_one_above() -> None:
    _, chosen = answer(describe("m=audio 49170/2 RTP/AVP 0"))

    assert (chosen.codec, chosen.telephone_event_pt, chosen.ptime_ms) == (PCMU, None, 20)
    assert (chosen.remote_port, chosen.remote_rtcp_port, chosen.rtcp_mux) == (49170, 49171, False)


def test_rtcp_may_be_elsewhere() -> None:
    _, chosen = answer(describe("m=audio 4000 RTP/AVP 0", "a=rtcp:53020 IN IP4 192.0.2.9"))
    assert chosen.remote_rtcp_port == 53020


def test_g722_announced_with_its_sampling_rate_is_understood_and_corrected() -> None:
    ours, chosen = answer(describe("m=audio 4000 RTP/AVP 9", "a=rtpmap:9 G722/16000"))
    assert chosen.codec == G722
    assert ours.media[0].attribute("rtpmap") == "9 G722/8000"


def test_opus_brings_its_own_telephone_event() -> None:
    offer = describe(
        "m=audio 4000 RTP/AVP 111 0 101 110",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:110 telephone-event/48000",
    )

    ours, chosen = answer(offer, (OPUS, *DEFAULT_CODECS))
    assert ours.media[0].formats == ("111", "0", "101", "110")
    assert (chosen.codec.name, chosen.telephone_event_pt) == ("opus", 110)

    ours, chosen = answer(offer)
    assert ours.media[0].formats == ("0", "101")
    assert (chosen.codec, chosen.telephone_event_pt) == (PCMU, 101)


def test_other_lines_are_refused_in_place() -> None:
    offer = describe(
        "m=video 5000 RTP/AVP 96",
        "m=audio 4000 RTP/SAVP 0",
        "m=audio 4002 RTP/AVP 18",
        "c=IN IP6 2001:db8::7",
        "m=audio 4004 RTP/AVPF 8",
        "c=IN IP6 2001:db8::7",
        "m=audio 4006 RTP/AVP 8",
    )

    ours, chosen = answer(offer)

    assert [(media.kind, media.port, media.protocol) for media in ours.media] == [
        ("video", 0, "RTP/AVP"),
        ("audio", 0, "RTP/SAVP"),
        ("audio", 0, "RTP/AVP"),
        ("audio", 5000, "RTP/AVPF"),
        ("audio", 0, "RTP/AVP"),
    ]
    assert (chosen.remote_address, chosen.remote_port) == ("2001:db8::7", 4004)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("m=audio 4000 RTP/AVP 18",),
        ("m=audio 0 RTP/AVP 0",),
        ("m=audio 4000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"),
        ("m=audio 4000 RTP/AVP 13",),
        ("m=audio 4000 UDP/TLS/RTP/SAVPF 0",),
        ("m=video 4000 RTP/AVP 0",),
        ("m=audio 4000 RTP/AVP 96",),
    ],
)
def test_nothing_in_common_is_488(lines: tuple[str, ...]) -> None:
    with pytest.raises(NoCommonCodec):
        answer(describe(*lines))


def test_an_offer_without_an_address_cannot_be_answered() -> None:
    with pytest.raises(SdpError):
        answer(parse(SESSION.replace("c=IN IP4 192.0.2.1\r\n", "") + "m=audio 4000 RTP/AVP 0"))


@pytest.mark.parametrize(
    ("lines", "wanted", "direction", "on_hold"),
    [
        ((), "sendrecv", "sendrecv", False),
        (("a=sendonly",), "sendrecv", "recvonly", True),
        (("a=inactive",), "sendrecv", "inactive", True),
        (("a=recvonly",), "sendrecv", "sendonly", False),
        (("c=IN IP4 0.0.0.0",), "sendrecv", "recvonly", True),
        (("c=IN IP6 ::",), "sendrecv", "recvonly", True),
        (("c=IN IP4 0.0.0.0", "a=inactive"), "sendrecv", "inactive", True),
        ((), "sendonly", "sendonly", False),
        ((), "inactive", "inactive", False),
        (("a=recvonly",), "recvonly", "inactive", False),
    ],
)
def test_directions_are_mirrored(lines: tuple[str, ...], wanted: str, direction: str, on_hold: bool) -> None:
    ours, chosen = answer(describe("m=audio 4000 RTP/AVP 0", *lines), direction=wanted)

    assert (chosen.direction, chosen.on_hold) == (direction, on_hold)
    assert ours.direction(ours.media[0]) == direction


@pytest.mark.parametrize(
    ("ptime", "expected"), [("20", 20), ("60", 60), ("0", 20), ("25", 20), ("x", 20), ("20000", 20), (" 40", 40)]
)
def test_ptime_follows_the_offer_when_it_can_be_made(ptime: str, expected: int) -> None:
    assert answer(describe("m=audio 4000 RTP/AVP 0", f"a=ptime:{ptime}"))[1].ptime_ms == expected


# --- being answered


def test_of_several_codecs_in_an_answer_ours_comes_first() -> None:
    remote = describe("m=audio 6000 RTP/AVP 8 0 9 97", "a=rtpmap:97 telephone-event/8000", "a=rtcp-mux", "a=ptime:40")

    chosen = accept_answer(OFFER, remote, (PCMU, G722, PCMA, TELEPHONE_EVENT))

    assert chosen == NegotiatedAudio("192.0.2.1", 6000, 6000, True, PCMU, 0, 97, 40, "sendrecv", False, 8000)


@pytest.mark.parametrize(
    ("offered", "answered", "direction", "on_hold"),
    [
        ("sendrecv", "sendrecv", "sendrecv", False),
        ("sendrecv", "recvonly", "sendonly", False),
        ("sendrecv", "sendonly", "recvonly", True),
        ("sendrecv", "inactive", "inactive", True),
        ("sendonly", "recvonly", "sendonly", False),
        ("sendonly", "sendrecv", "sendonly", False),
        ("inactive", "inactive", "inactive", True),
    ],
)
def test_the_direction_is_what_both_allow(offered: str, answered: str, direction: str, on_hold: bool) -> None:
    offer = make_offer("10.0.0.1", 4000, [PCMU], 1, 1, direction=offered)
    chosen = accept_answer(offer, describe("m=audio 6000 RTP/AVP 0", f"a={answered}"), [PCMU])
    assert (chosen.direction, chosen.on_hold) == (direction, on_hold)


def test_mux_needs_both() -> None:
    chosen = accept_answer(OFFER, describe("m=audio 6000 RTP/AVP 0"), DEFAULT_CODECS)
    assert (chosen.rtcp_mux, chosen.remote_rtcp_port) == (False, 6001)


@pytest.mark.parametrize("line", ["m=audio 0 RTP/AVP 0", "m=audio 6000 RTP/AVP 18"])
def test_a_refused_line_is_no_common_codec(line: str) -> None:
    with pytest.raises(NoCommonCodec):
        accept_answer(OFFER, describe(line), DEFAULT_CODECS)


@pytest.mark.parametrize(
    "lines",
    [(), ("m=audio 1 RTP/AVP 0", "m=audio 1 RTP/AVP 0"), ("m=video 1 RTP/AVP 0",), ("m=audio 1 RTP/SAVP 0",)],
)
def test_an_answer_that_does_not_fit_is_an_sdp_error(lines: tuple[str, ...]) -> None:
    with pytest.raises(SdpError) as caught:
        accept_answer(OFFER, describe(*lines), DEFAULT_CODECS)
    assert not isinstance(caught.value, NoCommonCodec)


def test_both_sides_agree() -> None:
    ours, at_answerer = answer(OFFER, (PCMA, PCMU, TELEPHONE_EVENT))
    at_offerer = accept_answer(OFFER, parse(write(ours)), DEFAULT_CODECS)

    assert at_answerer.codec == at_offerer.codec == PCMU
    assert (at_offerer.remote_port, at_answerer.remote_port) == (5000, 4000)
    assert at_answerer.telephone_event_pt == at_offerer.telephone_event_pt == 101


def test_a_later_offer_keeps_every_line() -> None:
    before = describe("m=video 5000 RTP/AVP 96", "m=audio 4000 RTP/AVP 0")

    later = make_offer("10.0.0.1", 4000, [PCMU], 1, 2, previous=before)

    assert [(media.kind, media.port) for media in later.media] == [("video", 0), ("audio", 4000)]


def test_values_cannot_break_lines() -> None:
    with pytest.raises(SdpError):
        write(replace(OFFER, name="x\r\na=evil"))
    with pytest.raises(SdpError):
        make_offer("10.0.0.1\r\na=evil", 4000, [PCMU], 1, 1)
    with pytest.raises(SdpError):
        make_offer("10.0.0.1", 4000, [PCMU], 1, 1, direction="both")


def test_opus_is_offered_and_answered_when_the_settings_name_it() -> None:
    codecs = bridge.codecs(["opus", "pcmu", "telephone_event"])
    ours = make_offer("10.0.0.1", 4000, codecs, 1, 1)

    assert b"m=audio 4000 RTP/AVP 111 0 101\r\na=rtpmap:111 opus/48000/2\r\n" in write(ours)
    theirs, chosen = answer(ours, codecs)
    assert (bridge.remote_media(chosen).codec, chosen.payload_type) == ("opus", 111)
    assert accept_answer(ours, theirs, codecs).telephone_event_pt == 101
    assert bridge.remote_media(chosen).telephone_event_hz == 8000, "not the codec's clock"
    with_opus = describe("m=audio 5000 RTP/AVP 107 8", "a=rtpmap:107 opus/48000/2")
    assert answer(with_opus, DEFAULT_CODECS)[1].codec == PCMA
    assert bridge.remote_media(answer(with_opus, codecs)[1]).payload_type == 107
