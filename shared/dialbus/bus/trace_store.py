"""What is kept of calls, read for `dialbus trace`: their lines, commands and events, in the order they happened in.

Lines come from the stream TRACE, which also has the clients' commands; events from the stream CALLS. It reads by a
connection of its own, makes nothing, and works where tracing is off: then there are only the events.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from dialbus.bus.connection import SENDER, SENT_AT
from dialbus.bus.errors import BusError
from dialbus.bus.streams import CALLS_STREAM, TRACE_STREAM
from dialbus.contracts.base import from_token
from dialbus.contracts.events import event_subject
from dialbus.contracts.options import masked
from dialbus.contracts.session import CommandSeen
from dialbus.contracts.trace import TraceLines

CONNECT_S = 2.0
STORED_S = 10.0
"""How long what is stored may take to come."""
HOLD_S = 0.3
"""How long a line of a call that lives waits for others that happened before it: services tell in batches."""
AFTER_HANGUP_S = 1.5
"""What still comes then: the BYE's answer, the media's farewell, the record."""
LOOK_S = 0.1
COMMAND, EVENT, HANGUP = "command", "event", "hangup"
COMMAND_SEEN_SUFFIX = CommandSeen.SUBJECT.rpartition(".")[2]
LINES, EVENTS, HANGUPS = TraceLines.pattern(), "call.*.event.*", f"call.*.event.{HANGUP}"


@dataclass(frozen=True, slots=True)
class CallLine:
    """One thing that happened in a call."""

    at: float
    """Unix epoch seconds."""
    service: str
    instance: str
    kind: str
    """A TraceKind, COMMAND or EVENT."""
    name: str
    leg_id: str | None = None
    text: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0
    """Lines that this instance lost before this one."""

    @property
    def ends_call(self) -> bool:
        """Whether it is the call's last event."""
        return self.kind == EVENT and self.name == HANGUP and not self.facts.get("refer")


@dataclass(frozen=True, slots=True)
class KeptCall:
    """A call of which something is kept."""

    call_id: str
    last_at: float
    """When it was last heard of; Unix epoch seconds."""
    ended: bool


