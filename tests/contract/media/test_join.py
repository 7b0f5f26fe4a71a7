"""Two parties that hear each other: a transfer's legs, joined on one worker (protocol 6, P-77, P-84, X-09)."""

import struct
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dialbus.bus import Bus, Refused
from dialbus.contracts.media import JoinLegs
from tests.contract.media.conftest import SERVER, Dial, FakeAsr, FakeTts
from tests.harness import eventually
from tests.peers.rtp import TELEPHONE_EVENT, Packet, Pcm, RtpPeer, strength, tone, voice

JFK = Path(__file__).parents[2] / "data" / "voices" / "jfk.wav"


def _tone(text: str, rate_hz: int) -> Pcm:
    """Texts are `<frequency> <seconds>`."""
    frequency, seconds = text.split()
    return tone(float(frequency), float(seconds), rate_hz, 0.3)


@pytest.mark.parametrize(("first", "second"), [("pcmu", "g722"), ("g722", "pcma"), ("pcmu", "opus")])
async def test_both_hear_each_other_and_speech_is_for_the_first_party_only(
    bus: Bus, dial: Dial, media_env: dict[str, str], first: str, second: str
) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial(first)
    await call.configure(recorder={"samplerate": 16000})
    target = await call.beside(second)

    async with call.phone.humming(500), target.phone.humming(900):
        await call.join(target)
        await call.hears(900)
        await target.hears(500)
        await call.do("tts", text="700 0.7")
        await call.hears(900, 700)
        assert target.phone.notes()(500), "what is said to the first party is not said to the second"
        await call.until("trackEnd")
        await call.hears(900)
        assert target.phone.notes()(500), "the join outlives the playback"
    await target.close()
    await call.hears()
    await call.close()

    with wave.open(str(Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav")) as file:
        channels = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    left, right = ({note: strength(channel, 16000, note) for note in (500, 700, 900)} for channel in channels.T)
    assert left[500] > 0.1 > 0.01 > max(left[700], left[900])
    assert min(right[900], right[700]) > 0.03 > 0.01 > right[500]


async def test_early_media_is_heard_one_way_until_the_answer(dial: Dial) -> None:
    call = await dial()
    target = await call.beside()

    async with call.phone.humming(500), target.phone.humming(900):
        await call.join(target, one_way=True)
        await call.hears(900)
        assert target.phone.notes()()
        await call.join(target)
        await target.hears(500)
        await call.hears(900)


async def test_who_is_muted_or_held_is_silent_to_the_other(dial: Dial) -> None:
    call = await dial()
    target = await call.beside()

    async with call.phone.humming(500), target.phone.humming(900):
        await call.join(target)
        await call.hears(900)
        await target.hears(500)

        await call.do("mute", trackId=SERVER)
        await call.hears()
        assert target.phone.notes()(500)
        await call.do("mute", trackId=call.call_id)
        await target.hears()
        await call.join(target)  # a flag of the ids, not of what happens to carry them
        await call.do("unmute", trackId=SERVER)
        await call.hears(900)
        assert target.phone.notes()()
        await call.do("unmute")
        await target.hears(500)

        await target.connect(on_hold=True, direction="recvonly")
        await call.hears()
        await target.connect()
        await call.hears(900)


async def test_keys_reach_the_other_party_as_telephone_events(dial: Dial) -> None:
    call = await dial()
    target = await call.beside("g722")
    async with call.phone.humming(500), target.phone.humming(900):
        await call.join(target)
        await call.hears(900)
        await target.phone.press("5")
        await target.phone.press("5")
        pressed = await call.until("dtmf", 2)
        await eventually(lambda: len(_events(call.phone)) >= 14, what="two keys")

    assert (pressed["digit"], pressed["trackId"], pressed["refer"]) == ("5", SERVER, True)
    packets = _events(call.phone)
    first, second = packets[:7], packets[7:]
    for press in (first, second):
        assert [packet.marker for packet in press] == [True] + [False] * 6
        assert len({packet.timestamp for packet in press}) == 1
        assert all(b.sequence - a.sequence & 0xFFFF == 1 for a, b in pairwise(press)), "no audio in between"
        fields = [struct.unpack("!BBH", packet.payload) for packet in press]
        assert [duration for _, _, duration in fields] == [160, 320, 480, 640, 800, 800, 800]
        assert [bool(flags & 0x80) for _, flags, _ in fields] == [False] * 4 + [True] * 3
        assert {event for event, _, _ in fields} == {5}
    assert second[0].timestamp - first[0].timestamp & 0xFFFFFFFF >= 7 * 160 + 40 * 8
    behind = next(packet for packet in call.phone.heard if packet.sequence == first[-1].sequence + 1 & 0xFFFF)
    assert behind.marker, "the audio behind a key is a new talk spurt"
    assert behind.timestamp - first[0].timestamp & 0xFFFFFFFF == 7 * 160


@pytest.mark.parametrize("reason", ["not wanted", "not negotiated", "muted"])
async def test_keys_stay_where_they_are(dial: Dial, reason: str) -> None:
    call = await dial()
    target = await call.beside()
    if reason == "not negotiated":
        await call.connect(telephone_event_pt=None)
    if reason == "muted":
        await call.do("mute", trackId=SERVER)
    await call.join(target, forward_dtmf=reason != "not wanted")

    await target.phone.press("7")
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 10)

    assert len(call.named("dtmf")) == (reason != "muted")
    assert not _events(call.phone)


async def test_each_leg_is_recognised_apart_and_the_first_one_pauses_for_the_join(bus: Bus, dial: Dial) -> None:
    asr = await FakeAsr(bus, text="my fellow Americans").start()
    call = await dial()
    target = await call.beside("g722")
    await call.configure(asr={})
    await target.configure(asr={}, vad={"silencePadding": 300})
    await eventually(lambda: len(asr.opened) == 2, what="two sessions")
    await call.join(target, pause_asr=True)

    speech = voice(JFK, 8000)[: int(3.2 * 8000)], voice(JFK, 16000)[: int(3.2 * 16000)]
    await target.phone.speak(speech[1])
    final = await call.until("asrFinal")
    assert len({request.track for request in asr.opened}) == 2
    assert (final["trackId"], final["refer"]) == (SERVER, True)
    spoken = await call.until("silence")
    assert all(event["refer"] and event["trackId"] == SERVER for event in [*call.named("speaking"), spoken])

    await call.phone.speak(speech[0])
    await target.close()
    assert len(call.named("asrFinal")) == 1
    await call.phone.speak(speech[0])
    again = await call.until("asrFinal", 2)
    assert (again["trackId"], again["index"], "refer" in again) == (call.call_id, 0, False)


async def test_a_join_needs_two_legs(bus: Bus, dial: Dial) -> None:
    call = await dial()

    for other, code in (("refer", 404), ("main", 400)):
        with pytest.raises(Refused) as refused:
            await bus.request(JoinLegs(call_id=call.call_id, other_leg=other))
        assert refused.value.code == code


def _events(phone: RtpPeer) -> list[Packet]:
    return [packet for packet in phone.heard if packet.payload_type == TELEPHONE_EVENT]
