"""WAV files as PCM."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.audio import g711
from media.files import wav

SAMPLES = np.array([0, 256, -256, 32512, -32768, 1024], np.int16)


def _file(
    body: bytes,
    tag: int = 1,
    bits: int = 16,
    channels: int = 1,
    rate_hz: int = 16000,
    extra: bytes = b"",
    before: bytes = b"",
) -> bytes:
    width = bits // 8 * channels
    layout = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * width, width, bits) + extra
    chunks = before + b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (_file(SAMPLES.tobytes()), SAMPLES),
        (_file(((SAMPLES >> 8) + 128).astype(np.uint8).tobytes(), bits=8), SAMPLES),
        (_file(b"".join(struct.pack("<i", int(s) << 8)[:3] for s in SAMPLES), bits=24), SAMPLES),
        (_file((SAMPLES.astype("<i4") << 16).tobytes(), bits=32), SAMPLES),
        (_file(g711.encode_mu(SAMPLES).tobytes(), tag=7, bits=8), g711.decode_mu(g711.encode_mu(SAMPLES))),
        (_file(g711.encode_a(SAMPLES).tobytes(), tag=6, bits=8), g711.decode_a(g711.encode_a(SAMPLES))),
        (_file(SAMPLES.tobytes(), tag=0xFFFE, extra=struct.pack("<HHIH", 22, 16, 0, 1) + bytes(14)), SAMPLES),
        (_file(SAMPLES.tobytes(), before=b"LIST" + struct.pack("<I", 3) + b"abc\0"), SAMPLES),
        (_file(np.repeat(SAMPLES, 2).tobytes(), channels=2), SAMPLES),
        (_file(np.array([100, 300, -100, -300], np.int16).tobytes(), channels=2), np.array([200, -200])),
    ],
    ids=[
        "16 bit",
        "8 bit",
        "24 bit",
        "32 bit",
        "mu-law",
        "A-law",
        "extensible",
        "odd chunk before",
        "stereo",
        "averaged",
    ],
)
def test_samples_are_decoded(data: bytes, expected: np.ndarray) -> None:
    sound = wav.decode(data)

    assert sound.rate_hz == 16000
    assert sound.pcm.dtype == np.int16
    assert sound.pcm.tolist() == expected.tolist()


def test_a_file_cut_short_gives_what_is_there() -> None:
    assert wav.decode(_file(SAMPLES.tobytes())[:-3]).pcm.tolist() == SAMPLES[:-2].tolist()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID3",
        b"RIFF\0\0\0\0WAVE",
        _file(b"", tag=85),
        _file(b"", channels=0),
        _file(b"", rate_hz=1),
        _file(b"", bits=12),
    ],
)
def test_what_cannot_be_played_is_refused(data: bytes) -> None:
    with pytest.raises(wav.WavError):
        wav.decode(data)


@given(st.binary(max_size=80), st.integers(0, 44), st.binary(max_size=8))
def test_any_bytes_decode_or_are_refused(body: bytes, place: int, noise: bytes) -> None:
    data = _file(body)
    for candidate in (body, data[:place] + noise + data[place + len(noise) :]):
        try:
            sound = wav.decode(candidate)
        except wav.WavError:
            continue
        assert sound.pcm.dtype == np.int16
