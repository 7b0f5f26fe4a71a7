"""Foreign providers and voices, and whose options count for a text (protocol 2.5.6, 8a; X-16, X-17)."""

from pathlib import Path
from typing import Any

from dialbus.bus import Bus
from tests.contract.media.conftest import SERVER, Dial, FakeAsr, FakeTts, Pcm
from tests.harness import eventually, next_message
from tests.peers.rtp import tone, voice

JFK = Path(__file__).parents[2] / "data" / "voices" / "jfk.wav"
GO_EXAMPLE = {
    "provider": "tencent",
    "speaker": "601003",
    "speed": 1.2,
    "volume": 7,
    "appId": "1",
    "secretId": "id",
    "secretKey": "key",
    "endpoint": "tts.example",
}


def _tone(text: str, rate_hz: int) -> Pcm:
    return tone(600, 0.1, rate_hz)


def _asked(tts: FakeTts) -> dict[str, Any]:
    return tts.asked[-1].model_dump(include={"speaker", "speed", "volume", "text"})


async def test_a_command_overrides_only_what_it_names_and_its_speaker_reaches_the_synthesiser(
    bus: Bus, dial: Dial
) -> None:
    tts = await FakeTts(bus, _tone).start()
    call = await dial()
    await call.configure(tts=GO_EXAMPLE)

    said: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"speaker": None, "speed": 1.2, "volume": 7}),
        ({"option": {"volume": 3}}, {"speaker": None, "speed": 1.2, "volume": 3}),
        ({"option": {"volume": 3, "speaker": "a"}, "speaker": "b"}, {"speaker": "b", "speed": 1.2, "volume": 3}),
        ({"option": {"speed": 0.8, "provider": "piper"}}, {"speaker": None, "speed": 0.8, "volume": 7}),
    ]
    for number, (fields, expected) in enumerate(said, start=1):
        await call.do("tts", text=f"text {number}", **fields)
        await call.until("trackEnd", number)
        assert _asked(tts) == {"text": f"text {number}", **expected}

    told = [event["key"] for event in call.named("metrics")]
    assert told == ["completed.tts.tencent"] * 3 + ["completed.tts.piper"]
    assert not call.named("error")


async def test_a_synthesiser_that_nobody_stands_for_is_an_error_and_the_call_goes_on(bus: Bus, dial: Dial) -> None:
    tts = await FakeTts(bus, _tone).start()
    call = await dial()
    await call.configure(tts={"provider": "aliyun", "speaker": "x"})

    await call.do("tts", text="lost", playId="p")
    await call.until("trackEnd")
    assert [event["event"] for event in call.events] == ["trackStart", "error", "trackEnd"]
    error = call.named("error")[0]
    assert (error["trackId"], error["sender"], error["code"]) == (SERVER, "tts", 404)
    assert error["error"] == "tts provider not available: aliyun"

    await call.do("tts", text="said", option={"provider": "Tencent", "speaker": "601003"})
    await call.until("trackEnd", 2)
    assert _asked(tts) == {"text": "said", "speaker": None, "speed": 1.0, "volume": 5.0}
    assert len(tts.asked) == 1


async def test_a_foreign_recogniser_is_ours_under_its_own_name(bus: Bus, dial: Dial) -> None:
    asr = await FakeAsr(bus, text="and so").start()
    call = await dial()
    option = {"provider": "Tencent", "modelType": "16k_en", "language": "en-US", "appId": "1", "secretKey": "k"}
    await call.configure(asr=option)
    await eventually(lambda: asr.opened, what="a session")
    assert (asr.opened[0].model, asr.opened[0].language) == (None, "en-US")

    await call.phone.speak(voice(JFK, 8000)[: 8000 * 3])
    assert await next_message(asr.complete) == "0"
    await call.until("asrFinal")
    assert (await call.until("metrics"))["key"] == "completed.asr.Tencent"
    await asr.die()


async def test_a_recogniser_that_nobody_stands_for_leaves_the_rest_of_the_chain(bus: Bus, dial: Dial) -> None:
    """X-17: an unknown name takes nothing else away."""
    asr = await FakeAsr(bus).start()
    call = await dial()
    await call.configure(asr={"provider": "deepgram"}, vad={"type": "ten"})
    await call.connect()
    await call.until("error", 2)
    told = [(error["sender"], error["code"], error["error"]) for error in call.named("error")]
    assert told[1] == ("asr", 404, "asr provider not available: deepgram")
    assert told[0][:2] == ("vad", 400)

    await call.phone.speak(voice(JFK, 8000)[: 8000 * 2])
    await call.until("speaking")
    assert not asr.opened
    await asr.die()
