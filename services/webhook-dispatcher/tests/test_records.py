"""Where a record is kept and what becomes of an attempt, on paper."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dialbus.contracts.records import CallRecord, RecordedMedia
from webhook_dispatcher.records import (
    GIVE_UP_S,
    LONGEST_PAUSE_S,
    KeepHere,
    Media,
    Sent,
    TryAgain,
    age_s,
    answered,
    local_path,
    media_of,
    not_answered,
)

ROOT = Path("/cdr")
RECORD = CallRecord(
    call_type="sip",
    call_id="s.1",
    caller="sip:a@b",
    callee="sip:c@d",
    start_time="2026-03-04T09:15:20+00:00",
    end_time="2026-03-04T09:15:50+00:00",
    status_code=200,
)


def record(**fields: Any) -> CallRecord:
    """A record with some fields of its own."""
    return RECORD.model_copy(update=fields)


@pytest.mark.parametrize(
    ("call_id", "start", "path"),
    [
        ("s.1", "2026-03-04T23:15:20.1+00:00", "20260305/20260305-011520_s.1.json"),
        ("s.1", "2026-03-04T09:15:20-08:00", "20260304/20260304-191520_s.1.json"),
        ("s.1", "yesterday", "00000000/00000000-000000_s.1.json"),
        ("s.1", "", "00000000/00000000-000000_s.1.json"),
        ("s.1", "2026-03-04T09:15:20", "00000000/00000000-000000_s.1.json"),
    ],
)
def test_local_path_is_the_start_in_local_time_and_the_id(call_id: str, start: str, path: str) -> None:
    zone = timezone(timedelta(hours=2))
    assert local_path(ROOT, call_id, record(start_time=start), zone) == ROOT / path


@pytest.mark.parametrize("call_id", ["../../etc/passwd", "a/b", ".hidden", "\x00\n", "x" * 600])
def test_no_id_leaves_the_folder_or_hides_in_it(call_id: str) -> None:
    path = local_path(ROOT, call_id, RECORD, UTC)
    assert path.parent == ROOT / "20260304"
    assert path.name.startswith("20260304-091520_")
    assert len(path.name.encode()) <= 255


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, Sent()), (204, Sent()), (404, KeepHere("the target answered 404")),
     (302, KeepHere("the target answered 302")), (429, TryAgain(2.0)), (503, TryAgain(2.0))],
)  # fmt: skip
def test_answers(status: int, verdict: Any) -> None:
    assert answered(status, 1.0, 0.5) == verdict


def test_pauses_grow_with_age_up_to_a_limit_and_end_after_an_hour() -> None:
    now, pauses = 0.0, []
    while isinstance(verdict := not_answered("refused", now, 0.5), TryAgain):
        pauses.append(verdict.delay_s)
        now += verdict.delay_s
    assert verdict == KeepHere("refused")
    assert pauses[:7] == [2, 2, 4, 8, 16, 32, 64]
    assert set(pauses[8:]) == {LONGEST_PAUSE_S}
    assert GIVE_UP_S <= now < GIVE_UP_S + LONGEST_PAUSE_S
    assert not_answered("no such scheme", 0.0, 0.5, retry=False) == KeepHere("no such scheme")


def test_age_counts_from_the_end_of_the_call() -> None:
    now = datetime(2026, 3, 4, 9, 16, tzinfo=UTC)
    assert age_s(record(end_time="2026-03-04T10:15:30+01:00"), now) == 30.0
    assert age_s(record(end_time="2026-03-04T09:17:00+00:00"), now) == 0.0
    assert age_s(record(end_time=""), now) == GIVE_UP_S


def test_media_are_the_recordings_and_the_dump() -> None:
    empty = RecordedMedia(track_id="s.2", path="", size=0)
    recorded = [RecordedMedia(track_id="s.1", path="r/a.wav", size=44), empty]
    assert list(media_of(record(recorder=recorded, dump_event_file="r/s.1.events.jsonl"))) == [
        Media("media_s.1", "r/a.wav", "audio/wav"),
        Media("dump_events_s.1.events.jsonl", "r/s.1.events.jsonl", "application/x-ndjson", is_dump=True),
    ]
    assert list(media_of(RECORD)) == []
