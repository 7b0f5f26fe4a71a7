"""One connection to NATS: made, kept, left; and what listens on it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext

from dialbus import telemetry
from dialbus.bus.streams import configurations, ensure
from dialbus.config import NatsConfig, TraceConfig
from dialbus.contracts.trace import TraceLines
from dialbus.tasks import cancel_all
from dialbus.trace import Tracer

log = telemetry.get_logger()

SENDER, SENT_AT = "Dialbus-Sender", "Dialbus-Sent-At"
"""Headers of messages and events, for those who follow a call: service/instance, Unix epoch seconds."""
STREAM_TIMEOUT_S = 2.0
"""How long one attempt to store something in a stream may take."""
_LATE_REQUESTS_S = 0.1
"""The server may hand a request to a member of a group that has just left; nobody else would answer that."""
_MAX_BEFORE_TRACE = 256 << 10
"""Bytes that may wait for a slow server when trace lines come."""


class Subscription:
    """Something that listens; `leave()` stops it after what has already arrived."""

    def __init__(self, inner: NatsSubscription, bus: "Connection", *, in_group: bool = False) -> None:
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


class Connection:
    """One service instance's connection."""

    def __init__(
        self, client: Client, settings: NatsConfig, service: str, instance: str, trace: TraceConfig | None = None
    ) -> None:
        self._client = client
        self._settings = settings
        self._trace = trace if trace is not None and trace.enabled else None
        self._js: JetStreamContext = client.jetstream(timeout=STREAM_TIMEOUT_S)
        self.service = service
        self.instance = instance
        self.tracer = Tracer(service, instance, self._send_trace if self._trace is not None else None)

    def __repr__(self) -> str:
        state = "connected" if self.connected else "away"
        return f"<{type(self).__name__} {self.service}/{self.instance} {state}>"

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, settings: NatsConfig, *, service: str, instance: str, trace: TraceConfig | None = None
    ) -> AsyncIterator[Self]:
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
            for config in configurations(settings, bus._trace):
                await ensure(bus._js, config)
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

    async def unsubscribe(self, inner: NatsSubscription) -> None:
        """Tell the server, and go on listening: `drain`, which forgets what comes late, has no public half."""
        await self._client._send_unsubscribe(inner._id)
        await self.flush()

    def _headers(self) -> dict[str, str]:
        sender = f"{self.service}/{self.instance}"
        return {SENDER: sender, SENT_AT: f"{time.time():.6f}", **telemetry.trace_headers()}

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


async def _on_error(error: Exception) -> None:
    log.warning("bus.error", error=str(error) or type(error).__name__)


async def _on_reconnected(*_: Any) -> None:
    log.info("bus.reconnected")
