"""A leg on the network and in the service: who is believed, what is recorded, how it ends."""

import asyncio
import os
import struct
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dialbus.bus import Bus, Refused
from dialbus.contracts.media import AllocateLeg
from tests.contract.media.conftest import SERVER, Dial, FakeTts
from tests.harness import eventually
from tests.peers.rtp import loud, open_peer, tone


async def test_a_leg_sends_silence_from_the_start_in_even_packets(dial: Dial) -> None:
    call = await dial()

    packets = await call.phone.packets(25)

    assert packets[0].marker
    assert {packet.payload_type for packet in packets} == {0}
    assert {packet.payload for packet in packets} == {b"\xff" * 160}
    steps = [(b.sequence - a.sequence & 0xFFFF, b.timestamp - a.timestamp & 0xFFFFFFFF)
             for a, b in pairwise(packets)]  # fmt: skip
    assert set(steps) == {(1, 160)}
    assert packets[24].at - packets[0].at == pytest.approx(0.48, abs=0.2)
    assert call.allocated.port % 2 == 0
    assert call.allocated.address == "127.0.0.1"


async def test_media_ready_comes_once_with_the_first_valid_packet(dial: Dial) -> None:
    call = await dial()

    for data in (
        b"",
        b"\x80",
        b"noise" * 400,
        os.urandom(172),
        struct.pack("!BBHII", 0x80, 77, 1, 1, 1) + b"\xff" * 160,
    ):
        call.phone.send(data)
    await call.phone.packets(len(call.phone.heard) + 5)
    assert not call.events
    await call.phone.speak(np.zeros(8000 // 5, np.int16))
    await call.until("mediaReady")
    await call.phone.packets(len(call.phone.heard) + 5)

    assert [event["event"] for event in call.events] == ["mediaReady"]


async def test_a_stranger_neither_injects_audio_nor_draws_ours(dial: Dial, media_env: dict[str, str]) -> None:
    call = await dial()
    await call.configure(recorder={"samplerate": 8000})
    stranger = await open_peer()
    stranger.remote = call.phone.remote
    await call.phone.speak(np.zeros(8000 // 5, np.int16))
    await call.until("mediaReady")

    await asyncio.gather(call.phone.speak(np.zeros(8000, np.int16)), stranger.speak(tone(440, 1.0, 8000)))
    stranger.close()
    await call.close()

    assert not stranger.heard
    path = Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav"
    assert not _channels(path)[:, 0].any()


async def test_connect_anew_moves_the_audio(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, lambda _, rate_hz: tone(700, 0.5, rate_hz)).start()
    call = await dial()
    await call.phone.packets(5)
    other = await open_peer("g722")
    other.remote = call.phone.remote

    host, port = other.address
    await call.connect(address=host, port=port, codec="g722", payload_type=9)
    await other.packets(5)
    await call.do("tts", text="x")
    await call.until("trackEnd")

    seconds, frequency = loud(other.audio(), 16000)
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert frequency == pytest.approx(700, abs=2)
    other.close()


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
async def test_nothing_is_sent_when_the_direction_forbids_it(dial: Dial, direction: str) -> None:
    call = await dial()
    await call.phone.packets(5)

    await call.connect(direction=direction, on_hold=True)
    heard = len(call.phone.heard)
    await call.phone.speak(np.zeros(8000 // 2, np.int16))
    assert len(call.phone.heard) <= heard + 2
    await call.connect()

    packets = await call.phone.packets(heard + 10)
    resumed = packets[heard + 3]
    assert any(packet.marker for packet in packets[heard : heard + 4])
    assert resumed.timestamp - packets[heard - 1].timestamp & 0xFFFFFFFF > 20 * 160


async def test_the_recording_has_the_caller_left_and_the_server_right(
    bus: Bus, dial: Dial, media_env: dict[str, str]
) -> None:
    await FakeTts(bus, lambda _, rate_hz: tone(900, 0.6, rate_hz)).start()
    call = await dial()
    await call.configure(recorder={"recorderFile": "calls/{id}-r", "samplerate": 16000})

    await asyncio.gather(call.do("tts", text="x"), call.phone.speak(tone(400, 1.2, 8000)))
    await call.until("trackEnd")
    await call.close()

    path = Path(media_env["DIALBUS_RECORDER_PATH"]) / "calls" / f"{call.call_id}-r.wav"
    audio = _channels(path)
    left, right = loud(audio[:, 0], 16000), loud(audio[:, 1], 16000)
    assert left[0] == pytest.approx(1.2, abs=0.1)
    assert left[1] == pytest.approx(400, abs=2)
    assert right[0] == pytest.approx(0.6, abs=0.02)
    assert right[1] == pytest.approx(900, abs=2)


async def test_a_caller_on_hold_is_recorded_as_silence(dial: Dial, media_env: dict[str, str]) -> None:
    call = await dial(connect=False)
    await call.configure(recorder={})
    await call.connect(on_hold=True, direction="recvonly")

    await call.phone.speak(tone(400, 0.4, 8000))
    await call.close()

    audio = _channels(Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav")
    assert len(audio) > 16000 * 0.3
    assert not audio.any()


async def test_lost_packets_are_concealed(dial: Dial, media_env: dict[str, str]) -> None:
    call = await dial()
    await call.configure(recorder={"samplerate": 8000})
    frames = [call.phone.frame(tone(400, 0.8, 8000)[start : start + 160]) for start in range(0, 6400, 160)]

    for index, frame in enumerate(frames):
        if index % 10 != 5:
            call.phone.send(frame)
        await call.phone.packets(len(call.phone.heard) + 1)
    await call.phone.packets(len(call.phone.heard) + 10)
    await call.close()

    left = _channels(Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav")[:, 0]
    sounding = np.flatnonzero(np.abs(left) > 4000)
    assert (sounding[-1] - sounding[0]) / 8000 == pytest.approx(0.8, abs=0.05)
    assert np.diff(sounding).max() < 160, "no hole of a frame"


async def test_a_recording_that_cannot_be_written_is_an_error_and_the_call_goes_on(
    dial: Dial, media_env: dict[str, str]
) -> None:
    folder = Path(media_env["DIALBUS_RECORDER_PATH"])
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
    (folder / "in-the-way").write_text("no folder")
    call = await dial()

    await call.configure(recorder={"recorderFile": "in-the-way/{id}"})
    error = await call.until("error")

    assert error["sender"] == "recorder"
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 5)


async def test_sender_reports_come_and_say_how_the_caller_is_received(dial: Dial) -> None:
    call = await dial()

    await call.phone.speak(np.zeros(8000 * 11 // 2, np.int16))
    await eventually(lambda: call.phone.control, what="an RTCP report")

    report = call.phone.control[0]
    assert report[1] == 200
    assert struct.unpack_from("!I", report, 4)[0] == call.allocated.ssrc
    assert report[0] & 31 == 1
    assert struct.unpack_from("!I", report, 28)[0] == call.phone.ssrc
    assert report[32] == 0, "nothing was lost"


async def test_ten_legs_hear_only_their_own_tone(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, lambda text, rate_hz: tone(float(text), 1.0, rate_hz)).start()
    calls = [await dial(codec) for codec in ("pcmu", "pcma", "g722", "pcmu", "pcma") * 2]

    await asyncio.gather(*(call.do("tts", text=str(300 + 100 * index)) for index, call in enumerate(calls)))
    await asyncio.gather(*(call.until("trackEnd") for call in calls))

    for index, call in enumerate(calls):
        seconds, frequency = loud(call.phone.audio(), call.phone.rate_hz)
        assert seconds == pytest.approx(1.0, abs=0.01)
        assert frequency == pytest.approx(300 + 100 * index, abs=1)


async def test_a_call_has_one_leg_and_a_closed_leg_is_gone(bus: Bus, dial: Dial) -> None:
    call = await dial()
    request = AllocateLeg(call_id=call.call_id, main_track="m", server_track=SERVER)

    with pytest.raises(Refused) as refused:
        await bus.request(request)
    assert refused.value.code == 409
    await call.close()
    heard = len(call.phone.heard)
    again = await bus.request(request)

    assert again.ssrc != call.allocated.ssrc
    assert len(call.phone.heard) <= heard + 1
    call.closed = False


async def test_a_closed_leg_tells_its_recording(dial: Dial, media_env: dict[str, str]) -> None:
    call, plain = await dial(), await dial()
    await call.configure(recorder={"samplerate": 8000})
    await call.phone.speak(tone(400, 0.3, 8000))

    closed = await call.close()

    path = Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav"
    assert [(file.track_id, file.path) for file in closed.recordings] == [(call.call_id, str(path))]
    assert closed.recordings[0].size_bytes == path.stat().st_size > 4 * 8000 * 0.2
    assert (await plain.close()).recordings == ()


async def test_a_second_leg_is_taken_beside_the_first_and_is_driven_apart(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, lambda text, rate_hz: tone(float(text), 0.3, rate_hz)).start()
    call = await dial()
    other = await call.beside("g722")

    assert other.allocated.worker == call.allocated.worker
    assert other.allocated.port != call.allocated.port
    await other.phone.speak(tone(400, 0.1, 16000))
    await other.do("tts", text="900")
    await call.until("trackEnd")
    await call.do("tts", text="600")
    await call.until("trackEnd", 2)

    assert call.named("mediaReady") == []
    assert [event["trackId"] for event in call.named("trackEnd")] == [SERVER, SERVER]
    assert loud(other.phone.audio(), 16000)[1] == pytest.approx(900, abs=3)
    assert loud(call.phone.audio(), 8000)[1] == pytest.approx(600, abs=3)
    await other.close()
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 5)


def _channels(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
