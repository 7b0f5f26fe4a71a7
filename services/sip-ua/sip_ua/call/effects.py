"""What a call machine wants done, one after another and in the order given. What follows is fed back at once.

`AllocateMedia` is answered by `media_ready` or `media_refused` and is always the last effect of its list.
`ControlPlayback` and its like are answered by `playback_refused` when the worker says no. A DNS lookup for
`FindCallee`, `SendMessage` and `AskBridge` never hold up the call: what comes of them is a later input like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dialbus.contracts.events import Event
from dialbus.contracts.media import MAIN_LEG, LegKind, PlaybackCommand
from dialbus.contracts.options import (
    AGCOption,
    AmbianceOption,
    MediaPassOption,
    RecorderOption,
    SipOption,
    SynthesisOption,
    TranscriptionOption,
    VADOption,
)


@dataclass(frozen=True, slots=True)
class Dial:
    """Whom an outbound SIP leg calls, and how."""

    caller: str | None
    """None: protocol 5.1 says who."""
    callee: str | None
    sip: SipOption | None = None
    sip_call_id: str | None = None
    """What the client wants as Call-ID; None: ours to choose."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """On the INVITE, below the client's own."""
    ringing_limit_s: float | None = None
    """How long it may ring at the least; None: as long as SIP lets it (protocol 5.11)."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Append an event to the call's stream."""

    event: Event


@dataclass(frozen=True, slots=True)
class FindCallee:
    """Find the way to the callee of a new SIP leg; `callee_found` or `media_refused` follows, if need be later."""

    dial: Dial
    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class AllocateMedia:
    """Find a media worker for the leg and agree on our SDP."""

    leg: str = MAIN_LEG
    kind: LegKind = "rtp"


@dataclass(frozen=True, slots=True)
class ConfigureMedia:
    """Say what is done with the leg's audio; only the parts named."""

    leg: str = MAIN_LEG
    denoise: bool | None = None
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    recorder: RecorderOption | None = None
    agc: AGCOption | None = None
    ambiance: AmbianceOption | None = None
    media_pass: MediaPassOption | None = None
    subscribe: bool | None = None
    inactivity_timeout_s: float | None = None
    unsupported: tuple[str, ...] | None = None
    answered: bool | None = None
    """False: complaints about the rest wait until True is said."""

    @property
    def says_nothing(self) -> bool:
        """Whether no part is named."""
        return self == ConfigureMedia(self.leg)


@dataclass(frozen=True, slots=True)
class ConnectMedia:
    """Let the leg send to, and hear, what the SDP agreed on."""

    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class AddCandidate:
    """Give the WebRTC leg a trickled candidate."""

    candidate: str
    sdp_mid: str | None = None
    sdp_m_line_index: int | None = None


@dataclass(frozen=True, slots=True)
class SendInvite:
    """Place the call of the leg's `Dial`."""

    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class SendRinging:
    """180, or 183 with our SDP."""

    early_media: bool


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """200 with our SDP."""


@dataclass(frozen=True, slots=True)
class SendReject:
    """A final non-2xx response."""

    code: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class SendBye:
    """End the established leg."""

    headers: Mapping[str, str] = field(default_factory=dict)
    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Give up the outbound leg that has no final response yet."""

    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class SendMessage:
    """A MESSAGE in the leg's dialog; a refusal comes back as `message_refused`."""

    body: str
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class ControlPlayback:
    """Hand a playback command, mostly a client's, to the main leg."""

    command: PlaybackCommand
    loop: bool = False


@dataclass(frozen=True, slots=True)
class StopPlayback:
    """End what plays to the main leg and wait until its trackEnd is in the stream."""

    interruption: bool = False
    play_id: str | None = None
    """Only when this is what plays."""


@dataclass(frozen=True, slots=True)
class NoteInput:
    """Tell the main leg that the remote party gave a sign."""


@dataclass(frozen=True, slots=True)
class JoinLegs:
    """Let the parties of the main and the second leg hear each other; one way: the first one hears the second."""

    one_way: bool
    forward_dtmf: bool = True
    pause_asr: bool = False


@dataclass(frozen=True, slots=True)
class BridgeMedia:
    """Mix another call's party in, and let it hear ours."""

    other: str


@dataclass(frozen=True, slots=True)
class UnbridgeMedia:
    """Undo BridgeMedia."""

    other: str


@dataclass(frozen=True, slots=True)
class AskBridge:
    """Ask the other call's owner for its half; `bridge_agreed` or `bridge_refused` follows later."""

    other: str


@dataclass(frozen=True, slots=True)
class LeaveBridge:
    """Tell the other call's owner that the bridge is over; nobody waits for an answer."""

    other: str


@dataclass(frozen=True, slots=True)
class CloseMedia:
    """End the leg's media and wait until its last event is in the stream."""

    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class EndLostTracks:
    """Emit the trackEnd of every track that a lost media worker began and can't end."""

    ours: tuple[str, ...] = ()
    """Tracks that the machine itself began and will end, besides the main one; none has a playId."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more comes; write the record and forget the call."""


Effect = (
    Emit | FindCallee | AllocateMedia | ConfigureMedia | ConnectMedia | AddCandidate | SendInvite | SendRinging
    | SendAnswer | SendReject | SendBye | SendCancel | SendMessage | ControlPlayback | StopPlayback | NoteInput
    | JoinLegs | BridgeMedia | UnbridgeMedia | AskBridge | LeaveBridge | CloseMedia | EndLostTracks | Finish
)  # fmt: skip
