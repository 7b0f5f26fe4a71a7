"""The 20 ms that everything is counted by."""

import pytest

from dialbus.audio import FRAME_MS, FRAME_S, FRAMES_PER_SECOND, frame_samples


@pytest.mark.parametrize(("rate_hz", "samples"), [(8000, 160), (16000, 320), (24000, 480), (48000, 960)])
def test_samples_of_a_frame(rate_hz: int, samples: int) -> None:
    assert frame_samples(rate_hz) == samples
    assert round(FRAME_S * 1000) == FRAME_MS
    assert FRAMES_PER_SECOND * FRAME_MS == 1000
