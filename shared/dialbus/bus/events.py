"""The stream CALLS: the events of each call, in the order in which they were stored."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

import nats.errors
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from dialbus import telemetry
from dialbus.bus.connection import STREAM_TIMEOUT_S, Connection
from dialbus.bus.errors import BusError
from dialbus.bus.streams import CALLS_STREAM
from dialbus.contracts.events import Event, event_subject

log = telemetry.get_logger()

_EMIT_GIVE_UP_S = 60.0
_EVENTS_HEARTBEAT_S = 1.0
"""A consumer that a server's restart forgot is made anew after two to four of these."""


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """An event as the stream holds it.

    `seq` counts the call's events from 1, as clients see it; `sequence` is the stream's, over all calls.
    """

    seq: int
    sequence: int
    name: str
    data: bytes


class Events(Connection):
    """Whoever appends an event waits for the stream's acknowledgement."""

    async def emit(self, call_id: str, event: Event) -> int:
        """Append an event to the call's stream; returns its stream sequence once the stream has it.

        Tried again (and stored once) while the server is away, for a minute; then BusError.
        """
        return await self.emit_raw(call_id, event.event, event.to_json().encode())

    async def emit_raw(self, call_id: str, name: str, data: bytes) -> int:
        """`emit` for JSON that is ready."""
        headers = {"Nats-Msg-Id": secrets.token_hex(12), **self._headers()}
        give_up_at = asyncio.get_running_loop().time() + _EMIT_GIVE_UP_S
        while True:
            try:
                ack = await self._js.publish(
                    event_subject(call_id, name), data, timeout=STREAM_TIMEOUT_S, headers=dict(headers)
                )
                return int(ack.seq)
            except (nats.errors.Error, TimeoutError, APIError) as error:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise BusError(f"event {name} not stored: {error}") from error
                told = str(error) or type(error).__name__
                log.warning("bus.event_not_stored", event_name=name, error=told, call_id=call_id)
                await asyncio.sleep(0.1)

    async def last_sequence(self) -> int:
        """The stream's newest sequence: events of a call that begins now come after it."""
        info = await self._js.stream_info(CALLS_STREAM)
        return int(info.state.last_seq)

    async def events(
        self, call_id: str, first_sequence: int = 0, counted: int = 0
    ) -> AsyncGenerator[StreamedEvent, None]:
        """A call's events from `first_sequence` on, numbered from `counted` + 1: those stored, then live ones. Endless.

        The numbers are the same on whichever gateway they are counted, since the stream fixes the order.
        """
        subscription = await self._js.subscribe(
            event_subject(call_id),
            ordered_consumer=True,
            idle_heartbeat=_EVENTS_HEARTBEAT_S,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=max(1, first_sequence)),
        )
        seq = counted
        try:
            async for message in subscription.messages:
                sequence = message.metadata.sequence.stream
                if sequence < first_sequence:  # a consumer made anew before its first message starts too early
                    continue
                seq += 1
                yield StreamedEvent(seq, sequence, message.subject.rpartition(".")[2], message.data)
        finally:
            with suppress(nats.errors.Error, ValueError):
                await subscription.unsubscribe()
