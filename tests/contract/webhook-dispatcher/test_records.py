"""The real webhook-dispatcher keeps records of calls: in files, or at a real HTTP target (protocol section 9.4)."""

import email
import email.policy
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from dialbus.bus import RECORDS_STREAM, Bus
from dialbus.contracts.records import WriteRecord
from tests.harness import ServiceProcess, eventually, next_message, run_service

Start = Callable[..., AbstractAsyncContextManager[ServiceProcess]]


@pytest.fixture
def writer(service_env: dict[str, str]) -> Start:
    """Starts a dispatcher with `[callrecord]`: `async with writer(TYPE="local") as service`."""

    def start(**settings: str) -> AbstractAsyncContextManager[ServiceProcess]:
        named = {f"DIALBUS_CALLRECORD_{name}": value for name, value in settings.items()}
        return run_service("webhook_dispatcher", service_env | named)

    return start


@pytest.fixture(autouse=True)
async def no_other_records(bus: Bus) -> None:
    """The server is that of the whole run: records of other tests' calls wait in the queue, too."""
    await bus._js.purge_stream(RECORDS_STREAM)


@pytest.fixture
def recorders(service_env: dict[str, str]) -> Path:
    """The folder of recordings and dumps."""
    path = Path(service_env["DIALBUS_RECORDER_PATH"])
    path.mkdir()
    return path


def item(call_id: str, age: timedelta = timedelta(0), **fields: Any) -> WriteRecord:
    """The record of a call that just ended."""
    ended = datetime.now(UTC) - age
    record = {
        "callType": "sip", "callId": call_id, "caller": "sip:a@b", "callee": "sip:Grüße@d", "statusCode": 200,
        "startTime": (ended - timedelta(seconds=30)).isoformat(), "endTime": ended.isoformat(),
        "hangupReason": "byCaller",
    }  # fmt: skip
    return WriteRecord(call_id=call_id, record=record | fields)


def dump_line(call_id: str) -> str:
    content = json.dumps({"event": "hangup", "trackId": call_id})
    return json.dumps({"type": "event", "timestamp": 1, "content": content}) + "\n"


