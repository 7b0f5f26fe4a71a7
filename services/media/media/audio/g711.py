"""PCMU and PCMA by table, for arrays of any shape. Source: ITU-T G.711 tables 1 and 2, G.191 for ties."""

import numpy as np
from numpy.typing import NDArray

from dialbus.audio import Pcm

Octets = NDArray[np.uint8]

_MU_BIAS = 33  # of 14-bit magnitudes: makes every segment start at a power of two
_MU_CLIP = 0x1FFF
_A_EVEN_BITS = 0x55  # even bits are inverted on the line (§3.2)


def _mu_decode_table() -> Pcm:
    code = ~np.arange(256, dtype=np.int32) & 0xFF  # all bits are inverted on the line
    segment, step = code >> 4 & 7, code & 0xF
    magnitude = ((2 * step + _MU_BIAS) << segment) - _MU_BIAS
    return (np.where(code & 0x80, -magnitude, magnitude) * 4).astype(np.int16)


def _mu_encode_table() -> Octets:
    linear = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    # Ones' complement for negative values, as in the ITU's software tool library: ties fall away from zero's side.
    magnitude = np.minimum((np.where(linear < 0, ~linear, linear) >> 2) + _MU_BIAS, _MU_CLIP)
    segment = _segment(magnitude >> 6)
    code = segment << 4 | (magnitude >> (segment + 1) & 0xF)
    table: Octets = (~np.where(linear < 0, code | 0x80, code)).astype(np.uint8)
    return table


def _a_decode_table() -> Pcm:
    code = np.arange(256, dtype=np.int32) ^ _A_EVEN_BITS
    segment, step = code >> 4 & 7, code & 0xF
    linear_part = (2 * step + 1) * 8
    magnitude = np.where(segment == 0, linear_part, (linear_part + 256) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _a_encode_table() -> Octets:
    linear = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(linear < 0, ~linear, linear) >> 4
    segment = _segment(magnitude >> 4)
    step = magnitude >> np.maximum(segment - 1, 0) & 0xF
    code = segment << 4 | step
    return (np.where(linear < 0, code, code | 0x80) ^ _A_EVEN_BITS).astype(np.uint8)


def _segment(above: NDArray[np.int32]) -> NDArray[np.int32]:
    """The bit length of each value: the segment whose first value has that many bits above the steps."""
    return sum(((above >> bit) > 0).astype(np.int32) for bit in range(8)) + np.zeros_like(above)


_MU_DECODE = _mu_decode_table()
_MU_ENCODE = _mu_encode_table()
_A_DECODE = _a_decode_table()
_A_ENCODE = _a_encode_table()


def encode_mu(pcm: Pcm) -> Octets:
    """PCMU octets of int16 samples, in the same shape."""
    return _MU_ENCODE[pcm.view(np.uint16)]


def decode_mu(octets: Octets) -> Pcm:
    """Samples of PCMU octets, in the same shape."""
    return _MU_DECODE[octets]


def encode_a(pcm: Pcm) -> Octets:
    """PCMA octets of int16 samples, in the same shape."""
    return _A_ENCODE[pcm.view(np.uint16)]


def decode_a(octets: Octets) -> Pcm:
    """Samples of PCMA octets, in the same shape."""
    return _A_DECODE[octets]
