"""Which datagrams on a media port belong to the call, and where to send ours.

A media port is open to the whole network, so what arrives is believed only if it fits the signalling: its payload
type was negotiated, and its source is the one in the SDP or, with latching, the one learnt once in its stead, at the
host that the signalling comes from. A stranger who finds the port can then neither inject audio nor draw ours to
himself, however long the phone is silent (RFC 7362 §4, RFC 3550 §8.2).

An SDP can name a third host as well, which never asked for a stream. Ours goes there only when the caller has
acknowledged our answer, or that host has sent by itself (the "voice hammer" of RFC 5245 §18.5.1).
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from media.rtp.packet import RtpPacket, sequence_delta

Address = tuple[str, int]
"""Host as a literal IP address, and port."""

# After an offer or answer the signalled address may still take the stream back from another that was faster.
_LEARNING_SECONDS = 3.0
# A stranger to the SDP must show a running stream before it is believed: 4 packets in sequence, 60 ms of audio.
_PROBATION_PACKETS = 4
# A second SSRC at the learnt source is believed when the first has fallen silent: a PBX bridged the call anew.
_SSRC_SILENCE_SECONDS = 0.1


class Verdict(Enum):
    """What to do with a packet, and why."""

    ACCEPTED = "accepted"
    PAYLOAD_TYPE = "payload_type"
    SOURCE = "source"
    SSRC = "ssrc"
    PROBATION = "probation"
    """From a source that is not yet believed; if it goes on, it will be."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: Address
    ssrc: int
    sequence: int
    packets: int


class Source(Protocol):
    """Whose packets are believed, and where ours go."""

    rejected: Counter[Verdict]
    """Packets refused, by reason."""

    @property
    def destination(self) -> Address | None:
        """Where to send RTP; None while that is not known."""

    def signal(
        self, address: Address | None, payload_types: Collection[int], now: float, *,
        signalling_host: str | None = None, acknowledged: bool = True,
    ) -> None:  # fmt: skip
        """An offer or answer took effect."""

    def judge(self, packet: RtpPacket, source: Address, now: float) -> Verdict:
        """Whether `packet` from `source` is the remote party's."""

    def accepts_control(self, source: Address) -> bool:
        """Whether RTCP from `source` is believed."""


class ProvenSource:
    """For a transport that authenticates every packet (SRTP): only the payload type is left to judge."""

    def __init__(self, peer: Address) -> None:
        """`peer` is what the transport calls its peer."""
        self._peer = peer
        self._payload_types: frozenset[int] = frozenset()
        self.rejected: Counter[Verdict] = Counter()

    @property
    def destination(self) -> Address:
        return self._peer

    def signal(
        self, address: Address | None, payload_types: Collection[int], now: float, *,
        signalling_host: str | None = None, acknowledged: bool = True,
    ) -> None:  # fmt: skip
        self._payload_types = frozenset(payload_types)

    def judge(self, packet: RtpPacket, source: Address, now: float) -> Verdict:
        if packet.payload_type in self._payload_types:
            return Verdict.ACCEPTED
        self.rejected[Verdict.PAYLOAD_TYPE] += 1
        return Verdict.PAYLOAD_TYPE

    def accepts_control(self, source: Address) -> bool:
        return True