class Sorter:
    """Lines of a call that lives, put in order: each waits `HOLD_S` for those that come late."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, CallLine]] = []

    def add(self, line: CallLine, now: float) -> None:
        """A line has come."""
        self._waiting.append((now, line))

    def ready(self, now: float) -> list[CallLine]:
        """What has waited, and what happened before that."""
        sure = max((line.at for arrived, line in self._waiting if now - arrived >= HOLD_S), default=None)
        if sure is None:
            return []
        lines = [line for _, line in self._waiting if line.at <= sure]
        self._waiting = [item for item in self._waiting if item[1].at > sure]
        return in_order(lines)

    def rest(self) -> list[CallLine]:
        """All that is left."""
        lines, self._waiting = [line for _, line in self._waiting], []
        return in_order(lines)


def in_order(lines: list[CallLine]) -> list[CallLine]:
    """By time; what happened at the same time stays as it came."""
    return sorted(lines, key=lambda line: line.at)


class TraceStore:
    """The streams of a bus. Every method raises BusError when the server does not answer."""

    def __init__(self, client: Client) -> None:
        self._js = client.jetstream(timeout=CONNECT_S)

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator["TraceStore"]:
        """Connect, once. Raises BusError when nobody is there."""

        async def quiet(_: Exception) -> None:
            """Told by what raises."""

        try:
            client = await nats.connect(
                url,
                name="dialbus trace",
                connect_timeout=CONNECT_S,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                error_cb=quiet,
            )
        except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
            raise BusError(str(error) or type(error).__name__) from error
        try:
            yield cls(client)
        finally:
            with suppress(nats.errors.Error, OSError):
                await client.close()

    async def calls(self) -> list[KeptCall]:
        """Every call of which something is kept, the one last heard of first."""
        last_at: dict[str, float] = {}
        ended: set[str] = set()
        for source in (Source(CALLS_STREAM, (EVENTS,)), Source(TRACE_STREAM, (LINES,))):
            async for message in self._stored(replace(source, last_only=True, headers_only=True)):
                call_id, at = _call_id(message), _stored_at(message)
                last_at[call_id] = max(at, last_at.get(call_id, at))
        async for message in self._stored(Source(CALLS_STREAM, (HANGUPS,), last_only=True)):
            if any(line.ends_call for line in _lines(message)):
                ended.add(_call_id(message))
        calls = [KeptCall(call_id, at, call_id in ended) for call_id, at in last_at.items()]
        return sorted(calls, key=lambda call: call.last_at, reverse=True)

    async def lines(self, call_id: str, *, follow: bool = False) -> AsyncGenerator[CallLine, None]:
        """Everything kept of a call; with `follow` also what comes, until it has ended. Nothing for an unknown call."""
        sources = (Source(CALLS_STREAM, (event_subject(call_id),)), Source(TRACE_STREAM, _of_call(call_id)))
        async with self._reading(*sources) as reading:
            stored = in_order([line for message in await reading.stored() for line in _lines(message)])
            for line in stored:
                yield line
            events = [line for line in stored if line.kind == EVENT]
            has_ended = bool(events) and events[-1].ends_call
            if follow and stored and not has_ended:
                async for line in _followed(reading.inbox):
                    yield line

    async def _stored(self, source: "Source") -> AsyncGenerator[Msg, None]:
        async with self._reading(source) as reading:
            for message in await reading.stored():
                yield message

    @asynccontextmanager
    async def _reading(self, *sources: "Source") -> AsyncIterator["_Reading"]:
        """Messages of streams, those stored and those to come."""
        reading = _Reading()
        async with AsyncExitStack() as stack:
            try:
                for source in sources:
                    if await self._has(source):
                        reading.unread.add(source.stream)
                    if (subscription := await self._subscribe(source, reading.inbox)) is not None:
                        stack.push_async_callback(_unsubscribe, subscription)
            except (nats.errors.Error, APIError, TimeoutError) as error:
                raise BusError(str(error) or type(error).__name__) from error
            yield reading

    async def _has(self, source: "Source") -> bool:
        """Whether the stream has anything from the source."""
        for pattern in source.patterns:
            with suppress(NotFoundError):
                info = await self._js.stream_info(source.stream, subjects_filter=pattern)
                if info.state.subjects:
                    return True
        return False

    async def _subscribe(
        self, source: "Source", inbox: "asyncio.Queue[Msg]"
    ) -> JetStreamContext.PushSubscription | None:
        policy = DeliverPolicy.LAST_PER_SUBJECT if source.last_only else DeliverPolicy.ALL
        config = ConsumerConfig(
            deliver_policy=policy, filter_subjects=list(source.patterns), headers_only=source.headers_only or None
        )
        try:
            return await self._js.subscribe(
                source.patterns[0], stream=source.stream, ordered_consumer=True, config=config, cb=inbox.put
            )
        except NotFoundError:  # tracing is off, or nothing has run yet
            return None


@dataclass(frozen=True, slots=True)
class Source:
    """Messages of a stream."""

    stream: str
    patterns: tuple[str, ...]
    last_only: bool = False
    """Of each subject."""
    headers_only: bool = False


@dataclass(slots=True)
class _Reading:
    inbox: "asyncio.Queue[Msg]" = field(default_factory=asyncio.Queue)
    unread: set[str] = field(default_factory=set)
    """Streams of which something stored is still to come."""

    async def stored(self) -> list[Msg]:
        """What the streams had; what comes meanwhile is there, too."""
        messages: list[Msg] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(STORED_S):
                while self.unread:
                    message = await self.inbox.get()
                    messages.append(message)
                    if message.metadata.num_pending == 0:
                        self.unread.discard(message.metadata.stream)
        return messages


async def _unsubscribe(subscription: JetStreamContext.PushSubscription) -> None:
    with suppress(nats.errors.Error, ValueError):
        await subscription.unsubscribe()


async def _followed(inbox: "asyncio.Queue[Msg]") -> AsyncGenerator[CallLine, None]:
    """What comes, in order, until a moment after the call's end."""
    clock, sorter, until = asyncio.get_running_loop().time, Sorter(), math.inf
    while clock() < until:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                for line in _lines(await inbox.get()):
                    sorter.add(line, clock())
                    if line.ends_call:
                        until = clock() + AFTER_HANGUP_S
        for line in sorter.ready(clock()):
            yield line
    for line in sorter.rest():
        yield line


def _of_call(call_id: str) -> tuple[str, ...]:
    return TraceLines.pattern(call_id), CommandSeen.pattern(call_id)


def _call_id(message: Msg) -> str:
    return from_token(message.subject.split(".")[1])


def _stored_at(message: Msg) -> float:
    return message.metadata.timestamp.timestamp()


def _lines(message: Msg) -> list[CallLine]:
    """What a stored message tells; nothing when it is none of ours."""
    try:
        if message.subject.startswith("trace."):
            return _told(TraceLines.from_bytes(message.data))
        if message.subject.endswith(COMMAND_SEEN_SUFFIX):
            return [_command(message)]
        return [_event(message)]
    except ValueError:
        return []


def _told(message: TraceLines) -> list[CallLine]:
    return [
        CallLine(
            line.at, message.service, message.instance, line.kind.value, line.name, line.leg_id, line.text, line.facts,
            dropped=0 if number else message.dropped,
        )
        for number, line in enumerate(message.lines)
    ]  # fmt: skip


def _command(message: Msg) -> CallLine:
    seen = CommandSeen.from_bytes(message.data)
    facts = {name: value for name, value in seen.command.items() if name != "command"}
    return _sent(message, COMMAND, str(seen.command.get("command")), {**facts, "via": seen.via})


def _event(message: Msg) -> CallLine:
    facts = {name: value for name, value in json.loads(message.data).items() if name != "event"}
    return _sent(message, EVENT, message.subject.rpartition(".")[2], masked(facts))


def _sent(message: Msg, kind: str, name: str, facts: dict[str, Any]) -> CallLine:
    """A line for what was sent to others anyway, by its sender's clock."""
    headers = message.headers or {}
    service, _, instance = headers.get(SENDER, "").partition("/")
    return CallLine(float(headers.get(SENT_AT, _stored_at(message))), service, instance, kind, name, facts=facts)
