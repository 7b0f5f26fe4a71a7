"""RTP packets to bytes and back, and arithmetic on fields that wrap. Source: RFC 3550 §5, RFC 5761 §4."""

import struct
from typing import NamedTuple

HEADER_BYTES = 12

_HEADER = struct.Struct("!BBHII")
_WORDS = struct.Struct("!HH")
_VERSION_2 = 0x80
_PADDING = 0x20
_EXTENSION = 0x10
_CSRC_COUNT = 0x0F
_MARKER = 0x80
# RFC 5761 §4: with rtcp-mux the second octet of RTCP is 192..223, which no RTP packet may then have.
_RTCP_TYPES = range(192, 224)


class RtpPacket(NamedTuple):
    """One RTP packet; a named tuple, since one is made for every 20 ms of every call."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    """Without padding. May be empty: some phones keep a NAT binding open that way."""
    csrc: tuple[int, ...] = ()
    extension: tuple[int, bytes] | None = None
    """Profile-defined identifier and data of the header extension; the data is whole 32-bit words."""


def parse(data: bytes) -> RtpPacket | None:
    """The packet in a datagram, or None when it is no well-formed RTP version 2 packet.

    Never raises. Does not tell RTP from RTCP: ask `is_rtcp` first where both share a port.
    """
    if len(data) < HEADER_BYTES:
        return None
    flags, marker_type, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if flags == _VERSION_2:  # the common case: no padding, extension or CSRC
        return RtpPacket(marker_type & 0x7F, marker_type >= _MARKER, sequence, timestamp, ssrc, data[HEADER_BYTES:])
    if flags & 0xC0 != _VERSION_2:
        return None
    return _parse_with_options(
        data, flags, RtpPacket(marker_type & 0x7F, marker_type >= _MARKER, sequence, timestamp, ssrc, b"")
    )


def _parse_with_options(data: bytes, flags: int, packet: RtpPacket) -> RtpPacket | None:
    """The same packet with CSRC list, header extension and padding taken off its payload."""
    count = flags & _CSRC_COUNT
    start, end = HEADER_BYTES + 4 * count, len(data)
    if start > end:
        return None
    csrc = struct.unpack_from(f"!{count}I", data, HEADER_BYTES)
    extension = None
    if flags & _EXTENSION:
        if start + 4 > end:
            return None
        profile, words = _WORDS.unpack_from(data, start)
        start += 4 + 4 * words
        if start > end:
            return None
        extension = (profile, data[start - 4 * words : start])
    if flags & _PADDING:
        # The last octet counts itself, so 0 is malformed, as is more padding than there is payload.
        padding = data[-1]
        if not 1 <= padding <= end - start:
            return None
        end -= padding
    return packet._replace(payload=data[start:end], csrc=csrc, extension=extension)


def pack(packet: RtpPacket) -> bytes:
    """The datagram of a packet, without padding.

    Raises ValueError for more than 15 CSRCs or extension data that is not whole 32-bit words, struct.error
    for a field out of its range.
    """
    marker_type = packet.payload_type | _MARKER if packet.marker else packet.payload_type
    if not packet.csrc and packet.extension is None:
        return _HEADER.pack(_VERSION_2, marker_type, packet.sequence, packet.timestamp, packet.ssrc) + packet.payload
    if len(packet.csrc) > _CSRC_COUNT:
        raise ValueError("an RTP packet holds at most 15 CSRCs")
    flags = _VERSION_2 | len(packet.csrc) | (_EXTENSION if packet.extension is not None else 0)
    parts = [_HEADER.pack(flags, marker_type, packet.sequence, packet.timestamp, packet.ssrc)]
    parts.append(struct.pack(f"!{len(packet.csrc)}I", *packet.csrc))
    if packet.extension is not None:
        profile, data = packet.extension
        if len(data) % 4:
            raise ValueError("RTP header extension data is whole 32-bit words")
        parts += [_WORDS.pack(profile, len(data) // 4), data]
    parts.append(packet.payload)
    return b"".join(parts)


def is_rtcp(data: bytes) -> bool:
    """Whether a datagram on a port shared by RTP and RTCP is RTCP (RFC 5761 §4)."""
    return len(data) >= 2 and data[0] & 0xC0 == _VERSION_2 and data[1] in _RTCP_TYPES


def sequence_delta(newer: int, older: int) -> int:
    """How far `newer` is ahead of `older`, modulo 2^16: -32768..32767."""
    return ((newer - older + 0x8000) & 0xFFFF) - 0x8000


def timestamp_delta(newer: int, older: int) -> int:
    """How far `newer` is ahead of `older`, modulo 2^32: -2^31..2^31-1."""
    return ((newer - older + 0x80000000) & 0xFFFFFFFF) - 0x80000000


class RtpStream:
    """The outgoing half of one RTP session: numbers packets, and marks the first one after a silence.

    Sequence number, timestamp and SSRC start at what the caller drew at random (RFC 3550 §5.1).
    """

    def __init__(self, *, ssrc: int, sequence: int, timestamp: int, payload_type: int) -> None:
        self.ssrc = ssrc
        self.sequence = sequence & 0xFFFF
        """Of the next packet."""
        self.timestamp = timestamp & 0xFFFFFFFF
        """Of the next packet."""
        self.payload_type = payload_type
        self.packet_count = 0
        self.octet_count = 0
        """Payload octets sent, modulo 2^32, as a sender report wants them."""
        self._silent = True

    def send(self, payload: bytes, units: int) -> bytes:
        """The next packet, whose payload lasts `units` of the RTP clock."""
        datagram = self._datagram(self.payload_type, self._silent, self.timestamp, payload)
        self._silent = False
        self.timestamp = (self.timestamp + units) & 0xFFFFFFFF
        return datagram

    def send_event(self, payload_type: int, marker: bool, timestamp: int, payload: bytes) -> bytes:
        """A telephone-event packet: next sequence number, but the timestamp of its key press (RFC 4733 §2.2).

        Does not move the clock; call `skip` for the audio that it stands in for.
        """
        return self._datagram(payload_type, marker, timestamp, payload)

    def skip(self, units: int) -> None:
        """Let time pass without audio; the next packet opens a talk spurt."""
        self.timestamp = (self.timestamp + units) & 0xFFFFFFFF
        self._silent = True

    def _datagram(self, payload_type: int, marker: bool, timestamp: int, payload: bytes) -> bytes:
        marker_type = payload_type | _MARKER if marker else payload_type
        header = _HEADER.pack(_VERSION_2, marker_type, self.sequence, timestamp, self.ssrc)
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.packet_count = (self.packet_count + 1) & 0xFFFFFFFF
        self.octet_count = (self.octet_count + len(payload)) & 0xFFFFFFFF
        return header + payload
