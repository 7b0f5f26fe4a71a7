"""Opus packets by their first octet, and speech through libopus."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext

from media.audio.codec import OPUS, OpusCodec
from media.audio.opus import FRAME_SAMPLES, SAMPLE_RATE_HZ, OpusDecoder, OpusEncoder
from media.rtp.opus import packet_units


def tone(frequency_hz: float, samples: int, rate_hz: int, level: float = 0.3) -> np.ndarray:
    wave = np.rint(level * 32767 * np.sin(2 * np.pi * frequency_hz / rate_hz * np.arange(samples)))
    return np.asarray(wave, np.int16)


def pitch(pcm: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), 1 << 16))
    return float(np.argmax(spectrum)) * rate_hz / (1 << 16)


def foreign_packets(channels: int, frame_ms: str, seconds: float = 0.6, bit_rate: int = 32000) -> list[bytes]:
    """Packets as a browser could make them: 48 kHz, stereo perhaps, other lengths than ours."""
    context = av.CodecContext.create("libopus", "w")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate, context.format, context.layout = 48000, "s16", "stereo" if channels == 2 else "mono"
    context.bit_rate, context.time_base = bit_rate, Fraction(1, 48000)
    context.options = {"frame_duration": frame_ms, "application": "voip"}
    context.open()
    size = context.frame_size
    packets = []
    for start in range(0, int(48000 * seconds) // size * size, size):
        pcm = tone(440, start + size, 48000)[start:]
        interleaved = np.repeat(pcm, channels)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=context.layout.name)
        frame.sample_rate, frame.pts = 48000, start
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets


@pytest.mark.parametrize(
    ("packet", "milliseconds"),
    [
        (b"\x00x", 10), (b"\x08x", 20), (b"\x10x", 40), (b"\x18x", 60),  # SILK
        (b"\x60x", 10), (b"\x68x", 20),  # hybrid
        (b"\x80x", 2.5), (b"\x88x", 5), (b"\x90x", 10), (b"\x98x", 20),  # CELT
        (b"\xf8x", 20), (b"\xf9xx", 40), (b"\xfaxx", 40), (b"\xfb\x03x", 60), (b"\xfc", 20),
        (b"\x1b\x02", 120), (b"\x1b\x03", 0),  # 120 ms is the most
        (b"\xfb", 0), (b"\xfb\x00", 0), (b"", 0),
    ],
)  # fmt: skip
def test_a_packet_tells_its_length(packet: bytes, milliseconds: float) -> None:
    assert packet_units(packet) == milliseconds * 48


def test_what_is_encoded_is_heard() -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    pcm = tone(440, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)

    packets = [encoder.encode(pcm[at : at + FRAME_SAMPLES]) for at in range(0, len(pcm), FRAME_SAMPLES)]
    heard = np.concatenate([decoder.decode(packet) for packet in packets])

    assert {packet_units(packet) for packet in packets} == {960}
    assert sum(map(len, packets)) < 5000  # 24 kbit/s and its first packets, in octets per second
    assert len(heard) == len(pcm)
    assert pitch(heard[3200:], SAMPLE_RATE_HZ) == pytest.approx(440, abs=2)
    assert np.abs(heard[3200:]).max() == pytest.approx(0.3 * 32767, rel=0.2)


def test_other_lengths_than_twenty_milliseconds_are_not_encoded() -> None:
    with pytest.raises(ValueError, match="320"):
        OpusEncoder().encode(np.zeros(160, np.int16))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frame_ms", ["10", "20", "40", "60"])
def test_foreign_packets_of_any_length_become_mono_at_16_khz(channels: int, frame_ms: str) -> None:
    packets = foreign_packets(channels, frame_ms)
    decoder = OpusDecoder()

    parts = [decoder.decode(packet) for packet in packets]

    assert {len(part) for part in parts} == {int(frame_ms) * 16}
    assert {packet_units(packet) for packet in packets} == {int(frame_ms) * 48}
    heard = np.concatenate(parts)[1600:]
    assert pitch(heard, SAMPLE_RATE_HZ) == pytest.approx(440, abs=2)
    assert np.abs(heard).max() == pytest.approx(0.3 * 32767, rel=0.25)


@pytest.mark.parametrize(("frame_ms", "bit_rate"), [("10", 32000), ("20", 12000), ("20", 96000), ("60", 16000)])
def test_a_lost_packet_is_concealed_by_20_ms_like_what_was_before(frame_ms: str, bit_rate: int) -> None:
    decoder = OpusDecoder()
    packets = foreign_packets(1, frame_ms, bit_rate=bit_rate)
    before = [decoder.decode(packet) for packet in packets][-1]

    lost = [decoder.conceal() for _ in range(3)]

    assert [len(part) for part in lost] == [FRAME_SAMPLES] * 3
    assert np.abs(lost[0]).max() > 0.2 * np.abs(before).max()
    assert all(abs(int(b[0]) - int(a[-1])) < 6000 for a, b in pairwise([before, *lost]))
    assert len(decoder.decode(packets[0])) == int(frame_ms) * 16, "the stream goes on"


def test_nothing_before_is_concealed_by_silence() -> None:
    assert not OpusDecoder().conceal().any()


@pytest.mark.parametrize("packet", [b"", b"\xff", b"\xff\xff\xff", b"\x03", b"\xfb\x40" + b"x" * 20])
def test_what_is_no_opus_gives_nothing_and_harms_nothing(packet: bytes) -> None:
    codec = OpusCodec()
    good = codec.encode(tone(440, FRAME_SAMPLES, SAMPLE_RATE_HZ))

    assert not len(codec.decode(packet))
    assert len(codec.decode(good)) == FRAME_SAMPLES


def test_its_rtpmap_says_two_channels_whatever_is_sent() -> None:
    assert OPUS.rtpmap == "opus/48000/2"
    assert OPUS.frame_units == 960
