"""A sip-ua process among neighbours that the test plays over the bus: gateway, media worker, webhook-dispatcher."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts import media, session
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.commands import Play
from dialbus.contracts.events import CLIENT_EVENT, Interruption, TrackEnd, TrackStart
from dialbus.contracts.session import CallType, Session
from dialbus.sessions import Sessions
from dialbus.tasks import cancel_all
from tests.harness import ServiceProcess, eventually, messages_of, next_message
from tests.peers.phone import Dialog

C = TypeVar("C", bound=media.LegRequest[Any])

GATEWAY = "gateway-played"
WORKER = "media-played"
RTP = ("127.0.0.1", 40_000)
"""Where the played worker says that it listens; nobody does."""
SSRC = 0xD1A1B055
LEG_COMMANDS: tuple[type[media.LegRequest[Any]], ...] = (
    media.ConnectLeg, media.ConfigureLeg, media.Playback, media.StopPlayback, media.NoteInput, media.AddCandidate,
    media.JoinLegs, media.BridgeLeg, media.UnbridgeLeg, media.CloseLeg,
)  # fmt: skip


KINDS = ("rtp", "webrtc", "socket")
OUR_ANSWER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=our answer\r\n"
"""What the played worker answers a WebRTC offer."""


async def _taken(command: media.LegRequest[Any]) -> Contract:
    return media.LegClosed() if isinstance(command, media.CloseLeg) else Taken()


class MediaWorker:
    """A media worker that takes every leg, hears no audio, and remembers what it was told, in order.

    It plays nothing but keeps the books of playback: a command for the main leg begins the track of its playId, what
    ends it says so in the stream, as the real one does.
    """

    def __init__(self) -> None:
        self.allocations: asyncio.Queue[media.AllocateLeg] = asyncio.Queue()
        self.legs: list[tuple[str, str]] = []
        """Every leg held, as call_id and leg_id."""
        self.refuses: Refused | None = None
        """What allocations are refused with."""
        self.has_room = asyncio.Event()
        """While clear, requests for a leg wait for their answer."""
        self.has_room.set()
        self.heard: list[media.LegRequest[Any]] = []
        self.address = RTP[0]
        self._subscriptions: list[Subscription] = []
        self._plays: dict[str, tuple[str, str]] = {}
        """trackId and playId of what plays, by call."""
        self._server_tracks: dict[str, str] = {}
        self.answer: Callable[[media.LegRequest[Any]], Awaitable[Contract]] = _taken
        """Raise Refused in it to refuse."""

    async def listen(self, bus: Bus) -> None:
        """Take the worker's place in the queue group."""

        async def take(command: media.LegRequest[Any]) -> Contract:
            self.heard.append(command)
            reply = await self.answer(command)
            await self._keep_books(bus, command)
            return reply

        async def allocate(request: media.AllocateLeg) -> Contract:
            self.allocations.put_nowait(request)
            await self.has_room.wait()
            if self.refuses is not None:
                raise self.refuses
            self.legs.append((request.call_id, request.leg_id))
            if request.leg_id == media.MAIN_LEG:
                self._server_tracks[request.call_id] = request.server_track
            if request.kind == "rtp":
                return media.LegAllocated(worker=WORKER, address=self.address, port=RTP[1], ssrc=SSRC)
            sdp = OUR_ANSWER if request.kind == "webrtc" else None
            return media.LegAllocated(worker=WORKER, ssrc=SSRC, sdp=sdp)

        for kind in KINDS:
            self._subscriptions.append(await bus.serve(media.AllocateLeg, allocate, queue="media", kind=kind))
        self._subscriptions.append(await bus.serve(media.AllocateBeside, allocate))
        for contract in LEG_COMMANDS:
            self._subscriptions.append(await bus.serve(contract, take))
        await bus.flush()

    async def _keep_books(self, bus: Bus, command: media.LegRequest[Any]) -> None:
        """The events of playback that a worker stores before it replies."""
        call_id = command.call_id
        match command:
            case media.Playback(command=Play(url=url)):
                await self._stop(bus, call_id, interruption=True)
                self._plays[call_id] = (self._server_tracks[call_id], url)
                await bus.emit(call_id, TrackStart(track_id=self._plays[call_id][0], timestamp=0, play_id=url))
            case media.StopPlayback(interruption=interruption, play_id=play_id):
                if play_id is None or self._plays.get(call_id, ("", ""))[1] == play_id:
                    await self._stop(bus, call_id, interruption=interruption)
            case media.CloseLeg():
                if command.leg_id == media.MAIN_LEG:
                    await self._stop(bus, call_id, interruption=False)
                self.legs.remove((call_id, command.leg_id))
            case _:
                pass

    async def _stop(self, bus: Bus, call_id: str, *, interruption: bool) -> None:
        track, play_id = self._plays.pop(call_id, ("", ""))
        if track and interruption:
            cut = Interruption(track_id=track, timestamp=0, play_id=play_id, total_duration=0, current=0)
            await bus.emit(call_id, cut)
        if track:
            await bus.emit(call_id, TrackEnd(track_id=track, timestamp=0, duration=0, ssrc=SSRC, play_id=play_id))

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
        await self.exchange.bus.request(sent)

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
        await self.exchange.bus.request(session.Detach(call_id=self.call_id, gateway=GATEWAY))

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
        await self.bus.request(session.Attach(call_id=call.call_id, gateway=GATEWAY))
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

    async def opened(self, command: str, call_id: str = "", call_type: CallType = CallType.SIP, **fields: Any) -> Call:
        """A call that begins with a client's command on an idle socket."""
        call_id = call_id or f"s.{secrets.token_hex(8)}"
        created_at = datetime.now(UTC).isoformat()
        idle = Session(call_id=call_id, call_type=call_type, gateway=GATEWAY, created_at=created_at)
        await self.sessions.create(idle)
        call = self.follow(call_id)
        opening = session.OpenSession(
            call_id=call_id,
            call_type=call_type,
            created_at=created_at,
            gateway=GATEWAY,
            command={"command": command, **fields},
        )
        await self.bus.request(opening)
        return call

    async def heartbeat(self, service: str, instance: str) -> None:
        """A sign of life of a neighbour."""
        beat = session.Heartbeat(
            service=service, instance=instance, version="0", started_at=datetime.now(UTC).isoformat()
        )
        await self.bus.publish(beat)
