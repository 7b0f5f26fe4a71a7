"""The audio of `/call`: binary frames of the client's socket, without any header (protocol 10.1).

In: messages of any length, which `audio.paced` makes even. Out: one message for every 20 ms in which there is
something to hear. The gateway carries both over the bus as they are.
"""

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np

from dialbus import telemetry
from dialbus.audio import Pcm, frame_samples
from dialbus.bus import Bus, Subscription
from dialbus.contracts.audio import FROM_CLIENT, TO_CLIENT
from dialbus.contracts.media import RemoteMedia
from media.audio.codec import Codec, CodecFormat, UnknownCodecError, make_codec
from media.audio.paced import PacedBytes, PacedPcm
from media.audio.resample import live_resampler
from media.mix.live import LiveSender
from media.rtp.jitter import IDLE, JitterBuffer, JitterStatistics, NoAudio

log = telemetry.get_logger()

PCM = CodecFormat("pcm", "L16", 0, 16000, 16000)
"""Never in SDP; the payload type means nothing."""
MAX_WAITING_BYTES = 9_600_000
"""Audio that came faster than it sounds; a client may send a whole file at once. Five minutes of pcm at 16 kHz."""
_FRAME_SAMPLES = frame_samples(PCM.sample_rate_hz)
_OCTETS_PER_SECOND = 8000  # of each of the others
_FRAME_OCTETS = frame_samples(_OCTETS_PER_SECOND)
_STATISTICS = replace(JitterBuffer().statistics(), target_delay=0.06)
"""A socket loses nothing; the delay is what `audio.paced` holds back."""


class PcmCodec:
    """int16 little-endian samples as they are."""

    format = PCM

    def encode(self, pcm: Pcm) -> bytes:
        """See Codec."""
        return pcm.astype("<i2", copy=False).tobytes()

    def decode(self, payload: bytes) -> Pcm:
        """See Codec."""
        return np.frombuffer(payload, "<i2")


class SocketEndpoint:
    """One leg's end at the client's socket; connected from the start. See `Endpoint`."""

    def __init__(self, bus: Bus, call_id: str, codec: str, rate_hz: int, ssrc: int) -> None:
        """`codec` is pcm (at `rate_hz`, 8 to 48 kHz), pcmu, pcma or g722. Raises UnknownCodecError."""
        self._bus = bus
        self._call_id = call_id
        self._codec: Codec = PcmCodec() if codec.lower() == PCM.name else make_codec(codec)
        if self._codec.format.name not in ("pcm", "pcmu", "pcma", "g722"):
            raise UnknownCodecError(f"{codec} is no codec of audio on a socket")
        self._input: PacedBytes | PacedPcm
        if self._codec.format is PCM:
            self._input = PacedPcm(rate_hz, PCM.sample_rate_hz, MAX_WAITING_BYTES / (2 * rate_hz))
        else:
            self._input = PacedBytes(_OCTETS_PER_SECOND, MAX_WAITING_BYTES / _OCTETS_PER_SECOND)
        self._to_client = live_resampler(PCM.sample_rate_hz, rate_hz)
        self._ssrc = ssrc
        self._loop = asyncio.get_running_loop()
        self._subscription: Subscription | None = None
        self._sender = LiveSender(f"{call_id} to its client")
        self._closing: asyncio.Task[None] | None = None
        self._dropped: Counter[str] = Counter()
        self.accepted = 0
        self.heard_at: float | None = None
        self.packets_sent = 0

    async def open(self) -> None:
        """Listen to the client's frames."""
        self._subscription = await self._bus.subscribe_raw(self._call_id, FROM_CLIENT, self._on_frame)

    @property
    def ssrc(self) -> int:
        """See Endpoint."""
        return self._ssrc

    @property
    def codec(self) -> Codec:
        """See Endpoint."""
        return self._codec

    @property
    def ready(self) -> bool:
        """See Endpoint."""
        return True

    @property
    def sends(self) -> bool:
        """See Endpoint."""
        return True

    @property
    def on_hold(self) -> bool:
        """See Endpoint."""
        return False

    @property
    def expects(self) -> bool:
        """A client sends when it has something to say."""
        return False

    def connect(self, remote: RemoteMedia, now: float) -> bool:
        """Nothing is negotiated on a socket."""
        return False

    def drain(self, now: float) -> list[str]:
        """Frames come by themselves, and digits never."""
        return []

    def next_payload(self, now: float) -> bytes | NoAudio:
        """See Endpoint."""
        if isinstance(self._input, PacedBytes):
            return self._input.take(_FRAME_OCTETS) or IDLE
        frame = self._input.take(_FRAME_SAMPLES)
        return IDLE if frame is None else frame.tobytes()

    def send(self, payload: bytes) -> None:
        """See Endpoint."""
        if self._codec.format is PCM:
            payload = self._to_client.process(np.frombuffer(payload, "<i2")).astype("<i2", copy=False).tobytes()
        self._sender.put(lambda: self._bus.publish_raw(self._call_id, TO_CLIENT, payload))
        self.packets_sent += 1

    def send_silence(self) -> None:
        """The client gets audio only while there is something to hear."""

    def send_dtmf(self, digit: str) -> None:
        """A socket carries no digits."""

    def pass_over(self, ticks: int = 1) -> None:
        """A socket has no clock of its own."""

    def report(self, wall: float, now: float) -> None:
        """There are no reports on a socket."""

    def statistics(self) -> JitterStatistics:
        """See Endpoint."""
        return _STATISTICS

    def ignored(self) -> Counter[str]:
        """See Endpoint."""
        return self._dropped

    def close(self) -> None:
        """Listen and send no more."""
        self._closing = self._loop.create_task(self._leave(), name=f"leave socket {self._call_id}")

    async def _leave(self) -> None:
        await self._sender.close()
        if self._subscription is not None:
            await self._subscription.drop()

    async def _on_frame(self, data: bytes) -> None:
        if not data:
            return
        self.accepted += 1
        self.heard_at = self._loop.time()
        dropped = self._input.put(data)
        if dropped:
            if not self._dropped["overrun"]:
                log.warning("socket.audio_dropped", call_id=self._call_id, waiting_s=round(self._input.seconds))
            self._dropped["overrun"] += 1
