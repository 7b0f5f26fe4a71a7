"""Between the owner of a call and the media worker that holds its leg."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dialbus.contracts.base import U32, CallId, Contract, Request, Taken

Port = Annotated[int, Field(ge=0, le=65535)]
PayloadType = Annotated[int, Field(ge=0, le=127)]
Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]


class RemoteMedia(Contract):
    """What offer and answer agreed on, seen from us (RFC 3264): where to send, in which codec."""

    SUBJECT: ClassVar[str] = "_part.remote_media"

    address: str
    port: Port
    rtcp_port: Port | None = None
    """None with rtcp-mux."""
    codec: Literal["pcmu", "pcma", "g722"]
    payload_type: PayloadType
    telephone_event_pt: PayloadType | None = None
    ptime_ms: int = 20
    direction: Direction = "sendrecv"
    """Ours: `recvonly` and `inactive` mean that we send nothing."""
    on_hold: bool = False


class LegAllocated(Contract):
    """The worker's answer: its RTP address and the SSRC it will send with."""

    SUBJECT: ClassVar[str] = "_reply.leg_allocated"

    worker: str
    address: str
    port: Port
    ssrc: U32


class AllocateLeg(Request):
    """Take an RTP leg. Any media worker with room answers; from here on it holds the call's media."""

    SUBJECT: ClassVar[str] = "media.allocate"
    REPLY: ClassVar[type[Contract]] = LegAllocated

    call_id: CallId
    leg_id: str = "main"
    main_track: str
    server_track: str
    remote_host: str | None = None
    """The peer's address, to choose the local interface; None when not known yet."""


class LegCommand(Request):
    """Anything said to the worker that holds a leg of this call."""

    REPLY: ClassVar[type[Contract]] = Taken

    call_id: CallId


class ConnectLeg(LegCommand):
    """Send to and expect from here, now or anew (early media, answer, re-INVITE)."""

    SUBJECT: ClassVar[str] = "call.{call}.media.connect"

    remote: RemoteMedia


class ConfigureLeg(LegCommand):
    """What is done with the leg's audio. Idempotent: fields given replace what was, absent ones stay.

    Problems with a part of it (unknown provider, missing model) leave that part out and become `error` events.
    """

    SUBJECT: ClassVar[str] = "call.{call}.media.configure"

    denoise: bool | None = None
    vad: dict[str, Any] | None = None
    """VADOption as JSON."""
    asr: dict[str, Any] | None = None
    """TranscriptionOption as JSON."""
    tts: dict[str, Any] | None = None
    """SynthesisOption as JSON: default for `tts` commands."""
    recorder: dict[str, Any] | None = None
    """RecorderOption as JSON; the first one given wins."""


class Playback(LegCommand):
    """A client's playback command (tts, play, interrupt, pause, resume, mute, unmute) for the leg.

    A refusal carries the reason for an `error` event; its `sender` is that of the event.
    """

    SUBJECT: ClassVar[str] = "call.{call}.media.playback"

    command: dict[str, Any]


class NoteInput(LegCommand):
    """The remote party gave a sign outside RTP (SIP INFO key): it cancels waitInputTimeout."""

    SUBJECT: ClassVar[str] = "call.{call}.media.input"


class CloseLeg(LegCommand):
    """End the leg's media. The reply comes after the last event of the leg is in the stream."""

    SUBJECT: ClassVar[str] = "call.{call}.media.close"


class PlaybackEnded(Request):
    """A playback with autoHangup ended by itself; from media to the owner, after its trackEnd is in the stream."""

    SUBJECT: ClassVar[str] = "call.{call}.command.autohangup"
    REPLY: ClassVar[type[Contract]] = Taken

    call_id: CallId


class LegLost(Request):
    """The worker can't go on with the leg (shutdown, socket failure); from media to the owner."""

    SUBJECT: ClassVar[str] = "call.{call}.command.leg-lost"
    REPLY: ClassVar[type[Contract]] = Taken

    call_id: CallId
    reason: str
