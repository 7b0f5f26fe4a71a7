"""Audio in, transcripts out: one real asr worker with the model of the wheel, on human voices."""

import asyncio
import secrets
import urllib.request
from itertools import pairwise

import numpy as np
import pytest

from asr.models import resolve_model
from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.audio import AudioFrame
from tests.contract.asr.conftest import FRAME, RATE_HZ, SAID, MediaWorker, audio_of
from tests.harness import ServiceProcess, eventually
from tests.wer import wer

pytestmark = pytest.mark.usefixtures("asr")

SILENCE = np.zeros(RATE_HZ, np.int16)


async def test_an_utterance_in_real_time_has_growing_deltas_then_one_final(
    asr: ServiceProcess, media: MediaWorker
) -> None:
    opened = await media.open(language="en-US")
    assert (opened.worker, opened.model) == (asr.instance, "tiny.en")

    await media.say(audio_of("jfk"), every_s=0.1)
    final = await media.final()

    assert wer(SAID["jfk"], final.text) <= 0.15, final.text
    assert 0.5 < (final.confidence or 0) <= 1
    assert 0 < final.decode_ms <= final.latency_ms
    assert final.failure is None
    *deltas, last = await media.rest()
    assert last is final, "nothing comes after the final"
    assert len(deltas) >= 3
    assert not any(delta.final for delta in deltas)
    assert all(one.text != next_one.text for one, next_one in pairwise(deltas))
    assert len(deltas[0].text) < len(deltas[len(deltas) // 2].text) < len(deltas[-1].text)


async def test_two_calls_at_once_do_not_mix(media: MediaWorker, bus: Bus) -> None:
    other = await MediaWorker.ready(bus, f"other-{secrets.token_hex(6)}")
    await asyncio.gather(media.open(), other.open())

    await asyncio.gather(media.say(audio_of("jfk")), other.say(audio_of("lj")))
    jfk, lj = await asyncio.gather(media.final(), other.final())

    assert wer(SAID["jfk"], jfk.text) <= 0.15, jfk.text
    assert wer(SAID["lj"], lj.text) <= 0.15, lj.text
    await asyncio.gather(media.close(), other.close())


async def test_every_utterance_has_its_own_final_in_order(media: MediaWorker) -> None:
    await media.open()
    voice = audio_of("jfk")
    await media.say(voice[: 3 * RATE_HZ], utterance=0)
    await media.say(SILENCE, utterance=1)
    await media.say(audio_of("lj"), utterance=2)

    await media.final(2)

    finals = [transcript for transcript in await media.rest() if transcript.final]
    assert [final.utterance for final in finals] == [0, 1, 2]
    assert "fellow" in finals[0].text
    assert (finals[1].text, finals[1].confidence) == ("", None)
    assert wer(SAID["lj"], finals[2].text) <= 0.15


async def test_silence_and_an_utterance_without_audio_give_one_empty_final_each(media: MediaWorker) -> None:
    await media.open()
    await media.say(SILENCE)
    assert (await media.final(0)).text == ""
    await media.frame(0, SILENCE[:0], last=True, utterance=1)
    assert (await media.final(1)).text == ""

    assert [(transcript.utterance, transcript.final) for transcript in await media.rest()] == [(0, True), (1, True)]


async def test_lost_frames_are_silence_and_the_final_still_comes(media: MediaWorker) -> None:
    await media.open()
    await media.say(audio_of("jfk"), lost=frozenset({40, 41}))

    assert wer(SAID["jfk"], (await media.final()).text) <= 0.25
    await media.close()


@pytest.mark.parametrize("samples", [37, 1601, 3 * RATE_HZ])
async def test_frames_of_any_length(media: MediaWorker, samples: int) -> None:
    await media.open()
    await media.say(audio_of("jfk"), samples=samples)

    assert wer(SAID["jfk"], (await media.final()).text) <= 0.15
    await media.close()


async def test_an_utterance_longer_than_the_model_hears_is_split_and_joined(media: MediaWorker) -> None:
    await media.open()
    pause = np.zeros(RATE_HZ // 2, np.int16)
    long = np.concatenate([audio_of("jfk"), pause] * 4)
    assert long.size > 30 * RATE_HZ
    await media.say(long)

    final = await media.final()

    assert wer(" ".join([SAID["jfk"]] * 4), final.text) <= 0.15, final.text
    assert sum(transcript.final for transcript in await media.rest()) == 1


async def test_close_gives_an_unfinished_utterance_its_final_first(media: MediaWorker) -> None:
    await media.open()
    await media.say(audio_of("jfk")[: 3 * RATE_HZ], end=False)

    began = asyncio.get_running_loop().time()
    heard = await media.rest()
    assert asyncio.get_running_loop().time() - began < 1.5

    assert [transcript.final for transcript in heard][-1:] == [True]
    assert wer("And so my fellow Americans", heard[-1].text) <= 0.15, heard[-1].text

    async def nobody_listens() -> bool:
        try:
            await media.close()
        except NoResponder:
            return True
        return False

    await eventually(nobody_listens)


async def test_audio_sent_at_once_after_the_reply_is_heard(media: MediaWorker) -> None:
    for _ in range(3):  # opening again replaces
        await media.open()
    await media.frame(0, audio_of("jfk")[: 2 * RATE_HZ], last=True)

    final = await media.final()

    assert final.text
    assert len([transcript for transcript in await media.rest() if transcript.final]) == 1


async def test_audio_of_another_rate_is_a_failure_not_nonsense(media: MediaWorker, bus: Bus) -> None:
    await media.open()
    pcm = SILENCE[:FRAME].tobytes()
    await bus.publish_audio(AudioFrame(media.call_id, "main", "0", 0, 8000, pcm))
    await bus.publish_audio(AudioFrame(media.call_id, "main", "0", 1, 8000, pcm, last=True))

    final = await media.final()

    assert (final.text, final.failure) == ("", "audio at 8000 Hz, not 16000")
    await media.close()


@pytest.mark.parametrize(
    ("model", "language", "reason"),
    [
        ("/no/such/model", None, "asr.modelType: no speech model '/no/such/model'"),
        ("16k_zh", None, "asr.modelType: no speech model '16k_zh'"),
        (None, "de", "does not know the language 'de'"),
    ],
)
async def test_what_is_not_to_be_had_is_refused(
    media: MediaWorker, model: str | None, language: str | None, reason: str
) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        await media.open(model, language)
    assert refused.value.code == 404
    with pytest.raises(NoResponder):
        await media.close()


async def test_another_model_is_loaded_on_demand_and_a_third_has_to_wait(
    media: MediaWorker, bus: Bus, call_id: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models")
    second, third = folder / "second", folder / "third"
    for path in (second, third):
        path.symlink_to(resolve_model())

    async def opened() -> str | None:
        try:
            return (await media.open(str(second))).model
        except Refused as being_loaded:
            return None if being_loaded.code == 503 else str(being_loaded)

    assert await eventually(opened, 30) == str(second)
    await media.say(audio_of("jfk"))
    assert wer(SAID["jfk"], (await media.final()).text) <= 0.15
    other = await MediaWorker.ready(bus, f"{call_id}-other")
    with pytest.raises(Refused, match="2 other models are in use") as refused:
        await other.open(str(third))
    assert refused.value.code == 503
    await media.close()


async def test_metrics_and_health_tell_of_the_work(asr: ServiceProcess, media: MediaWorker) -> None:
    await media.open()
    await media.say(audio_of("lj"))
    await media.final()

    metrics = await asyncio.to_thread(_get, asr.facts["health"].removesuffix("/health") + "/metrics")
    health = await asyncio.to_thread(_get, asr.facts["health"])

    for name in ("sessions 1.0", 'decodes_total{kind="final",outcome="used"}', "finals_late_total",
                 "deltas_dropped_total", "real_time_factor_bucket", "decode_seconds_sum"):  # fmt: skip
        assert f"dialbus_asr_{name}" in metrics
    assert '"model": "tiny.en", "capacity": 64, "sessions": 1' in health
    await media.close()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())
