"""Offers of browsers, pion and strangers, and what we answer."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media.webrtc.candidate import Candidate
from media.webrtc.sdp import Local, NothingInCommon, OfferError, parse_offer, write_answer

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
CODECS = ("opus", "g722", "pcmu", "pcma")
DIGEST = ":".join(["AB"] * 32)

CHROMIUM = f"""v=0
o=- 8123904857390485 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS 5a0f
m=audio 54321 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 203.0.113.9
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 0a6c1f3e-8f4d-4c5e-9d0c-1234567890ab.local 54321 typ host generation 0
a=candidate:2 1 udp 2113939711 2001:db8::9 54322 typ host generation 0
a=candidate:3 1 udp 1677729535 203.0.113.9 54321 typ srflx raddr 0.0.0.0 rport 0 generation 0
a=candidate:4 1 tcp 1518280447 192.0.2.5 9 typ host tcptype active generation 0
a=candidate:5 1 quic 1 what is this
a=ice-ufrag:Zx+1
a=ice-pwd:p2L/8f3vC1s0kq9R7dTzWxYb
a=ice-options:trickle
a=fingerprint:sha-256 {DIGEST}
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:5a0f 77ee
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:1234 cname:x
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:1
a=rtpmap:96 VP8/90000
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:2
a=sctp-port:5000
""".replace("\n", "\r\n")

PION = f"""v=0
o=- 3923847 1696060493 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 {DIGEST.lower()}
a=group:BUNDLE 0
m=audio 9 UDP/TLS/RTP/SAVPF 0
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:0
a=ice-ufrag:AbCdEfGhIjKlMnOp
a=ice-pwd:QrStUvWxYzAbCdEfGhIjKlMnOpQrStUv
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:0 PCMU/8000
a=sendrecv
a=candidate:233762139 1 udp 2130706431 127.0.0.1 40000 typ host
a=candidate:233762139 2 udp 2130706431 127.0.0.1 40000 typ host
a=end-of-candidates
"""

LOCAL = Local(
    session_id=77,
    ufrag="ours",
    password="0123456789012345678901",
    fingerprint=DIGEST,
    candidates=(
        Candidate("a", 1, "udp", 2130706431, "192.0.2.1", 12000, "host"),
        Candidate("b", 1, "udp", 16777215, "198.51.100.7", 12345, "relay", ("192.0.2.1", 12000)),
    ),
    ssrc=0xABCD,
)


def attributes(answer: str, name: str) -> list[str]:
    return re.findall(rf"a={name}:?([^\r\n]*)\r\n", answer)


def test_chromium() -> None:
    offer = parse_offer(CHROMIUM, CODECS, ipv6=False)

    assert (offer.codec.name, offer.payload_type, offer.telephone_event) == ("opus", 111, (110, 48000))
    assert (offer.ufrag, offer.password, offer.is_lite) == ("Zx+1", "p2L/8f3vC1s0kq9R7dTzWxYb", False)
    assert offer.fingerprints == (("sha-256", DIGEST),)
    assert (offer.setup, offer.direction, offer.is_complete) == ("active", "sendrecv", False)
    assert [item.address[-6:] for item in offer.candidates] == [".local", ".113.9"]
    assert [item.address for item in parse_offer(CHROMIUM, CODECS, ipv6=True).candidates][1] == "2001:db8::9"


@pytest.mark.parametrize("line", ["a=", "a= :x", "a=ü:1", "a=rtpmap:300 x/8000"])
def test_a_line_that_says_nothing_to_us_costs_nothing(line: str) -> None:
    plain = parse_offer(CHROMIUM, CODECS, ipv6=False)
    for behind in ("a=mid:0", "a=extmap-allow-mixed"):
        offer = parse_offer(CHROMIUM.replace(f"{behind}\r\n", f"{behind}\r\n{line}\r\n"), CODECS, ipv6=False)
        assert (offer.codec, offer.payload_type, offer.bundled) == (plain.codec, plain.payload_type, plain.bundled)


def test_a_format_that_is_no_number_costs_nothing() -> None:
    offer = parse_offer(CHROMIUM.replace("SAVPF 111 ", "SAVPF * 111 900 "), CODECS, ipv6=False)
    assert (offer.codec.name, offer.payload_type) == ("opus", 111)


def test_the_answer_to_chromium() -> None:
    answer = write_answer(parse_offer(CHROMIUM, CODECS, ipv6=False), LOCAL)

    assert "\n" not in answer.replace("\r\n", "")
    assert [line for line in answer.split("\r\n") if line.startswith("m=")] == [
        "m=audio 12345 UDP/TLS/RTP/SAVPF 111 110",
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    ]
    assert "c=IN IP4 198.51.100.7\r\n" in answer, "the default is the address most likely to be reached"
    assert attributes(answer, "group") == ["BUNDLE 0"]
    assert attributes(answer, "mid") == ["0", "1", "2"]
    assert attributes(answer, "rtpmap") == ["111 opus/48000/2", "110 telephone-event/48000"]
    assert attributes(answer, "fmtp") == ["111 minptime=10;useinbandfec=1", "110 0-16"]
    assert attributes(answer, "setup") == ["active"]
    assert attributes(answer, "candidate") == [
        "a 1 udp 2130706431 192.0.2.1 12000 typ host",
        "b 1 udp 16777215 198.51.100.7 12345 typ relay raddr 192.0.2.1 rport 12000",
    ]
    assert attributes(answer, "ssrc") == ["43981 cname:0000abcd@dialbus"]
    assert answer.count("a=sendrecv\r\n") == 1
    assert attributes(answer, "extmap") == [], "we take no header extension"


def test_pion_with_one_codec_and_line_feeds_only() -> None:
    offer = parse_offer(PION, CODECS, ipv6=False)

    assert (offer.codec.name, offer.payload_type, offer.telephone_event) == ("pcmu", 0, None)
    assert offer.fingerprints == (("sha-256", DIGEST),)
    assert [(item.address, item.component) for item in offer.candidates] == [("127.0.0.1", 1)]
    assert offer.is_complete
    answer = write_answer(offer, LOCAL)
    assert attributes(answer, "rtpmap") == ["0 PCMU/8000"]
    assert "m=audio 12345 UDP/TLS/RTP/SAVPF 0\r\n" in answer


@pytest.mark.parametrize(
    ("formats", "codecs", "chosen"),
    [
        ("0 111 8", CODECS, ("pcmu", 0)),
        ("8 0", ("pcmu",), ("pcmu", 0)),
        ("63 9 111", CODECS, ("g722", 9)),
        ("13 110 126 111", CODECS, ("opus", 111)),
        ("0", CODECS, ("pcmu", 0)),
    ],
)
def test_the_first_codec_of_ours_in_the_offers_order_is_taken(
    formats: str, codecs: tuple[str, ...], chosen: tuple[str, int]
) -> None:
    text = re.sub(r"(m=audio \d+ \S+) [^\r\n]*", rf"\1 {formats}", CHROMIUM)

    offer = parse_offer(text, codecs, ipv6=False)

    assert (offer.codec.name, offer.payload_type) == chosen


def test_keys_on_a_strange_clock_are_not_taken() -> None:
    text = CHROMIUM.replace("telephone-event/48000", "telephone-event/1").replace("telephone-event/8000", "x/8000")

    assert parse_offer(text, CODECS, ipv6=False).telephone_event is None


@pytest.mark.parametrize(
    ("formats", "event"),
    [("111 126 110", (110, 48000)), ("0 110 126", (126, 8000)), ("0 110", (110, 48000)), ("0", None)],
)
def test_keys_run_on_the_codecs_clock_where_that_is_offered(formats: str, event: tuple[int, int] | None) -> None:
    text = re.sub(r"(m=audio \d+ \S+) [^\r\n]*", rf"\1 {formats}", CHROMIUM)

    assert parse_offer(text, CODECS, ipv6=False).telephone_event == event


@pytest.mark.parametrize(
    ("offered", "ours"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")],
)
def test_the_direction_is_the_other_way_round(offered: str, ours: str) -> None:
    offer = parse_offer(CHROMIUM.replace("a=sendrecv", f"a={offered}"), CODECS, ipv6=False)

    assert offer.direction == ours
    assert f"a={ours}\r\n" in write_answer(offer, LOCAL)


@pytest.mark.parametrize(("offered", "ours"), [("actpass", "active"), ("passive", "active"), ("active", "passive")])
def test_we_open_dtls_where_we_may(offered: str, ours: str) -> None:
    assert parse_offer(CHROMIUM.replace("actpass", offered), CODECS, ipv6=False).setup == ours


def test_credentials_may_stand_before_the_media() -> None:
    rows = [row for row in CHROMIUM.split("\r\n") if not re.match("a=(ice-ufrag|ice-pwd|fingerprint|setup)", row)]
    top = ["a=ice-ufrag:Zx+1", "a=ice-pwd:p2L/8f3vC1s0kq9R7dTzWxYb", f"a=fingerprint:SHA-256 {DIGEST}", "a=ice-lite"]
    text = "\r\n".join([*rows[:4], *top, *rows[4:]])

    offer = parse_offer(text, CODECS, ipv6=False)

    assert (offer.ufrag, offer.setup, offer.is_lite) == ("Zx+1", "active", True)
    assert offer.fingerprints == (("sha-256", DIGEST),)


def test_a_second_audio_line_is_taken_when_the_first_has_nothing() -> None:
    video_first = "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 iLBC/8000\r\n"
    start = CHROMIUM.index("m=audio")

    offer = parse_offer(CHROMIUM[:start] + video_first + CHROMIUM[start:], CODECS, ipv6=False)

    assert offer.index == 1
    assert write_answer(offer, LOCAL).count("m=audio 0 ") == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v=0", "v=1"),
        ("a=ice-ufrag:Zx+1", "a=ice-ufrag:x"),
        ("a=ice-pwd:p2L", "a=ice-pwd: "),
        ("a=ice-ufrag:Zx+1\r\n", ""),
        (f"a=fingerprint:sha-256 {DIGEST}\r\n", ""),
        ("sha-256 AB", "sha-256 AG"),
        ("sha-256", "sha-1"),
        ("actpass", "holdconn"),
        ("m=audio 54321", "m=audio 99999"),
        ("m=audio 54321 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126", "m=audio 54321"),
        ("a=rtpmap:111 opus/48000/2", "a=rtpmap:opus"),
        ("s=-", "what"),
        ("s=-", "s=\0"),
        ("s=-", "s=\r"),
        ("s=-", "s=" + "x" * 70000),
    ],
)
def test_what_is_no_usable_offer(old: str, new: str) -> None:
    assert old in CHROMIUM
    with pytest.raises(OfferError) as caught:
        parse_offer(CHROMIUM.replace(old, new), CODECS, ipv6=False)
    assert not isinstance(caught.value, NothingInCommon)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m=audio 54321", "m=audio 0"),
        ("m=audio", "m=image"),
        ("UDP/TLS/RTP/SAVPF 111", "RTP/AVP 111"),
        ("111 63 9 0 8 13 110 126", "63 13 110 126"),
        ("a=rtcp-mux\r\n", ""),
    ],
)
def test_what_we_have_nothing_in_common_with(old: str, new: str) -> None:
    assert old in CHROMIUM
    with pytest.raises(NothingInCommon):
        parse_offer(CHROMIUM.replace(old, new), CODECS, ipv6=False)


@PATIENT
@given(st.text(max_size=300))
def test_any_text_is_an_offer_or_refused(text: str) -> None:
    with pytest.raises(OfferError):
        parse_offer(text, CODECS, ipv6=False)


@PATIENT
@given(st.data())
def test_a_damaged_offer_is_an_offer_or_refused(data: st.DataObject) -> None:
    rows = CHROMIUM.split("\r\n")
    at = data.draw(st.integers(0, len(rows) - 1))
    rows[at] = data.draw(st.one_of(st.text(max_size=60), st.just(rows[at][: data.draw(st.integers(0, 40))])))
    try:
        offer = parse_offer("\r\n".join(rows), CODECS, ipv6=True)
    except OfferError:
        return
    answer = write_answer(offer, LOCAL)
    assert answer.count("m=") == len(offer.lines)
    assert all(re.fullmatch(r"[a-z]=[^\r\n]*", row) for row in answer.split("\r\n")[:-1])
