"""HTTP requests that come within ten seconds, or not at all.

uvicorn waits without end for the rest of a request, and for the first one of a connection: whoever begins many of them
and finishes none takes all sockets. `PunctualRequests` is its HTTP protocol with a time for each request and its body.
"""

import asyncio
from asyncio.transports import Transport
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""From the opening of the connection, or a later request's first octet, to the request's last."""


class PunctualRequests(H11Protocol):
    """uvicorn's HTTP protocol; a request that is not complete in time loses its connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """The first request is due."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._settle()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Whether a part of a request is there is known once what came was parsed."""
        super().handle_events()
        if self.transport.get_protocol() is not self or not self._is_partial():
            self._settle()
        elif self._late is None:
            self._expect()

    def _is_partial(self) -> bool:
        match self.conn.their_state:
            case h11.SEND_BODY:
                return True
            case h11.IDLE:
                return bool(self.conn.trailing_data[0])
        return False

    def _expect(self) -> None:
        self._late = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _settle(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
