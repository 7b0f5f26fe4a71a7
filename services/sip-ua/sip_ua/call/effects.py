"""What a call machine wants done, one after another and in the order given. What follows comes back as an input.

`AllocateMedia` is answered by MediaReady or MediaRefused, later: the call goes on meanwhile. So it is with a DNS lookup
for `FindCallee`, with `SendMessage` and `AskBridge`. An `Ask` that the worker refuses is answered by CommandRefused,
at once: before the effects behind it are looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dialbus.contracts.commands import ClientCommand
from dialbus.contracts.events import Event
from dialbus.contracts.media import MAIN_LEG, LegCommand, LegKind
from dialbus.contracts.options import SipOption


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
class Announce:
    """Write the pending call down, then have the webhook told of it; WebhookOutcome says how that went."""


@dataclass(frozen=True, slots=True)
class FindCallee:
    """Find the way to the callee of a new SIP leg; CalleeFound or LegImpossible follows, if need be later."""

    dial: Dial
    leg: str = MAIN_LEG
    generation: int = 0


@dataclass(frozen=True, slots=True)
class AllocateMedia:
    """Find a media worker for the leg and agree on our SDP."""

    leg: str = MAIN_LEG
    kind: LegKind = "rtp"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the media worker that holds the leg."""

    command: LegCommand


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
class SendInvite:
    """Place the call of the leg's `Dial`."""

    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class SendRinging:
    """180, or 183 with our SDP."""

    early_media: bool


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """200 with our SDP; `sip` is for the requests that follow in the dialog."""

    sip: SipOption | None = None


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
    """A MESSAGE in the leg's dialog; a refusal comes back as MessageRefused."""

    body: str
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class AskBridge:
    """Ask the other call's owner for its half; BridgeAgreed or BridgeRefused follows later."""

    other: str


@dataclass(frozen=True, slots=True)
class AnswerBridge:
    """Answer the owner that asked for our half, or told that it has ended its own."""

    other: str
    objection: str | None = None
    """Why it can't have it."""


@dataclass(frozen=True, slots=True)
class LeaveBridge:
    """Tell the other call's owner that the bridge is over; nobody waits for an answer."""

    other: str


@dataclass(frozen=True, slots=True)
class TakeUp:
    """Give a command that waited back as an input, now: its turn has come."""

    command: ClientCommand


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more comes; write the record."""


Effect = (
    Emit | Announce | FindCallee | AllocateMedia | Ask | CloseMedia | EndLostTracks | SendInvite | SendRinging
    | SendAnswer | SendReject | SendBye | SendCancel | SendMessage | AskBridge | AnswerBridge | LeaveBridge | TakeUp
    | Finish
)  # fmt: skip
