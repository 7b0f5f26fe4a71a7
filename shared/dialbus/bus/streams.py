"""The streams that the server keeps: events of calls, work, traces."""

import asyncio

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError

from dialbus import telemetry
from dialbus.config import NatsConfig, TraceConfig
from dialbus.contracts.trace import TRACE_SUBJECTS

log = telemetry.get_logger()

CALLS_STREAM = "CALLS"
WEBHOOKS_STREAM = "WEBHOOKS"
RECORDS_STREAM = "RECORDS"
TRACE_STREAM = "TRACE"

_MAX_READERS = 50_000
"""Of calls' events: a consumer for each call with a client and each watcher. nats-server's own default is 1,000."""


def configurations(settings: NatsConfig, trace: TraceConfig | None) -> list[StreamConfig]:
    """Every stream, as it shall be; that of traces only when there is something to trace."""
    configs = [
        StreamConfig(
            name=CALLS_STREAM,
            subjects=["call.*.event.*"],
            max_consumers=_MAX_READERS,
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=settings.event_retention,
            num_replicas=settings.replicas,
            duplicate_window=min(120.0, settings.event_retention),
        ),
        StreamConfig(
            name=WEBHOOKS_STREAM,
            subjects=["webhook.deliver"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            max_age=600.0,
            num_replicas=settings.replicas,
        ),
        StreamConfig(
            name=RECORDS_STREAM,
            subjects=["records.write"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            max_age=86400.0,
            num_replicas=settings.replicas,
        ),
    ]
    if trace is not None:
        configs.append(
            StreamConfig(
                name=TRACE_STREAM,
                subjects=list(TRACE_SUBJECTS),
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.MEMORY,
                max_age=trace.max_age,
                max_bytes=trace.max_bytes,
                num_replicas=1,
                no_ack=True,
                duplicate_window=min(120.0, trace.max_age),
            )
        )
    return configs


async def ensure(js: JetStreamContext, config: StreamConfig) -> None:
    """Make a stream, or give it these settings; waits for a server whose streams are not up yet."""
    while True:
        try:
            await js.add_stream(config)
            return
        except BadRequestError:  # exists with other settings: the newest start wins
            await _change(js, config)
            return
        except (APIError, nats.errors.Error, TimeoutError) as error:
            # The server is up before JetStream is (a cluster elects its leader first).
            log.warning("bus.stream_not_ready", stream=config.name, error=str(error))
            await asyncio.sleep(0.2)


async def _change(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        await js.update_stream(config)
    except APIError as error:
        kept = (await js.stream_info(str(config.name))).config.max_consumers
        if kept == config.max_consumers:
            raise
        # Older servers let a stream that is there keep its number of readers.
        await js.update_stream(config.evolve(max_consumers=kept))
        log.warning("bus.few_readers", stream=config.name, max_consumers=kept, error=str(error))
