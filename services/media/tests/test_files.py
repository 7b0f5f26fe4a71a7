"""Files of every kind as mono PCM, and nothing that unfolds beyond its bounds."""

import struct
import wave
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.files.decoding import Kind, UnplayableError, decode, kind_of
from tests.peers.audio_files import audio_file
from tests.peers.rtp import tone

LEFT = tone(700, 1.0, 48000)
NOISE = np.random.default_rng(1).normal(0, 3000, 4 * 48000).astype(np.int16)


def _wav(pcm: np.ndarray, rate_hz: int) -> bytes:
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate_hz, 0, "NONE", ""))
        out.writeframes(pcm.tobytes())
    return file.getvalue()


def _level(pcm: np.ndarray, rate_hz: int, frequency: float) -> float:
    """Amplitude of one frequency."""
    middle = pcm[len(pcm) // 4 : 3 * len(pcm) // 4].astype(float)
    turns = np.exp(-2j * np.pi * frequency * np.arange(len(middle)) / rate_hz)
    return float(2 * abs((middle * turns).mean()))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize(("name", "kind"), [("mp3", "mp3"), ("opus", "ogg"), ("vorbis", "ogg")])
def test_packed_stereo_is_averaged_and_resampled(name: str, kind: Kind, rate_hz: int) -> None:
    pcm = decode(audio_file(name, [LEFT, np.zeros_like(LEFT)], 48000), kind, rate_hz)

    assert len(pcm) == pytest.approx(rate_hz, abs=rate_hz * 0.06), "encoders pad to whole frames"
    assert _level(pcm, rate_hz, 700) == pytest.approx(_level(LEFT, 48000, 700) / 2, rel=0.1)


@pytest.mark.parametrize("source_hz", [8000, 11025, 22050, 44100, 48000])
def test_a_wav_file_of_any_rate_keeps_its_length_and_pitch(source_hz: int) -> None:
    pcm = decode(_wav(tone(1000, 3.0, source_hz), source_hz), "wav", 16000)

    assert len(pcm) == pytest.approx(3 * 16000, abs=2)
    assert _level(pcm, 16000, 1000) == pytest.approx(_level(tone(1000, 3.0, source_hz), source_hz, 1000), rel=0.01)


@pytest.mark.parametrize("kind", ["wav", "mp3", "ogg"])
def test_what_is_too_long_is_refused_before_it_fills_the_memory(kind: Kind) -> None:
    name = {"wav": "", "mp3": "mp3", "ogg": "opus"}[kind]
    data = audio_file(name, [LEFT], 48000) if name else _wav(LEFT, 48000)

    assert len(decode(data, kind, 8000, longest_s=1.1)) >= 8000
    with pytest.raises(UnplayableError, match="longer than"):
        decode(data, kind, 8000, longest_s=0.5)


def test_a_damaged_stretch_costs_only_itself() -> None:
    data = bytearray(audio_file("mp3", [NOISE], 48000))
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)

    assert len(decode(bytes(data), "mp3", 8000)) > 3.5 * 8000


def test_a_title_in_an_old_encoding_is_no_fault() -> None:
    data = audio_file("mp3", [LEFT], 48000)
    assert b"Lavf" in data, "a tag that says it is UTF-8"

    assert len(decode(data.replace(b"Lavf", b"L\xe4v\xff"), "mp3", 8000)) > 7500


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (b"", "mp3", "not an MP3 file"),
        (b"#EXTM3U\nfile:///etc/passwd\n" * 100, "mp3", "not an MP3 file"),
        (b"OggS" + bytes(500), "ogg", "not an OGG file"),
        (_wav(LEFT, 48000), "ogg", "not an OGG file"),
        (audio_file("flac", [LEFT], 48000), "ogg", "flac inside of OGG"),
        (audio_file("opus", [LEFT] * 6, 48000), "ogg", "6 channels"),
        (b"RIFF" + struct.pack("<I", 4) + b"WAVE", "wav", "no audio"),
    ],
    ids=["empty", "playlist", "broken ogg", "wav as ogg", "flac", "six channels", "wav without audio"],
)
def test_what_is_no_such_file_is_told(data: bytes, kind: Kind, why: str) -> None:
    with pytest.raises(UnplayableError, match=why):
        decode(data, kind, 8000)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["mp3", "ogg", "wav"]), st.binary(max_size=300), st.integers(0, 3000))
def test_any_bytes_are_decoded_or_refused(kind: Kind, damage: bytes, at: int) -> None:
    whole = {"mp3": MP3, "ogg": OPUS, "wav": WAV}[kind]
    data = whole[:at] + damage + whole[at + len(damage) :]
    try:
        pcm = decode(data, kind, 8000, longest_s=60)
    except UnplayableError:
        return
    assert pcm.dtype == np.int16
    assert len(pcm) <= 60 * 8000


MP3 = audio_file("mp3", [LEFT[:9600]], 48000)
OPUS = audio_file("opus", [LEFT[:9600]], 48000)
WAV = _wav(LEFT[:1500], 48000)


@pytest.mark.parametrize(
    ("paths", "content_type", "kind"),
    [
        (["/a.WAV"], "audio/mpeg", "wav"),
        (["/a.mp3"], None, "mp3"),
        (["/a.opus"], None, "ogg"),
        (["/get.php", "/files/a.ogg"], "audio/wav", "ogg"),
        (["/get.php"], "audio/mpeg; charset=binary", "mp3"),
        (["/a"], "AUDIO/X-WAV", "wav"),
        (["/a"], "text/html", None),
        (["/a.txt"], None, None),
    ],
)
def test_the_kind_is_told_by_the_extension_else_by_the_content_type(
    paths: list[str], content_type: str | None, kind: Kind | None
) -> None:
    assert kind_of(paths, content_type) == kind
