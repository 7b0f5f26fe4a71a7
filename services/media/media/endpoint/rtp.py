"""One leg's end over RTP: whose packets are believed, their order restored, packets and reports sent (RFC 3550)."""

import errno
from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

import numpy as np

from dialbus.audio import FRAMES_PER_SECOND, Pcm, frame_samples
from dialbus.contracts.media import RemoteMedia
from media.audio.codec import Codec, OpusCodec, make_codec
from media.rtp import packet as rtp
from media.rtp import rtcp
from media.rtp.dtmf import DtmfPacket, DtmfReceiver, digit_packets
from media.rtp.jitter import IDLE, MISSING, JitterBuffer, JitterStatistics, NoAudio, PacketJitterBuffer
from media.rtp.opus import packet_units
from media.rtp.source import Address, Source, Verdict

FRAME_UNITS = frame_samples(8000)
"""20 ms of G.711 or G.722: units of the RTP clock, and octets."""

_MAX_PER_DRAIN = 64  # a flood on one port never starves the other legs of a tick
_COMFORT_NOISE = 13  # RFC 3389: announces silence, which is what we play anyway
_SILENCE = {"pcmu": b"\xff" * FRAME_UNITS, "pcma": b"\xd5" * FRAME_UNITS}
"""20 ms in each of the G.711 laws; a codec with a memory has to encode it."""


_MAX_DIGITS = 32
_PAUSE_PACKETS = 3  # of audio between two digits: 60 ms, so that the same digit again is another press to everybody


class RtpTransport(Protocol):
    """What carries RTP and RTCP packets; nothing here waits."""

    dropped: Counter[str]
    """What arrived and was of no use, by reason."""

    @property
    def ready(self) -> bool:
        """Whether packets can go through."""

    def receive(self) -> tuple[bytes, Address] | None:
        """The next RTP packet, or RTCP where they share a port, and its source; None when none is there."""

    def receive_control(self) -> tuple[bytes, Address] | None:
        """The next packet that came to the port of RTCP alone."""

    def send(self, data: bytes, destination: Address) -> None:
        """Send an RTP packet. Raises OSError."""

    def send_control(self, data: bytes, destination: Address) -> None:
        """Send an RTCP packet. Raises OSError."""

    def close(self) -> None:
        """Give back what it holds."""


