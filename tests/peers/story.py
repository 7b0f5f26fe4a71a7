"""A call machine whose neighbours always answer, and everything that it did: for tests of event orders.

Playback is another machine's, beside the audio. The story keeps its books as a worker would, so that `order` reads
like the table of protocol section 4: `T(srv,moh)`, `ringing{refer}`, `E(main)`.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dialbus.contracts.commands import Play, Tts, command_from
from dialbus.contracts.events import Event, TrackEnd, TrackStart
from dialbus.contracts.media import MAIN_LEG, REFER_LEG, LegCommand, Playback, RemoteMedia, StopPlayback
from dialbus.contracts.session import CallType
from sip_ua.call.effects import (
    AllocateMedia,
    Ask,
    CloseMedia,
    Effect,
    Emit,
    FindCallee,
    SendAnswer,
    SendBye,
    SendCancel,
    SendInvite,
    SendReject,
    SendRinging,
    TakeUp,
)
from sip_ua.call.inputs import (
    CalleeFound,
    ClientSaid,
    Input,
    LegAnswered,
    LegImpossible,
    MediaLost,
    MediaNotClosed,
    MediaReady,
    MediaRefused,
    Offered,
    OfLeg,
    Tick,
)
from sip_ua.call.machine import CallMachine
from sip_ua.call.state import CallSettings

EPOCH = datetime(2026, 3, 4, 9, 15, 20, tzinfo=UTC)
CALL = "s.5f0c"
SERVER = "server-side-track"
OFFER = Offered("sip:7455@192.0.2.15", "sip:4000@192.0.2.20", "v=0\r\n", {"X-Tenant": "blue"})
REMOTE = RemoteMedia(address="192.0.2.15", port=4000, codec="pcmu", payload_type=0)

Done = Effect | LegCommand
"""What happened: an effect, or the request to media that it was."""


class Story:
    """One call, told in steps."""

    def __init__(
        self, call_type: CallType = CallType.SIP, sdp: str = "our sdp", *, close_fails: bool = False, **settings: Any
    ) -> None:
        self.machine = CallMachine.begin(CALL, call_type, started=100.0, epoch=EPOCH, settings=CallSettings(**settings))
        self.now = 100.0
        self.log: list[Done] = []
        self.order: list[str] = []
        """Events in the words of protocol section 4, those of playback included."""
        self.media: tuple[int, str] | None = None
        """What allocations are refused with, by code and reason."""
        self.unreachable: tuple[int, str] | None = None
        """Why no callee can be found."""
        self.finds_at_once = True
        """Whether the DNS has the callees' hosts at hand."""
        self.allocates_at_once = True
        """Whether media workers answer before anything else happens."""
        self._sdp = sdp
        self._close_fails = close_fails
        self._playing: str | None = None
        self._generation = 0

    def after(self, seconds: float) -> "Story":
        """Time passes."""
        self.now += seconds
        return self

    def do(self, arrived: Input) -> "Story":
        """Something reaches the machine; what it wants is done, and what follows from that."""
        pending = self.machine.receive(arrived, self.now)
        while pending:
            effect = pending.pop(0)
            self.log.append(effect.command if isinstance(effect, Ask) else effect)
            follows = self._done(effect)
            pending = [*(self.machine.receive(follows, self.now) if follows is not None else ()), *pending]
        return self

    def command(self, name: str, **fields: Any) -> "Story":
        """A client's command."""
        return self.do(ClientSaid(command_from({"command": name, **fields})))

    def offered(self) -> "Story":
        """An INVITE came in."""
        return self.do(OFFER)

    def invited(self, **option: Any) -> "Story":
        """A client places a call."""
        return self.command("invite", option={"callee": "sip:7455@10.20.0.9", **option})

    def answered(self) -> "Story":
        """The callee of the main leg answers."""
        return self.do(LegAnswered("their sdp", REMOTE))

    def told(self, arrived: OfLeg | MediaLost) -> "Story":
        """What the second leg tells."""
        if isinstance(arrived, MediaLost):
            return self.do(replace(arrived, leg=REFER_LEG))
        of_second: Any = replace(arrived, leg=REFER_LEG, generation=self._generation)
        return self.do(of_second)

    def ticked(self) -> "Story":
        """The machine's deadline has come."""
        assert self.machine.deadline is not None
        self.now = self.machine.deadline
        return self.do(Tick())

    def allocated(self, leg: str = MAIN_LEG) -> "Story":
        """The media worker that was asked answers at last."""
        return self.do(self._allocation(leg))

    # -- the neighbours ---------------------------------------------------------------------------

    def _done(self, effect: Effect) -> Input | None:
        match effect:
            case FindCallee(leg=leg, generation=generation):
                self._generation = generation if leg == REFER_LEG else self._generation
                if self.unreachable is not None:
                    return LegImpossible(*self.unreachable, leg=leg, generation=generation)
                return CalleeFound(leg=leg, generation=generation) if self.finds_at_once else None
            case AllocateMedia(leg):
                return self._allocation(leg) if self.allocates_at_once else None
            case TakeUp(command):
                return ClientSaid(command)
            case Emit(event):
                self.order.append(_word(event))
            case Ask(Playback(command=Play() | Tts() as command)):
                self._stop(interruption=True)
                self._playing = (command.play_id or command.url) if isinstance(command, Play) else command.play_id
                self.order.append(f"T(srv,{self._playing})")
            case Ask(StopPlayback(interruption=interruption, play_id=play_id)):
                if play_id in (None, self._playing):
                    self._stop(interruption=interruption)
            case CloseMedia(leg) if leg == MAIN_LEG:
                if self._close_fails:
                    return MediaNotClosed()
                self._stop(interruption=False)
            case _:
                pass
        return None

    def _allocation(self, leg: str) -> Input:
        if self.media:
            return MediaRefused(*self.media, leg)
        return MediaReady(4711 if leg == MAIN_LEG else 4712, self._sdp, REMOTE, leg)

    def _stop(self, *, interruption: bool) -> None:
        if self._playing is not None:
            self.order += ["interruption"] * interruption + [f"E(srv,{self._playing})"]
            self._playing = None

    # -- what happened ----------------------------------------------------------------------------

    @property
    def events(self) -> list[str]:
        """The names of the machine's own events."""
        return [effect.event.event for effect in self.log if isinstance(effect, Emit)]

    @property
    def signalling(self) -> list[Done]:
        """What went to the SIP legs."""
        kinds = SendInvite | SendRinging | SendAnswer | SendReject | SendBye | SendCancel
        return [effect for effect in self.log if isinstance(effect, kinds)]

    def event(self, name: str, *, refer: bool | None = None) -> Any:
        """The only event of this name (and leg)."""
        named = [e.event for e in self.log if isinstance(e, Emit) and e.event.event == name]
        (found,) = [event for event in named if refer is None or getattr(event, "refer", False) is refer]
        return found

    def index(self, wanted: type | str) -> int:
        """Where in the log the first effect or request of this type, or event of this name, is."""
        for position, effect in enumerate(self.log):
            if isinstance(wanted, str):
                if isinstance(effect, Emit) and effect.event.event == wanted:
                    return position
            elif isinstance(effect, wanted):
                return position
        raise AssertionError(f"{wanted} never happened in {self.log}")


def _word(event: Event) -> str:
    """An event as the tables write it."""
    if isinstance(event, TrackStart | TrackEnd):
        track = {CALL: "main", SERVER: "srv"}.get(event.track_id, event.track_id)
        return f"{'T' if isinstance(event, TrackStart) else 'E'}({track})"
    return event.event + ("{refer}" if getattr(event, "refer", False) else "")
