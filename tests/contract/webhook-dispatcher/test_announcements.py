"""The real webhook-dispatcher between a real bus and real HTTP targets (protocol section 5.5)."""

import asyncio
import hashlib
import hmac
import json
import socket
import time
from typing import Any

import pytest

from dialbus.bus import Bus
from dialbus.contracts.base import Taken
from dialbus.contracts.session import DeliverWebhook, Heartbeat, WebhookOutcome
from tests.harness import messages_of, next_message, requests_to
from tests.peers.webhook import Received


def is_signed(request: Received, secret: str) -> bool:
    """Whether the signature is fresh and fits the bytes received, as the README tells receivers to find out."""
    time_s, _, digest = request.headers["x-dialbus-signature"].removeprefix("t=").partition(",v1=")
    wanted = hmac.new(secret.encode(), time_s.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(digest, wanted) and abs(time.time() - int(time_s)) < 300


def item(call_id: str, ring_s: float = 30.0) -> DeliverWebhook:
    """The announcement of a call."""
    body = {
        "event": "invite", "dialogId": call_id, "caller": "sip:7455@192.0.2.15", "callee": "sip:4000@192.0.2.20",
        "createdAt": "2026-03-04T09:15:20.101733+00:00", "headers": ["Subject: Grüße"], "offer": "v=0\r\n",
    }  # fmt: skip
    return DeliverWebhook(call_id=call_id, body=body, give_up_at_ms=int((time.time() + ring_s) * 1000))


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_call_is_announced_to_the_letter_and_the_owner_told(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    app = await target(204)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url, HEADERS='[["X-Key","k"],["X-Key","l"]]', SECRET="s3cr3t") as service:
        await bus.enqueue(item(call_id))
        request = await next_message(app.requests)
        assert (request.method, request.path) == ("POST", "/hook?x=1")
        assert json.loads(request.body) == item(call_id).body.to_fields()
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-key"] == "l"
        assert is_signed(request, "s3cr3t")
        outcome = await next_message(outcomes)
        assert (outcome.delivered, outcome.status, outcome.attempts) == (True, 204, 1)
        await service.stop()
        assert "s3cr3t" not in service.log


async def test_get_carries_the_body_and_no_secret_means_no_signature(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    app = await target(200)
    async with dispatcher(app.url, METHOD="GET"):
        await bus.enqueue(item(call_id))
        request = await next_message(app.requests)
        assert request.method == "GET"
        assert json.loads(request.body)["dialogId"] == call_id
        assert "x-dialbus-signature" not in request.headers


@pytest.mark.parametrize("first", [500, 503, 429])
async def test_broken_or_busy_target_gets_another_attempt(
    bus: Bus, call_id: str, dispatcher: Any, target: Any, first: int
) -> None:
    app = await target(first, 200)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url):
        await bus.enqueue(item(call_id))
        outcome = await next_message(outcomes)
        assert (outcome.delivered, outcome.status, outcome.attempts) == (True, 200, 2)


@pytest.mark.parametrize(("status", "extra"), [(404, ""), (302, "Location: /elsewhere\r\n")])
async def test_other_answers_are_final_and_redirects_not_followed(
    bus: Bus, call_id: str, dispatcher: Any, target: Any, status: int, extra: str
) -> None:
    app = await target(status, extra=extra)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url):
        await bus.enqueue(item(call_id))
        outcome = await next_message(outcomes)
        assert (outcome.delivered, outcome.status, outcome.attempts) == (False, status, 1)
        assert outcome.reason == f"webhook answered {status}"
        assert app.requests.qsize() == 1


async def test_unreachable_target_is_retried_until_the_ring_deadline(bus: Bus, call_id: str, dispatcher: Any) -> None:
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(f"http://127.0.0.1:{free_port()}/"):
        began = time.monotonic()
        await bus.enqueue(item(call_id, ring_s=1.2))
        outcome = await next_message(outcomes)
        assert time.monotonic() - began < 1.5
        assert (outcome.delivered, outcome.status, outcome.reason) == (False, None, "webhook not reachable")
        assert outcome.attempts > 1


async def test_silent_target_is_given_up_after_the_timeout(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    app = await target(None)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url, TIMEOUT="2s"):  # within which a busy machine has sent the request
        await bus.enqueue(item(call_id))
        await next_message(app.requests)
        outcome = await next_message(outcomes, 4.0)
        assert (outcome.delivered, outcome.reason, outcome.attempts) == (False, "webhook timeout", 1)


async def test_calls_take_turns_over_the_urls_and_fall_over_to_the_next(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    one, two = await target(200), await target(200)
    async with dispatcher(one.url, two.url):
        for number in range(4):
            await bus.enqueue(item(f"{call_id}-{number}"))
        for app in (one, two, one, two):
            await next_message(app.requests)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(f"http://127.0.0.1:{free_port()}/", one.url):
        await bus.enqueue(item(call_id))
        outcome = await next_message(outcomes)
        assert (outcome.delivered, outcome.attempts) == (True, 2)


async def test_without_a_handler_the_owner_is_told_so(bus: Bus, call_id: str, dispatcher: Any) -> None:
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher():
        await bus.enqueue(item(call_id))
        outcome = await next_message(outcomes)
        assert (outcome.delivered, outcome.reason) == (False, "No invite handler configured")


async def test_item_that_comes_again_is_answered_again_but_not_announced_again(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    app = await target(200)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url):
        await bus.enqueue(item(call_id))
        first = await next_message(outcomes)
        await bus.enqueue(item(call_id))
        assert await next_message(outcomes) == first
        assert app.requests.qsize() == 1


async def test_call_that_is_gone_does_not_hold_up_the_next(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    app = await target(200)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url):
        await bus.enqueue(item(f"gone-{call_id}"))
        await bus.enqueue(item(call_id))
        assert (await next_message(outcomes)).delivered


async def test_owner_that_does_not_answer_is_told_again(bus: Bus, call_id: str, dispatcher: Any, target: Any) -> None:
    app = await target(200)
    told: asyncio.Queue[WebhookOutcome] = asyncio.Queue()
    released = asyncio.Event()

    async def slow(outcome: WebhookOutcome) -> Taken:
        told.put_nowait(outcome)
        await released.wait()
        return Taken()

    await bus.serve(WebhookOutcome, slow, call_id=call_id)
    await bus.flush()
    async with dispatcher(app.url):
        await bus.enqueue(item(call_id))
        first = await next_message(told)
        beats = await messages_of(bus, Heartbeat, service="webhook-dispatcher")
        for _ in range(2):  # a second and more: the first report was given up by now
            await next_message(beats)
        released.set()
        assert await next_message(told) == first
        assert app.requests.qsize() == 1


async def test_stopping_finishes_what_is_in_flight(bus: Bus, call_id: str, dispatcher: Any, target: Any) -> None:
    app = await target(503, 200)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url) as service:
        await bus.enqueue(item(call_id))
        await next_message(app.requests)
        await service.stop(5.0)
        assert (await next_message(outcomes)).delivered


async def test_stopping_before_a_silent_target_answers_tells_the_owner_and_exits_in_time(
    bus: Bus, call_id: str, dispatcher: Any, target: Any
) -> None:
    app = await target(None)
    outcomes = await requests_to(bus, WebhookOutcome, call_id=call_id)
    async with dispatcher(app.url) as service:
        await bus.enqueue(item(call_id))
        await next_message(app.requests)
        await service.stop(5.0)
        outcome = await next_message(outcomes)
        assert (outcome.delivered, outcome.reason) == (False, "shutting down")
