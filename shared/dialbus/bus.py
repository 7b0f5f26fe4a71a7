"""The bus: contracts over NATS. The only file that knows NATS.

A command is a request: its reply says *taken* or *refused, because*. An event of a call goes to the stream CALLS and
its producer waits for the stream's acknowledgement. Live audio is core NATS and never passes through JetStream.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import (
    APIError,
    BadRequestError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
)
from nats.js.kv import KeyValue
from pydantic import ValidationError

from dialbus import telemetry
from dialbus.config import NatsConfig, TraceConfig
from dialbus.contracts.audio import AudioFrame, audio_subject
from dialbus.contracts.base import Contract, Refusal, Request, token
from dialbus.contracts.events import Event, event_subject
from dialbus.contracts.trace import TRACE_SUBJECTS, TraceLines
from dialbus.tasks import cancel_all
from dialbus.trace import Tracer

log = telemetry.get_logger()

C = TypeVar("C", bound=Contract)
A = TypeVar("A", bound=Request[Any])

REFUSED = "Refused"
SENDER = "Dialbus-Sender"
"""Header of an event: service/instance, for those who follow a call."""
CALLS_STREAM = "CALLS"
WEBHOOKS_STREAM = "WEBHOOKS"
RECORDS_STREAM = "RECORDS"
TRACE_STREAM = "TRACE"
_LATE_REQUESTS_S = 0.1
"""The server may hand a request to a member of a group that has just left; nobody else would answer that."""
_EMIT_ATTEMPT_S = 2.0
_EMIT_GIVE_UP_S = 60.0
_AT_ONCE = 64
"""Values of a bucket that are asked for together."""
_ACK_WAIT_S = 60.0
"""A worker that holds work and is not heard for so long has died."""
_MAX_BEFORE_TRACE = 256 << 10
"""Bytes that may wait for a slow server when trace lines come."""
_EVENTS_HEARTBEAT_S = 1.0
"""A consumer that a server's restart forgot is made anew after two to four of these."""


class BusError(Exception):
    """The bus could not carry a message."""


class NoResponder(BusError):
    """Nobody listens on the subject: the worker is gone, or none of them has room."""


class NoReply(BusError):
    """Somebody listens but did not answer in time."""


class Refused(Exception):
    """The answer is no. Handlers raise it to refuse; requesters get it raised."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Later(Exception):
    """Raised by a handler of `work`: this item can't be done now, it shall come back after so many seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


class Conflict(BusError):
    """Somebody else changed the key first (compare-and-set failed)."""


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """An event as the stream holds it; `number` counts the call's events from 1."""

    number: int
    sequence: int
    name: str
    data: bytes


class Subscription:
    """Something that listens; `leave()` stops it after what has already arrived."""

    def __init__(self, inner: NatsSubscription, bus: "Bus", *, in_group: bool = False) -> None:
        self._inner = inner
        self._bus = bus
        self._in_group = in_group

    async def leave(self) -> None:
        """Stop listening; what has arrived is still handled. Without a connection it just isn't renewed on the next."""
        with suppress(nats.errors.Error, ValueError):
            if self._bus.connected:
                await self._bus.unsubscribe(self._inner)
                if self._in_group:
                    await asyncio.sleep(_LATE_REQUESTS_S)
                await self._inner.drain()  # type: ignore[no-untyped-call]  # annotated in part only
            else:
                await self._inner.unsubscribe()

    async def drop(self) -> None:
        """Stop listening at once and forget what has arrived."""
        with suppress(nats.errors.Error, ValueError):
            await self._inner.unsubscribe()


