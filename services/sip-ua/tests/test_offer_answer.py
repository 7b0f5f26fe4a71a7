"""Offer and answer of one leg: versions, forks, hold; and that all of it can be stored."""

import json

import pytest

from dialbus import sdp
from sip_ua.leg import translate
from sip_ua.leg.offer_answer import OfferAnswer

CODECS = translate.codecs(["g722", "pcmu", "telephone_event"])


def theirs(port: int = 4000, direction: str = "sendrecv", address: str = "192.0.2.15") -> bytes:
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {address}",
        "s=-",
        f"c=IN IP4 {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0",
        f"a={direction}",
    ]
    return "\r\n".join([*lines, ""]).encode()


def begun() -> OfferAnswer:
    return OfferAnswer(CODECS, 4711, address="192.0.2.7", port=20_000)


def version_of(body: bytes) -> int:
    return sdp.parse(body).version


def stored(leg: OfferAnswer) -> OfferAnswer:
    heir = OfferAnswer.from_state(json.loads(json.dumps(leg.to_state())))
    assert heir == leg
    return heir


def test_each_description_of_ours_has_a_version_of_its_own_and_a_refused_offer_uses_none() -> None:
    leg = begun()
    assert (leg.local_sdp, leg.remote) == (b"", None)
    leg.describe(theirs())
    assert version_of(leg.local_sdp) == 1
    with pytest.raises(sdp.SdpError):
        leg.describe(theirs().replace(b"RTP/AVP 0", b"RTP/AVP 97"))
    leg = stored(leg)
    leg.describe(theirs(5000))
    assert version_of(leg.local_sdp) == 2
    assert leg.remote is not None
    assert leg.remote.port == 5000


def test_an_offer_can_be_checked_before_there_is_an_address() -> None:
    leg = begun()
    leg.check(theirs())
    assert leg.version == 0
    with pytest.raises(sdp.SdpError):
        leg.check(b"nonsense")


def test_a_200_without_sdp_means_what_its_fork_said_early() -> None:
    leg = begun()
    leg.describe(None)
    leg.take_early_answer(theirs(4000), "fork a")
    leg.take_early_answer(theirs(6000), "fork b")
    leg = stored(leg)
    assert leg.take_final_answer(None, "fork a") == theirs(4000).decode()
    assert leg.remote is not None
    assert leg.remote.port == 4000
    with pytest.raises(sdp.SdpError, match="no SDP"):
        leg.take_final_answer(None, "fork c")
    assert leg.take_final_answer(theirs(8000), "fork c") == theirs(8000).decode()


def test_an_early_answer_that_cannot_be_used_changes_nothing() -> None:
    leg = begun()
    leg.describe(None)
    with pytest.raises(sdp.SdpError):
        leg.take_early_answer(b"nonsense", "fork a")
    assert leg.needs_answer
    assert leg.early == {}


def test_hold_is_told_once_when_it_changed() -> None:
    leg = begun()
    leg.describe(theirs())
    assert leg.hold_changed() is None
    leg.describe(theirs(direction="sendonly"))
    leg = stored(leg)
    assert leg.hold_changed() is True
    assert leg.hold_changed() is None
    leg.describe(theirs())
    assert leg.hold_changed() is False


def test_what_a_webrtc_leg_answered_is_not_negotiated_anew() -> None:
    leg = begun()
    leg.foreign = "v=0\r\n"
    assert (leg.local_sdp, leg.needs_answer) == (b"v=0\r\n", False)
    with pytest.raises(sdp.SdpError, match="not negotiated anew"):
        stored(leg).describe(theirs())
