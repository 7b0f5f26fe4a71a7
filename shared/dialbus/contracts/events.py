"""The events that clients receive (protocol section 3).

Integers are plain and non-negative, absent values are left out: the Go SDK throws away an event with one member
of the wrong type. `seq` is added when an event leaves for a client, counted from 1 without gaps per call.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from dialbus.contracts.base import U32, U64, ClientJson, token

EVENT_SUBJECT = "call.{call}.event.{name}"

_URI = re.compile(r"^(?:sips?:)?(?:([^@]*)@)?(\[[^\]]*\]|[^:;?>]*)", re.IGNORECASE)


class Event(ClientJson):
    """What every event has."""

    model_config = ConfigDict(validate_default=True)

    event: str
    timestamp: U64
    """Unix epoch milliseconds."""


class Incoming(Event):
    """A pending inbound call, ready to be accepted or rejected."""

    event: Literal["incoming"] = "incoming"
    track_id: str
    caller: str
    callee: str
    sdp: str
    headers: dict[str, str] | None = None


class TrackStart(Event):
    """A track begins."""

    event: Literal["trackStart"] = "trackStart"
    track_id: str
    play_id: str | None = None


class TrackEnd(Event):
    """A track ends; exactly one per trackStart."""

    event: Literal["trackEnd"] = "trackEnd"
    track_id: str
    duration: U64
    ssrc: U32
    play_id: str | None = None


class RingingEvent(Event):
    """An 18x arrived for the outbound leg."""

    event: Literal["ringing"] = "ringing"
    track_id: str
    early_media: bool
    refer: bool = False


class AnswerEvent(Event):
    """The leg is up; `sdp` is the remote one for outbound SIP, else ours."""

    event: Literal["answer"] = "answer"
    track_id: str
    sdp: str
    refer: bool = False


class RejectEvent(Event):
    """The outbound leg was refused or not answered; or `accept` found no call."""

    event: Literal["reject"] = "reject"
    track_id: str
    reason: str
    code: U32 | None = None
    refer: bool = False


class Attendee(ClientJson):
    """One party's address, in parts and as it was written."""

    username: str
    realm: str
    source: str


def attendee(uri: str | None) -> Attendee | None:
    """The parts of an address, `realm` without its port, as RustPBX's records have them (protocol 3.1)."""
    if not uri:
        return None
    match = _URI.match(uri)
    user, host = (match[1] or "", match[2] or "") if match else ("", "")
    return Attendee(username=user.partition(":")[0].partition(";")[0], realm=host, source=uri)


class HangupEvent(Event):
    """The leg is over; on the main track the last event of the session."""

    event: Literal["hangup"] = "hangup"
    track_id: str
    start_time: str
    hangup_time: str
    ringing_time: str | None = None
    answer_time: str | None = None
    reason: str
    initiator: str
    from_: Attendee | None = Field(default=None, serialization_alias="from", validation_alias="from")
    to: Attendee | None = None
    extra: dict[str, str] | None = None
    refer: bool = False


class Interruption(Event):
    """A playback was cut."""

    event: Literal["interruption"] = "interruption"
    track_id: str
    play_id: str | None = None
    subtitle: str | None = None
    position: U32 | None = None
    total_duration: U32
    current: U32


class _Transcript(Event):
    track_id: str
    index: U32
    text: str
    start_time: U64
    end_time: U64
    is_filler: bool | None = None
    confidence: float | None = None
    task_id: str | None = None
    refer: Literal[True] | None = None


class AsrFinal(_Transcript):
    """One utterance as text, never revised; may be empty."""

    event: Literal["asrFinal"] = "asrFinal"


class AsrDelta(_Transcript):
    """What an utterance that still goes on sounds like so far."""

    event: Literal["asrDelta"] = "asrDelta"


class Speaking(Event):
    """Speech began; `startTime` is the true onset."""

    event: Literal["speaking"] = "speaking"
    track_id: str
    start_time: U64
    confidence: float | None = None
    refer: Literal[True] | None = None


class Silence(Event):
    """Speech paused, silence lasts, or nobody spoke after a playback (protocol 3.4)."""

    event: Literal["silence"] = "silence"
    track_id: str
    start_time: U64
    duration: U64
    refer: Literal[True] | None = None


class Dtmf(Event):
    """A key was pressed."""

    event: Literal["dtmf"] = "dtmf"
    track_id: str
    digit: Annotated[str, Field(pattern=r"^[0-9*#A-D]$")]
    refer: bool = False


class ErrorEvent(Event):
    """Something failed; the call goes on unless other events say otherwise."""

    event: Literal["error"] = "error"
    track_id: str
    sender: str
    error: str
    code: U32 | None = None


class Metrics(Event):
    """How long something took."""

    event: Literal["metrics"] = "metrics"
    key: str
    duration: U32
    data: dict[str, Any]


class AddHistory(Event):
    """A line of conversation that a client added."""

    event: Literal["addHistory"] = "addHistory"
    speaker: str
    text: str
    sender: str | None = None


class Ping(Event):
    """The socket is alive."""

    event: Literal["ping"] = "ping"
    payload: str | None = None


class MediaReady(Event):
    """The first RTP packet of a leg arrived."""

    event: Literal["mediaReady"] = "mediaReady"
    track_id: str


class Hold(Event):
    """The remote party held or resumed the call."""

    event: Literal["hold"] = "hold"
    track_id: str
    on_hold: bool
    refer: bool = False


class Inactivity(Event):
    """Nothing was heard of the remote party for `inactivityTimeout`; the call ends."""

    event: Literal["inactivity"] = "inactivity"
    track_id: str


class TransferRequest(Event):
    """An in-dialog SIP REFER arrived."""

    event: Literal["transferRequest"] = "transferRequest"
    track_id: str
    refer_to: str
    referred_by: str | None = None
    refer: bool = False


class MessageEvent(Event):
    """An in-dialog SIP MESSAGE arrived."""

    event: Literal["message"] = "message"
    track_id: str
    body: str
    content_type: str | None = None
    refer: bool = False


class CustomEvent(Event):
    """Data that a client posted to everyone who watches."""

    event: Literal["custom"] = "custom"
    data: Any
    sender: str | None = None


EVENTS: dict[str, type[Event]] = {
    model.model_fields["event"].default: model
    for model in (
        Incoming, TrackStart, TrackEnd, RingingEvent, AnswerEvent, RejectEvent, HangupEvent, Interruption, AsrFinal,
        AsrDelta, Speaking, Silence, Dtmf, ErrorEvent, Metrics, AddHistory, Ping, MediaReady, Hold, Inactivity,
        TransferRequest, MessageEvent, CustomEvent,
    )
}  # fmt: skip

CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        Incoming | TrackStart | TrackEnd | RingingEvent | AnswerEvent | RejectEvent | HangupEvent | Interruption
        | AsrFinal | AsrDelta | Speaking | Silence | Dtmf | ErrorEvent | Metrics | AddHistory | Ping | MediaReady
        | Hold | Inactivity | TransferRequest | MessageEvent | CustomEvent,
        Field(discriminator="event"),
    ]
)  # fmt: skip


def event_subject(call_id: str, name: str = "*") -> str:
    """The stream subject of a call's event; `name` defaults to every event."""
    return EVENT_SUBJECT.format(call=token(call_id), name=name)
