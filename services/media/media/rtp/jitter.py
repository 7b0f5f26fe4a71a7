"""Jitter buffer of one incoming stream: packets in as they come, one frame of audio out for every tick.

Works on the RTP timeline. In codecs whose payload is one octet for each unit of the RTP clock, PCMU, PCMA and G.722
at 64 kbit/s (whose clock runs at 8 kHz by RFC 3551 §4.5.2), a frame can be cut out of packets of any ptime; packets of
other codecs come out whole (`PacketJitterBuffer`). Sequence numbers tell loss from silence, as in RFC 3550 appendix A;
the delay follows the transit times of the last seconds.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from dialbus.audio import FRAME_S
from media.rtp.packet import RtpPacket, sequence_delta, timestamp_delta

_MAX_PACKETS = 128
_MAX_PAYLOAD_SECONDS = 0.2
_MAX_DROPOUT = 3000  # RFC 3550 A.1: further ahead than this, the sender has started anew
_MAX_MISORDER = 100
_SEEN_BITS = (1 << 128) - 1
# A transit time that leaps by this much is a new timeline, not jitter.
_TIMELINE_LEAP_SECONDS = 1.0
# An empty buffer is awaited this long (a burst may be on its way) before it counts as silence.
_HOLD_SECONDS = 0.1
# Delay above the target is given back a frame at a time, when it has lasted this long, then twice a second.
_SURPLUS_SECONDS = 1.0
_SURPLUS_FRAMES = 1.5


class NoAudio(Enum):
    """What a tick without audio means."""

    MISSING = "missing"
    """Audio was due and is lost or late: conceal it."""
    IDLE = "idle"
    """The remote party sends nothing, or its talk spurt is not due yet: play silence."""


MISSING: Final = NoAudio.MISSING
IDLE: Final = NoAudio.IDLE


@dataclass(frozen=True, slots=True)
class JitterStatistics:
    """Counts since the stream's start, and its present state. Loss is as RFC 3550 §6.4.1 and A.3 define it."""

    received: int
    expected: int
    highest_sequence: int
    """Extended by the count of wraps."""
    late: int
    duplicates: int
    reordered: int
    discarded: int
    """Packets thrown away: malformed, out of any order, too many, or passed over to shorten the delay."""
    concealed: int
    """Frames answered with MISSING."""
    skipped: int
    """Frames passed over to shorten the delay."""
    restarts: int
    jitter_units: int
    """Interarrival jitter in units of the RTP clock, as a report block wants it."""
    jitter_seconds: float
    target_delay: float
    """Seconds."""

    @property
    def lost(self) -> int:
        """Packets expected and not received; duplicates can make it negative."""
        return self.expected - self.received


class _Entry(NamedTuple):
    timestamp: int  # extended
    sequence: int  # extended
    end: int
    marker: bool
    payload: bytes


@dataclass(slots=True)
class _Counts:
    """Since the stream's start; see JitterStatistics."""

    received: int = 0
    late: int = 0
    duplicates: int = 0
    reordered: int = 0
    discarded: int = 0
    concealed: int = 0
    skipped: int = 0
    restarts: int = 0
    expected_before: int = 0
    """Packets expected on the timelines before this one."""


class _Sequences:
    """Which packets of a timeline have been received, by extended sequence number (RFC 3550 A.1)."""

    def __init__(self, first: int) -> None:
        # One wrap ahead, so that packets from before the first one have numbers above zero too.
        self.highest = self._first = first + 0x10000
        self._seen = 1  # bit n: the packet n before the highest has been received

    @property
    def expected(self) -> int:
        """Packets from the first to the highest (RFC 3550 A.3)."""
        return self.highest - self._first + 1

    def delta(self, sequence: int) -> int:
        """How far ahead of the highest a packet is; negative when it is behind."""
        return sequence_delta(sequence, self.highest & 0xFFFF)

    def note(self, delta: int) -> bool:
        """The packet `delta` ahead of the highest has come; False when it was received before."""
        if delta > 0:
            self._seen = ((self._seen << min(delta, 128)) | 1) & _SEEN_BITS
            self.highest += delta
            return True
        if self._seen >> -delta & 1:
            return False
        self._seen |= 1 << -delta
        self._first = min(self._first, self.highest + delta)
        return True

    def misses_between(self, earlier: int, later: int) -> bool:
        """Whether a packet between these two has not been received."""
        mask = (1 << min(max(later - earlier - 1, 0), 128)) - 1
        return (self._seen >> (self.highest - later + 1)) & mask != mask


