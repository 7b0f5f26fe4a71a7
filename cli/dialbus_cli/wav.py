"""WAV files in and out of the telephone band: mono, 16 bit, 8 kHz."""

import math
import struct
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 8000
Pcm = NDArray[np.int16]

_EXTENSIBLE = 0xFFFE


class WavError(Exception):
    """A file that is no WAV, or of a kind that can't be read; the text says which."""


def read(path: Path) -> Pcm:
    """The file's sound as int16[n] at 8 kHz, its channels averaged. PCM of 8 to 32 bits and floats, any rate.

    Raises WavError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WavError(f"{path}: {error.strerror}") from None
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError(f"{path}: not a WAV file")
    chunks = _chunks(data)
    if "fmt " not in chunks or "data" not in chunks or len(chunks["fmt "]) < 16:
        raise WavError(f"{path}: no format or no sound in it")
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunks["fmt "])
    if kind == _EXTENSIBLE and len(chunks["fmt "]) >= 26:
        (kind,) = struct.unpack_from("<H", chunks["fmt "], 24)
    if not channels or not rate_hz:
        raise WavError(f"{path}: no channels or no sample rate")
    samples = _samples(chunks["data"], kind, bits)
    if samples is None:
        raise WavError(f"{path}: WAV format {kind} with {bits} bits can't be read, only PCM and floats")
    mono = samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1)
    return _to_int16(resample(mono, rate_hz))


def write(path: Path, sound: Pcm) -> None:
    """Write mono 16 bit PCM at 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(sound.astype("<i2").tobytes())


def resample(samples: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    """The same sound at 8 kHz, cut off below 4 kHz, by its spectrum; for a whole file at once, not for a stream."""
    count = round(len(samples) * RATE_HZ / rate_hz)
    if rate_hz == RATE_HZ or not count:
        return samples[:count]
    # Half a second of silence at the end or more, since the spectrum is periodic and the file is not; of a length
    # that is a whole number of samples at 8 kHz too.
    unit = rate_hz // math.gcd(rate_hz, RATE_HZ)
    total = -(-(len(samples) + rate_hz // 2) // unit) * unit
    spectrum = np.fft.rfft(samples, total)
    wanted = total * RATE_HZ // rate_hz
    bins = wanted // 2 + 1
    cut = np.zeros(bins, dtype=complex)
    kept = min(bins, len(spectrum))
    cut[:kept] = spectrum[:kept]
    return (np.fft.irfft(cut, wanted) * (wanted / total))[:count]


def _chunks(data: bytes) -> dict[str, bytes]:
    chunks: dict[str, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        # A recorder that was cut off leaves a size of 0 or 4 GiB in front of what is there.
        chunks.setdefault(name.decode("latin-1"), data[at + 8 : at + 8 + size])
        at += 8 + size + (size & 1)
    return chunks


def _samples(data: bytes, kind: int, bits: int) -> NDArray[np.float64] | None:
    """Samples from -1 to 1, or None for a format that is not known."""
    width = bits // 8
    data = data[: len(data) // width * width] if width else b""
    match kind, bits:
        case (1, 8):
            return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
        case (1, 16):
            return np.frombuffer(data, "<i2").astype(np.float64) / 2**15
        case (1, 24):
            bytes3 = np.frombuffer(data, np.uint8).reshape(-1, 3)
            top = np.zeros((len(bytes3), 4), np.uint8)
            top[:, 1:] = bytes3
            return top.view("<i4")[:, 0].astype(np.float64) / 2**31
        case (1, 32):
            return np.frombuffer(data, "<i4").astype(np.float64) / 2**31
        case (3, 32):
            return np.frombuffer(data, "<f4").astype(np.float64)
        case (3, 64):
            return np.frombuffer(data, "<f8").astype(np.float64)
    return None


def _to_int16(samples: NDArray[np.float64]) -> Pcm:
    return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
