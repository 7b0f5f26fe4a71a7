"""What everything that touches audio agrees on: samples, and the 20 ms by which they are counted."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pcm: TypeAlias = npt.NDArray[np.int16]
"""int16[n], mono; the rate is said beside it."""

FRAME_MS = 20
"""The packet time (ptime) of everything we send, and the tick of the media clock."""
FRAME_S = FRAME_MS / 1000
FRAMES_PER_SECOND = 1000 // FRAME_MS


def frame_samples(rate_hz: int) -> int:
    """Samples of one frame at a rate."""
    return rate_hz // FRAMES_PER_SECOND
