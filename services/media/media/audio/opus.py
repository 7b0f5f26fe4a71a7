"""Opus for one leg: 16 kHz mono in and out, through PyAV's libopus. Source: RFC 6716, RFC 7587.

Encodes wideband speech, 20 ms a packet, with in-band error correction for the receiver's sake. Decodes any packet,
stereo too, to mono: libopus mixes the channels. libavcodec gives no access to the error correction in what we receive,
but to the concealment: a packet that is its first octet alone stands for a lost one (RFC 6716 §3.2.1, RFC 7587 §3.1.3).
"""

from fractions import Fraction
from typing import Literal, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from dialbus.audio import Pcm, frame_samples
from media.audio.resample import DecimatorBy3

SAMPLE_RATE_HZ = 16000
FRAME_SAMPLES = frame_samples(SAMPLE_RATE_HZ)

_BIT_RATE = 24000  # where listeners no longer tell wideband speech from the original (RFC 7587 §3.1.1: 16 to 20 and up)
_OPTIONS = {
    "application": "voip",
    "frame_duration": "20",
    "compression_level": "3",  # 3.6 ms of CPU per call and second; 10, the default, takes twice as much
    "fec": "1",
    "packet_loss": "5",
}


class OpusCodecError(Exception):
    """PyAV was built without libopus."""


class OpusEncoder:
    """One direction of one leg."""

    def __init__(self) -> None:
        self._context = _context("w")
        self._context.sample_rate = SAMPLE_RATE_HZ
        self._context.bit_rate = _BIT_RATE
        self._context.time_base = Fraction(1, SAMPLE_RATE_HZ)
        self._context.options = dict(_OPTIONS)
        self._samples = 0

    def encode(self, pcm: Pcm) -> bytes:
        """One packet of 20 ms. Raises ValueError for another number of samples than `FRAME_SAMPLES`."""
        if len(pcm) != FRAME_SAMPLES:
            raise ValueError(f"Opus is sent in frames of {FRAME_SAMPLES} samples")
        frame = av.AudioFrame.from_ndarray(pcm[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = self._samples
        self._samples += FRAME_SAMPLES
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


class OpusDecoder:
    """One direction of one leg."""

    def __init__(self) -> None:
        self._context = _context("r")
        self._decimator = DecimatorBy3()  # libavcodec decodes Opus at 48 kHz only
        self._lost: bytes | None = None

    def decode(self, packet: bytes) -> Pcm:
        """As many samples as the packet is long; none when it is no Opus."""
        if not packet:  # libavcodec would take it for the end
            return np.zeros(0, np.int16)
        self._lost = _stand_in(packet[0])
        return self._decode(packet)

    def conceal(self) -> Pcm:
        """20 ms in place of what was lost; silence when nothing was decoded before."""
        pcm = self._decode(self._lost) if self._lost is not None else np.zeros(0, np.int16)
        return pcm if len(pcm) else np.zeros(FRAME_SAMPLES, np.int16)

    def _decode(self, packet: bytes) -> Pcm:
        try:
            frames = self._context.decode(av.Packet(packet))
        except av.FFmpegError:
            return np.zeros(0, np.int16)
        parts = [self._decimator.process(cast(Pcm, frame.to_ndarray()).reshape(-1)) for frame in frames]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int16), *parts])


def _context(mode: Literal["r", "w"]) -> AudioCodecContext:
    try:
        context = av.CodecContext.create("libopus", mode)
    except ValueError as error:
        raise OpusCodecError(f"this build of PyAV has no libopus: {error}") from None
    context.format = "s16"
    context.layout = "mono"
    return context


def _stand_in(first: int) -> bytes:
    """A packet of one empty frame of 20 ms in the mode of the packet that began with `first`: conceal it."""
    config = first >> 3
    if config < 12:  # SILK: 10, 20, 40, 60 ms
        config = config & ~3 | 1
    elif config < 16:  # hybrid: 10, 20 ms
        config |= 1
    else:  # CELT: 2.5, 5, 10, 20 ms
        config |= 3
    return bytes([config << 3 | first & 4])
