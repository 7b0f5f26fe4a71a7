"""Small doors: what clients have us fetch, what we leave on the disk, what processes are told."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.ensemble import Exchange, running


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """`dialbus run`, as strict as it comes."""
    settings = {"DIALBUS_FETCH_ALLOW_LOOPBACK": ""}
    with running(tmp_path_factory.mktemp("strict"), settings=settings) as exchange:
        yield exchange


async def test_a_client_of_a_loopback_api_cannot_have_this_machine_fetched(ensemble: Exchange) -> None:
    """Neither over HTTP nor over a WebSocket; nobody connects to the server that listens there."""
    connected: list[object] = []

    async def connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "//127.0.0.1:" in ensemble.http
    async with ensemble.client(path="/call") as client:
        media_pass = {"url": f"ws://127.0.0.1:{port}/", "inputSampleRate": 8000, "outputSampleRate": 8000}
        await client.send("invite", option={"mediaPass": media_pass})
        errors = [await client.expect("error")]
        for host in ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "2130706433"):
            await client.send("play", url=f"http://{host}:{port}/a.wav", playId=host)
            errors.append(await client.expect("error"))
    server.close()
    await server.wait_closed()

    assert all("may not be fetched from" in error["error"] for error in errors), errors
    assert not connected


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "168.63.129.16", "192.0.0.192", "[::ffff:168.63.129.16]", "[64:ff9b::a83f:8110]"]
)
async def test_a_client_cannot_have_the_metadata_of_a_cloud_fetched(ensemble: Exchange, host: str) -> None:
    async with ensemble.client(path="/call") as client:
        await client.send("invite", option={})
        await client.expect("answer")
        await client.send("play", url=f"http://{host}/latest/meta-data/", playId="m")
        error = await client.expect("error")

    assert "may not be fetched from" in error["error"]
