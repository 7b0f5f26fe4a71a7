"""What reaches a call: a client's commands, what its legs and media tell, other calls, the passing of time.

Plain data: an inbox of these can be logged, stored and given to another machine (`to_fields`, `from_fields`). Nothing
else changes a call. Inputs of a leg name it, and say which of several that had this id one after another they are of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import TypeAdapter

from dialbus.contracts.commands import ClientCommand
from dialbus.contracts.media import MAIN_LEG, RemoteMedia

# -- the client and its announcement ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientSaid:
    """A client's command, in the order of arrival."""

    command: ClientCommand


@dataclass(frozen=True, slots=True)
class Attached:
    """A client's socket took the pending call."""

    gateway: str
    server_track: str
    """The `trackId` of what the remote party hears."""
    dump: bool
    """Whether that gateway writes the event dump."""


@dataclass(frozen=True, slots=True)
class Detached:
    """The socket that `gateway` held is gone; None: the gateway itself is, or this service stops."""

    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """An INVITE arrived and waits for a client."""

    caller: str
    """URI of From, without display name, brackets and tag."""
    callee: str
    sdp: str
    headers: dict[str, str] = field(default_factory=dict)
    """The INVITE's non-standard headers."""


@dataclass(frozen=True, slots=True)
class WebhookOutcome:
    """Whether anybody was told of the inbound call."""

    delivered: bool
    reason: str = ""


# -- a leg: its way to a callee, its dialog -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OfLeg:
    """What all inputs of a leg say."""

    leg: str = MAIN_LEG
    generation: int = 0
    """Late words of a leg that another has replaced are nobody's business."""


@dataclass(frozen=True, slots=True)
class CalleeFound(OfLeg):
    """There is a way to the callee."""


@dataclass(frozen=True, slots=True)
class LegImpossible(OfLeg):
    """There is no way to the callee: a bad address, a host that nobody knows."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class LegProgressed(OfLeg):
    """An 18x to our INVITE; `remote` when there is early media."""

    remote: RemoteMedia | None = None


@dataclass(frozen=True, slots=True)
class LegAnswered(OfLeg):
    """A 200 to our INVITE; the SDP is the peer's and usable."""

    sdp: str
    remote: RemoteMedia


@dataclass(frozen=True, slots=True)
class LegRefused(OfLeg):
    """3xx–6xx to our INVITE, or no answer in time (presented as 408)."""

    status: int
    reason: str
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class LegFailed(OfLeg):
    """A fault that is not the peer's word: a transport that fails, our 200 that is never acknowledged."""

    reason: str
    status: int = 500


@dataclass(frozen=True, slots=True)
class LegCancelled(OfLeg):
    """CANCEL from the caller before an answer."""


@dataclass(frozen=True, slots=True)
class LegHungUp(OfLeg):
    """BYE, or the peer was lost."""


@dataclass(frozen=True, slots=True)
class MediaChanged(OfLeg):
    """Offer and answer agreed anew; `on_hold` is given when that changed."""

    remote: RemoteMedia
    on_hold: bool | None = None


@dataclass(frozen=True, slots=True)
class LegDigit(OfLeg):
    """A key by SIP INFO."""

    digit: str


@dataclass(frozen=True, slots=True)
class LegMessage(OfLeg):
    """A MESSAGE in the dialog."""

    body: str
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRefused(OfLeg):
    """A MESSAGE of ours got no 2xx."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class LegTransferAsked(OfLeg):
    """A REFER in the dialog."""

    refer_to: str
    referred_by: str | None = None


# -- a leg's media ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MediaReady:
    """A media worker holds the leg; `sdp` is ours (an offer when we dial, else an answer, empty for `/call`)."""

    ssrc: int
    sdp: str = ""
    remote: RemoteMedia | None = None
    """What our answer agreed on; None when the peer's is still to come, or when media talks to it by itself."""
    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class MediaRefused:
    """No media worker has room, or nothing in common with the peer (488)."""

    code: int
    reason: str
    leg: str = MAIN_LEG


@dataclass(frozen=True, slots=True)
class MediaLost:
    """A media worker cannot go on with a leg; `gone`: it can't even end what it has begun."""

    reason: str
    leg: str = MAIN_LEG
    gone: bool = True


@dataclass(frozen=True, slots=True)
class MediaLeft:
    """The remote party closed the main leg's media, as a browser does to hang up; SIP may not have told yet."""


@dataclass(frozen=True, slots=True)
class MediaNotClosed:
    """The worker that should have closed the main leg is gone."""


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """Whoever was to carry out what a client asked for says no: the media worker, or the dialog."""

    code: int
    reason: str
    sender: str = "command"


@dataclass(frozen=True, slots=True)
class AutoHangup:
    """A playback with autoHangup ended by itself; its trackEnd is in the stream (O18)."""


@dataclass(frozen=True, slots=True)
class Inactive:
    """Nothing was heard of the remote party for the inactivity timeout (O27)."""


# -- other calls, and time ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BridgeWanted:
    """Another call's owner asks for our half; AnswerBridge says whether it gets it."""

    other: str


@dataclass(frozen=True, slots=True)
class BridgeLeft:
    """The other call has ended the bridge, or itself."""

    other: str


@dataclass(frozen=True, slots=True)
class BridgeAgreed:
    """The call that we asked has switched its half on."""

    other: str


@dataclass(frozen=True, slots=True)
class BridgeRefused:
    """The call that we asked is not there, or not up."""

    other: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The machine's deadline has come."""


Input = (
    ClientSaid | Attached | Detached | Offered | WebhookOutcome
    | CalleeFound | LegImpossible | LegProgressed | LegAnswered | LegRefused | LegFailed | LegCancelled | LegHungUp
    | MediaChanged | LegDigit | LegMessage | MessageRefused | LegTransferAsked
    | MediaReady | MediaRefused | MediaLost | MediaLeft | MediaNotClosed | CommandRefused | AutoHangup | Inactive
    | BridgeWanted | BridgeLeft | BridgeAgreed | BridgeRefused | Tick
)  # fmt: skip

_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Input)}


def to_fields(said: Input) -> dict[str, Any]:
    """The input as a JSON object; `from_fields` makes it again."""
    kind = type(said).__name__
    fields = _ADAPTERS[kind].dump_python(said, mode="json", by_alias=True, exclude_unset=True)
    return {"input": kind, **fields}


def from_fields(fields: Mapping[str, Any]) -> Input:
    """What `to_fields` wrote. Raises KeyError for another kind of input, pydantic.ValidationError for bad fields."""
    made: Input = _ADAPTERS[fields["input"]].validate_python({k: v for k, v in fields.items() if k != "input"})
    return made
