"""Between the owner of a call and the media worker that holds its leg."""

from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from dialbus.contracts.base import U32, CallId, Contract, Request, Taken
from dialbus.contracts.commands import Interrupt, Mute, Pause, Play, Resume, Tts, Unmute
from dialbus.contracts.options import (
    AGCOption,
    AmbianceOption,
    MediaPassOption,
    RecorderOption,
    SynthesisOption,
    TranscriptionOption,
    VADOption,
)

R = TypeVar("R", bound=Contract)

MAIN_LEG = "main"
REFER_LEG = "refer"
"""The second leg of a transfer."""
MAX_BRIDGES = 16
"""Of one call to others at once: each adds 50 frames a second to its media worker's work."""

PlaybackCommand = Annotated[
    Tts | Play | Interrupt | Pause | Resume | Mute | Unmute,
    Field(discriminator="command"),
]
"""The client commands that concern what a leg's remote party hears."""

LegId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
LegKind = Literal["rtp", "webrtc", "socket"]
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
    codec: Literal["pcmu", "pcma", "g722", "opus"]
    payload_type: PayloadType
    telephone_event_pt: PayloadType | None = None
    telephone_event_hz: Annotated[int, Field(ge=8000, le=192000)] | None = None
    """Clock of telephone-event; None: the codec's."""
    ptime_ms: int = 20
    direction: Direction = "sendrecv"
    """Ours: `recvonly` and `inactive` mean that we send nothing."""
    on_hold: bool = False
    signalling_host: str | None = None
    """The literal address that the peer's signalling comes from, or that we called; its media may come from there."""
    acknowledged: bool = True
    """False: a caller has not yet shown that it gets what we send. Until it does, or is heard, nothing goes to an
    `address` that is not the `signalling_host`."""


class LegAllocated(Contract):
    """The worker's answer: where the leg is reached and the SSRC it will send with."""

    SUBJECT: ClassVar[str] = "_reply.leg_allocated"

    worker: str
    address: str = ""
    port: Port = 0
    """Of RTP; 0 for other kinds."""
    ssrc: U32
    sdp: str | None = None
    """WebRTC: our answer, with every candidate of ours."""


class AllocateLeg(Request[LegAllocated]):
    """Take a leg. Any media worker that accepts its kind and has room answers; it then holds the call's media.

    An `rtp` leg waits for ConnectLeg. A `webrtc` leg answers `offer` and connects by itself. A `socket` leg, the audio
    of `/call`, is connected at once. Refused with 488 when the offer has nothing in common with us, 400 when it is
    no usable SDP, 503 when there is no room.
    """

    SUBJECT: ClassVar[str] = "media.allocate.{kind}"

    call_id: CallId
    leg_id: LegId = MAIN_LEG
    kind: LegKind = "rtp"
    main_track: str
    """The `trackId` of what comes from this leg's remote party."""
    server_track: str
    """The `trackId` of what this leg's remote party hears; for the leg of a third party that of the main leg."""
    refer: bool = False
    """The leg of a third party: its events say `refer: true`."""
    remote_host: str | None = None
    """The peer's address, to choose the local interface; None when not known yet."""
    offer: str | None = None
    """WebRTC: the peer's SDP."""
    enable_ipv6: bool = False
    handshake_timeout_s: float = 15.0
    """WebRTC: ICE and DTLS must be done by then, or the leg is lost."""
    codec: str = "pcm"
    """Socket: pcm, pcmu, pcma, g722."""
    rate_hz: Annotated[int, Field(ge=8000, le=48000)] = 16000
    """Socket: of `pcm`."""


class AllocateBeside(AllocateLeg):
    """Take another leg of a call on the worker that holds its main leg, so that both can be joined there."""

    SUBJECT: ClassVar[str] = "call.{call}.media.beside"


class LegRequest(Request[R], Generic[R]):
    """Anything said to the worker that holds a leg of this call."""

    call_id: CallId
    leg_id: LegId = MAIN_LEG


class LegCommand(LegRequest[Taken]):
    """What is done, and nothing comes back."""


class ConnectLeg(LegCommand):
    """Send to and expect from here, now or anew (early media, answer, re-INVITE)."""

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.connect"

    remote: RemoteMedia


