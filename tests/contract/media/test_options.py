"""What a call asks for beside its audio: subscription, inactivity, gain, ambiance, and what is not to be had."""

import asyncio
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialbus.bus import Bus
from dialbus.contracts.audio import TO_CLIENT
from dialbus.contracts.media import ConfigureLeg, LegInactive
from tests.contract.media.conftest import SERVER, Dial, FakeTts
from tests.harness import eventually, next_message, refused_raw, requests_to
from tests.peers.rtp import loud, strength, tone, voice

JFK = Path(__file__).parents[2] / "data" / "voices" / "jfk.wav"


@pytest.mark.parametrize("codec", ["pcmu", "g722"])
async def test_a_subscriber_gets_both_tracks_in_frames_of_16_khz(bus: Bus, dial: Dial, codec: str) -> None:
    await FakeTts(bus, lambda text, rate_hz: tone(700, 0.5, rate_hz)).start()
    call = await dial(codec)
    frames: list[bytes] = []

    async def receive(data: bytes) -> None:
        frames.append(data)

    await bus.subscribe_raw(call.call_id, TO_CLIENT, receive)
    await call.configure(subscribe=True)
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 10)
    assert not frames, "neither track has begun"

    await call.do("tts", text="x")
    await call.until("trackEnd")
    await call.phone.speak(tone(500, 0.6, call.phone.rate_hz))
    await eventually(lambda: _track(frames, 1).any(), what="the remote party")
    await call.do("mute", trackId=call.call_id)
    await eventually(lambda: not _track(frames, 1)[-1600:].any(), what="silence of a muted party")

    assert {len(frame) for frame in frames} == {1 + 640}
    assert {frame[0] for frame in frames} == {0, 1}
    seconds, frequency = loud(_track(frames, 0), 16000)
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert frequency == pytest.approx(700, abs=2)
    assert loud(_track(frames, 1), 16000)[1] == pytest.approx(500, abs=3)
    await call.configure(subscribe=False)
    count = len(frames)
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 10)
    assert len(frames) <= count + 2


async def test_a_silent_party_is_told_once_and_one_on_hold_is_not_missed(bus: Bus, dial: Dial) -> None:
    call, clock = await dial(connect=False), await dial()
    told = await requests_to(bus, LegInactive, call_id=call.call_id)
    await call.configure(inactivity_timeout_s=0.4)
    await call.connect(on_hold=True, direction="recvonly")
    await clock.phone.packets(len(clock.phone.heard) + 40)
    assert told.empty()
    await call.connect()
    await call.phone.speak(np.zeros(8000 * 8 // 10, np.int16))
    assert told.empty()

    assert (await next_message(told)).call_id == call.call_id
    heard = len(call.phone.heard)
    await call.phone.packets(heard + 40)
    assert told.empty()


async def test_quiet_speech_is_recorded_at_an_even_level(dial: Dial, media_env: dict[str, str]) -> None:
    plain, lifted = await dial(), await dial()
    for call, more in ((plain, {}), (lifted, {"agc": {"initialGainDb": 20, "headroomDb": 12}})):
        await call.configure(recorder={"samplerate": 8000}, vad={}, **more)
    quiet = np.asarray(voice(JFK, 8000)[: 8000 * 2] // 16, np.int16)

    await asyncio.gather(plain.phone.speak(quiet), lifted.phone.speak(quiet))
    for call in (plain, lifted):
        await call.close()

    levels = [np.sqrt(np.mean(_left(media_env, call.call_id).astype(float) ** 2)) for call in (plain, lifted)]
    assert 20 * np.log10(levels[1] / levels[0]) == pytest.approx(20, abs=6)


async def test_ambiance_sounds_softly_and_steps_back_for_speech(
    bus: Bus, dial: Dial, media_env: dict[str, str]
) -> None:
    path = Path(media_env["DIALBUS_MEDIA_PATH"]) / "office.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(tone(500, 1.0, 8000, 0.9).tobytes())
    await FakeTts(bus, lambda text, rate_hz: tone(900, 1.0, rate_hz, 0.3)).start()
    call = await dial()
    await call.configure(ambiance={"path": "office.wav", "normalLevel": 0.2, "duckLevel": 0.05, "transitionSpeed": 0.3})

    def level() -> float:
        return strength(call.phone.audio()[-1600:], 8000, 500)

    await eventually(lambda: level() == pytest.approx(0.18, abs=0.02), what="the ambiance")
    await call.do("tts", text="x")
    await eventually(lambda: level() == pytest.approx(0.045, abs=0.01), what="a softer ambiance")
    await call.until("trackEnd")
    await eventually(lambda: level() == pytest.approx(0.18, abs=0.02), what="the ambiance as before")
    await call.do("mute", trackId=SERVER)
    await eventually(lambda: level() < 0.001, what="silence")
    await call.do("unmute")
    await call.configure(ambiance={"enabled": False})
    await eventually(lambda: level() < 0.001, what="silence for good")


async def test_what_is_not_to_be_had_is_told_after_the_answer(dial: Dial) -> None:
    call = await dial(connect=False)
    await call.configure(unsupported=["eou", "realtime"], vad={"type": "guess"}, ambiance={"path": "missing.wav"})
    assert not call.events
    await call.connect()
    await call.until("error", 4)

    told = {event["sender"]: event["code"] for event in call.named("error")}
    assert told == {"eou": 404, "realtime": 404, "vad": 400, "ambiance": 404}
    assert {event["trackId"] for event in call.events} == {call.call_id}


@pytest.mark.parametrize(
    "option", [{"agc": {"maxGainDb": -3}}, {"media_pass": {"url": "ws://x", "packetSize": 3}}], ids=["agc", "mediaPass"]
)
async def test_an_option_that_no_gateway_lets_through_is_refused_whole(dial: Dial, option: dict[str, Any]) -> None:
    call = await dial()
    refusal = await refused_raw(call.bus, ConfigureLeg, call.call_id, leg_id=call.leg_id, **option)
    assert refusal.code == 400
    assert not call.named("error")


async def test_g2_early_media_does_not_let_complaints_out_before_the_answer(dial: Dial) -> None:
    call = await dial(connect=False)
    await call.configure(answered=False, vad={"type": "guess"})
    await call.connect()
    await call.phone.speak(voice(JFK, 8000)[:1600])
    await call.until("mediaReady")
    await call.configure(asr={"provider": "nobody"})
    assert not call.named("error")

    await call.configure(answered=True, unsupported=["eou"])
    await eventually(lambda: len(call.named("error")) == 3, what="three complaints")

    assert [event["sender"] for event in call.named("error")] == ["vad", "asr", "eou"]


async def test_no_speech_is_told_where_nobody_wants_detection(dial: Dial) -> None:
    silent, plain = await dial(), await dial()
    await silent.configure(vad={"type": "nop"})
    await plain.configure(vad={"type": "webrtc"})

    speech = voice(JFK, 8000)[: 8000 * 2]
    await asyncio.gather(silent.phone.speak(speech), plain.phone.speak(speech))
    await plain.until("silence")

    assert [event["sender"] for event in plain.named("error")] == ["vad"]
    assert {event["event"] for event in silent.events} == {"mediaReady"}


def _track(frames: list[bytes], index: int) -> np.ndarray:
    return np.frombuffer(b"".join(frame[1:] for frame in frames if frame[0] == index), "<i2")


def _left(env: dict[str, str], call_id: str) -> np.ndarray:
    with wave.open(str(Path(env["DIALBUS_RECORDER_PATH"]) / f"{call_id}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 0]
