"""Muting by track id, over all legs of a call."""

from dialbus.contracts.commands import Mute, Unmute
from media.leg.muting import Muting
from media.mix.mixing import BridgedPartySource, Mix


def test_only_tracks_that_the_leg_has_are_muted() -> None:
    muting = Muting("main", "server", Mix("server"))
    muting.apply(Mute(track_id="main"))
    muting.apply(Mute(track_id="nobody's"))
    assert muting.tracks == {"main"}
    muting.apply(Unmute(track_id="main"))
    assert muting.tracks == set()


def test_without_an_id_all_of_them_are_meant_bridged_ones_too() -> None:
    mix = Mix("server")
    mix.put("bridge", BridgedPartySource("bridge:a:to:b"))
    muting = Muting("main", "server", mix)
    muting.apply(Mute())
    assert muting.tracks == {"main", "server", "bridge:a:to:b"}
    muting.apply(Unmute())
    assert muting.tracks == set()


def test_all_legs_of_a_call_share_what_is_muted() -> None:
    first = Muting("main", "server", Mix("server"))
    second = Muting("server", "server", Mix("server"), first.tracks)
    second.apply(Mute(track_id="server"))
    assert "server" in first.tracks
