"""Audio from a `/call` socket on its way to the call (protocol section 10.1).

Clients begin to talk before there is a call that could hear them. What they said is held until the answer, at most
its last second, and then goes out in order.
"""

DEFAULT_BYTES_PER_SECOND = 32_000
"""pcm at 16 kHz, the default of `/call`."""
_HELD_S = 1.0
BURST_BYTES = 10 << 20
"""A client may send five minutes at once, say a file,"""
STEADY_BYTES_PER_SECOND = 1 << 20
"""and after that no faster than this, which is several times what any codec needs."""


def bytes_per_second(codec: str | None, rate_hz: int | None) -> int:
    """Of audio as it stands in binary frames; unknown codecs count like the default."""
    match (codec or "pcm").lower():
        case "pcmu" | "pcma" | "g722":
            return 8_000
        case _:
            return 2 * rate_hz if rate_hz else DEFAULT_BYTES_PER_SECOND


class Uplink:
    """Holds audio back until the call is up."""

    def __init__(self) -> None:
        self._up = False
        self._held = bytearray()
        self._max_held = round(DEFAULT_BYTES_PER_SECOND * _HELD_S)

    def expect(self, bytes_per_second: int) -> None:
        """The audio has this rate, as the invite says."""
        self._max_held = round(bytes_per_second * _HELD_S)
        self._trim()

    def audio(self, data: bytes) -> list[bytes]:
        """What the client sent: the parts that go to the call now."""
        if self._up:
            return [data] if data else []
        self._held += data
        self._trim()
        return []

    def answered(self) -> list[bytes]:
        """The call is up: what was held, if anything."""
        self._up = True
        held, self._held = bytes(self._held), bytearray()
        return [held] if held else []

    def _trim(self) -> None:
        excess = len(self._held) - self._max_held
        if excess > 0:
            # An even number, since messages may end inside a sample and samples must keep their halves.
            del self._held[: excess + excess % 2]


class Throttle:
    """How long to leave a socket unread, so that one client can't fill the bus. It loses nothing, it waits."""

    def __init__(self, now: float) -> None:
        self._free_at = now - BURST_BYTES / STEADY_BYTES_PER_SECOND

    def delay(self, size_bytes: int, now: float) -> float:
        """Seconds to wait after a message that arrived now."""
        self._free_at = max(self._free_at, now - BURST_BYTES / STEADY_BYTES_PER_SECOND)
        self._free_at += size_bytes / STEADY_BYTES_PER_SECOND
        return max(0.0, self._free_at - now)
