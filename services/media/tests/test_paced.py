"""Messages of any size become 20 ms a tick, and nothing is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.audio.paced import HOLD_TICKS, PacedBytes, PacedPcm
from tests.peers.rtp import tone

PIECE = 160


def _g711(max_s: float = 10.0) -> PacedBytes:
    return PacedBytes(8000, max_s)


def test_what_comes_after_a_pause_is_held_until_there_is_enough() -> None:
    paced = _g711()
    paced.put(bytes(PIECE))
    assert paced.take(PIECE) is None
    paced.put(bytes(2 * PIECE))
    assert [paced.take(PIECE) is not None for _ in range(5)] == [True, True, True, False, False]


def test_a_short_stretch_is_held_only_so_long() -> None:
    paced = _g711()
    paced.put(bytes(PIECE))
    assert [paced.take(PIECE) is not None for _ in range(HOLD_TICKS + 2)] == [False] * HOLD_TICKS + [True, False]


def test_messages_that_are_early_and_late_make_pauses_only_at_first() -> None:
    paced = _g711()
    sounding = []
    for batch in range(100):
        for step in range(3):
            if step == batch % 2:  # 60 ms in each message, every other one 20 ms late
                paced.put(bytes(3 * PIECE))
            sounding.append(paced.take(PIECE) is not None)

    assert all(sounding[20:])


def test_real_pauses_do_not_make_it_hold_more() -> None:
    paced = _g711()
    for _ in range(20):
        paced.put(bytes(2 * PIECE))
        waited = next(tick for tick in range(20) if paced.take(PIECE) is not None)
        assert waited == HOLD_TICKS
        assert [paced.take(PIECE) is not None for _ in range(20)] == [True] + [False] * 19


def test_a_file_sent_at_once_is_heard_whole_and_at_its_pace() -> None:
    paced = _g711(max_s=60)
    whole = bytes(range(250)) * 1600  # 50 s
    assert paced.put(whole) == 0
    assert paced.seconds == 50

    heard = [paced.take(PIECE) for _ in range(2500)]

    assert b"".join(piece or b"" for piece in heard) == whole
    assert paced.take(PIECE) is None


def test_beyond_the_bound_the_oldest_goes_in_whole_samples() -> None:
    paced = PacedBytes.of_samples(8000, max_s=1.0)

    assert paced.put(b"\x01") == 0
    assert paced.put(bytes(16_000)) == 2
    assert paced.seconds == pytest.approx(1.0, abs=0.001)


@given(st.lists(st.binary(max_size=700), max_size=30))
def test_every_octet_comes_out_once_and_in_order(messages: list[bytes]) -> None:
    paced = _g711()
    heard = b""
    for message in messages:
        paced.put(message)
        heard += paced.take(PIECE) or b""
    for _ in range(200):
        heard += paced.take(PIECE) or b""

    whole = b"".join(messages)
    assert heard == whole[: len(whole) // PIECE * PIECE]


@pytest.mark.parametrize("source_hz", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
@pytest.mark.parametrize("target_hz", [8000, 16000])
def test_samples_of_any_rate_keep_their_length_in_odd_messages(source_hz: int, target_hz: int) -> None:
    data = tone(700, 1.0, source_hz).tobytes()
    paced = PacedPcm(source_hz, target_hz, max_s=2.0)
    for at in range(0, len(data), 333):
        paced.put(data[at : at + 333])

    frames = [paced.take(target_hz // 50) for _ in range(60)]

    heard = np.concatenate([frame for frame in frames if frame is not None])
    assert {len(frame) for frame in frames if frame is not None} == {target_hz // 50}
    assert len(heard) == pytest.approx(target_hz, abs=target_hz // 50)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * target_hz / len(heard) == pytest.approx(700, abs=2)