class MediaSource:
    """Judges the packets of one leg and says where its own go.

    With latching (the default of the protocol) ours go to where theirs come from, once that is learnt; without, to
    the signalled address, and only packets from the signalled host are believed. What may be learnt, at any time, is
    another port of the SDP's host, or the host of the signalling; with `strangers` any other host as well, for the
    first seconds after an offer or answer.
    """

    def __init__(self, *, latching: bool = True, strangers: bool = False) -> None:
        self._latching = latching
        self._strangers = strangers
        self._signalling_host: str | None = None
        self._acknowledged = True
        self._signalled: Address | None = None
        self._payload_types: frozenset[int] = frozenset()
        self._learnt: Address | None = None
        self._ssrc: int | None = None
        self._heard_at = 0.0
        self._heard_since_signalling = False
        self._learning_until = 0.0
        self._candidate: _Candidate | None = None
        self.rejected: Counter[Verdict] = Counter()
        """Packets refused, by reason."""

    @property
    def destination(self) -> Address | None:
        """Where to send RTP: None until signalling or, with latching, a packet has told, and while nothing vouches."""
        if self._latching and self._learnt is not None:
            return self._learnt
        signalled = self._signalled
        if signalled is None or self._acknowledged or self._learnt is not None:
            return signalled
        return signalled if signalled[0] == self._signalling_host else None

    @property
    def learnt(self) -> Address | None:
        """The source that packets are accepted from, once there is one."""
        return self._learnt

    def signal(
        self, address: Address | None, payload_types: Collection[int], now: float, *,
        signalling_host: str | None = None, acknowledged: bool = True,
    ) -> None:  # fmt: skip
        """An offer or answer took effect: what was learnt under the last one may be learnt anew.

        `address` is None where the SDP has none to offer (0.0.0.0, hold). Where it is unchanged the learnt source stays
        until another proves better, so that a re-INVITE which changes nothing interrupts nothing. `signalling_host` is
        where the peer's signalling is; while it has not `acknowledged` an answer, nothing goes to an address elsewhere.
        """
        if address != self._signalled:
            # Sent to the new address at once: it may be one that stays silent until it hears us.
            self._learnt = None
            self._ssrc = None
        self._signalled = address
        self._signalling_host = signalling_host
        self._acknowledged = acknowledged
        self._payload_types = frozenset(payload_types)
        self._learning_until = now + _LEARNING_SECONDS
        self._heard_since_signalling = False
        self._candidate = None

    def judge(self, packet: RtpPacket, source: Address, now: float) -> Verdict:
        """Whether `packet` from `source` is the remote party's. Only ACCEPTED packets may reach the jitter buffer."""
        if packet.payload_type not in self._payload_types:
            return self._reject(Verdict.PAYLOAD_TYPE)
        if source == self._learnt:
            return self._judge_ssrc(packet, now)
        verdict = self._judge_source(packet, source, now)
        if verdict is not Verdict.ACCEPTED:
            return self._reject(verdict)
        self._learnt, self._ssrc, self._heard_at = source, packet.ssrc, now
        self._heard_since_signalling = True
        self._candidate = None
        return verdict

    def accepts_control(self, source: Address) -> bool:
        """Whether RTCP from `source` is believed: it is at the remote party's host, whatever its port."""
        known = self._learnt or self._signalled
        return known is not None and source[0] == known[0]

    def _judge_ssrc(self, packet: RtpPacket, now: float) -> Verdict:
        if packet.ssrc != self._ssrc:
            if now - self._heard_at < _SSRC_SILENCE_SECONDS:
                return self._reject(Verdict.SSRC)
            self._ssrc = packet.ssrc
        self._heard_at = now
        self._heard_since_signalling = True
        return Verdict.ACCEPTED

    def _judge_source(self, packet: RtpPacket, source: Address, now: float) -> Verdict:
        """Whether a source that is not the learnt one may become it."""
        at_signalled_host = self._signalled is not None and source[0] == self._signalled[0]
        if self._learnt is None:
            if at_signalled_host:
                return Verdict.ACCEPTED
            return self._on_probation(packet, source) if self._may_learn(source, now) else Verdict.SOURCE
        if now > self._learning_until:
            return Verdict.SOURCE
        # Still learning: the address of the SDP wins over any other, its host over other hosts.
        preferred = source == self._signalled or (at_signalled_host and self._learnt[0] != source[0])
        if preferred:
            return Verdict.ACCEPTED
        # Signalled again with the same address, while the source behind a NAT moved on.
        gone = not self._heard_since_signalling
        return self._on_probation(packet, source) if gone and self._may_learn(source, now) else Verdict.SOURCE

    def _may_learn(self, source: Address, now: float) -> bool:
        """Whether a source at another host than the SDP's may become the learnt one, if it shows a running stream."""
        if not self._latching:
            return False
        return source[0] == self._signalling_host or (self._strangers and now <= self._learning_until)

    def _on_probation(self, packet: RtpPacket, source: Address) -> Verdict:
        last, packets = self._candidate, 1
        if last is not None and last.source == source and last.ssrc == packet.ssrc:
            step = sequence_delta(packet.sequence, last.sequence)
            packets = last.packets + 1 if 0 < step <= _PROBATION_PACKETS else 1
        self._candidate = _Candidate(source, packet.ssrc, packet.sequence, packets)
        return Verdict.ACCEPTED if packets >= _PROBATION_PACKETS else Verdict.PROBATION

    def _reject(self, verdict: Verdict) -> Verdict:
        self.rejected[verdict] += 1
        return verdict
