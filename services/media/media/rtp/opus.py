"""How long an Opus packet lasts, told by its first octet. Source: RFC 6716 §3.1 and §3.2, RFC 7587 §4.2."""

from typing import Final

CLOCK_RATE_HZ: Final = 48000
"""Of RTP timestamps, whatever the packet was encoded from."""

_LONGEST_UNITS = 120 * CLOCK_RATE_HZ // 1000
_SILK = (480, 960, 1920, 2880)  # 10, 20, 40, 60 ms
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)  # 2.5, 5, 10, 20 ms
_FRAME_UNITS: Final = (*_SILK * 3, *_HYBRID * 2, *_CELT * 4)
"""By the configuration number, the upper five bits of the first octet."""


def packet_units(packet: bytes) -> int:
    """The length of a packet in units of the RTP clock; 0 when it is none that the standard allows."""
    if not packet:
        return 0
    frame = _FRAME_UNITS[packet[0] >> 3]
    match packet[0] & 3:
        case 0:
            count = 1
        case 3:
            count = packet[1] & 0x3F if len(packet) > 1 else 0
        case _:
            count = 2
    units = frame * count
    return units if units <= _LONGEST_UNITS else 0
