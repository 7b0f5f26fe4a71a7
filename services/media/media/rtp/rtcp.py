"""RTCP reports: compound packets of SR, RR, SDES and BYE, to bytes and back. Source: RFC 3550 §6."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_SENDER_REPORT, _RECEIVER_REPORT, _SDES, _BYE = 200, 201, 202, 203
_CNAME = 1
_NTP_EPOCH_OFFSET = 2_208_988_800  # seconds from 1900 to 1970

_HEADER = struct.Struct("!BBH")
_SENDER = struct.Struct("!QIII")
_BLOCK = struct.Struct("!IIIIII")
_MAX_COUNT = 31


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """How one remote source was received (§6.4.1)."""

    ssrc: int
    fraction_lost: int
    """Since the last report, in 1/256."""
    cumulative_lost: int
    """Signed, 24 bits: duplicates can make it negative."""
    highest_sequence: int
    """Extended by the count of wraps, modulo 2^32."""
    jitter: int
    """In units of the RTP clock."""
    last_sender_report: int = 0
    """Middle 32 bits of the NTP time of the last SR received; 0 when there was none."""
    delay_since_last: int = 0
    """Since that SR was received, in 1/65536 s."""


@dataclass(frozen=True, slots=True)
class SenderReport:
    """What a sender sent so far, and how it receives (§6.4.1)."""

    ssrc: int
    ntp_time: int
    """64 bits: seconds since 1900 in the upper half, their fraction in the lower."""
    timestamp: int
    packet_count: int
    octet_count: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """How a participant that sends nothing receives (§6.4.2)."""

    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """The canonical name of a source (§6.5); its other items are not read."""

    ssrc: int
    cname: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Sources that leave (§6.6)."""

    ssrcs: tuple[int, ...]
    reason: str = ""


Report = SenderReport | ReceiverReport | SourceDescription | Goodbye


def build(reports: Sequence[Report]) -> bytes:
    """The compound packet of these reports, in this order.

    A compound packet starts with an SR or RR and holds a CNAME (§6.1); ValueError when it does not start so,
    or when a report has more blocks or sources than its count field can tell.
    """
    if not reports or not isinstance(reports[0], SenderReport | ReceiverReport):
        raise ValueError("a compound RTCP packet starts with a sender or receiver report")
    return b"".join(map(_build_one, reports))


def parse(data: bytes) -> list[Report] | None:
    """The reports of a compound packet; None when it is malformed anywhere, as then nothing in it is to be believed.

    Packet types that are not known here (APP, feedback) are stepped over. Reduced-size packets (RFC 5506) are read
    too. Never raises.
    """
    reports: list[Report] = []
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            return None
        flags, kind, words = _HEADER.unpack_from(data, position)
        end = position + 4 + 4 * words
        if flags & 0xC0 != 0x80 or end > len(data):
            return None
        body = data[position + 4 : end]
        if flags & 0x20:  # padding, allowed on the last packet only (§6.4.1)
            if end != len(data) or not body or not 1 <= body[-1] <= len(body) or body[-1] % 4:
                return None
            body = body[: -body[-1]]
        try:
            reports += _parse_one(kind, flags & 0x1F, body)
        except (struct.error, IndexError):
            return None
        position = end
    return reports or None


