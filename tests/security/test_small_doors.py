"""Small doors: what clients have us fetch, what we leave on the disk, what processes are told."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ensemble import Exchange, running
from tests.harness import eventually

SECRET, KEY = "a-secret-of-the-shell", "a-key-of-the-model"


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """`dialbus run`, as strict as it comes."""
    folder = tmp_path_factory.mktemp("strict")
    settings = {
        "DIALBUS_FETCH_ALLOW_LOOPBACK": "",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "OPENAI_API_KEY": KEY,
        "DIALBUS_CALLRECORD_TYPE": "local",
        "DIALBUS_CALLRECORD_ROOT": str(folder / "cdr"),
    }
    before = os.umask(0)  # of somebody who takes no care
    try:
        with running(folder, settings=settings) as exchange:
            yield exchange
    finally:
        os.umask(before)


async def recorded(ensemble: Exchange, **recorder: Any) -> dict[str, Any]:
    """The record of a call that was recorded for a moment."""
    async with ensemble.client(path="/call") as client:
        await client.send("invite", option={"recorder": recorder})
        answer = await client.expect("answer")
        await client.send("play", url="voices/jfk.wav", playId="p", offsetMs=10_000)
        await client.expect("trackEnd", playId="p")
        await client.send("hangup")
        await client.until_closed()
    cdr = ensemble.run_dir.parent / "cdr"
    pattern = f"*/*_{answer['trackId']}.json"
    [path] = await eventually(lambda: list(cdr.glob(pattern)), what="record of the call")
    found: dict[str, Any] = json.loads(path.read_text())
    return found | {"at": path}


async def test_other_users_of_the_machine_read_no_recording_dump_or_record(ensemble: Exchange) -> None:
    record = await recorded(ensemble, recorderFile="of/{id}")

    files = [Path(record["recorder"][0]["path"]), Path(record["dumpEventFile"]), record["at"]]
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o640"] * 3
    assert {oct(path.parent.stat().st_mode & 0o777) for path in files} == {"0o750"}


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


async def test_a_client_cannot_write_over_the_recording_of_another_call(ensemble: Exchange) -> None:
    [kept] = (await recorded(ensemble, recorderFile="shared"))["recorder"]
    before = await asyncio.to_thread(_content, kept["path"])

    [other] = (await recorded(ensemble, recorderFile="shared.wav"))["recorder"]

    assert await asyncio.to_thread(_content, kept["path"]) == before
    assert [path.rpartition("/")[2] for path in (kept["path"], other["path"])] == ["shared.wav", "shared-2.wav"]
    assert len(await asyncio.to_thread(_content, other["path"])) == other["size"]


async def test_a_link_in_the_folder_of_recordings_leads_nowhere(ensemble: Exchange, tmp_path: Path) -> None:
    await asyncio.to_thread(_lay_links, ensemble.recordings, tmp_path)

    for name in ("linked/a", "linked/new/a"):
        async with ensemble.client(path="/call") as client:
            await client.send("invite", option={"recorder": {"recorderFile": name}})
            error = await client.expect("error", sender="recorder")
            assert "link" in error["error"]
    [kept] = (await recorded(ensemble, recorderFile="planted"))["recorder"]

    assert kept["path"].endswith("/planted-2.wav")
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


def _lay_links(folder: Path, outside: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "linked").symlink_to(outside)
    (folder / "planted.wav").symlink_to(outside / "stolen.wav")


def _content(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the environment of others is in /proc, on Linux")
async def test_no_process_has_a_secret_that_is_not_its_own(ensemble: Exchange) -> None:
    environs = await asyncio.to_thread(_environs, ensemble.process.pid)

    # nats-server and six services, at least; whoever runs them has it, so that the look is a true one.
    assert len(environs) >= 7
    assert SECRET.encode() in await asyncio.to_thread(_environ, ensemble.process.pid)
    assert not [name for name, text in environs if SECRET.encode() in text]
    assert [name for name, text in environs if KEY.encode() in text] == ["gateway"]


def _environs(pid: int) -> list[tuple[str, bytes]]:
    """The last word of its command line and the environment of every process that this one started."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    names = [Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")[-1].decode() for child in children]
    return list(zip(names, map(_environ, children), strict=True))


def _environ(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()
