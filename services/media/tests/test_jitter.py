"""The jitter buffer against the networks and senders it is made for, in virtual time."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.rtp.jitter import IDLE, MISSING, JitterBuffer, NoAudio, PacketJitterBuffer
from media.rtp.packet import RtpPacket

TICK = 0.02
FRAME = 160
Arrival = tuple[float, RtpPacket]


def octet(index: int) -> int:
    """What the sender says at the index-th unit of its clock; distinct for 251 frames' worth of positions."""
    return (index // FRAME) % 251


def packet(number: int, *, ptime_ms: int = 20, ssrc: int = 1, base: int = 0, first: int = 0) -> RtpPacket:
    units = ptime_ms * 8
    start = number * units
    payload = bytes(octet(start + offset) for offset in range(units))
    sequence, timestamp = (first + number) & 0xFFFF, (base + start) & 0xFFFFFFFF
    return RtpPacket(0, number == 0, sequence, timestamp, ssrc, payload)


def steady(count: int, *, ptime_ms: int = 20, base: int = 0, first: int = 0) -> list[Arrival]:
    return [
        (number * ptime_ms / 1000, packet(number, ptime_ms=ptime_ms, base=base, first=first)) for number in range(count)
    ]


def play(arrivals: Iterable[Arrival], ticks: int, buffer: JitterBuffer | None = None) -> list[bytes | NoAudio]:
    """What the ticks at 10, 30, 50 … ms give, with the packets put in by their times of arrival."""
    buffer = buffer or JitterBuffer()
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    frames = []
    for tick in range(ticks):
        now = tick * TICK + TICK / 2
        while waiting and waiting[0][0] <= now:
            arrival, data = waiting.pop(0)
            buffer.put(data, arrival)
        frames.append(buffer.get(now))
    return frames


def audio(frames: Iterable[bytes | NoAudio]) -> bytes:
    return b"".join(frame for frame in frames if isinstance(frame, bytes))


def said(count: int) -> bytes:
    return bytes(octet(index) for index in range(count * FRAME))


def test_nothing_received_is_idle() -> None:
    assert play([], 3) == [IDLE] * 3


@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 60])
@pytest.mark.parametrize(("base", "first"), [(0, 0), (0xFFFFFFFF - 4000, 0xFFFE)])
def test_steady_stream_is_played_whole_whatever_its_ptime(ptime_ms: int, base: int, first: int) -> None:
    count = 600 // ptime_ms
    buffer = JitterBuffer()
    frames = play(steady(count, ptime_ms=ptime_ms, base=base, first=first), 30, buffer)
    start = next(index for index, frame in enumerate(frames) if frame is not IDLE)
    assert start in (2, 3)
    assert audio(frames) == said(30 - start)
    assert buffer.statistics().concealed == 0


def test_reordered_packets_are_played_in_order() -> None:
    arrivals = steady(20)
    for index in range(2, 18, 4):
        arrivals[index], arrivals[index + 1] = (
            (arrivals[index][0], arrivals[index + 1][1]),
            (arrivals[index + 1][0], arrivals[index][1]),
        )
    buffer = JitterBuffer()
    assert audio(play(arrivals, 20, buffer)) == said(18)
    assert buffer.statistics().reordered == 4


def test_duplicates_are_played_once() -> None:
    buffer = JitterBuffer()
    arrivals = [arrival for arrival in steady(20) for _ in range(3)]
    assert audio(play(arrivals, 20, buffer)) == said(18)
    assert buffer.statistics().duplicates == 40
    assert buffer.statistics().lost == 0


def test_lost_packet_is_missing_in_its_place() -> None:
    buffer = JitterBuffer()
    frames = play([a for a in steady(20) if a[1].sequence != 5], 20, buffer)
    assert frames.index(MISSING) == 7
    assert frames.count(MISSING) == 1
    assert audio(frames) == said(18)[: 5 * FRAME] + said(18)[6 * FRAME :]
    assert buffer.statistics().lost == 1


