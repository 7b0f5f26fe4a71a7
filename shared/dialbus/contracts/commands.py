"""The commands that clients send over their socket (protocol section 2)."""

import json
import math
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, model_validator

from dialbus.contracts.base import U32, ClientJson
from dialbus.contracts.options import CallOption, RecorderOption, ReferOption, StringMap, SynthesisOption
from dialbus.contracts.speech import MAX_TEXT_BYTES


class Invite(ClientJson):
    """Place a call."""

    command: Literal["invite"] = "invite"
    option: CallOption


class Accept(ClientJson):
    """Answer the pending inbound call."""

    command: Literal["accept"] = "accept"
    option: CallOption


class Reject(ClientJson):
    """Refuse the pending inbound call; the range of `code` is the call machine's to judge."""

    command: Literal["reject"] = "reject"
    reason: str | None = Field(default=None, max_length=1024)
    code: int | None = None


class Ringing(ClientJson):
    """Tell the caller that it rings: 180, or 183 with audio."""

    command: Literal["ringing"] = "ringing"
    ringtone: str | None = Field(default=None, max_length=4096)
    early_media: bool = False
    recorder: RecorderOption | None = None


class Tts(ClientJson):
    """Speak text to the remote party (protocol 2.5)."""

    command: Literal["tts"] = "tts"
    text: Annotated[str, Field(max_length=1 << 20)]
    speaker: str | None = None
    play_id: str | None = None
    streaming: bool = False
    end_of_stream: bool = False
    auto_hangup: bool = False
    wait_input_timeout: U32 | None = None
    option: SynthesisOption | None = None
    base64: bool = False
    cache_key: str | None = None

    @model_validator(mode="after")
    def _speakable(self) -> "Tts":
        if not self.base64 and len(self.text.encode(errors="replace")) > MAX_TEXT_BYTES:
            raise ValueError(f"text: more than {MAX_TEXT_BYTES} bytes to speak in one command")
        return self


class Play(ClientJson):
    """Play a file or URL to the remote party (protocol 2.6)."""

    command: Literal["play"] = "play"
    url: Annotated[str, Field(min_length=1, max_length=4096)]
    play_id: str | None = None
    auto_hangup: bool = False
    wait_input_timeout: U32 | None = None
    offset_ms: U32 = 0


class Interrupt(ClientJson):
    """Stop the running playback."""

    command: Literal["interrupt"] = "interrupt"
    graceful: bool = False
    fade_out_ms: U32 | None = None


class Pause(ClientJson):
    """Freeze the running playback at its position."""

    command: Literal["pause"] = "pause"


class Resume(ClientJson):
    """Continue the paused playback."""

    command: Literal["resume"] = "resume"


class Hangup(ClientJson):
    """End the call."""

    command: Literal["hangup"] = "hangup"
    reason: str | None = Field(default=None, max_length=1024)
    initiator: str | None = Field(default=None, max_length=64)
    headers: StringMap | None = None
    refer: bool = False


class Refer(ClientJson):
    """Call a third party and join its audio (protocol section 6); no SIP REFER is sent."""

    command: Literal["refer"] = "refer"
    caller: str | None = Field(default=None, max_length=1024)
    callee: Annotated[str, Field(max_length=1024)]
    options: ReferOption | None = None


class Message(ClientJson):
    """Send text to the remote party in the dialog (SIP MESSAGE); `text` is an old name of `body`."""

    command: Literal["message"] = "message"
    body: Annotated[str, Field(max_length=MAX_TEXT_BYTES, validation_alias=AliasChoices("body", "text"))]
    content_type: str | None = Field(default=None, max_length=256)
    headers: StringMap | None = None
    refer: bool = False


class Bridge(ClientJson):
    """Patch the audio of another live session into this one, both ways (protocol 2.13)."""

    command: Literal["bridge"] = "bridge"
    target_session_id: Annotated[str, Field(min_length=1, max_length=512)]


class Unbridge(ClientJson):
    """Undo `bridge`; harmless when there is none."""

    command: Literal["unbridge"] = "unbridge"
    target_session_id: Annotated[str, Field(min_length=1, max_length=512)]


class AddIceCandidate(ClientJson):
    """A trickled candidate of a WebRTC peer; an empty one ends them (protocol 2.14)."""

    command: Literal["addIceCandidate"] = "addIceCandidate"
    candidate: Annotated[str, Field(max_length=4096)]
    sdp_mid: str | None = Field(default=None, max_length=64)
    sdp_m_line_index: U32 | None = Field(
        default=None,
        validation_alias=AliasChoices("sdpMLineIndex", "sdpMlineIndex"),
        serialization_alias="sdpMLineIndex",
    )


class Mute(ClientJson):
    """Silence what comes from a track (all tracks when none is named)."""

    command: Literal["mute"] = "mute"
    track_id: str | None = None


class Unmute(ClientJson):
    """Undo `mute`."""

    command: Literal["unmute"] = "unmute"
    track_id: str | None = None


class History(ClientJson):
    """Add a line of conversation to the call's events."""

    command: Literal["history"] = "history"
    speaker: str
    text: str


class Custom(ClientJson):
    """Post data to everyone who watches the call."""

    command: Literal["custom"] = "custom"
    data: Any
    sender: str | None = None


ClientCommand = Annotated[
    Invite
    | Accept
    | Reject
    | Ringing
    | Tts
    | Play
    | Interrupt
    | Pause
    | Resume
    | Hangup
    | Refer
    | Mute
    | Unmute
    | History
    | Message
    | Bridge
    | Unbridge
    | AddIceCandidate
    | Custom,
    Field(discriminator="command"),
]

CLIENT_COMMAND: TypeAdapter[ClientCommand] = TypeAdapter(ClientCommand)

COMMANDS: dict[str, type[ClientJson]] = {
    model.model_fields["command"].default: model
    for model in (
        Invite, Accept, Reject, Ringing, Tts, Play, Interrupt, Pause, Resume, Hangup, Refer, Mute, Unmute, History,
        Message, Bridge, Unbridge, AddIceCandidate, Custom,
    )
}  # fmt: skip


class BadCommand(ValueError):
    """Text from a client that is no command; `str()` says why in words for the `error` event."""


def load_json(text: str) -> Any:
    """The JSON value of a text, numbers finite as JSON has them. Raises BadCommand."""
    try:
        return json.loads(text, parse_constant=_not_json, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadCommand(f"malformed JSON: {error}") from None


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:32]} is out of range")
    return value


def command_from(data: Any) -> ClientCommand:
    """The command in parsed JSON.

    Raises BadCommand for a missing or unknown `command`, a missing required field or a wrong type.
    """
    if not isinstance(data, dict):
        raise BadCommand("a command is a JSON object")
    name = data.get("command")
    if not isinstance(name, str):
        raise BadCommand("missing field: command")
    if name not in COMMANDS:
        raise BadCommand(f"unknown command: {name[:64]}")
    try:
        return CLIENT_COMMAND.validate_python(data)
    except ValidationError as error:
        raise BadCommand(f"{name}: {_first_fault(error)}") from None
    except RecursionError:
        raise BadCommand(f"{name}: nested too deeply") from None


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in fault["loc"][1:])
    if fault["type"] == "missing":
        return f"missing field: {path}"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path}: must be an object"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