class Bus:
    """One service instance's connection."""

    def __init__(
        self, client: Client, settings: NatsConfig, service: str, instance: str, trace: TraceConfig | None = None
    ) -> None:
        self._client = client
        self._settings = settings
        self._trace = trace if trace is not None and trace.enabled else None
        self._js: JetStreamContext = client.jetstream(timeout=_EMIT_ATTEMPT_S)
        self.service = service
        self.instance = instance
        self.tracer = Tracer(service, instance, self._send_trace if self._trace is not None else None)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, settings: NatsConfig, *, service: str, instance: str, trace: TraceConfig | None = None
    ) -> AsyncIterator["Bus"]:
        """Connect, retrying for as long as it takes; make the streams if absent; drain on leaving.

        What concerns a call is noted for `dialbus trace` if `trace` says so.
        """
        leaving = False

        async def on_disconnected() -> None:
            if not leaving:
                log.warning("bus.disconnected")

        client = await nats.connect(
            settings.url,
            name=f"{service}/{instance}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,
            allow_reconnect=True,
            error_cb=_on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=_on_reconnected,
        )
        bus = cls(client, settings, service, instance, trace)
        telling = asyncio.create_task(bus.tracer.run(), name="trace")
        try:
            await bus._ensure_streams()
            yield bus
        finally:
            leaving = True
            await cancel_all([telling])
            await bus._close()

    async def _close(self) -> None:
        with suppress(nats.errors.Error, TimeoutError, asyncio.TimeoutError):
            async with asyncio.timeout(2.0):
                await self.tracer.flush()
                await self._client.drain()
        if not self._client.is_closed:
            with suppress(nats.errors.Error, RuntimeError, OSError):  # uvloop refuses a transport that is gone
                await self._client.close()

    @property
    def connected(self) -> bool:
        """Whether the server is reachable now."""
        return bool(self._client.is_connected)

    async def _ensure_streams(self) -> None:
        configs = [
            StreamConfig(
                name=CALLS_STREAM,
                subjects=["call.*.event.*"],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                max_age=self._settings.event_retention,
                num_replicas=self._settings.replicas,
                duplicate_window=min(120.0, self._settings.event_retention),
            ),
            StreamConfig(
                name=WEBHOOKS_STREAM,
                subjects=["webhook.deliver"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                max_age=600.0,
                num_replicas=self._settings.replicas,
            ),
            StreamConfig(
                name=RECORDS_STREAM,
                subjects=["records.write"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                max_age=86400.0,
                num_replicas=self._settings.replicas,
            ),
        ]
        if self._trace is not None:
            configs.append(
                StreamConfig(
                    name=TRACE_STREAM,
                    subjects=list(TRACE_SUBJECTS),
                    retention=RetentionPolicy.LIMITS,
                    storage=StorageType.MEMORY,
                    max_age=self._trace.max_age,
                    max_bytes=self._trace.max_bytes,
                    num_replicas=1,
                    no_ack=True,
                    duplicate_window=min(120.0, self._trace.max_age),
                )
            )
        for config in configs:
            await self._ensure_stream(config)

    async def _ensure_stream(self, config: StreamConfig) -> None:
        while True:
            try:
                await self._js.add_stream(config)
                return
            except BadRequestError:  # exists with other settings: the newest start wins
                await self._js.update_stream(config)
                return
            except (APIError, nats.errors.Error, TimeoutError) as error:
                # The server is up before JetStream is (a cluster elects its leader first).
                log.warning("bus.stream_not_ready", stream=config.name, error=str(error))
                await asyncio.sleep(0.2)

    # -- messages ---------------------------------------------------------------------------------

    async def publish(self, message: Contract) -> None:
        """Send to whoever listens now; nobody answers. Raises BusError when it can't leave."""
        self.tracer.message(message)
        with _translated():
            await self._client.publish(message.subject, message.to_bytes(), headers=telemetry.trace_headers())

    async def request(self, message: Request[C], *, timeout_s: float = 2.0) -> C:
        """Ask and wait for *taken*. Raises NoResponder, NoReply or Refused."""
        asked_at = time.time()
        try:
            answer = await self._ask(message, timeout_s)
        except (BusError, Refused, asyncio.CancelledError) as error:
            self.tracer.request(message, asked_at, error)
            raise
        self.tracer.request(message, asked_at, answer)
        return answer

    async def _ask(self, message: Request[C], timeout_s: float) -> C:
        try:
            answer = await self._client.request(
                message.subject, message.to_bytes(), timeout=timeout_s, headers=telemetry.trace_headers()
            )
        except nats.errors.NoRespondersError:
            raise NoResponder(message.subject) from None
        except (TimeoutError, nats.errors.TimeoutError):
            raise NoReply(message.subject) from None
        except nats.errors.Error as error:
            raise NoReply(f"{message.subject}: {error}") from error
        if answer.headers and REFUSED in answer.headers:
            refusal = Refusal.from_bytes(answer.data)
            raise Refused(refusal.code, refusal.reason)
        return message.reply_type().from_bytes(answer.data)

    async def serve(
        self, request: type[A], handler: Callable[[A], Awaitable[Contract]], *, queue: str = "", **subject: str
    ) -> Subscription:
        """Answer requests, one after another, with the handler's reply; it raises Refused to say no.

        `subject` narrows the template (`call_id=…`). With `queue`, one member of the group gets each request.
        """

        async def answer(message: Msg) -> None:
            telemetry.adopt_trace(message.headers)
            try:
                reply = await handler(request.from_bytes(message.data))
            except ValidationError as error:
                await self._refuse(message, Refused(400, str(error.errors(include_url=False)[0]["msg"])))
            except Refused as refused:
                await self._refuse(message, refused)
            except Exception as error:  # the boundary: one bad request never ends the worker
                log.exception("bus.handler_failed", subject=message.subject)
                await self._refuse(message, Refused(500, f"{type(error).__name__}: {error}"))
            else:
                await self._respond(message, reply.to_bytes())

        inner = await self._client.subscribe(request.pattern(**subject), queue=queue, cb=answer)
        return Subscription(inner, self, in_group=bool(queue))

    async def unsubscribe(self, inner: NatsSubscription) -> None:
        """Tell the server, and go on listening: `drain`, which forgets what comes late, has no public half."""
        await self._client._send_unsubscribe(inner._id)
        await self.flush()

    async def _refuse(self, message: Msg, refused: Refused) -> None:
        body = Refusal(code=refused.code, reason=refused.reason).to_bytes()
        await self._respond(message, body, {REFUSED: str(refused.code)})

    async def _respond(self, message: Msg, body: bytes, headers: dict[str, str] | None = None) -> None:
        if message.reply:
            await self._client.publish(message.reply, body, headers=headers)

    async def subscribe(
        self, contract: type[C], handler: Callable[[C], Awaitable[None]], **subject: str
    ) -> Subscription:
        """Call the handler for every message of a contract; a message that does not fit is logged and dropped."""

        async def deliver(message: Msg) -> None:
            telemetry.adopt_trace(message.headers)
            try:
                await handler(contract.from_bytes(message.data))
            except ValidationError as error:
                log.warning("bus.bad_message", subject=message.subject, error=str(error.errors()[0]["msg"]))
            except Exception:  # the boundary: one bad message never ends the worker
                log.exception("bus.handler_failed", subject=message.subject)

        return Subscription(await self._client.subscribe(contract.pattern(**subject), cb=deliver), self)

    async def _send_trace(self, lines: TraceLines) -> bool:
        """Send trace lines, unless the server is away or behind with what matters."""
        if not self.connected or self._client.pending_data_size > _MAX_BEFORE_TRACE:
            return False
        try:
            await self._client.publish(lines.subject, lines.to_bytes())
        except nats.errors.Error:
            return False
        return True

    async def flush(self) -> None:
        """Wait until the server has everything sent so far (subscriptions included)."""
        # The client's own flush sends its PING past what it still holds back, so that the PONG would prove nothing.
        await self._client._flush_pending(force_flush=True)
        await self._client.flush(timeout=2)

    # -- audio ------------------------------------------------------------------------------------

    async def publish_audio(self, frame: AudioFrame) -> None:
        """Send live audio; nobody listening means it is lost, on purpose. Raises BusError when it can't leave."""
        with _translated():
            await self._client.publish(frame.subject, frame.pcm, headers=frame.headers())

    async def subscribe_audio(
        self, call_id: str, track: str, handler: Callable[[AudioFrame], Awaitable[None]]
    ) -> Subscription:
        """Call the handler for every frame of a call's track, in order of arrival."""

        async def deliver(message: Msg) -> None:
            try:
                frame = AudioFrame.received(call_id, track, message.headers, message.data)
            except ValueError as error:
                log.warning("bus.bad_audio", subject=message.subject, error=str(error))
                return
            await handler(frame)

        return Subscription(await self._client.subscribe(audio_subject(call_id, track), cb=deliver), self)

    async def publish_raw(self, call_id: str, track: str, data: bytes) -> None:
        """Send a binary frame of or for a client's socket as it is. Raises BusError when it can't leave."""
        with _translated():
            await self._client.publish(audio_subject(call_id, track), data)

    async def subscribe_raw(
        self, call_id: str, track: str, handler: Callable[[bytes], Awaitable[None]]
    ) -> Subscription:
        """Call the handler for every binary frame of a call's track, in order of arrival."""

        async def deliver(message: Msg) -> None:
            await handler(message.data)

        return Subscription(await self._client.subscribe(audio_subject(call_id, track), cb=deliver), self)

    # -- the stream of a call's events ------------------------------------------------------------

    async def emit(self, call_id: str, event: Event) -> int:
        """Append an event to the call's stream; returns its stream sequence once the stream has it.

        Tried again (and stored once) while the server is away, for a minute; then BusError.
        """
        return await self.emit_raw(call_id, event.event, event.to_json().encode())

    async def emit_raw(self, call_id: str, name: str, data: bytes) -> int:
        """`emit` for JSON that is ready."""
        headers = {
            "Nats-Msg-Id": secrets.token_hex(12),
            SENDER: f"{self.service}/{self.instance}",
            **telemetry.trace_headers(),
        }
        give_up_at = asyncio.get_running_loop().time() + _EMIT_GIVE_UP_S
        while True:
            try:
                ack = await self._js.publish(
                    event_subject(call_id, name), data, timeout=_EMIT_ATTEMPT_S, headers=dict(headers)
                )
                return int(ack.seq)
            except (nats.errors.Error, TimeoutError, APIError) as error:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise BusError(f"event {name} not stored: {error}") from error
                log.warning("bus.event_not_stored", event_name=name, error=str(error) or type(error).__name__)
                await asyncio.sleep(0.1)

    async def last_sequence(self) -> int:
        """The stream's newest sequence: events of a call that begins now come after it."""
        info = await self._js.stream_info(CALLS_STREAM)
        return int(info.state.last_seq)

    async def events(self, call_id: str, first_sequence: int = 0) -> AsyncGenerator[StreamedEvent, None]:
        """A call's events from `first_sequence` on, numbered from 1: those stored, then live ones. Endless.

        The numbers are the same on whichever gateway they are counted, since the stream fixes the order.
        """
        subscription = await self._js.subscribe(
            event_subject(call_id),
            ordered_consumer=True,
            idle_heartbeat=_EVENTS_HEARTBEAT_S,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=max(1, first_sequence)),
        )
        number = 0
        try:
            async for message in subscription.messages:
                sequence = message.metadata.sequence.stream
                if sequence < first_sequence:  # a consumer made anew before its first message starts too early
                    continue
                number += 1
                yield StreamedEvent(number, sequence, message.subject.rpartition(".")[2], message.data)
        finally:
            with suppress(nats.errors.Error, ValueError):
                await subscription.unsubscribe()

    # -- work queues ------------------------------------------------------------------------------

    async def enqueue(self, message: Contract) -> None:
        """Put work into its JetStream work queue. Raises BusError when the stream does not take it."""
        self.tracer.message(message)
        try:
            await self._js.publish(
                message.subject, message.to_bytes(), timeout=_EMIT_ATTEMPT_S, headers=telemetry.trace_headers()
            )
        except (nats.errors.Error, TimeoutError, APIError) as error:
            raise BusError(str(error) or type(error).__name__) from error

    async def work(
        self, contract: type[C], handler: Callable[[C], Awaitable[None]], *, durable: str, at_once: int = 64
    ) -> None:
        """Take work until cancelled; each item is acknowledged when its handler returns, redelivered when it raises.

        `Later` says when it shall come back. While a handler runs its item goes to nobody else, however long it takes.
        """
        pull = await self._js.pull_subscribe(
            contract.SUBJECT,
            durable=durable,
            config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=_ACK_WAIT_S, max_ack_pending=1024),
        )
        slots = asyncio.Semaphore(at_once)

        async def handle(message: Msg) -> None:
            held = asyncio.create_task(_held(message), name=f"hold {contract.SUBJECT}")
            try:
                telemetry.adopt_trace(message.headers)
                await handler(contract.from_bytes(message.data))
                await message.ack()
            except ValidationError as error:
                log.warning("bus.bad_work", subject=message.subject, error=str(error.errors()[0]["msg"]))
                await message.term()
            except Later as later:
                await message.nak(delay=later.delay_s)
            except Exception:  # the boundary: the item comes back, the worker goes on
                log.exception("bus.work_failed", subject=message.subject)
                await message.nak(delay=1)
            finally:
                held.cancel()
                slots.release()

        async with asyncio.TaskGroup() as tasks:
            try:
                while True:
                    await slots.acquire()
                    message = await self._fetch_one(pull)
                    if _told_to_stop():
                        await message.nak()
                        raise asyncio.CancelledError
                    tasks.create_task(handle(message), name=f"work {contract.SUBJECT}")
            finally:
                # An open pull request outlives us by seconds; no work may go to an inbox that nobody reads.
                with suppress(nats.errors.Error, ValueError):
                    await pull.unsubscribe()

    async def _fetch_one(self, pull: JetStreamContext.PullSubscription) -> Msg:
        while True:
            try:
                return (await pull.fetch(1, timeout=5))[0]
            except (TimeoutError, nats.errors.TimeoutError):
                continue
            except (nats.errors.Error, APIError) as error:
                log.warning("bus.work_not_fetched", error=str(error))
                await asyncio.sleep(0.5)

    # -- key-value --------------------------------------------------------------------------------

    async def bucket(self, name: str) -> "Bucket":
        """A key-value bucket, made if absent."""
        try:
            store = await self._js.key_value(name)
        except (BucketNotFoundError, NotFoundError):
            store = await self._js.create_key_value(
                KeyValueConfig(bucket=name, storage=StorageType.FILE, history=1, replicas=self._settings.replicas)
            )
        return Bucket(store, self._js, name)


