"""Audio of a client that talks before its call is up."""

import pytest

from gateway.socket.uplink import Throttle, Uplink, bytes_per_second


def test_the_last_second_is_held_and_flushed_once_then_nothing_is() -> None:
    uplink = Uplink()
    sent = bytes(index % 251 for index in range(40_000))
    for start in range(0, len(sent), 640):
        assert uplink.audio(sent[start : start + 640]) == []
    assert uplink.answered() == [sent[-32_000:]]
    assert uplink.audio(b"x") == [b"x"]
    assert uplink.audio(b"") == []
    assert uplink.answered() == []


def test_samples_cut_by_message_borders_stay_whole() -> None:
    uplink = Uplink()
    sent = bytes(index % 251 for index in range(33_333))
    for start in range(0, len(sent), 7):
        uplink.audio(sent[start : start + 7])
    (held,) = uplink.answered()
    assert (len(sent) - len(held)) % 2 == 0
    assert sent.endswith(held)
    assert 31_998 <= len(held) <= 32_000


def test_a_slower_codec_shortens_what_is_held() -> None:
    uplink = Uplink()
    uplink.audio(bytes(32_000))
    uplink.expect(8_000)
    assert uplink.answered() == [bytes(8_000)]


def test_nothing_held_is_nothing_flushed() -> None:
    assert Uplink().answered() == []


@pytest.mark.parametrize(
    ("codec", "rate_hz", "expected"),
    [
        (None, None, 32_000), ("pcm", 8_000, 16_000), ("PCM", 48_000, 96_000), ("pcmu", None, 8_000),
        ("PCMA", 16_000, 8_000), ("g722", None, 8_000), ("opus", None, 32_000),
    ],
)  # fmt: skip
def test_bytes_of_a_second(codec: str | None, rate_hz: int | None, expected: int) -> None:
    assert bytes_per_second(codec, rate_hz) == expected


def test_a_file_passes_at_once_and_a_flood_is_slowed_to_a_mebibyte_per_second() -> None:
    throttle = Throttle(now=100.0)
    assert [throttle.delay(65_536, 100.0) for _ in range(160)] == [0.0] * 160  # 10 MiB
    assert throttle.delay(65_536, 100.0) == pytest.approx(1 / 16)
    assert throttle.delay(65_536, 100.0 + 1 / 16) == pytest.approx(1 / 16)
    assert throttle.delay(640, 101.0) == 0.0
    assert [throttle.delay(65_536, 1000.0) for _ in range(160)] == [0.0] * 160  # the burst is there again
    assert throttle.delay(65_536, 1000.0) > 0
