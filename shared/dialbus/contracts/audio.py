"""Live audio on core NATS: raw int16 mono PCM as payload, everything else in headers."""

from dataclasses import dataclass, field

from dialbus.contracts.base import token

SUBJECT = "call.{call}.audio.{track}"


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """A stretch of PCM of one utterance, in order.

    media → asr (`track` "main", 16 kHz): `utterance` counts from 0; `last` ends it.
    tts → media (`track` "server"): `utterance` is the Speak's utterance_id; `last` ends it, with `failure` when
    synthesis broke off, and `facts` (ms as text: ttfb, duration; cached) for the metrics event.
    """

    call_id: str
    track: str
    utterance: str
    sequence: int
    """0, 1, 2 … within the utterance."""
    rate_hz: int
    pcm: bytes
    """int16 little-endian; may be empty in the last frame."""
    last: bool = False
    failure: str | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """`call.<id>.audio.<track>`."""
        return audio_subject(self.call_id, self.track)

    def headers(self) -> dict[str, str]:
        """The NATS headers that describe the payload."""
        lines = {"Utterance": self.utterance, "Sequence": str(self.sequence), "Rate": str(self.rate_hz)}
        if self.last:
            lines["Last"] = "1"
        if self.failure is not None:
            lines["Failure"] = " ".join(self.failure.split())
        return lines | {f"X-{key}": value for key, value in self.facts.items()}

    @classmethod
    def received(cls, call_id: str, track: str, headers: dict[str, str] | None, pcm: bytes) -> "AudioFrame":
        """The frame in a NATS message. Raises ValueError when its headers do not describe one."""
        if not headers or "Utterance" not in headers:
            raise ValueError("audio without headers")
        if len(pcm) % 2:
            raise ValueError("odd number of bytes in int16 PCM")
        return cls(
            call_id=call_id,
            track=track,
            utterance=headers["Utterance"],
            sequence=int(headers.get("Sequence", "")),
            rate_hz=int(headers.get("Rate", "")),
            pcm=pcm,
            last=headers.get("Last") == "1",
            failure=headers.get("Failure"),
            facts={key[2:]: value for key, value in headers.items() if key.startswith("X-")},
        )


def audio_subject(call_id: str, track: str) -> str:
    """`call.<id>.audio.<track>`; `track` is `main` (the remote party) or `server` (what we send)."""
    return SUBJECT.format(call=token(call_id), track=track)


FROM_CLIENT = "from-client"
"""Binary frames of a client's socket on their way to the media worker, each one message, as they are."""
TO_CLIENT = "to-client"
"""Binary frames for the client's socket, each one message, to be sent as they are.

On `/call` audio of the chosen codec; with `subscribe` one byte of track index (0 server side, 1 main), then
16 kHz int16 PCM.
"""
BRIDGE = "bridge"
"""The remote party of a bridged call, as AudioFrames for the media workers of the other side."""
