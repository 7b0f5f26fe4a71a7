"""The softphone's RTP (RFC 3550): a voice and keys out in real time, what is heard placed on a timeline.

pyVoIP parses what arrives. It doesn't send: its transmitter works on 8 bit linear audio, writes dynamic payload
types as UTF-8 and drifts, so packets are made here. Everything is 8 kHz; `now` is monotonic seconds.
"""

import struct
import warnings
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from dialbus_cli.wav import RATE_HZ, Pcm

with warnings.catch_warnings():  # audioop left the standard library in 3.13; audioop-lts provides it there
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

    from pyVoIP import RTP

PACKET_SAMPLES = 160
PACKET_S = 0.02
KEYS = "0123456789*#ABCD"
KEY_PACKETS, PAUSE_PACKETS = 8, 5
"""A key is held for 160 ms, then 100 ms of silence follow."""
VOICED_RMS = 300
GREETING_S, QUIET_S = 0.3, 0.8
"""A greeting has this much voice, and has ended after this much quiet."""
_RESYNC_SAMPLES = RATE_HZ // 2

PCMU, PCMA = 0, 8


@dataclass(frozen=True, slots=True)
class Peer:
    """Where the other side receives, and which payload types it takes."""

    host: str
    port: int
    payload_type: int
    event_type: int | None
    types: dict[int, "RTP.PayloadType"] = field(compare=False, default_factory=dict)


class Voice:
    """Both directions of one call's audio."""

    def __init__(self, *, ssrc: int, sequence: int, timestamp: int) -> None:
        self.peer: Peer | None = None
        self.keys: list[str] = []
        """Keys pressed by the other side."""
        self.first_heard_at: float | None = None
        self._ssrc = ssrc
        self._sequence = sequence & 0xFFFF
        self._timestamp = timestamp & 0xFFFFFFFF
        self._queue: deque[Pcm | tuple[int, int, bool]] = deque()
        self._started_at: float | None = None
        self._heard: list[tuple[int, Pcm]] = []
        self._anchor: tuple[int, int, int] | None = None
        self._voiced_s = 0.0
        self._voiced_until = 0.0
        self._last_key: int | None = None

    # -- out -------------------------------------------------------------------------------------

    def say(self, sound: Pcm) -> None:
        """Queue a sound, in packets of 20 ms."""
        whole = np.concatenate([sound, np.zeros(-len(sound) % PACKET_SAMPLES, np.int16)])
        self._queue.extend(whole.reshape(-1, PACKET_SAMPLES))

    def press(self, keys: str) -> None:
        """Queue keys as telephone-events (RFC 4733), each held for 160 ms."""
        for key in keys.upper():
            event = KEYS.index(key)
            for number in range(KEY_PACKETS):
                self._queue.append((event, (number + 1) * PACKET_SAMPLES, False))
            for _ in range(3):  # RFC 4733 section 2.5.1.4: the end is said three times
                self._queue.append((event, KEY_PACKETS * PACKET_SAMPLES, True))
            self.say(np.zeros(PAUSE_PACKETS * PACKET_SAMPLES, np.int16))

    @property
    def busy(self) -> bool:
        """Whether something is still to be said."""
        return bool(self._queue)

    def packet(self) -> bytes | None:
        """The next 20 ms for the peer: voice, key or silence; None while there is no peer."""
        if self.peer is None:
            return None
        item: Pcm | tuple[int, int, bool] = self._queue.popleft() if self._queue else np.zeros(160, np.int16)
        if isinstance(item, tuple):
            return self._key_packet(self.peer, *item)
        encode = audioop.lin2ulaw if self.peer.payload_type == PCMU else audioop.lin2alaw
        packet = self._header(self.peer.payload_type, marker=False) + encode(item.astype("<i2").tobytes(), 2)
        self._timestamp = (self._timestamp + PACKET_SAMPLES) & 0xFFFFFFFF
        return packet

    def _key_packet(self, peer: Peer, event: int, duration: int, end: bool) -> bytes:
        """One packet of an event: the timestamp stands at its beginning until the last one."""
        first = duration == PACKET_SAMPLES
        header = self._header(peer.event_type if peer.event_type is not None else 101, marker=first)
        following = self._queue[0] if self._queue else None
        if not isinstance(following, tuple):
            self._timestamp = (self._timestamp + duration) & 0xFFFFFFFF
        return header + struct.pack("!BBH", event, (0x80 if end else 0) | 10, duration)

    def _header(self, payload_type: int, *, marker: bool) -> bytes:
        header = struct.pack(
            "!BBHII", 0x80, (0x80 if marker else 0) | payload_type, self._sequence, self._timestamp, self._ssrc
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        return header

    # -- in --------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin the timeline of what is heard."""
        if self._started_at is None:
            self._started_at = now

    def receive(self, datagram: bytes, now: float) -> None:
        """Take a datagram from the RTP socket; what is no audio of this call is ignored."""
        if self.peer is None or len(datagram) < 12 or 200 <= datagram[1] <= 204:  # RTCP
            return
        try:
            message = RTP.RTPMessage(datagram, self.peer.types)
        except (RTP.RTPParseError, ValueError, IndexError):
            return
        if message.payload_type == RTP.PayloadType.EVENT:
            self._receive_key(message)
        elif message.payload_type in (RTP.PayloadType.PCMU, RTP.PayloadType.PCMA):
            decode = audioop.ulaw2lin if message.payload_type == RTP.PayloadType.PCMU else audioop.alaw2lin
            self._place(np.frombuffer(decode(message.payload, 2), "<i2"), message.SSRC, message.timestamp, now)

    def _receive_key(self, message: "RTP.RTPMessage") -> None:
        if len(message.payload) >= 4 and message.payload[0] < len(KEYS) and message.timestamp != self._last_key:
            self._last_key = message.timestamp
            self.keys.append(KEYS[message.payload[0]])

    def _place(self, sound: Pcm, ssrc: int, timestamp: int, now: float) -> None:
        """Put a packet where its timestamp says, which is followed while it agrees with the clock."""
        self.start(now)
        assert self._started_at is not None
        if self.first_heard_at is None:
            self.first_heard_at = now
        arrived = int((now - self._started_at) * RATE_HZ)
        at = arrived
        if self._anchor is not None and self._anchor[0] == ssrc:
            ahead = (timestamp - self._anchor[1] + 2**31) % 2**32 - 2**31
            if abs(self._anchor[2] + ahead - arrived) <= _RESYNC_SAMPLES:
                at = self._anchor[2] + ahead
        if at == arrived:
            self._anchor = (ssrc, timestamp, arrived)
        self._heard.append((max(at, 0), sound))
        if len(sound) and np.sqrt(np.mean(sound.astype(np.float64) ** 2)) > VOICED_RMS:
            self._voiced_s += len(sound) / RATE_HZ
            self._voiced_until = now

    def greeted(self, now: float) -> bool:
        """Whether the other side has spoken and stopped."""
        return self._voiced_s >= GREETING_S and now - self._voiced_until >= QUIET_S

    def heard(self) -> Pcm:
        """Everything heard since the start, gaps as silence."""
        length = max((at + len(sound) for at, sound in self._heard), default=0)
        timeline = np.zeros(length, np.int16)
        for at, sound in self._heard:
            timeline[at : at + len(sound)] = sound
        return timeline
