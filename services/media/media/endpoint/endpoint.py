"""One leg's end towards its remote party, whatever it is made of."""

from collections import Counter
from typing import Protocol

from dialbus.audio import Pcm
from dialbus.contracts.media import RemoteMedia
from media.audio.codec import Codec
from media.rtp.jitter import JitterStatistics, NoAudio


class Endpoint(Protocol):
    """What a leg and the engine need of the remote party's end, whatever it is made of.

    Called from the tick, 50 times a second, and from requests; nothing here waits. In each tick the engine calls
    `drain`, `next_payload` and then one of `send`, `send_silence` and `pass_over`.
    """

    accepted: int
    """Packets, or messages, believed so far."""
    heard_at: float | None
    """When the last of them came."""

    @property
    def ssrc(self) -> int:
        """Of what we send, as `trackEnd` tells it."""

    @property
    def codec(self) -> Codec | None:
        """Of the leg now; None until it is known."""

    @property
    def ready(self) -> bool:
        """Whether audio can flow; until then playing and listening wait."""

    @property
    def sends(self) -> bool:
        """Whether what we send now would reach somebody."""

    @property
    def on_hold(self) -> bool:
        """Whether the remote party is on hold: nobody hears it."""

    @property
    def expects(self) -> bool:
        """Whether the remote party is to send all the time, so that its silence means that it is gone."""

    @property
    def packets_sent(self) -> int:
        """Packets, or messages, sent so far."""

    def connect(self, remote: RemoteMedia, now: float) -> bool:
        """An offer or answer took effect; True when the codec is another one. `remote.address` is an IP literal."""

    def drain(self, now: float) -> list[str]:
        """Take what has arrived; the digits pressed."""

    def next_payload(self, now: float) -> bytes | Pcm | NoAudio:
        """The octets of the next 20 ms in `codec`, or its samples where decoded already, or why there are none."""

    def send(self, payload: bytes) -> None:
        """Send 20 ms of audio in `codec`."""

    def send_silence(self) -> None:
        """There is nothing to hear for 20 ms: send what the remote party expects then, perhaps nothing."""

    def send_dtmf(self, digit: str) -> None:
        """Send a digit, when the remote party understands telephone-events."""

    def pass_over(self, ticks: int = 1) -> None:
        """Let so many times 20 ms pass without sending."""

    def report(self, wall: float, now: float) -> None:
        """Every 5 s: tell how it goes, where the protocol has reports. `wall` is Unix time."""

    def statistics(self) -> JitterStatistics:
        """How the remote party's stream arrives."""

    def ignored(self) -> Counter[str]:
        """What arrived and was not believed so far, by reason."""

    def close(self) -> None:
        """Say goodbye and give back what it holds."""
