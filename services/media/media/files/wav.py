"""WAV files as int16 mono PCM. Source: RIFF/WAVE, with Microsoft's WAVE_FORMAT_EXTENSIBLE."""

import struct
from dataclasses import dataclass

import numpy as np

from dialbus.audio import Pcm
from media.audio import g711

_EXTENSIBLE = 0xFFFE
_RATES_HZ = range(4000, 192001)
_MAX_CHANNELS = 8


class WavError(ValueError):
    """Bytes that are no WAV file that can be played; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Wav:
    """A decoded file."""

    rate_hz: int
    pcm: Pcm
    """int16[n], channels averaged."""


@dataclass(frozen=True, slots=True)
class _Format:
    tag: int
    channels: int
    rate_hz: int
    bits: int


def decode(data: bytes) -> Wav:
    """The audio of a WAV file: PCM of 8, 16, 24 or 32 bits, floating point, A-law or mu-law. Raises WavError.

    A data chunk that is cut short, as in a file still being written, gives what is there.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError("not a WAV file")
    found: _Format | None = None
    view = memoryview(data)  # a copy of a large file would hold the interpreter, and with it the 20 ms clock
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        body = view[position + 8 : position + 8 + size]
        if name == b"fmt ":
            found = _format(body)
        elif name == b"data":
            if found is None:
                raise WavError("audio comes before its format")
            return Wav(found.rate_hz, _samples(body, found))
        position += 8 + size + size % 2
    raise WavError("no audio in the WAV file")


def _format(body: memoryview) -> _Format:
    if len(body) < 16:
        raise WavError("format chunk is cut short")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)
    if not 1 <= channels <= _MAX_CHANNELS:
        raise WavError(f"{channels} channels")
    if rate_hz not in _RATES_HZ:
        raise WavError(f"a sample rate of {rate_hz} Hz")
    return _Format(tag, channels, rate_hz, bits)


def _samples(body: memoryview, layout: _Format) -> Pcm:
    width = max(1, layout.bits // 8)
    body = body[: len(body) - len(body) % (width * layout.channels)]
    samples: Pcm
    match layout.tag, layout.bits:
        case (1, 8):
            samples = (np.frombuffer(body, np.uint8).astype(np.int16) - 128) * np.int16(256)
        case (1, 16):
            samples = np.frombuffer(body, "<i2").astype(np.int16)
        case (1, 24 | 32):
            # The upper two octets of each sample; what lies below 16 bits is not to be heard.
            octets = np.frombuffer(body, np.uint8).reshape(-1, width)[:, -2:]
            samples = np.ascontiguousarray(octets).view("<i2")[:, 0].astype(np.int16)
        case (3, 32 | 64):
            # Full scale is ±1; NaN and infinity, which a damaged file may hold, are silence and full scale.
            scaled = np.nan_to_num(np.frombuffer(body, f"<f{width}").astype(np.float32) * np.float32(32768), nan=0.0)
            samples = np.asarray(np.clip(np.rint(scaled), -32768, 32767), np.int16)
        case (6, 8):
            samples = g711.decode_a(np.frombuffer(body, np.uint8))
        case (7, 8):
            samples = g711.decode_mu(np.frombuffer(body, np.uint8))
        case _:
            raise WavError(f"format {layout.tag} with {layout.bits} bits")
    if layout.channels == 1:
        return samples
    mean = samples.reshape(-1, layout.channels).mean(axis=1)
    return np.asarray(np.rint(mean), np.int16)
