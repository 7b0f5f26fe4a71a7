"""Audio of the call on its way to its client (protocol section 10)."""

import asyncio

from prometheus_client import Counter

from gateway.socket.connection import Connection

_MAX_WAITING = 100
"""Binary frames that wait for a client: two seconds of one track, one second of two."""
_audio_dropped = Counter("dialbus_gateway_audio_dropped", "Binary frames dropped for clients that read too slowly")


class Downlink:
    """Binary frames that wait for their client; a slow one loses the oldest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING)

    async def hear(self, data: bytes) -> None:
        """Audio for the client."""
        if self._waiting.full():
            self._waiting.get_nowait()
            _audio_dropped.inc()
        self._waiting.put_nowait(data)

    async def play(self) -> None:
        """Until cancelled: send what waits, as fast as the client reads."""
        while True:
            await self._connection.send_audio(await self._waiting.get())
