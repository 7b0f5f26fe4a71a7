"""Live calls as REST reaches them: found by any reading of an id, commanded through whoever serves them."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoReply, NoResponder, Refused
from dialbus.contracts.commands import Hangup
from dialbus.contracts.options import masked
from dialbus.contracts.session import ClientCommandSent, CommandSeen, Session, SocketCommand
from dialbus.sessions import Sessions
from gateway.socket.parsing import Sent

log = telemetry.get_logger()

HANGUP = Sent.by_us(Hangup(reason="bySystem"))


class Gone(Exception):
    """The call ended before the command reached it."""


class NotTaken(Exception):
    """The command can't be delivered now; the text says why."""


class Calls:
    """The live calls of the exchange, whichever gateway and sip-ua they are with.

    `is_gone` tells whether a worker of that name is known to be dead.
    """

    def __init__(self, bus: Bus, sessions: Sessions, is_gone: Callable[[str], bool]) -> None:
        self._bus = bus
        self._sessions = sessions
        self._is_gone = is_gone

    async def find(self, readings: Sequence[str]) -> Session | None:
        """The live session that the first fitting reading names. Raises BusError."""
        for reading in readings:
            if (session := await self._sessions.get(reading)) is not None:
                return session
        return None

    async def all(self) -> list[Session]:
        """Every live session, the oldest first, secrets masked. Raises BusError."""
        found = sorted(await self._sessions.all(), key=lambda session: session.created_at)
        return [Session.model_validate(masked(session.model_dump(mode="json"))) for session in found]

    async def command(self, session: Session, sent: Sent) -> None:
        """Queue a client's command at the call. Raises Gone, NotTaken, Refused or BusError.

        A session without an owner gets it through the gateway that holds its socket, which shows it to watchers.
        """
        if session.owner is not None:
            await self._show(session.call_id, sent)
        try:
            await self._request(session, sent)
        except NoResponder:
            current = await self._sessions.get(session.call_id)
            if current is None:
                raise Gone from None
            if (current.owner, current.gateway) == (session.owner, session.gateway):
                raise NotTaken("the worker that serves the call does not answer") from None
            try:  # an owner was found, or lost, in between
                await self._request(current, sent)
            except (NoResponder, NoReply):
                raise NotTaken("the worker that serves the call does not answer") from None
        except NoReply:
            raise NotTaken("the worker that serves the call did not answer in time") from None
        except Refused as refused:
            if refused.code in (404, 409) and await self._sessions.get(session.call_id) is None:
                raise Gone from None
            raise

    async def kill(self, session: Session) -> None:
        """Hang up, reason `bySystem`. Raises Gone, NotTaken or BusError.

        An entry that nobody serves any more, since all its workers died, is removed.
        """
        try:
            await self.command(session, HANGUP)
        except Refused as refused:
            raise NotTaken(refused.reason) from None
        except NotTaken:
            if any(worker is not None and not self._is_gone(worker) for worker in (session.owner, session.gateway)):
                raise
            log.warning("call.forgotten", call_id=session.call_id, owner=session.owner, gateway=session.gateway)
            await self._sessions.delete(session.call_id)

    async def _request(self, session: Session, sent: Sent) -> None:
        kind = SocketCommand if session.owner is None else ClientCommandSent
        await self._bus.request(kind(call_id=session.call_id, command=sent.command, command_id=sent.command_id))

    async def _show(self, call_id: str, sent: Sent) -> None:
        at_ms = int(datetime.now(UTC).timestamp() * 1000)
        seen = CommandSeen(call_id=call_id, at_ms=at_ms, via="rest", command=masked(json.loads(sent.text)))
        try:
            await self._bus.publish(seen)
        except BusError as error:
            log.debug("command.not_shown", call_id=call_id, error=str(error)[:200])


def shown(command: dict[str, Any]) -> str:
    """A command as watchers see it: one line of JSON."""
    return json.dumps(command, ensure_ascii=False, separators=(",", ":"))
