"""A sip-ua process among neighbours that the test plays over the bus: gateway, media worker, webhook-dispatcher."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from dialbus.bus import Bus, Subscription
from dialbus.contracts import media, session
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.events import CLIENT_EVENT
from dialbus.contracts.session import CallType, Session
from dialbus.sessions import Sessions
from dialbus.tasks import cancel_all
from tests.harness import ServiceProcess, eventually, messages_of, next_message
from tests.peers.phone import Dialog

C = TypeVar("C", bound=media.LegCommand)

GATEWAY = "gateway-played"
WORKER = "media-played"
RTP = ("127.0.0.1", 40_000)
"""Where the played worker says that it listens; nobody does."""
SSRC = 0xD1A1B055


async def _taken(_: media.LegCommand) -> Contract:
    return Taken()


class MediaWorker:
    """A media worker that takes every leg, hears no audio, and remembers what it was told, in order."""

    def __init__(self) -> None:
        self.allocations: asyncio.Queue[media.AllocateLeg] = asyncio.Queue()
        self.has_room = asyncio.Event()
        """While clear, requests for a leg wait for their answer."""
        self.has_room.set()
        self.heard: list[media.LegCommand] = []
        self.address = RTP[0]
        self._subscriptions: list[Subscription] = []
        self.answer: Callable[[media.LegCommand], Awaitable[Contract]] = _taken
        """Raise Refused in it to refuse."""

    async def listen(self, bus: Bus) -> None:
        """Take the worker's place in the queue group."""

        async def take(command: media.LegCommand) -> Contract:
            self.heard.append(command)
            return await self.answer(command)

        async def allocate(request: media.AllocateLeg) -> Contract:
            self.allocations.put_nowait(request)
            await self.has_room.wait()
            return media.LegAllocated(worker=WORKER, address=self.address, port=RTP[1], ssrc=SSRC)

        self._subscriptions.append(await bus.serve(media.AllocateLeg, allocate, queue="media"))
        for contract in (media.ConnectLeg, media.ConfigureLeg, media.Playback, media.NoteInput, media.CloseLeg):
            self._subscriptions.append(await bus.serve(contract, take))
        await bus.flush()

    async def vanish(self) -> None:
        """Be gone, as after a crash."""
        while self._subscriptions:
            await self._subscriptions.pop().drop()

    async def expect(self, contract: type[C]) -> C:
        """The next command of this kind, which is then forgotten."""

        def found() -> C | None:
            return next((command for command in self.heard if isinstance(command, contract)), None)

        command = await eventually(found, what=contract.__name__)
        assert command is not None
        self.heard.remove(command)
        return command


