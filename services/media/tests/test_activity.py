"""When a remote party that sends nothing is told."""

from dataclasses import dataclass

from media.leg.activity import Activity


@dataclass
class Remote:
    heard_at: float | None = None
    on_hold: bool = False
    ready: bool = True


def _activity(limit_s: float = 5.0) -> Activity:
    activity = Activity()
    activity.limit_s = limit_s
    activity.expect(100.0)
    return activity


def test_silence_is_told_once_when_it_is_longer_than_the_limit() -> None:
    activity, remote = _activity(), Remote(heard_at=101.0)
    assert activity.silent_for(remote, 106.0) is None
    assert activity.silent_for(remote, 106.5) == 5.5
    assert activity.silent_for(remote, 107.0) is None


def test_who_was_never_heard_is_missed_since_it_was_expected() -> None:
    activity = _activity()
    assert activity.silent_for(Remote(), 105.0) is None
    assert activity.silent_for(Remote(), 105.1) is not None


def test_a_party_on_hold_or_not_yet_connected_is_not_missed() -> None:
    activity = _activity()
    assert activity.silent_for(Remote(on_hold=True), 200.0) is None
    assert activity.silent_for(Remote(ready=False), 300.0) is None
    assert activity.silent_for(Remote(), 304.0) is None
    assert activity.silent_for(Remote(), 306.0) == 6.0


def test_nobody_is_missed_without_a_limit_or_before_the_media_is_agreed_on() -> None:
    assert _activity(0.0).silent_for(Remote(), 1e6) is None
    activity = Activity()
    activity.limit_s = 5.0
    assert activity.silent_for(Remote(), 1e6) is None
