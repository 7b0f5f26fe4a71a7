"""What the caller hears, and which events tell of it (protocol 2.5 to 2.8, O17 to O22)."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialbus.bus import Bus, Refused
from dialbus.contracts.media import Playback
from tests.contract.media.conftest import SERVER, Dial, FakeTts
from tests.harness import eventually, next_message, refused_raw
from tests.peers.rtp import Pcm, loud, tone


def _tone(text: str, rate_hz: int) -> Pcm:
    """Texts are `<frequency> <seconds>`."""
    frequency, seconds = text.split()
    return tone(float(frequency), float(seconds), rate_hz)


@pytest.mark.parametrize("codec", ["pcmu", "pcma", "g722"])
async def test_synthesised_audio_is_heard_exactly(bus: Bus, dial: Dial, codec: str) -> None:
    tts = await FakeTts(bus, _tone).start()
    call = await dial(codec)

    await call.do("tts", text="700 0.8", speaker="joe", option={"speed": 1.5})
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "metrics", "trackEnd"]
    assert tts.asked[0].rate_hz == call.phone.rate_hz
    assert (tts.asked[0].speaker, tts.asked[0].speed) == ("joe", 1.5)
    await call.phone.packets(60)
    seconds, frequency = loud(call.phone.audio(), call.phone.rate_hz)
    assert seconds == pytest.approx(0.8, abs=0.005)
    assert frequency == pytest.approx(700, abs=1)
    end = call.events[-1]
    assert end["trackId"] == SERVER
    assert end["ssrc"] == call.allocated.ssrc == call.phone.heard[0].ssrc
    assert end["duration"] == pytest.approx(800, abs=150)
    assert call.events[1]["key"] == "completed.tts.piper"
    assert call.events[1]["data"]["length"] == 2 * 0.8 * call.phone.rate_hz


async def test_a_second_command_of_the_same_playback_is_heard_behind_the_first(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()

    await call.do("tts", text="500 1.2", playId="p")  # long enough for the second to be ready on a busy machine
    await call.do("tts", text="900 0.3", playId="p", endOfStream=True)
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "metrics", "metrics", "trackEnd"]
    assert [event["data"]["cmdSeq"] for event in call.named("metrics")] == [0, 1]
    audio = call.phone.audio()
    seconds, _ = loud(audio, 8000)
    assert seconds == pytest.approx(1.5, abs=0.005)
    middle = len(audio) - 8000 * 3 // 10
    assert loud(audio[:middle], 8000)[1] == pytest.approx(500, abs=30)
    assert loud(audio[middle:], 8000)[1] == pytest.approx(900, abs=30)


async def test_interrupt_cuts_the_audio_at_once(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()
    await call.do("tts", text="600 5", playId="p")
    await eventually(lambda: loud(call.phone.audio(), 8000)[0] > 0.3, what="audio at the phone")

    await call.do("interrupt")
    end = await call.until("trackEnd")

    cut = call.named("interruption")[0]
    assert [event["event"] for event in call.events if event["event"] != "metrics"] == [
        "trackStart", "interruption", "trackEnd",
    ]  # fmt: skip
    assert cut["playId"] == end["playId"] == "p"
    assert cut["subtitle"] == "600 5"
    assert cut["totalDuration"] == 5000
    assert 300 <= cut["current"] <= 1500
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 20)
    assert loud(call.phone.audio(), 8000)[0] == pytest.approx(cut["current"] / 1000, abs=0.03)


async def test_a_cancelled_synthesis_is_told_to_the_worker(bus: Bus, dial: Dial) -> None:
    tts = await FakeTts(bus, _tone, silent=True).start()
    call = await dial()
    await call.do("tts", text="600 5")
    await eventually(lambda: tts.asked, what="the request")

    await call.do("interrupt")

    await eventually(lambda: tts.cancelled, what="the cancel")
    assert tts.cancelled[0].utterance_id == tts.asked[0].utterance_id


async def test_auto_hangup_is_told_to_the_owner_after_the_track_end_is_stored(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()

    await call.do("tts", text="600 0.1", autoHangup=True)

    assert (await next_message(call.ended)).call_id == call.call_id
    await call.until("trackEnd", timeout_s=0.5)


async def test_wait_input_timeout_is_a_silence_of_the_server_side_track(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()

    await call.do("tts", text="600 0.1", waitInputTimeout=150)
    silence = await call.until("silence")

    assert call.events[-2]["event"] == "trackEnd"
    assert silence["trackId"] == SERVER
    assert silence["duration"] == 150
    assert silence["startTime"] == pytest.approx(call.named("trackEnd")[0]["timestamp"], abs=40)
    assert silence["timestamp"] >= silence["startTime"] + 140


async def test_mute_of_the_server_side_track_is_heard_as_silence_until_unmute(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()

    await call.do("mute", trackId=SERVER)
    await call.do("tts", text="600 0.2")
    await call.until("trackEnd")
    muted = len(call.phone.heard)
    await call.do("unmute")
    await call.do("tts", text="800 0.2")
    await call.until("trackEnd", 2)

    assert loud(call.phone.audio()[: muted * 160], 8000) == (0.0, 0.0)
    assert loud(call.phone.audio(), 8000)[1] == pytest.approx(800, abs=3)


async def test_pause_freezes_the_playback(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()
    await call.do("tts", text="600 0.6")
    await eventually(lambda: loud(call.phone.audio(), 8000)[0] > 0.1, what="audio at the phone")

    await call.do("pause")
    paused_at = len(call.phone.heard)
    await call.phone.packets(paused_at + 40)
    await call.do("resume")
    end = await call.until("trackEnd")

    assert end["duration"] > 600 + 700
    quiet = call.phone.audio()[(paused_at + 5) * 160 : (paused_at + 35) * 160]
    assert loud(quiet, 8000)[0] == 0.0


@pytest.mark.parametrize(
    ("option", "code"), [({"provider": "nobody"}, 404), ({}, 500)], ids=["unknown provider", "no worker"]
)
async def test_speech_that_cannot_be_had_is_an_error_and_the_call_goes_on(
    dial: Dial, option: dict[str, Any], code: int
) -> None:
    call = await dial()

    await call.do("tts", text="hello", option=option)
    await call.until("trackEnd", timeout_s=15.0)  # a first worker is waited for

    assert [event["event"] for event in call.events] == ["trackStart", "error", "trackEnd"]
    error = call.events[1]
    assert (error["sender"], error["code"], error["trackId"]) == ("tts", code, SERVER)


async def test_synthesis_that_breaks_off_is_an_error_and_what_came_is_played(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone, failure="the voice is hoarse").start()
    call = await dial()

    await call.do("tts", text="600 0.4")
    await call.until("trackEnd")

    error = call.named("error")[0]
    assert (error["sender"], error["code"], error["error"]) == ("tts", 500, "the voice is hoarse")
    assert loud(call.phone.audio(), 8000)[0] == pytest.approx(0.4, abs=0.005)


async def test_a_local_file_is_played(dial: Dial, media_env: dict[str, str]) -> None:
    path = Path(media_env["DIALBUS_MEDIA_PATH"]) / "bell.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(np.repeat(tone(1000, 0.5, 44100), 2).tobytes())
    call = await dial("g722")

    await call.do("play", url="bell.wav")
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "trackEnd"]
    assert call.events[0]["playId"] == "bell.wav"
    seconds, frequency = loud(call.phone.audio(), 16000)
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert frequency == pytest.approx(1000, abs=2)


@pytest.mark.parametrize(
    "url", ["missing.wav", "../secret.wav", "/etc/passwd", "http://127.0.0.1:9/a.wav", "file:///a"]
)
async def test_a_file_that_cannot_be_played_is_an_error_between_start_and_end(dial: Dial, url: str) -> None:
    call = await dial()

    await call.do("play", url=url)
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "error", "trackEnd"]
    assert call.events[1]["sender"] == f"filetrack: {url}"


async def test_closing_cuts_what_plays_and_stores_everything_before_the_reply(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()
    await call.do("tts", text="600 5")
    await eventually(lambda: loud(call.phone.audio(), 8000)[0] > 0.1, what="audio at the phone")

    await call.close()
    before = await bus.last_sequence()

    end = await call.until("trackEnd")
    assert end["event"] == "trackEnd"
    assert [event["event"] for event in call.events][-2:] == ["interruption", "trackEnd"]
    assert await bus.last_sequence() == before


async def test_a_leg_that_nobody_answered_yet_has_nothing_to_interrupt(dial: Dial) -> None:
    call = await dial(connect=False)

    await call.do("interrupt")
    await call.do("interrupt", graceful=True)
    for command, code in (("pause", 404), ("resume", 404), ("tts", 409)):
        with pytest.raises(Refused) as refused:
            await call.do(command, text="Hello.")
        assert refused.value.code == code
    assert call.events == []


async def test_a_command_that_failed_is_told_on_the_main_track(dial: Dial) -> None:
    call = await dial()

    await call.do("pause")
    error = await call.until("error")
    assert (error["sender"], error["trackId"]) == ("command", call.call_id)


async def test_bad_commands_are_refused(dial: Dial) -> None:
    call = await dial()

    for fields in ({"command": "dance"}, {"command": "tts"}, {"command": "hangup"}):
        refusal = await refused_raw(call.bus, Playback, call.call_id, fields, leg_id=call.leg_id)
        assert refusal.code == 400


async def test_stop_playback_is_answered_when_the_track_end_is_stored(bus: Bus, dial: Dial) -> None:
    await FakeTts(bus, _tone).start()
    call = await dial()

    for interruption, expected in ((False, ["trackStart", "trackEnd"]), (True, ["interruption", "trackEnd"])):
        seen = len(call.events)
        await call.do("tts", text="600 5", autoHangup=True)
        await call.until("trackStart", 1 + interruption)
        await call.stop_playback(interruption=interruption)
        stored = await bus.last_sequence()

        await call.until("trackEnd", 1 + interruption)
        names = [event["event"] for event in call.events[seen:] if event["event"] != "metrics"]
        assert names[-2:] == expected
        assert await bus.last_sequence() == stored
    await call.stop_playback()
    assert call.ended.empty(), "what is stopped hangs nothing up"


async def test_a_looped_file_is_one_track_until_it_is_stopped(dial: Dial, media_env: dict[str, str]) -> None:
    path = Path(media_env["DIALBUS_MEDIA_PATH"]) / "hold.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(tone(500, 0.1, 8000).tobytes())
    call = await dial()

    await call.do("play", loop=True, url="hold.wav")
    await eventually(lambda: loud(call.phone.audio(), 8000)[0] > 0.5, what="five rounds of the file")
    await call.stop_playback()
    await call.until("trackEnd")

    assert [event["event"] for event in call.events] == ["trackStart", "trackEnd"]
    assert loud(call.phone.audio(), 8000)[1] == pytest.approx(500, abs=3)
