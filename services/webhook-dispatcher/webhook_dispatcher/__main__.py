"""The webhook-dispatcher service: announcements of inbound calls in, HTTP requests out, outcomes back."""

import httpx

from dialbus.config import Loaded
from dialbus.contracts.session import DeliverWebhook
from dialbus.lifecycle import run, service
from webhook_dispatcher.dispatcher import Dispatcher

AT_ONCE = 256
"""Announcements at once per instance; more wait in the queue or go to another instance."""


async def serve(loaded: Loaded) -> None:
    """Work the queue until cancelled; what is in flight then is finished within a limit."""
    # trust_env: neither a proxy nor a .netrc of the host's user takes part unless the configuration says so.
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=32)
    client = httpx.AsyncClient(follow_redirects=False, trust_env=False, limits=limits)
    async with service("webhook-dispatcher", loaded) as me, client:
        dispatcher = Dispatcher(me.bus, client, me.config.ua.handler)
        me.health.facts(lambda: {"in_flight": dispatcher.in_flight})
        me.capacity = lambda: (AT_ONCE, dispatcher.in_flight)
        me.announce()
        await me.bus.work(DeliverWebhook, dispatcher.deliver, durable="webhook-dispatcher", at_once=AT_ONCE)


def main() -> None:
    """Entry point."""
    run("webhook-dispatcher", serve)


if __name__ == "__main__":
    main()
