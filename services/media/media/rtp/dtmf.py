"""Keys of a phone as telephone-event payloads, received and sent. Source: RFC 4733 §2."""

import struct
from dataclasses import dataclass

from media.rtp.packet import timestamp_delta

DIGITS = "0123456789*#ABCD"
"""Digit by event code 0..15 (RFC 4733 §3.2)."""

_PAYLOAD = struct.Struct("!BBH")
_END = 0x80
_VOLUME = 0x3F
_LONGEST_SEGMENT = 0xFFFF
_END_PACKETS = 3
# Older than this, a timestamp is no straggler: the sender has started its clock anew.
_STRAGGLER_SECONDS = 5


class DtmfReceiver:
    """Turns the telephone-event packets of one stream into key presses, each told once, at its start."""

    def __init__(self, clock_rate_hz: int = 8000) -> None:
        self._straggler_units = _STRAGGLER_SECONDS * clock_rate_hz
        self._ssrc: int | None = None
        self._event = 0
        self._timestamp = 0
        self._ended = True

    def receive(self, ssrc: int, timestamp: int, payload: bytes) -> str | None:
        """The digit, when this packet is the first one seen of a key press; else None.

        One press keeps one timestamp in all its packets, so whatever of them is lost, any one that arrives
        tells the press. None also for events that are no DTMF digits (16 is flash) and malformed payloads.
        Only the first event of a payload is read; phones never pack several (§2.5.1.5).
        """
        if len(payload) < _PAYLOAD.size:
            return None
        event, flags, _ = _PAYLOAD.unpack_from(payload)
        if event >= len(DIGITS):
            return None
        is_new = self._is_new(ssrc, timestamp, event)
        if is_new is None:
            return None
        self._ssrc, self._timestamp, self._event = ssrc, timestamp, event
        self._ended = bool(flags & _END) or (self._ended and not is_new)
        return DIGITS[event] if is_new else None

    def _is_new(self, ssrc: int, timestamp: int, event: int) -> bool | None:
        """Whether a packet opens a press (True), goes on with the current one (False) or is a straggler (None)."""
        if ssrc != self._ssrc:
            return True
        ahead = timestamp_delta(timestamp, self._timestamp)
        if ahead == 0:
            return False
        if -self._straggler_units < ahead < 0:
            return None
        # §2.5.1.3: a key held for longer than the duration field can tell goes on in a new segment, whose
        # timestamp follows on the last one's end and whose predecessor had no end packet.
        return not (ahead == _LONGEST_SEGMENT and event == self._event and not self._ended)


@dataclass(frozen=True, slots=True)
class DtmfPacket:
    """What one packet of a key press carries; sequence number, SSRC and payload type are the stream's."""

    marker: bool
    timestamp: int
    payload: bytes


def digit_packets(
    digit: str,
    timestamp: int,
    *,
    duration_ms: int = 100,
    ptime_ms: int = 20,
    volume_dbm0: int = -10,
    clock_rate_hz: int = 8000,
) -> list[DtmfPacket]:
    """The packets of one key press that starts at `timestamp`, one for each ptime, to be sent in this order.

    The first has the marker; the last three are the same end packet (§2.5.1.4). Raises ValueError for what is no
    DTMF digit, and for a duration that one segment cannot hold (8.1 s at 8 kHz).
    """
    event = DIGITS.find(digit.upper()) if len(digit) == 1 else -1
    if event < 0:
        raise ValueError(f"not a DTMF digit: {digit!r}")
    total = duration_ms * clock_rate_hz // 1000
    if not 0 < total <= _LONGEST_SEGMENT:
        raise ValueError(f"not a duration of a key press: {duration_ms} ms")
    volume = min(max(-volume_dbm0, 0), _VOLUME)
    step = ptime_ms * clock_rate_hz // 1000
    payloads = [_PAYLOAD.pack(event, volume, duration) for duration in range(step, total, step)]
    payloads += [_PAYLOAD.pack(event, _END | volume, total)] * _END_PACKETS
    return [DtmfPacket(index == 0, timestamp, payload) for index, payload in enumerate(payloads)]
