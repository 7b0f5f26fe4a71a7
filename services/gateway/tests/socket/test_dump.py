"""The event dump (protocol section 9.3)."""

import json
from pathlib import Path
from typing import Any

from dialbus.dumps import dump_path
from gateway.socket.dump import dump, line


def test_line_is_the_documented_object_with_secrets_masked() -> None:
    command: dict[str, Any] = {
        "command": "invite",
        "option": {"callee": "ü", "sip": {"username": "7301", "password": "s3cr3t"}},
    }
    item = json.loads(line("command", 1772615727418, json.dumps(command)))
    assert list(item) == ["type", "timestamp", "content"]
    assert (item["type"], item["timestamp"]) == ("command", 1772615727418)
    command["option"]["sip"]["password"] = "***"
    assert json.loads(item["content"]) == command


def test_event_keeps_its_own_time() -> None:
    item = json.loads(line("event", 2, '{"event":"answer","timestamp":1,"seq":3}'))
    assert (item["timestamp"], item["content"]) == (1, '{"event":"answer","timestamp":1,"seq":3}')


async def test_items_are_appended_in_order_and_an_unusable_one_costs_only_itself(tmp_path: Path) -> None:
    path = dump_path(tmp_path / "new", "../s.1")
    assert path.parent == tmp_path / "new"
    for _ in range(2):
        async with dump(path) as record:
            for number in range(50):
                record("command", number, json.dumps({"n": number}))
            record("command", 0, "{nope")
            record("event", 50, '{"n":50}')
            await record.settled()
            assert path.read_text().endswith('{\\"n\\":50}"}\n'), "what is settled can be read"
    items = [json.loads(text) for text in path.read_text().splitlines()]
    assert [json.loads(item["content"])["n"] for item in items] == [*range(51), *range(51)]


async def test_folder_that_cannot_be_made_costs_the_dump_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with dump(tmp_path / "file" / "s.events.jsonl") as record:
        for _ in range(2):
            record("event", 1, "{}")
            await record.settled()
    assert (tmp_path / "file").read_text() == ""


async def test_no_path_means_no_dump(tmp_path: Path) -> None:
    async with dump(None) as record:
        record("event", 1, "{}")