async def _held(message: Msg) -> None:
    """Tell the work queue, until cancelled, that somebody is at this item."""
    while True:
        await asyncio.sleep(_ACK_WAIT_S / 3)
        with suppress(nats.errors.Error):
            await message.in_progress()


class Bucket:
    """A key-value bucket whose values change by compare-and-set. Every method raises BusError when NATS can't."""

    def __init__(self, store: KeyValue, js: JetStreamContext, name: str) -> None:
        self._store = store
        self._js = js
        self._name = name

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """The value and its revision, or None."""
        with _translated():
            try:
                entry = await self._store.get(token(key))
            except KeyNotFoundError:
                return None
        return entry.value or b"", int(entry.revision or 0)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that does not exist; its revision. Raises Conflict when it does."""
        with _translated():
            try:
                return int(await self._store.create(token(key), value))
            except (KeyWrongLastSequenceError, BadRequestError):
                raise Conflict(key) from None

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Replace the value that has this revision; the new revision. Raises Conflict when it has moved on."""
        with _translated():
            try:
                return int(await self._store.update(token(key), value, last=revision))
            except (KeyWrongLastSequenceError, BadRequestError):
                raise Conflict(key) from None

    async def delete(self, key: str) -> None:
        """Forget the key without a trace. Forgetting twice is fine.

        Not by nats-py's `purge`: its marker would stay in the bucket for ever, one for every call there has been.
        """
        with _translated():
            await self._js.purge_stream(f"KV_{self._name}", subject=f"$KV.{self._name}.{token(key)}")

    async def values(self) -> list[bytes]:
        """Every value, in no order.

        The stream is asked for its keys. nats-py's `keys` watches instead, and may take a bucket whose values are still
        on their way for an empty one.
        """
        prefix = f"$KV.{self._name}."
        with _translated():
            info = await self._js.stream_info(f"KV_{self._name}", subjects_filter=f"{prefix}>")
            keys = [subject.removeprefix(prefix) for subject in info.state.subjects or {}]
            found: list[bytes | None] = []
            for start in range(0, len(keys), _AT_ONCE):
                found += await asyncio.gather(*(self._entry(key) for key in keys[start : start + _AT_ONCE]))
        return [value for value in found if value is not None]

    async def _entry(self, key: str) -> bytes | None:
        try:
            return (await self._store.get(key)).value or b""
        except KeyNotFoundError:
            return None


@contextmanager
def _translated() -> Iterator[None]:
    """NATS's own errors as BusError."""
    try:
        yield
    except (nats.errors.Error, APIError, TimeoutError) as error:
        raise BusError(str(error) or type(error).__name__) from error


def _told_to_stop() -> bool:
    """Whether the current task was cancelled without noticing.

    Until Python 3.12 `asyncio.wait_for` swallows a cancellation that meets its result, and nats-py waits with it.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _on_error(error: Exception) -> None:
    log.warning("bus.error", error=str(error) or type(error).__name__)


async def _on_reconnected(*_: Any) -> None:
    log.info("bus.reconnected")
