"""An RTP peer: a real UDP socket that speaks paced audio, presses keys, and keeps what it hears.

Its packets are written and read here with `struct`, so that it shares no RTP code with what it tests.
"""

import asyncio
import secrets
import socket
import struct
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from media.audio.codec import make_codec
from media.audio.resample import resample

Pcm = npt.NDArray[np.int16]

PAYLOAD_TYPES = {"pcmu": 0, "pcma": 8, "g722": 9, "opus": 111}
TELEPHONE_EVENT = 101
NOTES = (500, 700, 900, 1300)
"""Frequencies that tests tell parties apart by."""
_DIGITS = "0123456789*#ABCD"
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Packet:
    """An RTP packet that arrived."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    source: tuple[str, int]
    at: float
    """Loop time of its arrival."""


@dataclass(slots=True)
class RtpPeer(asyncio.DatagramProtocol):
    """One phone's media. Open it with `open_peer`."""

    codec: str = "pcmu"
    ssrc: int = field(default_factory=lambda: secrets.randbits(32))
    remote: tuple[str, int] | None = None
    heard: list[Packet] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)
    """RTCP datagrams."""
    _transport: Any = None
    _encoder: Any = None
    _sequence: int = 1000
    _timestamp: int = 16000
    _arrived: Any = None

    @property
    def address(self) -> tuple[str, int]:
        """Where this peer listens."""
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    @property
    def rate_hz(self) -> int:
        """Of the audio that goes in and comes out."""
        return 16000 if self.codec in ("g722", "opus") else 8000

    @property
    def _units(self) -> int:
        """20 ms of the RTP clock."""
        return 960 if self.codec == "opus" else 160

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = transport
        self._encoder = make_codec(self.codec)
        self._arrived = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Of asyncio."""
        if len(data) >= 2 and 192 <= data[1] <= 223:
            self.control.append(data)
        else:
            flags, kind, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
            assert flags == 0x80, "the service sends plain RTP"
            now = asyncio.get_running_loop().time()
            self.heard.append(
                Packet(kind & 127, kind > 127, sequence, timestamp, ssrc, data[12:], (addr[0], addr[1]), now)
            )
        self._arrived.set()

    def error_received(self, exc: Exception) -> None:
        """Of asyncio: an ICMP error; the other side is gone, as at the end of any call."""

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()

    # -- speaking ---------------------------------------------------------------------------------

    def send(self, data: bytes, to: tuple[str, int] | None = None) -> None:
        """Any datagram."""
        assert self.remote is not None
        self._transport.sendto(data, to or self.remote)

    def frame(self, pcm: Pcm) -> bytes:
        """The next RTP packet with 20 ms of audio."""
        return self._packet(PAYLOAD_TYPES[self.codec], self._encoder.encode(pcm), self._advance(), marker=False)

    async def speak(self, pcm: Pcm, *, while_true: Callable[[], bool] = lambda: True) -> None:
        """Send audio at the codec's rate, a packet for each 20 ms, in real time."""
        size = self.rate_hz // 50
        pcm = np.concatenate((pcm, np.zeros(-len(pcm) % size, np.int16)))
        loop = asyncio.get_running_loop()
        start = loop.time()
        for index in range(len(pcm) // size):
            if not while_true():
                return
            await asyncio.sleep(max(0.0, start + index * _TICK_S - loop.time()))
            self.send(self.frame(pcm[index * size : (index + 1) * size]))

    @asynccontextmanager
    async def humming(self, frequency_hz: float, level: float = 0.3) -> AsyncIterator[None]:
        """Send a tone while the block runs."""
        second = tone(frequency_hz, 1.0, self.rate_hz, level)  # of a whole frequency: seconds join without a click

        async def hum() -> None:
            await self.speak(np.tile(second, 60))

        task = asyncio.create_task(hum())
        try:
            yield
        finally:
            task.cancel()

    async def press(self, digit: str, *, duration_ms: int = 100) -> None:
        """A key as telephone-event packets (RFC 4733)."""
        event, total = _DIGITS.index(digit), duration_ms * self._units // 20
        timestamp = self._timestamp
        steps = [*range(self._units, total, self._units), total, total, total]
        for index, duration in enumerate(steps):
            end = 0x80 if index >= len(steps) - 3 else 0
            payload = struct.pack("!BBH", event, end | 10, duration)
            self.send(self._packet(TELEPHONE_EVENT, payload, timestamp, marker=index == 0))
            await asyncio.sleep(_TICK_S)
        self._timestamp += self._units * len(steps)

    def _advance(self) -> int:
        timestamp, self._timestamp = self._timestamp, self._timestamp + self._units
        return timestamp

    def _packet(self, payload_type: int, payload: bytes, timestamp: int, *, marker: bool) -> bytes:
        kind = payload_type | (0x80 if marker else 0)
        header = struct.pack("!BBHII", 0x80, kind, self._sequence & 0xFFFF, timestamp & 0xFFFFFFFF, self.ssrc)
        self._sequence += 1
        return header + payload

    # -- hearing ----------------------------------------------------------------------------------

    async def packets(self, count: int, timeout_s: float = 10.0) -> list[Packet]:
        """The packets heard so far, once there are that many."""
        async with asyncio.timeout(timeout_s):
            while len(self.heard) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.heard

    def notes(self, seconds: float = 0.25, floor: float = 0.03) -> Callable[..., bool]:
        """`notes()(500, 900)`: whether exactly these of the usual frequencies were heard in the last moments."""
        pcm = self.audio()[-round(seconds * self.rate_hz) :]

        def are(*frequencies: int) -> bool:
            heard = {note for note in NOTES if strength(pcm, self.rate_hz, note) > floor}
            return heard == set(frequencies)

        return are

    def audio(self) -> Pcm:
        """Everything heard so far, in order of sequence numbers, at the codec's rate."""
        decoder = make_codec(self.codec)
        ordered = sorted(self.heard, key=lambda packet: (packet.sequence - self.heard[0].sequence) & 0xFFFF)
        parts = [decoder.decode(packet.payload) for packet in ordered if packet.payload_type != TELEPHONE_EVENT]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


async def open_peer(codec: str = "pcmu", host: str = "127.0.0.1") -> RtpPeer:
    """A peer on a port of the system's choice."""
    _, peer = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: RtpPeer(codec), local_addr=(host, 0), family=socket.AF_INET
    )
    return peer


