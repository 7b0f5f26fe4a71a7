"""Event dumps (protocol 9.3) as others than their writer see them: where one lies, and how its call ended."""

import json
from pathlib import Path
from typing import Any

from dialbus.filenames import file_safe

SUFFIX = ".events.jsonl"
_TAIL_BYTES = 64 << 10


def dump_path(folder: Path, call_id: str) -> Path:
    """Where the event dump of a session lies below `recorder_path`."""
    return folder / f"{file_safe(call_id)}{SUFFIX}"


def last_hangup(path: Path) -> dict[str, Any] | None:
    """The `hangup` of the main track, after which nothing comes; None when the dump does not end with one.

    Reads the last 64 KiB only. A file that is not there, or is no dump, has none. Blocking; for a thread.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        event = _event(line) if b"hangup" in line else None
        if event is not None and event.get("event") == "hangup":
            track_id = event.get("trackId")
            # The main track has the session's id, and the file's name is made of that.
            if isinstance(track_id, str) and file_safe(track_id) == path.name.removesuffix(SUFFIX):
                return event
    return None


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        item = json.loads(line)
        content = json.loads(item["content"]) if item.get("type") == "event" else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
