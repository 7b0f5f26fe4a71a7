"""A browser's part of a call: aiortc, on loopback addresses only, which speaks a tone and keeps what it hears."""

import asyncio
import fractions
import re
import secrets
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from unittest import mock

import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from av import AudioFrame

from dialbus.tasks import cancel_all
from tests.peers.rtp import tone

Pcm = npt.NDArray[np.int16]

RATE_HZ = 48000
EVENT_TYPE = 110
_FRAME = RATE_HZ // 50
_MIME = {"opus": "audio/opus", "pcmu": "audio/PCMU", "pcma": "audio/PCMA", "g722": "audio/G722"}


class Voice(MediaStreamTrack):
    """A tone for a while, then silence, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pcm = np.zeros(0, np.int16)
        self._frames = 0
        self._started = 0.0

    def say(self, pcm: Pcm) -> None:
        """Speak this next, int16[n] at 48 kHz."""
        self._pcm = np.concatenate((self._pcm, pcm))

    async def recv(self) -> AudioFrame:
        """Of aiortc."""
        loop = asyncio.get_running_loop()
        if not self._frames:
            self._started = loop.time()
        await asyncio.sleep(self._started + self._frames / 50 - loop.time())
        pcm, self._pcm = self._pcm[:_FRAME], self._pcm[_FRAME:]
        pcm = np.concatenate((pcm, np.zeros(_FRAME - len(pcm), np.int16)))
        frame = AudioFrame.from_ndarray(pcm[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._frames * _FRAME, fractions.Fraction(1, RATE_HZ)
        self._frames += 1
        return frame


class WebRtcPeer:
    """One browser tab. Open it with `webrtc_peer`."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.voice = Voice()
        self.heard_rate_hz = 0
        self._heard: list[Pcm] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sequence = secrets.randbits(15)
        self._event_ssrc = secrets.randbits(32)
        self.connection.addTrack(self.voice)
        self.connection.on("track", self._listen)

    async def offer(self, *codecs: str, telephone_event: int | None = RATE_HZ) -> str:
        """SDP with every candidate. aiortc knows no telephone-event; it is written in, at this clock rate."""
        wanted = [
            codec
            for name in codecs or ("opus", "pcmu", "pcma")
            for codec in RTCRtpSender.getCapabilities("audio").codecs
            if codec.mimeType.lower() == _MIME[name].lower()
        ]
        self.connection.getTransceivers()[0].setCodecPreferences(wanted)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sdp = self.connection.localDescription.sdp
        if telephone_event is None:
            return sdp
        sdp = re.sub(r"(m=audio \d+ \S+ [^\r\n]*)", rf"\1 {EVENT_TYPE}", sdp)
        return f"{sdp}a=rtpmap:{EVENT_TYPE} telephone-event/{telephone_event}\r\na=fmtp:{EVENT_TYPE} 0-16\r\n"

    async def answer(self, sdp: str) -> None:
        """Take the other side's answer; aiortc connects in the background."""
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def connected(self, timeout_s: float = 10.0) -> None:
        """Wait for ICE and DTLS."""
        async with asyncio.timeout(timeout_s):
            while self.connection.connectionState != "connected":
                assert self.connection.connectionState not in ("failed", "closed")
                await asyncio.sleep(0.01)

    def say(self, frequency_hz: float, seconds: float) -> None:
        """Speak a tone."""
        self.voice.say(tone(frequency_hz, seconds, RATE_HZ))

    async def press(self, digit: str) -> None:
        """A key of 100 ms, as RFC 4733 packets of 48 kHz, under an SSRC of its own."""
        timestamp = secrets.randbits(32)
        steps = [960, 1920, 2880, 3840, 4800, 4800, 4800]
        for index, duration in enumerate(steps):
            end = 0x80 if index >= len(steps) - 3 else 0
            payload = struct.pack("!BBH", "0123456789*#ABCD".index(digit), end | 10, duration)
            kind = EVENT_TYPE | (0x80 if index == 0 else 0)
            header = struct.pack("!BBHII", 0x80, kind, self._sequence & 0xFFFF, timestamp, self._event_ssrc)
            self._sequence += 1
            await self.connection.getSenders()[0].transport._send_rtp(header + payload)
            await asyncio.sleep(0.02)

    def audio(self) -> Pcm:
        """Everything heard so far, mono at `heard_rate_hz`."""
        return np.concatenate(self._heard) if self._heard else np.zeros(0, np.int16)

    def vanish(self) -> None:
        """Be gone without a word: its sockets are closed."""
        ice = self.connection.getSenders()[0].transport.transport._connection
        for protocol in ice._protocols:
            protocol.transport.abort()

    async def close(self) -> None:
        """Hang up."""
        await self.connection.close()
        await cancel_all(self._tasks)

    def _listen(self, track: MediaStreamTrack) -> None:
        async def listen() -> None:
            while True:
                try:
                    frame = await track.recv()
                except MediaStreamError:
                    return
                assert isinstance(frame, AudioFrame)
                pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                self.heard_rate_hz = frame.sample_rate
                self._heard.append(pcm.astype(np.int16))

        self._tasks.append(asyncio.create_task(listen()))


def candidates(sdp: str) -> list[str]:
    """The candidate lines of a description, as a browser trickles them."""
    return re.findall(r"a=(candidate:[^\r\n]+)", sdp)


def without_candidates(sdp: str) -> str:
    """The same before any candidate is known."""
    return re.sub(r"a=(?:candidate:[^\r\n]+|end-of-candidates)\r\n", "", sdp)


def addresses(sdp: str) -> list[tuple[str, str]]:
    """Kind and address of every candidate."""
    found = [candidate_from_sdp(line.removeprefix("candidate:")) for line in candidates(sdp)]
    return [(item.type, item.ip) for item in found]


@contextmanager
def _only(address: str) -> Iterator[None]:
    """aioice, which leaves loopback out, uses nothing else than this address."""
    with mock.patch("aioice.ice.get_host_addresses", return_value=[address]):
        yield


@asynccontextmanager
async def webrtc_peer(address: str = "127.0.0.1") -> AsyncIterator[WebRtcPeer]:
    """A peer at a loopback address that is closed in the end."""
    with _only(address):
        peer = WebRtcPeer()
        try:
            yield peer
        finally:
            await peer.close()
