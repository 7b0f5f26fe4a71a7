"""Messages over the bus: published to whoever listens, or asked and answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import nats.errors
from nats.aio.msg import Msg
from pydantic import ValidationError

from dialbus import telemetry
from dialbus.bus.connection import Connection, Subscription
from dialbus.bus.errors import BusError, NoReply, NoResponder, Refused, call_of, first_fault, translated
from dialbus.contracts.base import Contract, Refusal, Request
from dialbus.tasks import TaskSet

log = telemetry.get_logger()

C = TypeVar("C", bound=Contract)
A = TypeVar("A", bound=Request[Any])

REFUSED = "Refused"


class Requests(Connection):
    """A command is a request: its reply says *taken* or *refused, because*."""

    async def publish(self, message: Contract) -> None:
        """Send to whoever listens now; nobody answers. Raises BusError when it can't leave."""
        self.tracer.message(message)
        with translated():
            await self._client.publish(message.subject, message.to_bytes(), headers=self._headers())

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
            await self._answer(message, request, handler)

        inner = await self._client.subscribe(request.pattern(**subject), queue=queue, cb=answer)
        return Subscription(inner, self, in_group=bool(queue))

    async def serve_at_once(
        self, request: type[A], handler: Callable[[A], Awaitable[Contract]], tasks: TaskSet, *, queue: str
    ) -> Subscription:
        """As `serve`, but each request has a task of its own, so that none waits for another's reply.

        The handler bounds how many are worked on, by refusing more.
        """

        async def begin(message: Msg) -> None:
            tasks.start(self._answer(message, request, handler), name=f"answer {request.__name__}")

        return Subscription(await self._client.subscribe(request.pattern(), queue=queue, cb=begin), self, in_group=True)

    async def _answer(self, message: Msg, request: type[A], handler: Callable[[A], Awaitable[Contract]]) -> None:
        telemetry.adopt_trace(message.headers)
        try:
            reply = await handler(request.from_bytes(message.data))
        except ValidationError as error:
            await self._refuse(message, Refused(400, first_fault(error)))
        except Refused as refused:
            await self._refuse(message, refused)
        except Exception as error:  # the boundary: one bad request never ends the worker
            log.exception("bus.handler_failed", subject=message.subject, **call_of(message))
            await self._refuse(message, Refused(500, f"{type(error).__name__}: {error}"))
        else:
            await self._respond(message, reply.to_bytes())

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
                log.warning("bus.bad_message", subject=message.subject, error=first_fault(error), **call_of(message))
            except Exception:  # the boundary: one bad message never ends the worker
                log.exception("bus.handler_failed", subject=message.subject, **call_of(message))

        return Subscription(await self._client.subscribe(contract.pattern(**subject), cb=deliver), self)