def test_marker_after_a_hole_tells_silence_even_where_a_packet_was_lost() -> None:
    arrivals = [(at, d._replace(marker=True) if d.sequence == 6 else d) for at, d in steady(20) if d.sequence != 5]
    assert MISSING not in play(arrivals, 20, JitterBuffer(min_delay=0.12))


def test_lost_burst_leaves_what_follows_at_its_time() -> None:
    buffer = JitterBuffer()
    frames = play([a for a in steady(30) if not 10 <= a[1].sequence < 14], 30, buffer)
    assert frames[12:16] == [MISSING] * 4
    assert frames[16] == packet(14).payload
    assert buffer.statistics().concealed == 4


def test_packet_after_its_time_is_late_and_dropped() -> None:
    buffer = JitterBuffer()
    arrivals = [(at + 0.1 if data.sequence == 5 else at, data) for at, data in steady(20)]
    frames = play(arrivals, 20, buffer)
    assert frames.count(MISSING) == 1
    assert buffer.statistics().late == 1


def test_lost_half_of_a_frame_is_filled_from_the_other() -> None:
    frames = play([a for a in steady(40, ptime_ms=10) if a[1].sequence != 11], 20)
    assert MISSING not in frames
    assert audio(frames) == said(18)


def test_delay_spike_stretches_then_loses_nothing_and_the_delay_comes_back() -> None:
    buffer = JitterBuffer()
    arrivals = [(max(at, 1.1) if 1.0 <= at < 1.1 else at, data) for at, data in steady(700)]
    frames = play(arrivals, 700, buffer)
    statistics = buffer.statistics()
    assert statistics.late == 0
    assert 1 <= statistics.concealed <= 4
    assert audio(frames)[: 200 * FRAME] == said(200)
    assert statistics.skipped == pytest.approx(statistics.concealed, abs=1)
    assert statistics.target_delay == pytest.approx(0.04)


@pytest.mark.parametrize(("jitter", "low", "high"), [(0.0, 0.04, 0.04), (0.08, 0.06, 0.1), (0.5, 0.2, 0.2)])
def test_target_follows_the_jitter_between_its_bounds(jitter: float, low: float, high: float) -> None:
    draw = random.Random(1)
    buffer = JitterBuffer()
    play([(at + draw.uniform(0, jitter), data) for at, data in steady(400)], 400, buffer)
    assert low <= buffer.statistics().target_delay <= high + 1e-9


def test_jitter_within_the_adapted_delay_costs_little() -> None:
    draw = random.Random(2)
    buffer = JitterBuffer()
    play([(at + draw.uniform(0, 0.08), data) for at, data in steady(500)], 500, buffer)
    statistics = buffer.statistics()
    assert statistics.concealed + statistics.late <= 10


def test_silence_between_talk_spurts_is_idle_not_loss() -> None:
    spurt = steady(20)
    later = [(at + 1.0, d._replace(sequence=d.sequence + 20, timestamp=d.timestamp + 8000)) for at, d in steady(20)]
    buffer = JitterBuffer()
    frames = play(spurt + later, 90, buffer)
    assert audio(frames) == said(20) * 2
    assert frames[40] is IDLE
    assert buffer.statistics().lost == 0


def test_short_pause_with_later_audio_buffered_is_idle() -> None:
    arrivals = steady(10)
    for number in range(10, 20):
        moved = packet(number)._replace(timestamp=(number + 3) * FRAME)
        arrivals.append(((number + 3) * TICK, moved))
    frames = play(arrivals, 29, JitterBuffer(min_delay=0.12))
    assert audio(frames) == said(20)
    assert MISSING not in frames


