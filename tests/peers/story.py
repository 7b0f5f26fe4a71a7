"""A call machine whose neighbours always answer, and everything that it did: for tests of event orders.

Playback is another machine's, beside the audio. The story keeps its books as a worker would, so that `order` reads
like the table of protocol section 4: `T(srv,moh)`, `ringing{refer}`, `E(main)`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dialbus.contracts.commands import Play, Tts, command_from
from dialbus.contracts.events import Event, TrackEnd, TrackStart
from dialbus.contracts.media import MAIN_LEG, REFER_LEG
from dialbus.contracts.session import CallType
from sip_ua.call import (
    AllocateMedia,
    CallMachine,
    CloseMedia,
    ControlPlayback,
    Effect,
    Emit,
    FindCallee,
    InboundOffer,
    SendAnswer,
    SendBye,
    SendCancel,
    SendInvite,
    SendReject,
    SendRinging,
    StopPlayback,
)

EPOCH = datetime(2026, 3, 4, 9, 15, 20, tzinfo=UTC)
CALL = "s.5f0c"
SERVER = "server-side-track"
OFFER = InboundOffer("sip:7455@192.0.2.15", "sip:4000@192.0.2.20", "v=0\r\n", {"X-Tenant": "blue"})

Act = Callable[[CallMachine, float], list[Effect]]


class Story:
    """One call, told in steps."""

    def __init__(
        self, call_type: CallType = CallType.SIP, sdp: str = "our sdp", *, close_fails: bool = False, **options: Any
    ) -> None:
        self.machine = CallMachine(CALL, call_type, started=100.0, epoch=EPOCH, **options)
        self.now = 100.0
        self.log: list[Effect] = []
        self.order: list[str] = []
        """Events in the words of protocol section 4, those of playback included."""
        self.media: tuple[int, str] | None = None
        """What allocations are refused with, by code and reason."""
        self.finds_at_once = True
        """Whether the DNS has the callees' hosts at hand."""
        self._sdp = sdp
        self._close_fails = close_fails
        self._playing: str | None = None

    def after(self, seconds: float) -> "Story":
        """Time passes."""
        self.now += seconds
        return self

    def do(self, act: Act) -> "Story":
        """Something reaches the machine; what it wants is done, and what follows from that."""
        pending = list(act(self.machine, self.now))
        while pending:
            effect = pending.pop(0)
            self.log.append(effect)
            pending = [*self._done(effect, last=not pending), *pending]
        return self

    def command(self, name: str, **fields: Any) -> "Story":
        """A client's command."""
        return self.do(lambda machine, now: machine.command(command_from({"command": name, **fields}), now))

    def offered(self) -> "Story":
        """An INVITE came in."""
        return self.do(lambda machine, now: machine.offered(OFFER, now))

    def invited(self, **option: Any) -> "Story":
        """A client places a call."""
        return self.command("invite", option={"callee": "sip:7455@10.20.0.9", **option})

    def answered(self) -> "Story":
        """The callee of the main leg answers."""
        return self.do(lambda machine, now: machine.leg_answered("their sdp", now))

    def told(self, name: str, *arguments: Any, leg: str = REFER_LEG, **named: Any) -> "Story":
        """What the second leg (or another one) tells: `told("leg_answered", sdp)`."""
        return self.do(lambda machine, now: getattr(machine, name)(*arguments, now, leg=leg, **named))

    def ticked(self) -> "Story":
        """The machine's deadline has come."""
        assert self.machine.deadline is not None
        self.now = self.machine.deadline
        return self.do(lambda machine, now: machine.tick(now))

    # -- the neighbours ---------------------------------------------------------------------------

    def _done(self, effect: Effect, *, last: bool) -> list[Effect]:
        match effect:
            case FindCallee(leg=leg) if self.finds_at_once:
                return self.machine.callee_found(leg)
            case AllocateMedia(leg):
                assert last, "AllocateMedia is the last effect of its list"
                if self.media:
                    return self.machine.media_refused(*self.media, self.now, leg)
                return self.machine.media_ready(4711 if leg == MAIN_LEG else 4712, self._sdp, self.now, leg)
            case Emit(event):
                self.order.append(_word(event))
            case ControlPlayback(Play() | Tts() as command):
                self._stop(interruption=True)
                self._playing = (command.play_id or command.url) if isinstance(command, Play) else command.play_id
                self.order.append(f"T(srv,{self._playing})")
            case StopPlayback(interruption, play_id):
                if play_id in (None, self._playing):
                    self._stop(interruption=interruption)
            case CloseMedia(leg) if leg == MAIN_LEG:
                if self._close_fails:
                    return self.machine.media_not_closed()
                self._stop(interruption=False)
            case _:
                pass
        return []

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
    def signalling(self) -> list[Effect]:
        """What went to the SIP legs."""
        kinds = SendInvite | SendRinging | SendAnswer | SendReject | SendBye | SendCancel
        return [effect for effect in self.log if isinstance(effect, kinds)]

    def event(self, name: str, *, refer: bool | None = None) -> Any:
        """The only event of this name (and leg)."""
        named = [e.event for e in self.log if isinstance(e, Emit) and e.event.event == name]
        (found,) = [event for event in named if refer is None or getattr(event, "refer", False) is refer]
        return found

    def index(self, wanted: type | str) -> int:
        """Where in the log the first effect of this type, or event of this name, is."""
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