def tone(frequency_hz: float, seconds: float, rate_hz: int, level: float = 0.5) -> Pcm:
    """A sine, int16[n]."""
    moments = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.asarray(np.rint(level * 32767 * np.sin(2 * np.pi * frequency_hz * moments)), np.int16)


def voice(path: Path, rate_hz: int) -> Pcm:
    """A mono WAV file of 16 bits, at `rate_hz`."""
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
        return resample(pcm, file.getframerate(), rate_hz)


def strength(pcm: Pcm, rate_hz: int, frequency_hz: float) -> float:
    """Amplitude of one frequency in audio, 0 … 1."""
    if not len(pcm):
        return 0.0
    window = np.hanning(len(pcm))
    turns = np.exp(-2j * np.pi * frequency_hz * np.arange(len(pcm)) / rate_hz)
    return float(2 * np.abs(np.sum(pcm * window * turns)) / (window.sum() * 32768))


def loud(pcm: Pcm, rate_hz: int, floor: int = 500) -> tuple[float, float]:
    """Seconds of the stretch that is louder than `floor`, and the strongest frequency in it."""
    places = np.flatnonzero(np.abs(pcm.astype(np.int32)) > floor)
    if not len(places):
        return 0.0, 0.0
    stretch = pcm[places[0] : places[-1] + 1].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)), 1 << 17))
    return len(stretch) / rate_hz, float(np.argmax(spectrum)) * rate_hz / (1 << 17)
