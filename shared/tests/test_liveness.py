"""Who is alive, by heartbeats."""

from dialbus.liveness import Liveness


def test_a_worker_that_falls_silent_is_lost_once() -> None:
    liveness = Liveness(1.0)
    liveness.heard("media-1", 10.0)
    liveness.heard("media-2", 13.0)
    assert liveness.lost(14.0) == set()
    assert liveness.lost(14.1) == {"media-1"}
    assert liveness.lost(14.2) == set()
    assert liveness.lost(17.1) == {"media-2"}


def test_while_nobody_can_be_heard_nobody_is_lost() -> None:
    liveness = Liveness(1.0)
    liveness.heard("media-1", 10.0)
    liveness.deaf(20.0)
    assert liveness.lost(23.0) == set()
    assert liveness.lost(24.5) == {"media-1"}


def test_who_has_just_begun_to_listen_cannot_tell_that_somebody_is_gone() -> None:
    liveness = Liveness(1.0)
    assert not liveness.is_gone("gateway-1", 100.0)
    assert not liveness.is_gone("gateway-1", 104.0)
    assert liveness.is_gone("gateway-1", 104.1)
    liveness.heard("gateway-1", 104.2)
    assert not liveness.is_gone("gateway-1", 108.0)
    liveness.deaf(120.0)
    assert not liveness.is_gone("gateway-2", 123.0)
    assert liveness.is_gone("gateway-2", 124.5)
