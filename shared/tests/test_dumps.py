"""How a call ended, as the last lines of its event dump tell it."""

import json
from pathlib import Path
from typing import Any

import pytest

from dialbus.dumps import dump_path, last_hangup


def line(kind: str, **content: Any) -> bytes:
    return json.dumps({"type": kind, "timestamp": 1, "content": json.dumps(content)}).encode() + b"\n"


END = line("event", event="hangup", trackId="a/b@c", reason="byCaller")


@pytest.mark.parametrize(
    "after", [b"", line("command", command="hangup") + b"hangup {torn", b"hangup\x00\n[1]hangup\n"]
)
def test_the_main_tracks_hangup_is_found_among_the_last_lines(tmp_path: Path, after: bytes) -> None:
    path = dump_path(tmp_path, "a/b@c")
    path.write_bytes(b"x" * 200_000 + b"\n" + END + after)
    assert (last_hangup(path) or {})["reason"] == "byCaller"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        line("command", command="hangup"),
        line("event", event="hangup", trackId="server-side-track", refer=True),
        line("event", event="asrFinal", text="hangup"),
        END[:-9],
    ],
)
def test_a_dump_without_it_has_not_ended(tmp_path: Path, text: bytes) -> None:
    path = dump_path(tmp_path, "a/b@c")
    path.write_bytes(text)
    assert last_hangup(path) is None


def test_a_file_that_is_not_there_has_not_ended(tmp_path: Path) -> None:
    assert last_hangup(dump_path(tmp_path, "s.1")) is None
