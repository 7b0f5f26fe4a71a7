"""Work queues: done at least once, by whichever instance."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError
from pydantic import ValidationError

from dialbus import telemetry
from dialbus.bus.connection import STREAM_TIMEOUT_S, Connection
from dialbus.bus.errors import BusError, Later, call_of, first_fault
from dialbus.contracts.base import Contract

log = telemetry.get_logger()

C = TypeVar("C", bound=Contract)

_ACK_WAIT_S = 60.0
"""A worker that holds work and is not heard for so long has died."""


class WorkQueues(Connection):
    """Work that must not be lost waits in JetStream until a worker has done it."""

    async def enqueue(self, message: Contract) -> None:
        """Put work into its JetStream work queue. Raises BusError when the stream does not take it."""
        self.tracer.message(message)
        try:
            await self._js.publish(
                message.subject, message.to_bytes(), timeout=STREAM_TIMEOUT_S, headers=telemetry.trace_headers()
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
                log.warning("bus.bad_work", subject=message.subject, error=first_fault(error), **call_of(message))
                await message.term()
            except Later as later:
                await message.nak(delay=later.delay_s)
            except Exception:  # the boundary: the item comes back, the worker goes on
                log.exception("bus.work_failed", subject=message.subject, **call_of(message))
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


async def _held(message: Msg) -> None:
    """Tell the work queue, until cancelled, that somebody is at this item."""
    while True:
        await asyncio.sleep(_ACK_WAIT_S / 3)
        with suppress(nats.errors.Error):
            await message.in_progress()


def _told_to_stop() -> bool:
    """Whether the current task was cancelled without noticing.

    Until Python 3.12 `asyncio.wait_for` swallows a cancellation that meets its result, and nats-py waits with it.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