class _TransitWindow:
    """Least and greatest transit time of the last few seconds, in buckets of half a second."""

    _BUCKET_SECONDS = 0.5
    _BUCKETS = 8

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, float]] = deque(maxlen=self._BUCKETS)
        self._bucket_ends = 0.0
        self.least = 0.0
        self.greatest = 0.0

    def add(self, transit: float, now: float) -> None:
        if now < self._bucket_ends and self._buckets:
            if not self.least <= transit <= self.greatest:
                self.least, self.greatest = min(self.least, transit), max(self.greatest, transit)
            low, high = self._buckets[-1]
            if not low <= transit <= high:
                self._buckets[-1] = (min(low, transit), max(high, transit))
            return
        self._bucket_ends = now + self._BUCKET_SECONDS
        self._buckets.append((transit, transit))
        self.least = min(low for low, _ in self._buckets)
        self.greatest = max(high for _, high in self._buckets)

    def clear(self) -> None:
        self._buckets.clear()


class JitterBuffer:
    """Restores order and an even pace; `put` packets when they come, `get` one frame for every tick.

    `now` is seconds on one monotonic clock. The delay stays between `min_delay` and `max_delay` seconds beyond the
    fastest packet of late, plus at most one frame. Memory is bounded: 128 packets of at most 200 ms.
    """

    def __init__(
        self,
        *,
        clock_rate_hz: int = 8000,
        frame_seconds: float = FRAME_S,
        min_delay: float = 0.04,
        max_delay: float = 0.2,
    ) -> None:
        self._rate = clock_rate_hz
        self._frame_seconds = frame_seconds
        self._frame = round(clock_rate_hz * frame_seconds)
        self._min_delay, self._max_delay = min_delay, max_delay
        self._hold_frames = round(_HOLD_SECONDS / frame_seconds)
        self._surplus_frames = round(_SURPLUS_SECONDS / frame_seconds)
        self._transit = _TransitWindow()
        self._counts = _Counts()
        self._ssrc: int | None = None
        self._queue: list[_Entry] = []
        # The timeline; sequence numbers and timestamps on it are extended, so that they compare as numbers.
        self._sequences: _Sequences | None
        self._last_timestamp: int
        self._last_transit: float
        self._jitter: float
        self._resync: int | None  # what the second packet of a sender that started anew would be
        self._cursor: int  # timestamp of the next frame
        self._playing: bool
        self._held: int  # ticks concealed while the buffer was empty
        self._surplus_for: int  # ticks for which the delay has been above its target
        self._last_played: int | None  # sequence number
        self._clear_timeline()

    @property
    def ssrc(self) -> int | None:
        """Of the stream being played, once a packet came."""
        return self._ssrc

    def put(self, packet: RtpPacket, now: float) -> None:
        """Take one packet of the leg's media source. Never raises; what cannot be used is counted and dropped."""
        entry = self._register(packet, now)
        if entry is None:
            return
        length = entry.end - entry.timestamp
        if not 0 < length <= _MAX_PAYLOAD_SECONDS * self._rate:
            self._counts.discarded += 1
        elif entry.end <= self._cursor:
            self._counts.late += 1
        else:
            if self._queue and entry < self._queue[-1]:
                insort(self._queue, entry)
            else:
                self._queue.append(entry)
            if len(self._queue) > _MAX_PACKETS:
                self._queue.pop(0)
                self._counts.discarded += 1

    def put_event(self, packet: RtpPacket, now: float) -> None:
        """Take note of a packet that is of the stream but not audio (telephone-event, comfort noise).

        Its sequence number is then not held for lost audio. Its timestamp stands still for as long as the key is
        held and says nothing of the transit time.
        """
        if packet.ssrc != self._ssrc or self._sequences is None:
            return
        delta = self._sequences.delta(packet.sequence)
        if -_MAX_MISORDER < delta < _MAX_DROPOUT:
            self._see(self._sequences, delta)

    def get(self, now: float) -> bytes | NoAudio:
        """The octets of the next frame, or why there are none. Call once per tick, whatever the packets' ptime."""
        if not self._playing and not self._begin(now):
            return IDLE
        self._shorten_delay(now)
        self._drop_passed()
        queue = self._queue
        if not self._has_frame():
            return self._await_more()
        if self._held:
            # Ticks that were concealed while the buffer was empty have played the packets missing now.
            gap = queue[0].timestamp - self._cursor
            self._cursor += max(0, min(gap, self._held * self._frame))
            self._held = 0
        head = queue[0]
        if head.timestamp >= self._cursor + self._frame:
            return self._cross_hole(now)
        if head.timestamp == self._cursor and head.end == self._cursor + self._frame:
            self._cursor += self._frame
            self._last_played = head.sequence
            del queue[0]
            return head.payload
        return self._cut()

    def statistics(self) -> JitterStatistics:
        """A snapshot for metrics and receiver reports."""
        return JitterStatistics(
            received=self._counts.received,
            expected=self._counts.expected_before + (self._sequences.expected if self._sequences else 0),
            highest_sequence=self._sequences.highest if self._sequences else 0,
            late=self._counts.late,
            duplicates=self._counts.duplicates,
            reordered=self._counts.reordered,
            discarded=self._counts.discarded,
            concealed=self._counts.concealed,
            skipped=self._counts.skipped,
            restarts=self._counts.restarts,
            jitter_units=int(self._jitter),
            jitter_seconds=self._jitter / self._rate,
            target_delay=self._target_delay(),
        )

    def _register(self, packet: RtpPacket, now: float) -> _Entry | None:
        """The packet on the extended timeline, with statistics kept; None when it is not to be played."""
        sequences = self._sequences
        if packet.ssrc != self._ssrc or sequences is None:
            return self._restart(packet, now)
        delta = sequences.delta(packet.sequence)
        if not -_MAX_MISORDER < delta < _MAX_DROPOUT:
            # RFC 3550 A.1: two in sequence make a sender that started anew; one is noise.
            if packet.sequence == self._resync:
                return self._restart(packet, now)
            self._resync = (packet.sequence + 1) & 0xFFFF
            self._counts.discarded += 1
            return None
        timestamp = self._last_timestamp + timestamp_delta(packet.timestamp, self._last_timestamp & 0xFFFFFFFF)
        transit = now - timestamp / self._rate
        if abs(transit - self._last_transit) > _TIMELINE_LEAP_SECONDS:
            if delta > 0:
                return self._restart(packet, now)
            self._counts.discarded += 1
            return None
        sequence = sequences.highest + delta
        if not self._see(sequences, delta):
            return None
        self._resync = None
        self._measure(transit, now)
        if delta > 0:
            self._last_timestamp = timestamp
        end = timestamp + self._units(packet.payload)
        return _Entry(timestamp, sequence, end, packet.marker, packet.payload)

    def _restart(self, packet: RtpPacket, now: float) -> _Entry:
        """Begin a new timeline with this packet: the first of all, a new SSRC, or a clock set anew."""
        if self._sequences is not None:
            self._counts.restarts += 1
            self._counts.expected_before += self._sequences.expected
            self._counts.discarded += len(self._queue)
        self._queue.clear()
        self._transit.clear()
        self._clear_timeline()
        self._ssrc = packet.ssrc
        self._sequences = _Sequences(packet.sequence)
        self._last_timestamp = packet.timestamp + 0x100000000
        self._counts.received += 1
        transit = now - self._last_timestamp / self._rate
        self._last_transit = transit
        self._transit.add(transit, now)
        end = self._last_timestamp + self._units(packet.payload)
        return _Entry(self._last_timestamp, self._sequences.highest, end, packet.marker, packet.payload)

    def _clear_timeline(self) -> None:
        self._sequences = None
        self._last_timestamp = 0
        self._last_transit = 0.0
        self._jitter = 0.0
        self._resync = None
        self._cursor = 0
        self._playing = False
        self._held = 0
        self._surplus_for = 0
        self._last_played = None

    def _see(self, sequences: _Sequences, delta: int) -> bool:
        """Count the packet `delta` ahead of the highest; False when it was received before."""
        if not sequences.note(delta):
            self._counts.duplicates += 1
            return False
        self._counts.reordered += delta < 0
        self._counts.received += 1
        return True

    def _measure(self, transit: float, now: float) -> None:
        difference = abs(transit - self._last_transit) * self._rate
        self._jitter += (difference - self._jitter) / 16  # RFC 3550 A.8
        self._last_transit = transit
        if not self._playing and not self._queue and transit - self._transit.least > self._max_delay:
            # The sender's clock stood still through the silence: measure afresh, or all that follows seems late.
            self._transit.clear()
        self._transit.add(transit, now)

    def _target_delay(self) -> float:
        spread = self._transit.greatest - self._transit.least
        return min(max(spread + self._frame_seconds, self._min_delay), self._max_delay)

    def _due(self, timestamp: int) -> float:
        """When the audio at `timestamp` is to be played, by the present target."""
        return timestamp / self._rate + self._transit.least + self._target_delay()

    def _begin(self, now: float) -> bool:
        """Whether a talk spurt waits whose first frame is due; if so, playing starts there."""
        # The microsecond takes up rounding, so that a whole number of ticks is not one tick more.
        if not self._queue or self._due(self._queue[0].timestamp) > now + 1e-6:
            return False
        self._cursor = max(self._cursor, self._queue[0].timestamp)
        self._playing, self._held, self._surplus_for = True, 0, 0
        return True

    def _await_more(self) -> NoAudio:
        """There is no whole frame left: hold the timeline for a while, then take it for the end of the spurt."""
        self._held += 1
        if self._held <= self._hold_frames:
            self._counts.concealed += 1
            return MISSING
        if self._queue:  # the odd end of a spurt whose ptime is no multiple of the frame
            self._cursor = self._queue[-1].end
            self._queue.clear()
        self._playing = False
        return IDLE

    def _cross_hole(self, now: float) -> bytes | NoAudio:
        """The next frame has no audio though later ones do: silence if every packet between came, else loss."""
        head = self._queue[0]
        if not head.marker and self._lost_before(head):
            self._cursor += self._frame
            self._counts.concealed += 1
            return MISSING
        # A pause between talk spurts is the moment to change the delay unheard.
        self._playing = False
        if not self._begin(now):
            return IDLE
        return self._cut() if self._has_frame() else self._await_more()

    def _lost_before(self, head: _Entry) -> bool:
        """Whether a packet between the last one played and `head` has not been received."""
        if self._last_played is None or self._sequences is None:
            return True
        return self._sequences.misses_between(self._last_played, head.sequence)

    def _units(self, payload: bytes) -> int:
        """How long a payload lasts."""
        return len(payload)

    def _has_frame(self) -> bool:
        """Whether the audio there is, or is to be concealed before it, makes a whole frame."""
        return bool(self._queue) and self._queue[-1].end >= self._cursor + self._frame

    def _cut(self) -> bytes:
        """One frame from the parts of packets that make it up; a hole in it repeats what is beside it."""
        start, end = self._cursor, self._cursor + self._frame
        parts = bytearray()
        position = start
        while self._queue and self._queue[0].timestamp < end:
            head = self._queue[0]
            if head.timestamp > position:
                parts += _filling(parts, head, head.timestamp - position)
                position = head.timestamp
            parts += head.payload[position - head.timestamp : end - head.timestamp]
            position = max(position, min(head.end, end))
            self._last_played = head.sequence
            if head.end > end:
                break
            del self._queue[0]
        if position < end:
            parts += _filling(parts, None, end - position)
        self._cursor = end
        return bytes(parts)

    def _shorten_delay(self, now: float) -> None:
        """Pass over audio when the delay has been above its target for long, or is beyond all bounds."""
        surplus = now - self._due(self._cursor)
        if surplus > self._max_delay:
            frames = int(surplus / self._frame_seconds)
        elif surplus > _SURPLUS_FRAMES * self._frame_seconds:
            self._surplus_for += 1
            if self._surplus_for < self._surplus_frames:
                return
            frames = 1
        else:
            self._surplus_for = 0
            return
        self._surplus_for = self._surplus_frames // 2
        if self._queue:
            self._cursor += frames * self._frame
            self._counts.skipped += frames

    def _drop_passed(self) -> None:
        while self._queue and self._queue[0].end <= self._cursor:
            self._last_played = self._queue[0].sequence
            del self._queue[0]
            self._counts.discarded += 1


def _filling(before: bytearray, after: _Entry | None, count: int) -> bytes:
    """`count` octets for a hole inside a frame: those played last, else those that come next."""
    source = bytes(before[-count:]) or (after.payload[:count] if after is not None else b"")
    return (source * (count // len(source) + 1))[:count] if source else b""


class PacketJitterBuffer(JitterBuffer):
    """The same for packets that can't be cut: `get` gives one whole, of whatever length.

    Ask again when its audio is used up. MISSING and IDLE stand for one frame's time. A hole shorter than a frame is
    closed up.
    """

    def __init__(self, units: Callable[[bytes], int], *, clock_rate_hz: int) -> None:
        """`units` tells how long a payload lasts on the RTP clock, 0 when it is unusable."""
        super().__init__(clock_rate_hz=clock_rate_hz)
        self._units_of = units

    def _units(self, payload: bytes) -> int:
        return self._units_of(payload)

    def _has_frame(self) -> bool:
        return bool(self._queue)

    def _cut(self) -> bytes:
        head = self._queue.pop(0)
        self._cursor = head.end
        self._last_played = head.sequence
        return head.payload
