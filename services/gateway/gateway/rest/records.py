"""`/api/records`: what the event dumps tell of calls (protocol 7.7)."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dialbus.dumps import SUFFIX, last_hangup
from gateway.rest.models import RecordedCall

MAX_RECORDS = 1000


def recorded_calls(folder: Path, live: Collection[str], limit: int = MAX_RECORDS) -> list[RecordedCall]:
    """One per dump, newest first, at most `limit`. `live`: file names (without suffix) of calls that go on.

    Does I/O, so it belongs in a thread. A file that vanishes meanwhile is left out.
    """
    newest = sorted(_dumps(folder), key=lambda found: (-found[0], found[1].name))[:limit]
    return [_summary(path, modified, live) for modified, path in newest]


def _dumps(folder: Path) -> Iterator[tuple[float, Path]]:
    try:
        paths = list(folder.glob(f"*{SUFFIX}"))
    except OSError:
        return
    for path in paths:
        try:
            yield path.stat().st_mtime, path
        except OSError:
            continue


def _summary(path: Path, modified: float, live: Collection[str]) -> RecordedCall:
    stem = path.name.removesuffix(SUFFIX)
    hangup = last_hangup(path)
    call_id, seconds, reason = stem, 0, None
    status: Any = "active" if stem in live else "incomplete"
    if hangup is not None and stem not in live:
        call_id = str(hangup["trackId"])
        seconds = _seconds(hangup.get("answerTime"), hangup.get("hangupTime"))
        status = "completed" if hangup.get("answerTime") else "unanswered"
        reason = str(hangup["reason"]) if "reason" in hangup else None
    date = datetime.fromtimestamp(modified, UTC).isoformat(timespec="microseconds")
    return RecordedCall(id=call_id, date=date, duration=f"{seconds}s", status=status, reason=reason)


def _seconds(answered: Any, ended: Any) -> int:
    try:
        return max(0, round((datetime.fromisoformat(ended) - datetime.fromisoformat(answered)).total_seconds()))
    except (TypeError, ValueError):
        return 0
