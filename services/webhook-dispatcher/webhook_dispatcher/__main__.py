"""The webhook-dispatcher service: what is told to the outside over HTTP: inbound calls, and records of calls."""

import asyncio

import httpx

from dialbus.config import Loaded
from dialbus.contracts.records import WriteRecord
from dialbus.contracts.session import DeliverWebhook
from dialbus.lifecycle import run, service
from webhook_dispatcher.record_writer import AT_ONCE as RECORDS_AT_ONCE
from webhook_dispatcher.record_writer import RecordWriter
from webhook_dispatcher.service import Dispatcher

AT_ONCE = 256
"""Announcements at once per instance; more wait in the queue or go to another instance."""


async def serve(loaded: Loaded) -> None:
    """Work the queue until cancelled; what is in flight then is finished within a limit."""
    # trust_env: neither a proxy nor a .netrc of the host's user takes part unless the configuration says so.
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=32)
    client = httpx.AsyncClient(follow_redirects=False, trust_env=False, limits=limits)
    async with service("webhook-dispatcher", loaded) as me, client:
        config = me.config
        dispatcher = Dispatcher(me.bus, client, config.ua.handler)
        writer = None
        if config.callrecord is not None:
            writer = RecordWriter(
                config.callrecord,
                client,
                recorder_path=config.recorder_path,
                absolute_paths=config.recording.allow_absolute_paths,
            )
        me.health.facts(lambda: {"in_flight": dispatcher.in_flight, "records_in_hand": writer.in_hand if writer else 0})
        me.capacity = lambda: (AT_ONCE, dispatcher.in_flight)
        await me.announce()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                me.bus.work(DeliverWebhook, dispatcher.deliver, durable="webhook-dispatcher", at_once=AT_ONCE),
                name="announcements",
            )
            if writer is not None:
                tasks.create_task(
                    me.bus.work(WriteRecord, writer.write, durable="record-writer", at_once=RECORDS_AT_ONCE),
                    name="records",
                )


def main() -> None:
    """Entry point."""
    run("webhook-dispatcher", serve)


if __name__ == "__main__":
    main()
