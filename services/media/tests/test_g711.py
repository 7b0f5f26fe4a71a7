"""G.711 tables against the decision and output values of the Recommendation."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.audio import g711

Coder = Callable[[Any], np.ndarray]


def mu_decisions() -> list[int]:
    """Decision values of table 2a, column 4, in 14-bit units: 0, 1, 3 … 31, 35 … 95, 103 … 7903."""
    values, step = [0, 1], 2
    for steps in (15, *[16] * 7):
        for _ in range(steps):
            values.append(values[-1] + step)
        step *= 2
    return values[:128]


def a_decisions() -> list[int]:
    """Decision values of table 1a, column 4, in 13-bit units of 1/4096, doubled to 12 bits: 0, 2, 4 … 64, 68 …"""
    values, step = [0], 2
    for steps in (31, *[16] * 6):
        for _ in range(steps + (step == 2)):
            values.append(values[-1] + step)
        step *= 2
    return values[:128]


def slow_mu(sample: int) -> int:
    magnitude = (-sample - 1 if sample < 0 else sample) // 4
    number = bisect_right(mu_decisions(), magnitude) - 1
    return 0xFF ^ (number | (0x80 if sample < 0 else 0))


def slow_a(sample: int) -> int:
    magnitude = (-sample - 1 if sample < 0 else sample) // 8
    number = bisect_right(a_decisions(), magnitude) - 1
    return (number | (0 if sample < 0 else 0x80)) ^ 0x55


EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)


def test_decision_values_end_where_the_recommendation_says() -> None:
    assert mu_decisions()[-1] == 7903
    assert a_decisions()[-1] == 3968


@pytest.mark.parametrize(("fast", "slow"), [(g711.encode_mu, slow_mu), (g711.encode_a, slow_a)])
def test_every_sample_is_encoded_as_by_the_decision_values(fast: Coder, slow: Callable[[int], int]) -> None:
    samples = EVERY_SAMPLE[::7]
    assert fast(samples).tolist() == [slow(int(sample)) for sample in samples]


@pytest.mark.parametrize(
    ("decode", "octets", "pcm"),
    [
        # Output values y of tables 2 and 1: 0, 2, 30, 33, 93, 99, 8031 times 4; 1, 31.5·2, 66, 4032 times 8.
        (g711.decode_mu, [0xFF, 0xFE, 0xF0, 0xEF, 0xE0, 0xDF, 0x80], [0, 8, 120, 132, 372, 396, 32124]),
        (g711.decode_mu, [0x7F, 0x7E, 0x00], [0, -8, -32124]),
        (g711.decode_a, [0xD5, 0xD4, 0xC5, 0xF5, 0xAA], [8, 24, 264, 528, 32256]),
        (g711.decode_a, [0x55, 0x54, 0x2A], [-8, -24, -32256]),
    ],
)
def test_output_values(decode: Coder, octets: list[int], pcm: list[int]) -> None:
    assert decode(np.array(octets, np.uint8)).tolist() == pcm


@pytest.mark.parametrize(("encode", "decode"), [(g711.encode_mu, g711.decode_mu), (g711.encode_a, g711.decode_a)])
def test_every_octet_survives_decoding_and_encoding(encode: Coder, decode: Coder) -> None:
    octets = np.arange(256, dtype=np.uint8)
    again = encode(decode(octets))
    if decode is g711.decode_mu:
        octets[0x7F] = 0xFF  # minus zero is plus zero
    assert again.tolist() == octets.tolist()


@given(st.integers(1, 5), st.integers(1, 9))
def test_shape_is_kept(rows: int, columns: int) -> None:
    pcm = np.zeros((rows, columns), np.int16)
    assert g711.decode_a(g711.encode_a(pcm)).shape == g711.decode_mu(g711.encode_mu(pcm)).shape == pcm.shape
