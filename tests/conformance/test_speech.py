"""Understanding the caller (P-86 to P-90, P-96, P-100, P-101, O27)."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tests.conformance.files import recording, silent, tones_in
from tests.conformance.parties import SOON_S, SPOKEN_S, description, inbound, media_of, outbound
from tests.ensemble import VOICES, Exchange
from tests.harness import eventually
from tests.peers.rtp import tone, voice
from tests.wer import wer

JFK = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
OPTION = {"vad": {"silencePadding": 300}, "asr": {"provider": "tencent", "sampleRate": 16000}, "denoise": True}


def quiet(seconds: float, rate_hz: int) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    """Silence."""
    return np.zeros(round(seconds * rate_hz), np.int16)


@pytest.mark.row("P-86", "P-88", "P-90", "P-100", "G1", "G9", "P-101", "P-61")
@pytest.mark.fault("X-15")
async def test_p086_a_caller_is_understood_and_recorded(exchange: Exchange, transcribe: Callable[..., str]) -> None:
    async with inbound(exchange, codec="g722") as call:
        await call.accept(**OPTION, recorder={"samplerate": 8000})
        rate_hz = call.rtp.rate_hz
        await call.say_tone(700, 0.5, playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        speech = np.concatenate((voice(VOICES / "jfk.wav", rate_hz), quiet(60, rate_hz)))
        began = asyncio.get_running_loop().time()
        talking = asyncio.create_task(call.rtp.speak(speech))
        said: list[str] = []
        while wer(JFK, " ".join(said)) > 0.15:
            said.append((await call.client.expect("asrFinal", SPOKEN_S))["text"])
        took_ms = (asyncio.get_running_loop().time() - began) * 1000
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        await call.released()
        await call.client.until_closed(SOON_S)

        finals, deltas = call.client.of("asrFinal"), call.client.of("asrDelta")
        assert [event["index"] for event in finals] == sorted({event["index"] for event in finals}), "one per utterance"
        assert deltas
        assert {event["index"] for event in deltas} <= {event["index"] for event in finals} | {len(finals)}
        for event in finals + deltas:
            assert event["trackId"] == call.client.main
            assert 0 <= event["endTime"] - event["startTime"] <= took_ms
        speaking, silences = call.client.of("speaking"), call.client.of("silence")
        assert speaking
        assert all(event["startTime"] <= event["timestamp"] - 200 for event in speaking), "the true onset"
        assert silences
        for event in silences:
            # It tells the silence itself, of which at least silencePadding has passed.
            assert 250 < event["duration"] < 3000
            assert abs(event["startTime"] + event["duration"] - event["timestamp"]) < 1500
        keys = {event["key"] for event in call.client.of("metrics")}
        assert {"ttfb.asr.tencent", "completed.asr.tencent"} <= keys
        for event in call.client.of("metrics", key="completed.asr.tencent"):
            assert isinstance(event["data"]["index"], int)

    both, rate = await recording(exchange, call.client.main)
    assert (rate, both.shape[1]) == (8000, 2)
    assert wer(JFK, transcribe(both[:, 0], rate)) <= 0.2, "the caller is on the left"
    assert tones_in(both[:, 1], rate, 700)
    tone_at = int(np.flatnonzero(np.abs(both[:, 1].astype(int)) > 800)[0])
    voice_at = int(np.flatnonzero(np.abs(both[:, 0].astype(int)) > 800)[0])
    assert 0.4 < (voice_at - tone_at) / rate < 3, "one timeline"
    assert silent(both[tone_at : tone_at + rate // 2, 0]), "nothing of the server on the left"


@pytest.mark.row("P-87", "P-23")
async def test_p087_start_when_answer(exchange: Exchange) -> None:
    for wait in (False, True):
        async with outbound(exchange) as call:
            dialog = await call.invite(vad={}, asr={"startWhenAnswer": wait})
            assert dialog.invite is not None
            call.rtp.remote = media_of(dialog.invite.text)
            dialog.ringing(description(call.rtp))
            await call.client.expect("ringing", SOON_S)
            number = voice(VOICES / "lj.wav", 8000)
            talking = asyncio.create_task(call.rtp.speak(np.concatenate((number, quiet(20, 8000)))))
            if wait:
                await call.client.expect("silence", SPOKEN_S)  # the VAD hears it end to end
            else:
                await call.client.expect("asrFinal", SPOKEN_S)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            await call.answer()
            if wait:
                async with call.speaking(np.concatenate((number, quiet(2, 8000)))):
                    await call.client.expect("asrFinal", SPOKEN_S)
                names = call.client.names
                assert names.index("answer") < min(names.index(name) for name in names if name.startswith("asr"))
            await call.released()
            await call.client.until_closed(SOON_S)


@pytest.mark.row("P-89", "P-88")
async def test_p089_silence_is_told_again_and_again(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept(vad={"silenceTimeout": 600})
        async with call.speaking(quiet(1, 8000)):
            await eventually(lambda: len(call.client.of("silence")) >= 3, SOON_S)
        silences = call.client.of("silence")
        for event, after in pairwise(silences):
            assert 500 < after["timestamp"] - event["timestamp"] < 1000
        for event in silences:
            assert abs(event["startTime"] + event["duration"] - event["timestamp"]) < 300
            assert event["duration"] >= 600
            assert event["trackId"] == call.client.main
        await call.released()


@pytest.mark.row("P-90")
async def test_p090_denoise_takes_noise_away_before_the_vad(exchange: Exchange) -> None:
    noise = np.random.default_rng(1).normal(0, 1200, 16000 * 4).astype(np.int16)
    finals = []
    for denoise in (False, True):
        async with inbound(exchange, codec="g722") as call:
            await call.accept(denoise=denoise, vad={}, asr={})
            loud = voice(VOICES / "lj.wav", 16000)
            mixed = np.clip(loud.astype(int) + np.resize(noise, len(loud)), -32768, 32767).astype(np.int16)
            async with call.speaking(np.concatenate((mixed, quiet(3, 16000)))):
                finals.append((await call.client.expect("asrFinal", SPOKEN_S))["text"])
            await call.released()
            await call.client.until_closed(SOON_S)
    assert finals[1], "speech in noise is understood with denoise"


@pytest.mark.row("P-96", "O27")
@pytest.mark.parametrize("spoke", [False, True])
async def test_p096_inactivity(exchange: Exchange, spoke: bool) -> None:
    async with inbound(exchange) as call:
        await call.accept(inactivityTimeout=2)
        if spoke:  # silence is not inactivity: packets come
            await call.rtp.speak(quiet(3.5, 8000))
            assert not call.client.of("inactivity")
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(
            r"incoming T\(main\) answer inactivity E\(main\) hangup\{inactivityTimeout,system\}", SOON_S
        )


@pytest.mark.row("P-96")
async def test_p096_inactivity_is_off_by_default(exchange: Exchange) -> None:
    async with inbound(exchange) as one, inbound(exchange) as two:
        await one.accept()
        await two.accept(inactivityTimeout=2)
        await two.dialog.expect_bye(SOON_S)  # a call without the option outlives one with it
        await two.client.until_closed(SOON_S)
        await one.say_tone(700, 1.0)
        await one.hears(700)
        await one.released()


@pytest.mark.row("P-88")
async def test_p088_a_short_noise_is_no_speech(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept(vad={"speechPadding": 250}, recorder={})
        clicks = np.concatenate((tone(2000, 0.02, 8000), quiet(0.4, 8000)))
        await call.rtp.speak(np.tile(clicks, 5))
        await call.rtp.press("1")
        await call.client.expect("dtmf", SOON_S)
        assert not call.client.of("speaking")
        await call.released()
