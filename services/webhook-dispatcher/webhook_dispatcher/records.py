"""Records of calls (CDR, protocol 9.4): where one is kept, and what becomes of one that could not be sent. Pure.

Nothing is remembered between attempts: how long to wait, and when to stop trying, follow from the age of the record. So
an attempt may be the work of any instance, also of one that was started in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from dialbus.contracts.records import CallRecord
from dialbus.filenames import file_safe

GIVE_UP_S = 3600.0
"""Age of a record from which on it is kept here instead."""
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 120.0
_UNDATED = "00000000-000000"


@dataclass(frozen=True, slots=True)
class Sent:
    """The target has it."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another attempt after so many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class KeepHere:
    """The target will not have it: write it to a local file, and tell the operator why."""

    reason: str


Verdict = Sent | TryAgain | KeepHere


def answered(status: int, age_s: float, jitter: float) -> Verdict:
    """What an answer means: 2xx is success; 429 and 5xx may be better later; any other answer is final."""
    if 200 <= status < 300:
        return Sent()
    reason = f"the target answered {status}"
    return not_answered(reason, age_s, jitter) if status == 429 or status >= 500 else KeepHere(reason)


def not_answered(reason: str, age_s: float, jitter: float, *, retry: bool = True) -> Verdict:
    """What no answer means. `jitter` from [0, 1) spreads the attempts for many records.

    A pause lasts as long as the record is old, within limits: that doubles it from attempt to attempt.
    """
    if not retry or age_s >= GIVE_UP_S:
        return KeepHere(reason)
    return TryAgain(min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, age_s)) * (0.75 + jitter / 2))


def age_s(record: CallRecord, now: datetime) -> float:
    """How long ago the call ended; one who does not say so is as old as can be."""
    ended = moment(record.end_time)
    return GIVE_UP_S if ended is None else max(0.0, (now - ended).total_seconds())


def local_path(root: Path, call_id: str, record: CallRecord, zone: tzinfo | None = None) -> Path:
    """`{root}/{YYYYMMDD}/{YYYYMMDD-HHMMSS}_{callId}.json`, by the start of the call in local time.

    `zone` None is that of this machine. A repeat of the same record has the same path.
    """
    started = moment(record.start_time)
    stamp = started.astimezone(zone).strftime("%Y%m%d-%H%M%S") if started else _UNDATED
    return root / stamp[:8] / f"{stamp}_{file_safe(call_id)}.json"


@dataclass(frozen=True, slots=True)
class Media:
    """A file that goes with a record."""

    part: str
    """Its name in the multipart body."""
    path: str
    content_type: str
    is_dump: bool = False


def media_of(record: CallRecord) -> Iterator[Media]:
    """The recordings and the event dump that a record names."""
    for item in record.recorder:
        if item.path:
            yield Media(f"media_{item.track_id}", item.path, "audio/wav")
    if record.dump_event_file:
        name = Path(record.dump_event_file).name
        yield Media(f"dump_events_{name}", record.dump_event_file, "application/x-ndjson", is_dump=True)


def moment(value: str) -> datetime | None:
    """An aware time from RFC 3339, or None."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None
