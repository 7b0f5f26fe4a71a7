"""Everything that a call machine knows, as plain data: it can be stored, and taken over by another process."""

from dataclasses import dataclass, field

from dialbus.contracts.commands import ClientCommand, Ringing
from dialbus.contracts.events import ErrorEvent
from dialbus.contracts.media import AddCandidate
from dialbus.contracts.options import AmbianceOption, CallOption, RecorderOption, ReferOption
from dialbus.contracts.session import CallState, CallType
from sip_ua.call.bridges import Bridges
from sip_ua.call.clock import Clock, Moment
from sip_ua.call.effects import Emit
from sip_ua.call.inputs import Offered
from sip_ua.call.leg import CallLeg, Phase

STATE_OF = {
    Phase.IDLE: CallState.IDLE,
    Phase.PENDING: CallState.PENDING,
    Phase.RINGING: CallState.PENDING,
    Phase.ACCEPTING: CallState.PENDING,
    Phase.FINDING: CallState.DIALING,
    Phase.PLACING: CallState.DIALING,
    Phase.DIALING: CallState.DIALING,
    Phase.UP: CallState.UP,
    Phase.ENDED: CallState.ENDED,
}
"""The call's state, as protocol section 2 knows it, by the phase of its main leg."""


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What a call has whose client does not say otherwise."""

    accept_timeout_s: float = 60.0
    webhook_timeout_s: float | None = None
    """How long the webhook's outcome is waited for; None: for ever."""
    recorder: RecorderOption | None = None
    """Records every call."""
    ambiance: AmbianceOption | None = None
    """Plays behind every call."""


@dataclass(slots=True)
class Transfer:
    """One `refer`: the second leg, and what is only a transfer's."""

    leg: CallLeg
    options: ReferOption
    headers: dict[str, str]
    """On its INVITE, below the client's own."""
    deadline: Moment | None = None
    """The end of ringing."""
    music: str | None = None
    """The playId of the music on hold while it may still play."""

    @property
    def is_active(self) -> bool:
        """Whether its leg is not over."""
        return self.leg.is_active


@dataclass(slots=True)
class Call:
    """One call: its legs, its client's wishes, and what waits."""

    call_id: str
    call_type: CallType
    settings: CallSettings
    clock: Clock
    main: CallLeg
    bridges: Bridges
    server_track: str = "server-side-track"
    gateway: str | None = None
    """Instance that holds the client's socket."""
    dump: bool = False
    """Whether that gateway writes the event dump."""
    option: CallOption = field(default_factory=CallOption)
    offer: Offered | None = None
    """Of an inbound call."""
    accept_by: Moment | None = None
    webhook_by: Moment | None = None
    ringing: Ringing | None = None
    """The latest `ringing` of the client."""
    ringing_recorder: RecorderOption | None = None
    ringtone: str | None = None
    """What `ringing` last began to play."""
    early: bool = False
    """The caller has our SDP before the answer."""
    is_configured: bool = False
    """Whether the leg was told anything that it may complain of."""
    held: list[ClientCommand] = field(default_factory=list)
    """Playback for after the answer."""
    held_size: int = 0
    waiting: list[ClientCommand] = field(default_factory=list)
    """Commands behind one that waits for a media worker, in the order of arrival."""
    candidates: list[AddCandidate] = field(default_factory=list)
    transfer: Transfer | None = None
    last_transfer: Transfer | None = None
    """The one before, in case that nothing comes of the present one."""
    owes_media: bool = False
    """A worker has still to answer for a second leg that is over already."""

    @property
    def state(self) -> CallState:
        """Where the call stands (protocol section 2)."""
        return STATE_OF[self.main.phase]

    @property
    def inbound(self) -> bool:
        """Whether it came in by an INVITE."""
        return self.offer is not None

    @property
    def second(self) -> Transfer | None:
        """The transfer whose leg is not over."""
        return self.transfer if self.transfer is not None and self.transfer.is_active else None

    @property
    def awaits_media(self) -> bool:
        """Whether a media worker is looked for, so that the client's commands wait for it."""
        second = self.second
        return self.main.awaits_media or (second is not None and second.leg.phase is Phase.PLACING)

    def extra(self) -> dict[str, str]:
        """The client's own facts without internal ones, and ours."""
        extra = {key: value for key, value in (self.option.extra or {}).items() if not key.startswith("_")}
        started = self.clock.wall(self.clock.started)
        return extra | {"session_id": self.call_id, "call_type": self.call_type.value, "start_time": started}

    def error(self, text: str, now: float, *, sender: str = "command", code: int | None = None) -> Emit:
        """An `error` event."""
        at = self.clock.ms(now)
        return Emit(ErrorEvent(track_id=self.call_id, timestamp=at, sender=sender, error=text, code=code))
