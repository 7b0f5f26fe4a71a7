"""A call's life on the bus: who owns it, how a client's commands reach it, what ends it."""

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from dialbus.contracts.base import CallId, ClientJson, Contract, Request, Taken
from dialbus.contracts.commands import ClientCommand


class CallType(StrEnum):
    """Call types by their REST and CDR names (protocol section 1)."""

    SIP = "sip"
    WEBRTC = "webrtc"
    WEBSOCKET = "webSocket"


class CallState(StrEnum):
    """Where a call stands (protocol section 2)."""

    IDLE = "idle"
    PENDING = "pending"
    DIALING = "dialing"
    UP = "up"
    ENDED = "ended"


class Session(Contract):
    """KV bucket `calls`, key `token(call_id)`: who serves the call. Changed by compare-and-set only."""

    SUBJECT: ClassVar[str] = "_kv.calls"

    call_id: CallId
    call_type: CallType
    state: CallState = CallState.IDLE
    direction: Literal["inbound", "outbound"] | None = None
    owner: str | None = None
    """Instance that runs the call machine; None while an idle socket has sent no command."""
    gateway: str | None = None
    """Instance that holds the client's socket."""
    media_worker: str | None = None
    first_sequence: int = 0
    """Stream sequence of the session's first event (or a lower bound of it): replay starts here."""
    created_at: str
    caller: str | None = None
    callee: str | None = None
    option: dict[str, Any] | None = None
    """The CallOption with secrets masked."""
    ringing_at: str | None = None
    """RFC 3339, like `answered_at`."""
    answered_at: str | None = None


class OpenSession(Request[Taken]):
    """First command of an idle session: a sip-ua with room takes it and owns the call from now on.

    That holds for calls of every type: the owner runs the call machine, a media worker holds the audio.
    """

    SUBJECT: ClassVar[str] = "sip.open"

    call_id: CallId
    call_type: CallType = CallType.SIP
    created_at: str
    gateway: str
    server_side_track: str = "server-side-track"
    dump: bool = True
    """Whether the gateway writes the event dump; the call's record says where."""
    command: ClientCommand
    """Validated by the gateway, as every command on the bus."""


class ClientCommandSent(Request[Taken]):
    """A client's command for the owner of the call machine. The reply says queued, not done."""

    SUBJECT: ClassVar[str] = "call.{call}.command.client"

    call_id: CallId
    command: ClientCommand
    command_id: str | None = Field(default=None, max_length=128)
    """A repeat within 60 s is acknowledged again and not executed again."""


class SocketCommand(Request[Taken]):
    """A command from elsewhere (REST) for a session that has no owner yet; from any gateway to the one with its socket.

    It is handled as if the socket had sent it.
    """

    SUBJECT: ClassVar[str] = "call.{call}.socket.command"

    call_id: CallId
    command: ClientCommand
    command_id: str | None = Field(default=None, max_length=128)


class CommandSeen(Contract):
    """A client's command on its way to the call, for those who watch: `/events`, and the dump for what came over REST.

    Published by the gateway that took it, before it is sent on; nobody acts on it.
    """

    SUBJECT: ClassVar[str] = "call.{call}.command-seen"

    call_id: CallId
    at_ms: int
    """Unix epoch milliseconds."""
    via: Literal["socket", "rest"]
    command: dict[str, Any]
    """The client's JSON with secrets masked."""


class BridgeWanted(Request[Taken]):
    """The other side of a bridge asks for this one (protocol 2.13); between the owners of two calls.

    With `on` the call patches `other` in and emits its own trackStart, or refuses with 409 unless it is up; without,
    it undoes that, and always succeeds.
    """

    SUBJECT: ClassVar[str] = "call.{call}.command.bridge"

    call_id: CallId
    other: CallId
    on: bool


class Attach(Request[Taken]):
    """A client's socket took a pending inbound call."""

    SUBJECT: ClassVar[str] = "call.{call}.command.attach"

    call_id: CallId
    gateway: str
    server_side_track: str = "server-side-track"
    dump: bool = True


class Detach(Request[Taken]):
    """The client's socket is gone; the call ends."""

    SUBJECT: ClassVar[str] = "call.{call}.command.detach"

    call_id: CallId
    gateway: str


class Announcement(ClientJson):
    """What is POSTed of an inbound call (protocol 5.5), its members in this order."""

    event: Literal["invite"] = "invite"
    dialog_id: str
    caller: str
    callee: str
    created_at: str
    headers: list[str]
    """The INVITE's, a line each."""
    offer: str


class DeliverWebhook(Contract):
    """Announce an inbound call over HTTP (stream WEBHOOKS, a work queue). The body is protocol 5.5 to the letter."""

    SUBJECT: ClassVar[str] = "webhook.deliver"

    call_id: CallId
    body: Announcement
    give_up_at_ms: int
    """Unix epoch milliseconds after which an attempt serves nobody."""


class WebhookOutcome(Request[Taken]):
    """How the announcement went; from webhook-dispatcher to the owner of the call."""

    SUBJECT: ClassVar[str] = "call.{call}.command.webhook"

    call_id: CallId
    delivered: bool
    status: int | None = None
    reason: str = ""
    attempts: int = 0


class Heartbeat(Contract):
    """A worker lives and has this much room. Published every second."""

    SUBJECT: ClassVar[str] = "worker.{service}.{instance}"

    service: str
    instance: str
    version: str
    capacity: int | None = None
    """Calls (media), sessions (asr), syntheses (tts) at once; None means no fixed limit."""
    in_use: int = 0
    started_at: str
    facts: dict[str, int] = Field(default_factory=dict)
    """What else a service counts, for the `/health` of gateways."""