def test_events_between_audio_are_not_lost_audio() -> None:
    buffer = JitterBuffer()
    frames: list[bytes | NoAudio] = []
    for tick in range(30):
        now = tick * TICK
        if 10 <= tick < 15:
            event = RtpPacket(101, False, tick, 10 * FRAME, 1, bytes(4))
            buffer.put_event(event, now)
        else:
            buffer.put(packet(tick), now)
        frames.append(buffer.get(now + TICK / 2))
    assert buffer.statistics().lost == 0
    assert audio(frames)[: 10 * FRAME] == said(10)
    assert audio(frames)[10 * FRAME :].startswith(bytes([octet(15 * FRAME)]) * FRAME)


@pytest.mark.parametrize("change", [{"ssrc": 2}, {"base": 500_000}, {"base": -400_000}])
def test_new_ssrc_or_timeline_starts_afresh(change: dict[str, int]) -> None:
    buffer = JitterBuffer()
    first = [(at, d._replace(timestamp=d.timestamp + 1_000_000, sequence=d.sequence + 100)) for at, d in steady(50)]
    second = []
    for number in range(50, 100):
        moved = packet(number)
        timestamp = moved.timestamp + 1_000_000 + change.get("base", 0)
        moved = moved._replace(timestamp=timestamp, sequence=number + 100, ssrc=change.get("ssrc", 1))
        second.append((number * TICK, moved))
    frames = play(first + second, 100, buffer)
    assert buffer.statistics().restarts == 1
    assert len(audio(frames)) >= 94 * FRAME
    assert buffer.statistics().lost == 0


def test_sender_that_starts_its_sequence_anew_is_followed_at_the_second_packet() -> None:
    buffer = JitterBuffer()
    again = [(at + 1.0, d._replace(sequence=(d.sequence + 30000) & 0xFFFF)) for at, d in steady(50)]
    frames = play(steady(50) + again, 100, buffer)
    assert buffer.statistics().restarts == 1
    assert len(audio(frames)) >= 92 * FRAME


def test_one_stray_sequence_number_changes_nothing() -> None:
    buffer = JitterBuffer()
    stray = (0.2, packet(3)._replace(sequence=40000))
    assert audio(play([*steady(20), stray], 20, buffer)) == said(18)
    assert buffer.statistics().discarded == 1


def test_clock_that_stood_still_through_silence_is_measured_afresh() -> None:
    buffer = JitterBuffer()
    resumed = [(number * TICK + 0.6, packet(number)) for number in range(20, 80)]
    frames = play(steady(20) + resumed, 112, buffer)
    assert audio(frames) == said(80)
    assert buffer.statistics().late == 0


def test_outage_that_ends_in_a_burst_does_not_leave_the_delay() -> None:
    buffer = JitterBuffer()
    arrivals = [(max(at, 1.8) if 1.0 <= at < 1.8 else at, data) for at, data in steady(200)]
    play(arrivals, 200, buffer)
    late_packet = packet(200)
    buffer.put(late_packet, 200 * TICK)
    heard_after = next(n for n in range(40) if buffer.get(200 * TICK + TICK / 2 + n * TICK) == late_packet.payload)
    assert heard_after <= 11


def test_memory_is_bounded_when_nobody_plays() -> None:
    buffer = JitterBuffer()
    for at, data in steady(1000):
        buffer.put(data, at)
    assert buffer.statistics().discarded >= 1000 - 128