@dataclass
class Call:
    """A call of the sip-ua under test, as its gateway sees it."""

    exchange: "Exchange"
    call_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    """Every event in the stream so far, each checked against its schema."""
    _next: int = 0

    @property
    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event["event"] for event in self.events]

    async def send(self, command: str, /, command_id: str | None = None, **fields: Any) -> None:
        """Send a client's command; Refused when the owner says no."""
        sent = session.ClientCommandSent(
            call_id=self.call_id, command={"command": command, **fields}, command_id=command_id
        )
        await self.exchange.bus.request(sent, Taken)

    async def expect(self, name: str, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
        """The next event, which must have this name and these values."""
        await eventually(lambda: len(self.events) > self._next, timeout_s, what=f"{name} after {self.names}: anything")
        event = self.events[self._next]
        self._next += 1
        assert event["event"] == name, f"{name} was expected after {self.names[: self._next - 1]}, not {event}"
        assert {key: event.get(key) for key in fields} == fields, event
        return event

    async def expect_end(self, reason: str, initiator: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """`hangup`, the last event, after which the session is gone from the books."""
        hangup = await self.expect("hangup", timeout_s, reason=reason, initiator=initiator, trackId=self.call_id)
        assert await self.exchange.sessions.get(self.call_id) is None
        return hangup

    async def detach(self) -> None:
        """The client's socket is gone."""
        await self.exchange.bus.request(session.Detach(call_id=self.call_id, gateway=GATEWAY), Taken)

    async def session(self) -> Session:
        """The call's entry in the books."""
        found = await self.exchange.sessions.get(self.call_id)
        assert found is not None
        return found

    async def follow(self) -> None:
        """Collect the stream's events until cancelled."""
        async for streamed in self.exchange.bus.events(self.call_id):
            event = json.loads(streamed.data)
            CLIENT_EVENT.validate_python(event)
            self.events.append(event)


class Exchange:
    """The neighbours of one sip-ua."""

    def __init__(self, bus: Bus, ua: ServiceProcess, sessions: Sessions) -> None:
        self.bus = bus
        self.ua = ua
        self.sessions = sessions
        self.media = MediaWorker()
        self.webhooks: asyncio.Queue[session.DeliverWebhook] = asyncio.Queue()
        self._followers: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, ua: ServiceProcess, *, with_media: bool = True) -> AsyncIterator["Exchange"]:
        """Neighbours that listen while the block runs; media workers only if wanted."""
        exchange = cls(bus, ua, await Sessions.open(bus))
        exchange.webhooks = await messages_of(bus, session.DeliverWebhook)
        if with_media:
            await exchange.media.listen(bus)
        try:
            yield exchange
        finally:
            await exchange.media.vanish()
            await cancel_all(exchange._followers)

    @property
    def address(self) -> tuple[str, int]:
        """Where the sip-ua listens."""
        host, _, port = self.ua.facts["sip"].removesuffix("/udp").rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def uri(self) -> str:
        """Whom a phone calls."""
        return f"sip:4000@{self.ua.facts['sip'].removesuffix('/udp')}"

    def follow(self, call_id: str) -> Call:
        """A call by its id, with its events from the first on."""
        call = Call(self, call_id)
        self._followers.add(asyncio.get_running_loop().create_task(call.follow()))
        return call

    async def announced(self, dialog: Dialog) -> session.DeliverWebhook:
        """The webhook of a phone's call."""
        while True:
            webhook = await next_message(self.webhooks)
            if webhook.call_id.startswith(f"{dialog.call_id}-"):
                return webhook

    async def taken(self, dialog: Dialog) -> Call:
        """A phone's call once a gateway holds its socket and has seen `incoming`."""
        webhook = await self.announced(dialog)
        call = self.follow(webhook.call_id)
        await self.bus.request(session.Attach(call_id=call.call_id, gateway=GATEWAY), Taken)
        await call.expect("incoming", trackId=call.call_id)
        return call

    async def accepted(self, dialog: Dialog, **option: Any) -> Call:
        """A phone's call that a client has accepted and the phone has acknowledged."""
        call = await self.taken(dialog)
        await call.send("accept", option=option)
        await call.expect("trackStart", trackId=call.call_id)
        await call.expect("answer", trackId=call.call_id)
        await dialog.expect_response(200)
        dialog.ack()
        return call

    async def opened(self, command: str, call_id: str = "", **fields: Any) -> Call:
        """A call that begins with a client's command on an idle socket."""
        call_id = call_id or f"s.{secrets.token_hex(8)}"
        created_at = datetime.now(UTC).isoformat()
        idle = Session(call_id=call_id, call_type=CallType.SIP, gateway=GATEWAY, created_at=created_at)
        await self.sessions.create(idle)
        call = self.follow(call_id)
        opening = session.OpenSession(
            call_id=call_id, created_at=created_at, gateway=GATEWAY, command={"command": command, **fields}
        )
        await self.bus.request(opening, Taken)
        return call

    async def heartbeat(self, service: str, instance: str) -> None:
        """A sign of life of a neighbour."""
        beat = session.Heartbeat(
            service=service, instance=instance, version="0", started_at=datetime.now(UTC).isoformat()
        )
        await self.bus.publish(beat)