def ntp_from_unix(seconds: float) -> int:
    """A 64-bit NTP time of seconds since 1970, modulo the NTP era (2036)."""
    return int((seconds + _NTP_EPOCH_OFFSET) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF


def middle_32(ntp_time: int) -> int:
    """The middle 32 bits of an NTP time: what `last_sender_report` holds, in 1/65536 s."""
    return (ntp_time >> 16) & 0xFFFFFFFF


def _build_one(report: Report) -> bytes:
    if isinstance(report, SenderReport):
        body = struct.pack("!I", report.ssrc) + _SENDER.pack(
            report.ntp_time, report.timestamp, report.packet_count, report.octet_count
        )
        return _packet(_SENDER_REPORT, len(report.blocks), body + b"".join(map(_build_block, report.blocks)))
    if isinstance(report, ReceiverReport):
        body = struct.pack("!I", report.ssrc) + b"".join(map(_build_block, report.blocks))
        return _packet(_RECEIVER_REPORT, len(report.blocks), body)
    if isinstance(report, SourceDescription):
        name = report.cname.encode()[:255]
        # A chunk ends with at least one null octet and is filled up to a word (§6.5).
        chunk = struct.pack("!IBB", report.ssrc, _CNAME, len(name)) + name + b"\0"
        return _packet(_SDES, 1, chunk)
    body = struct.pack(f"!{len(report.ssrcs)}I", *report.ssrcs)
    if report.reason:
        reason = report.reason.encode()[:255]
        body += bytes([len(reason)]) + reason
    return _packet(_BYE, len(report.ssrcs), body)


def _packet(kind: int, count: int, body: bytes) -> bytes:
    if count > _MAX_COUNT:
        raise ValueError(f"an RTCP packet holds at most {_MAX_COUNT} blocks or sources")
    body += b"\0" * (-len(body) % 4)
    return _HEADER.pack(0x80 | count, kind, len(body) // 4) + body


def _build_block(block: ReportBlock) -> bytes:
    lost = min(max(block.cumulative_lost, -0x800000), 0x7FFFFF) & 0xFFFFFF
    return _BLOCK.pack(
        block.ssrc,
        (block.fraction_lost & 0xFF) << 24 | lost,
        block.highest_sequence & 0xFFFFFFFF,
        block.jitter & 0xFFFFFFFF,
        block.last_sender_report,
        block.delay_since_last & 0xFFFFFFFF,
    )


def _parse_one(kind: int, count: int, body: bytes) -> list[Report]:
    """The reports of one packet's body; raises struct.error or IndexError when it is too short for them."""
    if kind == _SENDER_REPORT:
        (ssrc,) = struct.unpack_from("!I", body)
        ntp_time, timestamp, packets, octets = _SENDER.unpack_from(body, 4)
        return [SenderReport(ssrc, ntp_time, timestamp, packets, octets, _parse_blocks(body, 24, count))]
    if kind == _RECEIVER_REPORT:
        (ssrc,) = struct.unpack_from("!I", body)
        return [ReceiverReport(ssrc, _parse_blocks(body, 4, count))]
    if kind == _SDES:
        return list(_parse_chunks(body, count))
    if kind == _BYE:
        ssrcs = struct.unpack_from(f"!{count}I", body)
        return [Goodbye(ssrcs, _parse_text(body, 4 * count) if len(body) > 4 * count else "")]
    return []


def _parse_blocks(body: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for index in range(count):
        ssrc, loss, *rest = _BLOCK.unpack_from(body, start + _BLOCK.size * index)
        lost = (loss & 0xFFFFFF ^ 0x800000) - 0x800000
        blocks.append(ReportBlock(ssrc, loss >> 24, lost, *rest))
    return tuple(blocks)


def _parse_chunks(body: bytes, count: int) -> list[SourceDescription]:
    found = []
    position = 0
    for _ in range(count):
        (ssrc,) = struct.unpack_from("!I", body, position)
        position += 4
        while (kind := body[position]) != 0:
            text = _parse_text(body, position + 1)
            if kind == _CNAME:
                found.append(SourceDescription(ssrc, text))
            position += 2 + body[position + 1]
        position += 4 - position % 4  # the null octets that end a chunk, one at least
    return found


def _parse_text(body: bytes, position: int) -> str:
    """The text whose length octet is at `position`; IndexError when it runs out of the packet."""
    end = position + 1 + body[position]
    if end > len(body):
        raise IndexError("RTCP text runs out of its packet")
    return body[position + 1 : end].decode(errors="replace")