def parts(request: Any) -> dict[str, tuple[str | None, bytes]]:
    """The parts of a multipart body: name → file name, content."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    whole = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    return {
        str(part.get_param("name", header="content-disposition")): (
            part.get_filename(), bytes(part.get_payload(decode=True) or b"")
        )
        for part in whole.iter_parts()
    }  # fmt: skip


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_local_record_is_one_whole_file_also_when_it_comes_twice(
    bus: Bus, call_id: str, writer: Start, tmp_path: Path
) -> None:
    root = tmp_path / "cdr"
    odd = f"../{call_id}"
    async with writer(TYPE="local", ROOT=str(root)):
        expected = item(call_id).record
        for record in (WriteRecord(call_id=call_id, record=expected),) * 2 + (item(odd),):
            await bus.enqueue(record)
        await eventually(lambda: len(list(root.glob("*/*.json"))) >= 2)
        started = datetime.fromisoformat(expected.start_time).astimezone()
        (path,) = [path for path in root.glob("*/*.json") if path.name.endswith(f"_{call_id}.json")]
        assert path.parent.name == f"{started:%Y%m%d}"
        written = json.loads(path.read_text())
        assert written["callee"] == "sip:Grüße@d"
        assert set(written) == set(expected.to_fields())
    strays = [path for path in files_below(tmp_path) if path.suffix in (".json", ".tmp") and root not in path.parents]
    assert strays == []
    assert sorted(path.suffix for path in files_below(root)) == [".json"] * 2


async def test_http_record_has_its_parts_and_media_are_gone_afterwards(
    bus: Bus, call_id: str, writer: Start, target: Any, recorders: Path, tmp_path: Path
) -> None:
    app = await target(200)
    wav, dump, outside = recorders / "a.wav", recorders / f"{call_id}.events.jsonl", tmp_path / "secret.txt"
    wav.write_bytes(b"RIFF" + bytes(100_000))
    dump.write_text('{"type":"command"}\n')
    outside.write_text("not yours")
    named = [{"trackId": call_id, "path": str(wav), "size": 100_004}]
    named += [{"trackId": name, "path": path, "size": 1} for name, path in (
        ("missing", str(recorders / "none.wav")), ("outside", str(outside)),
        ("sneaky", f"{recorders}/../secret.txt"))]  # fmt: skip
    settings = {"TYPE": "http", "URL": app.url, "WITH_MEDIA": "true", "KEEP_MEDIA_COPY": "false"}
    headers = '[["Authorization","Bearer k3y"],["Content-Type","text/wrong"]]'
    async with writer(**settings, HEADERS=headers) as service:
        await bus.enqueue(item(call_id, recorder=named, dumpEventFile=str(dump)))
        async with httpx.AsyncClient(trust_env=False) as client:

            async def in_hand() -> bool:
                return bool((await client.get(service.facts["health"])).json()["records_in_hand"])

            await eventually(in_hand, what="the record in hand")
        assert app.requests.empty(), "the dump's last line is still to come"
        with dump.open("a") as file:
            file.write(dump_line(call_id))
        request = await next_message(app.requests)
        assert (request.method, request.headers["authorization"]) == ("POST", "Bearer k3y")
        found = parts(request)
        assert list(found) == ["calllog.json", f"media_{call_id}", f"dump_events_{call_id}.events.jsonl"]
        name, log = found["calllog.json"]
        assert name is None
        assert json.loads(log)["callee"] == "sip:Grüße@d"
        assert found[f"media_{call_id}"] == ("a.wav", b"RIFF" + bytes(100_000))
        assert found[f"dump_events_{call_id}.events.jsonl"][1].decode().endswith(dump_line(call_id))
        await eventually(lambda: not wav.exists() and not dump.exists())
        assert outside.exists()
        assert "k3y" not in service.log


async def test_target_that_is_busy_gets_the_record_later_and_once(
    bus: Bus, call_id: str, writer: Start, target: Any, recorders: Path
) -> None:
    app = await target(503, 200)
    wav = recorders / "a.wav"
    wav.write_bytes(b"RIFF")
    async with writer(TYPE="http", URL=app.url):
        await bus.enqueue(item(call_id, recorder=[{"trackId": call_id, "path": str(wav), "size": 4}]))
        first, second = await next_message(app.requests), await next_message(app.requests)
        assert parts(first) == parts(second)
        assert list(parts(second)) == ["calllog.json"]
        await bus.enqueue(item(f"next-{call_id}"))
        assert json.loads(parts(await next_message(app.requests))["calllog.json"][1])["callId"] == f"next-{call_id}"
    assert wav.exists()


async def test_record_that_the_target_will_not_have_is_kept_here(
    bus: Bus, call_id: str, writer: Start, target: Any, tmp_path: Path
) -> None:
    refusing, broken = await target(403), await target(500)
    for app, age in ((refusing, timedelta(0)), (broken, timedelta(hours=2))):
        root = tmp_path / app.url.split(":")[2].split("/")[0]
        async with writer(TYPE="http", URL=app.url, ROOT=str(root)) as service:
            await bus.enqueue(item(call_id, age))
            (path,) = await eventually(partial(_records, root))
            assert json.loads(path.read_text())["callId"] == call_id
            assert "record.not_sent" in service.log
        assert app.requests.qsize() == 1


async def test_record_in_hand_is_finished_when_the_service_stops(
    bus: Bus, call_id: str, writer: Start, target: Any, tmp_path: Path
) -> None:
    silent = await target(None)
    async with writer(TYPE="http", URL=silent.url) as service:
        await bus.enqueue(item(call_id))
        await next_message(silent.requests)
        await service.stop(6.0)
    async with writer(TYPE="local", ROOT=str(tmp_path / "cdr")):
        await eventually(lambda: list((tmp_path / "cdr").glob(f"*/*_{call_id}.json")), what="the record")


def _records(root: Path) -> list[Path]:
    return list(root.glob("*/*.json"))
