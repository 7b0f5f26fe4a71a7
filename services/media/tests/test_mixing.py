"""What a remote party hears: sums of sources, each of a track that may be muted."""

import numpy as np
import pytest

from media.mix.mixing import Ambiance, BridgedPartySource, Mix, RemotePartySource

SERVER = "server-side-track"
RATE_HZ = 8000
FRAME = np.full(160, 1000, np.int16)


class Other:
    """A leg whose party says what the test wants."""

    def __init__(self, party: np.ndarray | None = None, rate_hz: int = RATE_HZ) -> None:
        self.remote_party = party
        self.rate_hz = rate_hz


def heard(frame: np.ndarray | None) -> np.ndarray:
    assert frame is not None
    return frame


@pytest.fixture
def mix() -> Mix:
    return Mix(SERVER)


def test_playback_alone_is_handed_on_as_it_is(mix: Mix) -> None:
    assert mix.next_frame(FRAME, RATE_HZ, ()) is FRAME
    assert mix.next_frame(None, RATE_HZ, ()) is None
    assert mix.next_frame(FRAME, RATE_HZ, {SERVER}) is None


def test_sources_add_up_and_saturate(mix: Mix) -> None:
    for name, level in (("a", 20000), ("b", 20000)):
        mix.put(name, RemotePartySource(name, Other(np.full(160, level, np.int16))))

    assert set(heard(mix.next_frame(None, RATE_HZ, {"b"}))) == {20000}
    assert set(heard(mix.next_frame(FRAME, RATE_HZ, {"b"}))) == {21000}
    assert set(heard(mix.next_frame(FRAME, RATE_HZ, ()))) == {32767}
    mix.drop("a")
    mix.drop("b")
    assert mix.next_frame(FRAME, RATE_HZ, ()) is FRAME


@pytest.mark.parametrize(("theirs", "ours"), [(8000, 16000), (16000, 8000)])
def test_a_party_at_another_rate_is_converted_to_its_very_end(theirs: int, ours: int) -> None:
    other = Other(np.full(theirs // 50, 8000, np.int16), theirs)
    source = RemotePartySource(SERVER, other)

    frames = [heard(source.next_frame(ours)) for _ in range(3)]
    other.remote_party = None
    tail, silence = heard(source.next_frame(ours)), source.next_frame(ours)

    assert {len(frame) for frame in [*frames, tail]} == {ours // 50}
    assert np.allclose(frames[2], 8000, atol=80)
    assert tail[:4].any()
    assert not tail[40:].any()
    assert silence is None


def test_a_remote_party_begins_when_a_little_is_there_and_keeps_its_order() -> None:
    source = BridgedPartySource("bridge")
    assert source.next_frame(RATE_HZ) is None
    source.put(RATE_HZ, FRAME)
    assert source.next_frame(RATE_HZ) is None, "one frame is no reserve"
    source.put(RATE_HZ, FRAME * 2)

    assert [heard(source.next_frame(RATE_HZ))[0] for _ in range(2)] == [1000, 2000]
    assert source.next_frame(RATE_HZ) is None
    source.put(RATE_HZ, FRAME)
    assert source.next_frame(RATE_HZ) is None, "after a gap it begins anew"


def test_a_remote_party_is_never_more_than_100_ms_late() -> None:
    source = BridgedPartySource("bridge")
    waiting = []
    for number in range(200):  # two frames come for each one that is played
        source.put(RATE_HZ, np.full(320, number, np.int16))
        frame = source.next_frame(RATE_HZ)
        waiting.append(0 if frame is None else number - int(frame[0]))

    assert max(waiting) <= BridgedPartySource.MAX_FRAMES // 2
    assert source.dropped > 100


def test_pieces_of_any_length_from_another_rate_become_frames() -> None:
    source = BridgedPartySource("bridge")
    source.put(16000, np.full(640, 5000, np.int16))
    frames = [heard(source.next_frame(RATE_HZ)) for _ in range(2)]
    assert [len(frame) for frame in frames] == [160, 160]
    source.put(16000, np.zeros(17, np.int16))
    assert source.next_frame(RATE_HZ) is None


def test_ambiance_goes_round_steps_back_for_speech_and_returns(mix: Mix) -> None:
    mix.ambiance = Ambiance(np.full(170, 10000, np.int16), normal=0.3, ducked=0.1, transition=0.5)
    other = Other()
    mix.put("join", RemotePartySource("join", other))

    levels = [heard(mix.next_frame(None, RATE_HZ, ()))[-1] for _ in range(3)]
    assert levels == [3000, 3000, 3000]
    ducked = [heard(mix.next_frame(FRAME, RATE_HZ, ()))[-1] - 1000 for _ in range(12)]
    assert ducked[0] == pytest.approx(2000, abs=20), "half of the way in 20 ms"
    assert ducked[-1] == pytest.approx(1000, abs=5)
    other.remote_party = np.full(160, 200, np.int16)
    quiet = [heard(mix.next_frame(None, RATE_HZ, ()))[-1] - 200 for _ in range(12)]
    assert quiet[-1] == pytest.approx(3000, abs=10), "the hiss of a joined line is no speech"
    other.remote_party = np.full(160, -5000, np.int16)
    loud = [heard(mix.next_frame(None, RATE_HZ, ()))[-1] + 5000 for _ in range(12)]
    assert loud[-1] == pytest.approx(1000, abs=5)
    assert mix.next_frame(FRAME, RATE_HZ, {SERVER, "join"}) is None, "it is of the server-side track"


def test_the_loop_has_no_seam() -> None:
    ramp = np.arange(0, 30000, 100, dtype=np.int16)
    ambiance = Ambiance(ramp, normal=1.0, ducked=1.0, transition=0.1)
    heard = np.concatenate([ambiance.next_frame(160, duck=False) for _ in range(5)])
    assert heard.tolist() == [int(ramp[n % 300]) for n in range(800)]
