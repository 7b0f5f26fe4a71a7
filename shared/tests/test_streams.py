"""Streams that are there already: the newest start's settings win, as far as the server can change them."""

from typing import cast

from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamInfo, StreamState
from nats.js.errors import BadRequestError, ServerError

from dialbus.bus.streams import ensure


class OldServer:
    """A server that changes anything of a stream but how many consumers it may have."""

    def __init__(self, stream: StreamConfig) -> None:
        self.stream = stream

    async def add_stream(self, config: StreamConfig) -> None:
        raise BadRequestError(code=400, description="stream name already in use")

    async def update_stream(self, config: StreamConfig) -> None:
        if config.max_consumers != self.stream.max_consumers:
            raise ServerError(code=500, description="stream configuration update can not be done")
        self.stream = config

    async def stream_info(self, name: str) -> StreamInfo:
        return StreamInfo(config=self.stream, state=StreamState(0, 0, 0, 0, 0))


async def test_a_stream_that_must_keep_its_number_of_readers_gets_all_else() -> None:
    server = OldServer(StreamConfig(name="CALLS", max_consumers=-1, max_age=10))

    await ensure(cast(JetStreamContext, server), StreamConfig(name="CALLS", max_consumers=50_000, max_age=20))

    assert (server.stream.max_consumers, server.stream.max_age) == (-1, 20)
