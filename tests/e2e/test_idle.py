"""Sockets without a call."""

import pytest

from tests.e2e.conftest import Exchange


@pytest.mark.parametrize("path", ["/call/sip", "/call/webrtc", "/call"])
async def test_hangup_ends_an_idle_session(exchange: Exchange, path: str) -> None:
    async with exchange.client(path=path) as client:
        await client.send("hangup", reason="changed my mind")
        await client.expect("hangup", reason="changed my mind", initiator="system")
        assert await client.until_closed() == 1000
    assert client.names == ["hangup"]
