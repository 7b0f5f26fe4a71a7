"""Performs what a conversation decides: over its connection, on the bus, in the books of live sessions."""

import json
from contextlib import suppress
from datetime import UTC, datetime

from dialbus import telemetry
from dialbus.bus import Bus, BusError, NoReply, NoResponder, Refused, Subscription
from dialbus.contracts import session as contracts
from dialbus.contracts.audio import FROM_CLIENT, TO_CLIENT
from dialbus.contracts.base import Request, Taken
from dialbus.contracts.events import ErrorEvent, RejectEvent
from dialbus.contracts.options import masked
from dialbus.contracts.session import CallState, ClientCommandSent, CommandSeen, OpenSession, Session
from dialbus.sessions import Sessions
from gateway.socket.call_events import CallEvents
from gateway.socket.connection import Connection
from gateway.socket.conversation import Conversation
from gateway.socket.downlink import Downlink
from gateway.socket.dump import Dump
from gateway.socket.effects import (
    Attach,
    Audio,
    Close,
    Detach,
    Disown,
    Effect,
    End,
    Forget,
    Forward,
    Open,
    Ping,
    Record,
    Refusal,
    Reject,
    Report,
    Send,
    Subscribe,
)
from gateway.socket.ending import Ending
from gateway.socket.ids import SocketQuery

log = telemetry.get_logger()


class Performer:
    """The hands of one socket's conversation.

    `session`: as it was claimed. `record` takes what the dump shall show; there is none until it is set.
    """

    def __init__(
        self,
        bus: Bus,
        sessions: Sessions,
        session: Session,
        query: SocketQuery,
        *,
        connection: Connection,
        conversation: Conversation,
        downlink: Downlink,
        ending: Ending,
        events: CallEvents,
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._session = session
        self._query = query
        self._call_id = session.call_id
        self._connection = connection
        self._conversation = conversation
        self._downlink = downlink
        self._ending = ending
        self._events = events
        self._heard: Subscription | None = None
        self.record = Dump(None)

    async def try_all(self, effects: list[Effect]) -> None:
        """Perform effects; what fails unforeseen is logged and costs this list, not the socket."""
        try:
            for effect in effects:
                await self.perform(effect)
        except Exception:  # the boundary of one socket
            log.exception("socket.effect_failed")

    async def perform(self, effect: Effect) -> None:
        """Do what was decided, and what follows from the owner's answer to it."""
        match effect:
            case Send() | Ping() | Close() | Record():
                await self._to_client(effect)
            case Attach() | Open() | Forward() | Detach():
                await self._request(effect)
            case Audio(data):
                await self._publish(data)
            case Subscribe():
                self._heard = await self._bus.subscribe_raw(self._call_id, TO_CLIENT, self._downlink.hear)
            case Report(error, code, sender):
                await self.report(error, code, sender)
            case Reject(reason, code):
                event = RejectEvent(timestamp=now_ms(), track_id=self._call_id, reason=reason, code=code)
                await self._events.append(event)
            case End(reason, initiator, caller, callee):
                await self._sessions.delete(self._call_id)  # before `hangup`: then the id is free
                await self.tell_end(reason, initiator, caller, callee)
            case Forget():
                await self._sessions.delete(self._call_id)
            case Disown():
                await self._sessions.change(self._call_id, _disowned)

    async def close(self) -> None:
        """No more audio from the call."""
        if self._heard is not None:
            await self._heard.drop()

    async def report(self, error: str, code: int, sender: str = "command") -> None:
        """Append an `error` event to the call's events."""
        log.info("command.failed", code=code, error=error)
        event = ErrorEvent(timestamp=now_ms(), track_id=self._call_id, sender=sender, error=error, code=code)
        await self._events.append(event)

    async def tell_end(self, reason: str, initiator: str, caller: str | None, callee: str | None) -> None:
        """The call's last events, in its owner's place; composed at once, for they are noted as they come back."""
        last = self._ending.events(now_ms(), reason=reason, initiator=initiator, caller=caller, callee=callee)
        for event in last:
            await self._events.append(event)

    # -- the client -------------------------------------------------------------------------------

    async def _to_client(self, effect: Send | Ping | Close | Record) -> None:
        match effect:
            case Send(text, recorded, last):
                if last:
                    self._connection.no_more_audio()
                if recorded:
                    self.record("event", now_ms(), text)
                await self._connection.send(text)
            case Ping(payload):
                await self._connection.ping(payload)
            case Close(code, reason):
                await self._connection.close(code, reason)
            case Record(text):
                await self._show(text)

    async def _show(self, text: str) -> None:
        """A command for the dump and for those who watch the call."""
        at_ms = now_ms()
        self.record("command", at_ms, text)
        try:
            command = masked(json.loads(text))
            await self._bus.publish(CommandSeen(call_id=self._call_id, at_ms=at_ms, via="socket", command=command))
        except (BusError, ValueError, RecursionError) as error:  # nested beyond measure, or the bus is away
            log.debug("command.not_shown", error=str(error)[:200])

    async def _publish(self, data: bytes) -> None:
        if self._bus.connected:  # what would wait for a connection would come out late and all at once
            with suppress(BusError):
                await self._bus.publish_raw(self._call_id, FROM_CLIENT, data)

    # -- the owner of the call --------------------------------------------------------------------

    async def _request(self, effect: Attach | Open | Forward | Detach) -> None:
        answered = self._conversation.not_taken
        await self._events.follow()  # whoever owns the call appends its events
        try:
            await self._bus.request(self._message(effect))
        except NoResponder:
            effects = answered(effect, Refusal.NO_RESPONDER, call_is_over=await self._is_over())
        except NoReply as error:
            effects = answered(effect, Refusal.TIMEOUT, reason=str(error), call_is_over=await self._is_over())
        except Refused as refused:
            over = await self._is_over()
            effects = answered(effect, Refusal.REFUSED, code=refused.code, reason=refused.reason, call_is_over=over)
        except ValueError as error:  # JSON that parses and can't be written again: nested too deeply
            effects = answered(effect, Refusal.REFUSED, code=400, reason=f"not a usable command: {error}")
        else:
            effects = self._conversation.taken()
        for following in effects:
            await self.perform(following)

    async def _is_over(self) -> bool:
        """The owner deletes the session before it emits the call's last event."""
        return await self._sessions.get(self._call_id) is None

    def _message(self, effect: Attach | Open | Forward | Detach) -> Request[Taken]:
        call_id, gateway = self._call_id, self._session.gateway or ""
        match effect:
            case Attach():
                return contracts.Attach(
                    call_id=call_id,
                    gateway=gateway,
                    server_side_track=self._query.server_side_track,
                    dump=self._query.dump,
                )
            case Open(command):
                return OpenSession(
                    call_id=call_id,
                    call_type=self._session.call_type,
                    created_at=self._session.created_at,
                    gateway=gateway,
                    server_side_track=self._query.server_side_track,
                    dump=self._query.dump,
                    command=command,
                )
            case Forward(command, command_id):
                return ClientCommandSent(call_id=call_id, command=command, command_id=command_id)
            case Detach():
                return contracts.Detach(call_id=call_id, gateway=gateway)


def now_ms() -> int:
    """Unix epoch milliseconds."""
    return int(datetime.now(UTC).timestamp() * 1000)


def _disowned(session: Session) -> Session:
    return session.model_copy(update={"state": CallState.IDLE, "owner": None, "direction": None})
