"""Codecs by name, one leg at a time and many at once."""

import numpy as np
import pytest

from media.audio.codec import FORMATS, G711Codec, UnknownCodecError, make_codec


@pytest.mark.parametrize(
    ("name", "payload_type", "rtpmap", "samples"),
    [("pcmu", 0, "PCMU/8000", 160), ("PCMA", 8, "PCMA/8000", 160), ("g722", 9, "G722/8000", 320)],
)
def test_formats_are_those_of_rfc_3551(name: str, payload_type: int, rtpmap: str, samples: int) -> None:
    codec = make_codec(name)
    assert (codec.format.payload_type, codec.format.rtpmap) == (payload_type, rtpmap)
    assert codec.format.sample_rate_hz // 50 == samples
    payload = codec.encode(np.zeros(samples, np.int16))
    assert len(payload) == codec.format.clock_rate_hz // 50
    assert len(codec.decode(payload)) == samples


def test_g722_is_offered_first() -> None:
    assert list(FORMATS) == ["g722", "pcmu", "pcma", "opus"]


def test_unknown_codec_is_named() -> None:
    with pytest.raises(UnknownCodecError, match="g729"):
        make_codec("g729")


@pytest.mark.parametrize("name", ["pcmu", "pcma"])
def test_many_legs_at_once_are_the_single_ones(name: str) -> None:
    codec = make_codec(name)
    assert isinstance(codec, G711Codec)
    legs = np.random.default_rng(3).integers(-32768, 32767, (5, 160)).astype(np.int16)
    payloads = codec.encode_rows(legs)
    assert [row.tobytes() for row in payloads] == [codec.encode(leg) for leg in legs]
    assert np.array_equal(codec.decode_rows(payloads)[2], codec.decode(payloads[2].tobytes()))
