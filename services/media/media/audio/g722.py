"""G.722 at 64 kbit/s: 16 kHz mono in, one octet for every two samples out. Source: ITU-T G.722, mode 1.

The arithmetic is libg722's (public domain, passes the ITU's test sequences), through its `G722` extension module.
"""

import numpy as np
from G722 import G722  # type: ignore[import-not-found]  # an extension module without stubs
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16000
_BIT_RATE = 64000


class G722Encoder:
    """One direction of one leg; its predictors remember what was encoded before."""

    def __init__(self) -> None:
        self._state = G722(SAMPLE_RATE_HZ, _BIT_RATE, use_numpy=False)

    def encode(self, pcm: NDArray[np.int16]) -> bytes:
        """Half as many octets as samples. Raises ValueError for an odd number of samples."""
        if len(pcm) % 2:
            raise ValueError("G.722 encodes pairs of samples")
        return bytes(self._state.encode(pcm))


class G722Decoder:
    """One direction of one leg; its predictors remember what was decoded before. Delay with the encoder: 22 samples."""

    def __init__(self) -> None:
        self._state = G722(SAMPLE_RATE_HZ, _BIT_RATE, use_numpy=False)

    def decode(self, octets: bytes) -> NDArray[np.int16]:
        """Twice as many samples as octets; any octets are valid."""
        if not octets:
            return np.zeros(0, np.int16)
        return np.frombuffer(self._state.decode(octets), np.int16)