class ConfigureLeg(LegCommand):
    """What is done with the leg's audio. Idempotent: fields given replace what was, absent ones stay.

    Problems with a part of it (unknown provider, missing model) leave that part out and become `error` events.
    """

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.configure"

    denoise: bool | None = None
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    """Default for `tts` commands."""
    recorder: RecorderOption | None = None
    """The first one given wins."""
    agc: AGCOption | None = None
    ambiance: AmbianceOption | None = None
    media_pass: MediaPassOption | None = None
    """The first one given wins."""
    subscribe: bool | None = None
    """Send both tracks to the client's socket (protocol 10.2)."""
    inactivity_timeout_s: float | None = None
    """Seconds without packets of the remote party until LegInactive; 0 switches it off."""
    answered: bool | None = None
    """False: the call waits for its answer, and `error` events wait with it, until True is said (G2)."""
    unsupported: list[str] | None = None
    """Names of options that were asked for and are not provided; each becomes an `error` event after the answer."""


class Playback(LegCommand):
    """A client's playback command (tts, play, interrupt, pause, resume, mute, unmute) for the leg.

    A refusal carries the reason for an `error` event; its `sender` is that of the event.
    """

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.playback"

    command: PlaybackCommand
    loop: bool = False
    """Play the file again and again (ringtone, music on hold); one pair of trackStart and trackEnd."""


class StopPlayback(LegCommand):
    """End what plays, now. The reply comes after its trackEnd is in the stream; harmless when nothing plays."""

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.stop"

    interruption: bool = False
    """Whether an `interruption` event goes before the trackEnd."""
    play_id: str | None = None
    """Only when this is what plays; None: whatever plays."""


class NoteInput(LegCommand):
    """The remote party gave a sign outside RTP (SIP INFO key): it cancels waitInputTimeout."""

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.input"


class AddCandidate(LegCommand):
    """A trickled ICE candidate of a WebRTC leg; an empty one ends them."""

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.candidate"

    candidate: str
    sdp_mid: str | None = None
    sdp_m_line_index: int | None = None


class JoinLegs(LegCommand):
    """Let the remote parties of this leg and of `other_leg`, on the same worker, hear each other from now on.

    Said again it replaces what was said before; the join ends when either leg closes.
    """

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.join"

    other_leg: LegId
    one_way: bool = False
    """Early media: this leg's party hears the other one, who hears nothing yet."""
    forward_dtmf: bool = True
    pause_asr: bool = False
    """Recognise nothing of this leg until the join ends."""


class BridgeLeg(LegCommand):
    """Let the remote parties of two calls, on any workers, hear each other: this is one direction's half.

    The leg sends its party's audio on `call.<call>.audio.bridge` and mixes in what comes on
    `call.<other>.audio.bridge`. The other call's leg is told likewise.
    """

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.bridge"

    other: CallId


class UnbridgeLeg(LegCommand):
    """Undo BridgeLeg; harmless when there is none."""

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.unbridge"

    other: CallId


class RecordedFile(Contract):
    """A recording that was closed."""

    SUBJECT: ClassVar[str] = "_part.recorded_file"

    track_id: str
    path: str
    size_bytes: int


class LegClosed(Contract):
    """The leg is over; its recordings are complete on disk."""

    SUBJECT: ClassVar[str] = "_reply.leg_closed"

    recordings: tuple[RecordedFile, ...] = ()


class CloseLeg(LegRequest[LegClosed]):
    """End the leg's media. The reply comes after the last event of the leg is in the stream."""

    SUBJECT: ClassVar[str] = "call.{call}.media.{leg_id}.close"


class PlaybackEnded(Request[Taken]):
    """A playback with autoHangup ended by itself; from media to the owner, after its trackEnd is in the stream."""

    SUBJECT: ClassVar[str] = "call.{call}.command.autohangup"

    call_id: CallId


class LegInactive(Request[Taken]):
    """Nothing was heard of the remote party for the inactivity timeout; from media to the owner."""

    SUBJECT: ClassVar[str] = "call.{call}.command.inactive"

    call_id: CallId


class LegLost(Request[Taken]):
    """The worker can't go on with the leg (shutdown, socket failure, lost ICE); from media to the owner."""

    SUBJECT: ClassVar[str] = "call.{call}.command.leg-lost"

    call_id: CallId
    leg_id: LegId = MAIN_LEG
    reason: str
    hung_up: bool = False
    """The remote party closed the connection: it hung up."""