class RtpEndpoint:
    """One leg on the network. Called from the tick only; nothing here waits."""

    def __init__(self, transport: RtpTransport, source: Source, *, ssrc: int, sequence: int, timestamp: int) -> None:
        self._transport = transport
        self._source = source
        self._jitter = JitterBuffer()
        self._frame_units = FRAME_UNITS
        self._decoded: Pcm = np.zeros(0, np.int16)
        """Opus: what a packet held beyond the last 20 ms."""
        self._event_hz = FRAME_UNITS * FRAMES_PER_SECOND
        self._dtmf = DtmfReceiver(self._event_hz)
        self._stream = rtp.RtpStream(ssrc=ssrc, sequence=sequence, timestamp=timestamp, payload_type=0)
        self._remote: RemoteMedia | None = None
        self._codec: Codec | None = None
        self._digits: deque[str] = deque(maxlen=_MAX_DIGITS)  # to be sent
        self._digit_packets: deque[DtmfPacket] = deque()  # the rest of the one that is being sent
        self._pause = 0  # packets of audio until the next digit
        self._last_sr: tuple[int, float] | None = None  # middle 32 bits of its NTP time, when it came
        self._reported = (0, 0)  # expected, received at the last report
        self._sent_at_report = 0
        self.accepted = 0
        """RTP packets believed so far."""
        self.dropped: Counter[str] = Counter()
        """Datagrams ignored, by reason; those that MediaSource refused are counted there."""
        self.heard_at: float | None = None
        """When the last packet was accepted."""

    @property
    def ssrc(self) -> int:
        """Of what we send."""
        return self._stream.ssrc

    @property
    def packets_sent(self) -> int:
        """RTP packets sent so far."""
        return self._stream.packet_count

    @property
    def codec(self) -> Codec | None:
        """Of the leg now; None before `connect`."""
        return self._codec

    @property
    def on_hold(self) -> bool:
        """Whether the remote party is on hold."""
        return self._remote is not None and self._remote.on_hold

    @property
    def expects(self) -> bool:
        """Whether the remote party is to send: not while it is on hold or only listens."""
        return self._remote is None or (not self.on_hold and self._remote.direction in ("sendrecv", "recvonly"))

    @property
    def ready(self) -> bool:
        """Whether packets can go through."""
        return self._transport.ready

    @property
    def sends(self) -> bool:
        """Whether our direction lets us send, and we know where to and may."""
        return (
            self._remote is not None
            and self._remote.direction in ("sendrecv", "sendonly")
            and self._transport.ready
            and self._source.destination is not None
        )

    def statistics(self) -> JitterStatistics:
        """How the remote party's stream arrives."""
        return self._jitter.statistics()

    def ignored(self) -> Counter[str]:
        """Every datagram ignored so far, by reason."""
        return (
            self.dropped
            + self._transport.dropped
            + Counter({verdict.value: count for verdict, count in self._source.rejected.items()})
        )

    def connect(self, remote: RemoteMedia, now: float) -> bool:
        """An offer or answer took effect; True when the codec is another one. `remote.address` is an IP literal."""
        before, self._remote = self._remote, remote
        other_codec = before is None or before.codec != remote.codec
        if other_codec:
            self._codec = make_codec(remote.codec)
            clock_rate_hz = self._codec.format.clock_rate_hz
            self._frame_units = self._codec.format.frame_units
            opus = isinstance(self._codec, OpusCodec)
            self._jitter = PacketJitterBuffer(packet_units, clock_rate_hz=clock_rate_hz) if opus else JitterBuffer()
            self._decoded = np.zeros(0, np.int16)
            self._reported = (0, 0)
        event_hz = remote.telephone_event_hz or self._frame_units * FRAMES_PER_SECOND
        if event_hz != self._event_hz:
            self._event_hz = event_hz
            self._dtmf = DtmfReceiver(event_hz)
        types = {remote.payload_type, _COMFORT_NOISE}
        if remote.telephone_event_pt is not None:
            types.add(remote.telephone_event_pt)
        usable = remote.port and not ip_address(remote.address).is_unspecified
        self._source.signal(
            (remote.address, remote.port) if usable else None,
            types,
            now,
            signalling_host=remote.signalling_host,
            acknowledged=remote.acknowledged,
        )
        self._stream.payload_type = remote.payload_type
        self._digits.clear()
        self._digit_packets.clear()
        return other_codec

    # -- receiving --------------------------------------------------------------------------------

    def drain(self, now: float) -> list[str]:
        """Take what has arrived; the digits pressed."""
        digits: list[str] = []
        for _ in range(_MAX_PER_DRAIN):
            datagram = self._transport.receive()
            if datagram is None:
                break
            digit = self._on_datagram(*datagram, now)
            if digit is not None:
                digits.append(digit)
        while (datagram := self._transport.receive_control()) is not None:
            self._on_rtcp(*datagram, now)
        return digits

    def next_payload(self, now: float) -> bytes | Pcm | NoAudio:
        """The octets of the next 20 ms, their samples in Opus, or why there are none."""
        if self._remote is None:
            return IDLE
        return self._next_opus(self._codec, now) if isinstance(self._codec, OpusCodec) else self._jitter.get(now)

    def _next_opus(self, codec: OpusCodec, now: float) -> Pcm | NoAudio:
        """20 ms out of packets that last as long as their sender likes; what is lost is concealed by the decoder."""
        samples = frame_samples(codec.format.sample_rate_hz)
        decoded = self._decoded
        while len(decoded) < samples:
            packet = self._jitter.get(now)
            if packet is IDLE:
                if not len(decoded):
                    return IDLE
                more = np.zeros(samples - len(decoded), np.int16)
            elif packet is MISSING:
                more = codec.conceal()
            else:
                more = codec.decode(packet)
                if not len(more):
                    self.dropped["malformed"] += 1
                    more = codec.conceal()
            decoded = np.concatenate((decoded, more)) if len(decoded) else more
        self._decoded = decoded[samples:]
        return decoded[:samples]

    def _on_datagram(self, data: bytes, source: Address, now: float) -> str | None:
        if rtp.is_rtcp(data):
            self._on_rtcp(data, source, now)
            return None
        packet = rtp.parse(data)
        if packet is None:
            self.dropped["malformed"] += 1
            return None
        if self._remote is None:
            self.dropped["not_connected"] += 1
            return None
        if self._source.judge(packet, source, now) is not Verdict.ACCEPTED:
            return None
        self.accepted += 1
        self.heard_at = now
        if packet.payload_type == self._remote.payload_type:
            self._jitter.put(packet, now)
            return None
        self._jitter.put_event(packet, now)
        if packet.payload_type == self._remote.telephone_event_pt:
            return self._dtmf.receive(packet.ssrc, packet.timestamp, packet.payload)
        return None

    def _on_rtcp(self, data: bytes, source: Address, now: float) -> None:
        reports = rtcp.parse(data) if self._source.accepts_control(source) else None
        if reports is None:
            self.dropped["rtcp"] += 1
            return
        for report in reports:
            if isinstance(report, rtcp.SenderReport):
                self._last_sr = (rtcp.middle_32(report.ntp_time), now)

    # -- sending ----------------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send 20 ms of audio, or of a digit in its place (RFC 4733 §2.5.1.2)."""
        self._send_to(self._transport.send, self._next_packet(payload), self._source.destination)

    def send_dtmf(self, digit: str) -> None:
        """Send a digit of 100 ms as telephone-events, when they were agreed on and we may send."""
        if self.sends and self._remote is not None and self._remote.telephone_event_pt is not None:
            self._digits.append(digit)

    def _next_packet(self, payload: bytes) -> bytes:
        stream = self._stream
        if self._digits and not self._digit_packets and not self._pause:
            self._digit_packets.extend(
                digit_packets(self._digits.popleft(), stream.timestamp, clock_rate_hz=self._event_hz)
            )
            self._pause = _PAUSE_PACKETS
        if self._digit_packets and self._remote is not None and self._remote.telephone_event_pt is not None:
            event = self._digit_packets.popleft()
            packet = stream.send_event(self._remote.telephone_event_pt, event.marker, event.timestamp, event.payload)
            stream.skip(self._frame_units)
            return packet
        self._pause = max(0, self._pause - 1)
        return stream.send(payload, self._frame_units)

    def send_silence(self) -> None:
        """Send 20 ms of digital silence: a stream that stops is a call that hangs to many a phone."""
        assert self._codec is not None
        constant = _SILENCE.get(self._codec.format.name)
        if constant is None:
            samples = frame_samples(self._codec.format.sample_rate_hz)
            constant = self._codec.encode(np.zeros(samples, np.int16))
        self.send(constant)

    def pass_over(self, ticks: int = 1) -> None:
        """Let time pass without sending."""
        self._stream.skip(ticks * self._frame_units)

    def report(self, wall: float, now: float) -> None:
        """Send a sender report, or a receiver report when nothing was sent since the last one."""
        destination = self._source.destination
        if self._remote is None or destination is None:
            return
        blocks = self._report_blocks(now)
        sent = self._stream.packet_count
        first: rtcp.SenderReport | rtcp.ReceiverReport
        if sent != self._sent_at_report:
            first = rtcp.SenderReport(
                self.ssrc, rtcp.ntp_from_unix(wall), self._stream.timestamp, sent, self._stream.octet_count, blocks
            )
        else:
            first = rtcp.ReceiverReport(self.ssrc, blocks)
        self._sent_at_report = sent
        self._send_rtcp([first, rtcp.SourceDescription(self.ssrc, f"{self.ssrc:08x}@dialbus")], destination)

    def close(self) -> None:
        """Say goodbye and give the ports back."""
        destination = self._source.destination
        if self._remote is not None and destination is not None:
            self._send_rtcp([rtcp.ReceiverReport(self.ssrc), rtcp.Goodbye((self.ssrc,))], destination)
        self._transport.close()

    def _report_blocks(self, now: float) -> tuple[rtcp.ReportBlock, ...]:
        ssrc = self._jitter.ssrc
        if ssrc is None:
            return ()
        seen = self._jitter.statistics()
        expected, received = seen.expected - self._reported[0], seen.received - self._reported[1]
        self._reported = (seen.expected, seen.received)
        lost = max(0, expected - received)
        last_sr, delay = 0, 0.0
        if self._last_sr is not None:
            last_sr, delay = self._last_sr[0], now - self._last_sr[1]
        fraction = min(255, lost * 256 // expected) if expected > 0 else 0
        block = rtcp.ReportBlock(
            ssrc, fraction, seen.lost, seen.highest_sequence, seen.jitter_units, last_sr, int(delay * 65536)
        )
        return (block,)

    def _send_rtcp(self, reports: list[rtcp.Report], destination: Address) -> None:
        assert self._remote is not None
        data = rtcp.build(reports)
        if self._remote.rtcp_port is None:
            self._send_to(self._transport.send, data, destination)
        else:
            self._send_to(self._transport.send_control, data, (destination[0], self._remote.rtcp_port))

    def _send_to(self, send: Callable[[bytes, Address], None], data: bytes, destination: Address | None) -> None:
        if destination is None:
            return
        try:
            send(data, destination)
        except OSError as error:  # a full buffer or a missing route: one packet is lost, as on any network
            self.dropped["send_" + errno.errorcode.get(error.errno or 0, "error").lower()] += 1
