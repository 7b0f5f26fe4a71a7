"""The transaction user of RFC 3261 §6: between a SIP core and the user agent, its timer and what it wants sent."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dialbus import telemetry
from dialbus.quiet import quiet
from sip_ua.errors import Unresolvable
from sip_ua.sip.agent import SendAck, SendRequest, SendResponse
from sip_ua.sip.invite_session import InviteSession
from sip_ua.sip.message import Message, Request, Response
from sip_ua.ua.traffic import LegName, facts

if TYPE_CHECKING:
    from sip_ua.ua.user_agent import UserAgent

log = telemetry.get_logger()


class Core(Protocol):
    """What INVITE sessions and registrations have in common (`sip_ua.sip`)."""

    @property
    def deadline(self) -> float | None: ...
    @property
    def finished(self) -> bool: ...
    def tick(self, now: float) -> Sequence[Any]: ...


class TransactionUser:
    """A core with its timer, its transmissions performed, everything else told to `tell`. The TU of RFC 3261 §6."""

    def __init__(
        self, ua: "UserAgent", core: Core, key: tuple[str, str], tell: Callable[[Any], None], leg: LegName | None
    ) -> None:
        self.core = core
        self.key = key
        self.leg = leg
        """Whom it serves, unless it is a registration."""
        self.moved: Callable[[InviteSession], None] | None = None
        """Hears when the session may have come further."""
        self._ua = ua
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<user of {self.leg or self.key[0]}: {self.core!r}>"

    def perform(self, effects: Sequence[Any]) -> None:
        """Send what is to be sent, tell the rest, and set the timer anew."""
        for effect in effects:
            match effect:
                case SendRequest():
                    self._ua.send_request(self, effect)
                case SendAck(request, next_hop):
                    self._ua.send_ack(request, next_hop)
                case SendResponse(response):
                    self._ua.send_response(response)
                case _:
                    self._tell(effect)
        if self.moved is not None and isinstance(self.core, InviteSession):
            self.moved(self.core)
        self._rearm()

    def receive(self, message: Message, now: float, cancels: Request | None) -> None:
        """A message of this user's dialog or transactions."""
        core: Any = self.core
        if isinstance(core, InviteSession):
            self.perform(core.receive(message, now, cancels))
        elif isinstance(message, Response):
            self.perform(core.receive(message, now))

    def failed(self, request: Request, status: int, now: float) -> None:
        """The layer gave up on a request."""
        core: Any = self.core
        with telemetry.bound(**facts(self.leg)):
            self.perform(core.failed(request, status, now))

    def unsendable(self, request: Request, error: Unresolvable) -> None:
        """There is nowhere to send a request to."""
        with telemetry.bound(**facts(self.leg)):
            quiet.log(log.warning, "sip.unresolvable", method=request.method, error=str(error))
            self.failed(request, 503, self._ua.now())

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.core.finished:
            self._ua.forget(self)
        elif self.core.deadline is not None:
            self._timer = self._ua.call_at(self.core.deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        with telemetry.bound(**facts(self.leg)):
            self.perform(self.core.tick(self._ua.now()))

    def drop(self) -> None:
        """Stop the timer; the process ends."""
        if self._timer is not None:
            self._timer.cancel()
