"""The transport of one WebRTC leg: ICE finds a way, DTLS opens it, RTP of ours goes through as SRTP."""

import asyncio
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass

from dialbus import telemetry
from dialbus.tasks import TaskSet
from media.rtp.packet import is_rtcp
from media.rtp.source import Address
from media.webrtc import sdp
from media.webrtc.candidate import Candidate
from media.webrtc.dtls import DtlsSrtp, DtlsState, Identity
from media.webrtc.ice import IceAgent, IceSettings

PEER: Address = ("0.0.0.0", 9)
"""Where every packet comes from and goes to: whoever proved to be the peer. SDP's way to say so."""

_MAX_WAITING = 256  # packets between two ticks; ten times what a peer sends in half a second
_CLOSE_LIMIT_S = 1.0

log = telemetry.get_logger()

_closings = TaskSet()


@dataclass(frozen=True, slots=True)
class Lost:
    """How a connection ended that we did not end."""

    reason: str
    hung_up: bool = False
    """The peer said goodbye."""


class NoCandidate(Exception):
    """There is no address of ours to offer, or no free port."""


class WebRtcTransport:
    """Implements `RtpTransport`. Made with `answer`, it then needs `run` to connect."""

    def __init__(self, offer: sdp.Offer, settings: IceSettings) -> None:
        self._offer = offer
        self._identity = Identity()
        self._agent = IceAgent(settings, self._on_data, controlling=offer.is_lite)
        self._dtls = DtlsSrtp(self._identity, offer.setup, offer.fingerprints)
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._early: deque[bytes] = deque(maxlen=16)  # DTLS that came before ICE was done
        self._news = asyncio.Event()
        self._started = False
        self._closed = False
        self.dropped: Counter[str] = Counter()
        """What arrived and was of no use, by reason."""

    async def answer(self, session_id: int, ssrc: int) -> str:
        """Our SDP, with every candidate of ours. Raises NoCandidate."""
        candidates = await self._agent.gather()
        if not candidates:
            raise NoCandidate("no address or free port for ICE")
        local = sdp.Local(
            session_id=session_id,
            ufrag=self._agent.local_username,
            password=self._agent.local_password,
            fingerprint=self._identity.fingerprint,
            candidates=candidates,
            ssrc=ssrc,
        )
        for candidate in self._offer.candidates:
            self._agent.add_remote(candidate)
        if self._offer.is_complete:
            self._agent.add_remote(None)
        return sdp.write_answer(self._offer, local)

    def add_candidate(self, candidate: Candidate | None) -> None:
        """A trickled candidate; None is the end of them."""
        self._agent.add_remote(candidate)

    async def run(self, limit_s: float) -> Lost | None:
        """Connect within the limit, and stay until the connection is lost; None when we closed it."""
        try:
            async with asyncio.timeout(limit_s):
                await self._connect()
        except TimeoutError:
            lost = Lost(f"{'DTLS' if self._started else 'ICE'} did not connect within {limit_s:g} s")
        except ConnectionError as error:
            lost = Lost(str(error))
        else:
            await self._until_lost()
            hung_up = self._dtls.state is DtlsState.CLOSED
            lost = Lost("the peer closed the connection", hung_up=True) if hung_up else Lost(self._why())
        finally:
            closed_by_us = self._closed
            self.close()
        return None if closed_by_us else lost

    async def _connect(self) -> None:
        """Raises ConnectionError."""
        self._agent.remote_username, self._agent.remote_password = self._offer.ufrag, self._offer.password
        self._agent.remote_is_lite = self._offer.is_lite
        try:
            await self._agent.connect()
        except ConnectionError:
            raise ConnectionError("ICE found no way to the peer") from None
        self._started = True
        self._dtls.start()
        while self._early:
            self._dtls.receive(self._early.popleft())
        self._flush()
        while self._dtls.state is DtlsState.HANDSHAKE:
            try:
                async with asyncio.timeout(self._dtls.wait_s):
                    await self._news.wait()
            except TimeoutError:
                self._dtls.tick()
                self._flush()
            self._news.clear()
        if self._dtls.state is not DtlsState.OPEN:
            raise ConnectionError(self._why())
        log.info("webrtc.connected", path=self._agent.path)

    async def _until_lost(self) -> None:
        """Until the peer says goodbye, or no longer consents to what we send."""
        agent = asyncio.create_task(self._agent.lost(), name="webrtc lost")
        try:
            while self._dtls.state is DtlsState.OPEN and not agent.done():
                self._news.clear()
                news = asyncio.create_task(self._news.wait(), name="webrtc news")
                try:
                    await asyncio.wait((agent, news), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
        finally:
            agent.cancel()

    def _why(self) -> str:
        return self._dtls.failure or "the peer is no longer reached"

    # -- RtpTransport -----------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether packets can go through."""
        return self._dtls.state is DtlsState.OPEN

    def receive(self) -> tuple[bytes, Address] | None:
        """The next RTP or RTCP packet of the peer, decrypted."""
        while self._waiting:
            data = self._waiting.popleft()
            packet = self._dtls.unprotect(data, control=is_rtcp(data))
            if packet is not None:
                return packet, PEER
            self.dropped["srtp"] += 1
        return None

    def receive_control(self) -> tuple[bytes, Address] | None:
        """RTCP of its own: there is none, it comes with RTP."""
        return None

    def send(self, data: bytes, destination: Address) -> None:
        """Send an RTP or RTCP packet, encrypted; lost while there is no way to the peer."""
        packet = self._dtls.protect(data, control=is_rtcp(data))
        if packet is not None and not self._agent.send_now(packet):
            self.dropped["unsent"] += 1

    def send_control(self, data: bytes, destination: Address) -> None:
        """The same: RTCP has no port of its own."""
        self.send(data, destination)

    def close(self) -> None:
        """Say goodbye, and give everything back a little later."""
        if self._closed:
            return
        self._closed = True
        self._dtls.close()
        with suppress(OSError):
            self._flush()
        self._news.set()
        _closings.start(self._give_back(), name="webrtc give back")

    async def _give_back(self) -> None:
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await self._agent.close()

    def _on_data(self, data: bytes) -> None:
        """A datagram of the peer's, told by its first octet (RFC 7983)."""
        if 128 <= data[0] <= 191:
            if len(self._waiting) == _MAX_WAITING:
                self.dropped["too_many"] += 1
            self._waiting.append(data)
        elif not 20 <= data[0] <= 63:
            self.dropped["unknown"] += 1
        elif self._started:
            self._dtls.receive(data)
            self._flush()
            self._news.set()
        else:
            self._early.append(data)

    def _flush(self) -> None:
        for datagram in self._dtls.take():
            self._agent.send_now(datagram)
