"""The shell: takes announcements from the work queue, sends them over HTTP and tells the owner of the call."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable

import httpx
from prometheus_client import Counter

from dialbus import __version__, telemetry
from dialbus.bus import Bus, NoReply, NoResponder, Refused
from dialbus.config import HandlerConfig
from dialbus.contracts.session import DeliverWebhook, WebhookOutcome
from dialbus.tasks import cancel_all
from webhook_dispatcher.delivery import Attempt, Delivery, Outcome
from webhook_dispatcher.errors import NoResponse, NotReached, NotSendable, WebhookError
from webhook_dispatcher.signature import HEADER, signature

log = telemetry.get_logger()

NO_HANDLER = "No invite handler configured"
SHUTTING_DOWN = "shutting down"
_CONNECT_S = 3.0
"""A host that swallows packets must leave time for the next URL."""
_REPORT_ATTEMPTS = 3
_REPORT_S = 1.0
_MAX_REMEMBERED = 4096
_FINISH_S = 3.0
"""How long an announcement in flight may still take once the service stops."""

_outcomes = Counter("dialbus_webhooks", "Announcements of inbound calls, by how they went", ["outcome"])


class Dispatcher:
    """Announces inbound calls to the configured URLs."""

    def __init__(
        self, bus: Bus, client: httpx.AsyncClient, handler: HandlerConfig, jitter: Callable[[], float] = random.random
    ) -> None:
        self._bus = bus
        self._client = client
        self._handler = handler
        self._jitter = jitter
        self._turn = 0
        self._in_flight = 0
        # Outcomes by call id: an item that comes again is answered again, not announced again.
        self._remembered: OrderedDict[str, Outcome] = OrderedDict()

    @property
    def in_flight(self) -> int:
        """Announcements going on now."""
        return self._in_flight

    async def deliver(self, item: DeliverWebhook) -> None:
        """Work one item to its end. Cancelled, it takes a few seconds more to finish, or reports that it can't."""
        with telemetry.bound(call_id=item.call_id):
            self._in_flight += 1
            working = asyncio.create_task(self._announce(item), name=f"webhook {item.call_id}")
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                # The service stops. Returning in order acknowledges the item, so that nobody announces it again.
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
                await self._finish(working, item)
            finally:
                self._in_flight -= 1

    async def _finish(self, working: "asyncio.Task[None]", item: DeliverWebhook) -> None:
        await asyncio.wait([working], timeout=_FINISH_S)
        if not working.done():
            await cancel_all([working])
            await self._report(item.call_id, Outcome(False, None, SHUTTING_DOWN, 0))

    async def _announce(self, item: DeliverWebhook) -> None:
        outcome = self._remembered.get(item.call_id)
        if outcome is None:
            outcome = await self._outcome(item)
            self._remember(item.call_id, outcome)
        await self._report(item.call_id, outcome)

    def _remember(self, call_id: str, outcome: Outcome) -> None:
        self._remembered[call_id] = outcome
        while len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    # -- HTTP -------------------------------------------------------------------------------------

    async def _outcome(self, item: DeliverWebhook) -> Outcome:
        targets = self._handler.targets
        if not targets:
            return Outcome(False, None, NO_HANDLER, 0)
        clock = asyncio.get_running_loop().time
        began = clock()
        left = min(self._handler.timeout, item.give_up_at_ms / 1000 - time.time())
        delivery = Delivery(targets, first=self._turn, give_up_at=began + left)
        self._turn += 1
        outcome = await self._drive(delivery, item.body.to_json().encode())
        facts = {"status": outcome.status, "attempts": outcome.attempts, "after_ms": round((clock() - began) * 1000)}
        if outcome.delivered:
            log.info("webhook.delivered", **facts)
        else:
            log.warning("webhook.failed", reason=outcome.reason, **facts)
        return outcome

    async def _drive(self, delivery: Delivery, body: bytes) -> Outcome:
        clock = asyncio.get_running_loop().time
        effects = delivery.start(clock())
        while True:
            match effects:
                case [Outcome() as outcome]:
                    return outcome
                case [Attempt() as attempt]:
                    try:
                        status = await self._post(attempt, body)
                    except WebhookError as error:
                        log.info("webhook.attempt_failed", reason=str(error))
                        effects = delivery.failed(error.phrase, clock(), self._jitter(), retry=error.retry)
                    else:
                        effects = delivery.responded(status, clock(), self._jitter())
                case _:
                    await asyncio.sleep(delivery.deadline - clock())
                    effects = delivery.tick(clock())

    async def _post(self, attempt: Attempt, body: bytes) -> int:
        """The status of the answer; its body is not read. Raises WebhookError."""
        timeout = httpx.Timeout(attempt.timeout_s, connect=min(_CONNECT_S, attempt.timeout_s))
        try:
            async with asyncio.timeout(attempt.timeout_s):
                request = self._client.build_request(
                    self._handler.method, attempt.url, content=body, headers=self._headers(body), timeout=timeout
                )
                response = await self._client.send(request, stream=True)
                await response.aclose()
                return response.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotReached(type(error).__name__) from error
        except (TimeoutError, httpx.TimeoutException):
            raise NoResponse from None
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL, ValueError) as error:
            raise NotSendable(str(error)) from error
        except httpx.HTTPError as error:
            # The connection broke: often a kept-alive one that the target had closed already.
            raise NotReached(type(error).__name__) from error

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Configured headers over ours; the signature is never configured."""
        headers = {"content-type": ("Content-Type", "application/json")}
        headers["user-agent"] = ("User-Agent", f"dialbus/{__version__}")
        configured = {name.lower() for name, _ in self._handler.headers}
        pairs = [pair for key, pair in headers.items() if key not in configured]
        pairs += [(name, value) for name, value in self._handler.headers if name.lower() != HEADER.lower()]
        if self._handler.secret:
            pairs.append((HEADER, signature(self._handler.secret, int(time.time()), body)))
        return [(name.encode(), value.encode()) for name, value in pairs]

    # -- the owner --------------------------------------------------------------------------------

    async def _report(self, call_id: str, outcome: Outcome) -> None:
        """Tell the owner, again if it is slow; a call without an owner is over and wants no outcome."""
        _outcomes.labels("delivered" if outcome.delivered else "failed").inc()
        message = WebhookOutcome(
            call_id=call_id,
            delivered=outcome.delivered,
            status=outcome.status,
            reason=outcome.reason,
            attempts=outcome.attempts,
        )
        for _ in range(_REPORT_ATTEMPTS):
            try:
                await self._bus.request(message, timeout_s=_REPORT_S)
            except NoReply:
                continue
            except NoResponder:
                log.info("webhook.call_gone")
            except Refused as refused:
                log.info("webhook.outcome_refused", code=refused.code, reason=refused.reason)
            return
        log.warning("webhook.outcome_not_taken")