def test_payloads_of_no_or_absurd_length_are_dropped() -> None:
    buffer = JitterBuffer()
    for number, size in enumerate((0, 60000)):
        buffer.put(RtpPacket(0, False, number, number * FRAME, 1, bytes(size)), number * TICK)
    assert buffer.get(1.0) is IDLE
    assert buffer.statistics().discarded == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers(0, 0xFFFF) | st.integers(0, 40),
            st.integers(0, 0xFFFFFFFF) | st.integers(0, 8000),
            st.integers(1, 2),
            st.binary(max_size=500),
        ),
        max_size=60,
    )
)
def test_whatever_arrives_every_tick_gives_one_whole_frame_or_none(raw: list[tuple[int, int, int, int, bytes]]) -> None:
    arrivals = [(at * TICK, RtpPacket(0, False, seq, ts, ssrc, payload)) for at, seq, ts, ssrc, payload in raw]
    for frame in play(arrivals, 60):
        assert isinstance(frame, NoAudio) or len(frame) == FRAME


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.19), st.booleans()), min_size=30, max_size=60))
def test_audio_is_never_repeated_nor_out_of_order(network: list[tuple[float, bool]]) -> None:
    arrivals = [(n * TICK + delay, packet(n)) for n, (delay, kept) in enumerate(network) if kept]
    numbers = [frame[0] for frame in play(arrivals, 80) if isinstance(frame, bytes)]
    assert numbers == sorted(set(numbers))


def opus_like(number: int, ptime_ms: int, *, marker: bool = False) -> RtpPacket:
    """A packet whose payload only tells its number and length, as Opus does."""
    return RtpPacket(111, marker, number, number * ptime_ms * 48, 1, bytes([number, ptime_ms]))


def whole_packets() -> PacketJitterBuffer:
    return PacketJitterBuffer(lambda payload: payload[1] * 48, clock_rate_hz=48000)


def play_whole(buffer: PacketJitterBuffer, arrivals: list[Arrival], ticks: int) -> list[bytes | NoAudio]:
    """Ask for a packet whenever the audio of the last one is used up, 20 ms a tick."""
    frames: list[bytes | NoAudio] = []
    decoded_ms = 0
    for tick in range(ticks):
        now = tick * TICK + TICK / 2
        while arrivals and arrivals[0][0] <= now:
            arrival, data = arrivals.pop(0)
            buffer.put(data, arrival)
        while decoded_ms < 20:
            frame = buffer.get(now)
            frames.append(frame)
            if frame is IDLE:
                decoded_ms = 20
            else:
                decoded_ms += frame[1] if isinstance(frame, bytes) else 20
        decoded_ms -= 20
    return frames


@pytest.mark.parametrize("ptime_ms", [10, 20, 40, 60])
def test_packets_that_cannot_be_cut_come_out_whole_and_in_order(ptime_ms: int) -> None:
    count = 1200 // ptime_ms
    arrivals = [(number * ptime_ms / 1000, opus_like(number, ptime_ms)) for number in range(count)]
    if ptime_ms <= 20:  # a longer one that comes after its successor is late
        arrivals[3], arrivals[4] = (arrivals[3][0], arrivals[4][1]), (arrivals[4][0], arrivals[3][1])
    buffer = whole_packets()

    frames = play_whole(buffer, arrivals, 60)

    heard = [frame[0] for frame in frames if isinstance(frame, bytes)]
    assert heard == list(range(len(heard)))
    assert len(heard) * ptime_ms > 1050
    assert buffer.statistics().concealed == 0


def test_a_lost_whole_packet_is_missing_for_its_time() -> None:
    arrivals = [(number * 0.04, opus_like(number, 40)) for number in range(20) if number != 7]

    frames = play_whole(whole_packets(), arrivals, 40)

    start = frames.index(bytes([6, 40]))
    assert frames[start : start + 4] == [bytes([6, 40]), MISSING, MISSING, bytes([8, 40])]


def test_a_payload_of_no_length_is_discarded() -> None:
    buffer = whole_packets()

    frames = play_whole(buffer, [(0.0, opus_like(0, 0))], 10)

    assert set(frames) == {IDLE}
    assert buffer.statistics().discarded == 1


def test_jitter_is_told_in_seconds_of_the_streams_clock() -> None:
    buffer = whole_packets()
    for number in range(200):
        buffer.put(opus_like(number, 20), number * 0.02 + (0.005 if number % 2 else 0))

    assert buffer.statistics().jitter_seconds == pytest.approx(0.005, rel=0.1)
    assert buffer.statistics().jitter_units == pytest.approx(240, rel=0.1)
