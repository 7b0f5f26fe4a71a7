"""The real tts process with the real voice; the test plays media."""

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from dialbus.bus import Bus, Refused
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.session import Heartbeat
from dialbus.contracts.speech import CancelSpeech, Speak, SpeechTaken
from tests.harness import ServiceProcess, eventually, messages_of, next_message, run_service

# The worker runs at nice 19 and may share the machine with everything else.
SPEAK_S = 30.0
SENTENCE = "Thank you for calling."
PARAGRAPH = (
    "Good morning, and welcome to the town library. We are open from Monday to Friday between nine and six. "
    "On Saturdays we close at noon. To renew a book, please have your card at hand. "
    "For everything else, stay on the line, and somebody will be with you shortly."
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tts(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceProcess]:
    """One worker for the module; its voices directory holds a voice that is found and can't be loaded."""
    voices = tmp_path_factory.mktemp("voices")
    (voices / "broken.onnx").write_bytes(b"no graph")
    (voices / "broken.onnx.json").write_text(json.dumps({"language": {"code": "fr_FR"}}))
    env = {"DIALBUS_NATS_URL": nats_url, "DIALBUS_TTS_VOICES_PATH": str(voices)}
    async with run_service("tts", env, timeout_s=60.0) as service:
        yield service


@dataclass
class Heard:
    """One utterance as media gets it."""

    frames: list[AudioFrame] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    """Monotonic seconds of arrival."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pcm(self) -> bytes:
        return b"".join(frame.pcm for frame in self.frames)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / self.frames[0].rate_hz


class Media:
    """Asks for speech and collects what comes back on one call's track."""

    def __init__(self, bus: Bus, call_id: str) -> None:
        self._bus = bus
        self.call_id = call_id
        self.utterances: dict[str, Heard] = {}

    async def listen(self) -> "Media":
        await self._bus.subscribe_audio(self.call_id, "server", self._frame)
        await self._bus.flush()
        return self

    def heard(self, utterance: str) -> Heard:
        return self.utterances.setdefault(utterance, Heard())

    async def _frame(self, frame: AudioFrame) -> None:
        heard = self.heard(frame.utterance)
        heard.frames.append(frame)
        heard.at.append(time.monotonic())
        if frame.last:
            heard.ended.set()

    async def ask(self, utterance: str, text: str = SENTENCE, **more: Any) -> SpeechTaken:
        """As one that does not look at what it asks for."""
        request = Speak.model_construct(call_id=self.call_id, utterance_id=utterance, text=text, **more)
        return await self._bus.request(request, timeout_s=10.0)

    async def all_of(self, utterance: str) -> Heard:
        async with asyncio.timeout(SPEAK_S):
            await self.heard(utterance).ended.wait()
        return self.heard(utterance)

    async def speak(self, utterance: str, text: str = SENTENCE, **more: Any) -> Heard:
        await self.ask(utterance, text, **more)
        return await self.all_of(utterance)

    async def cancel(self, utterance: str | None = None) -> None:
        await self._bus.publish(CancelSpeech(call_id=self.call_id, utterance_id=utterance))


@pytest_asyncio.fixture
async def media(bus: Bus, call_id: str, tts: ServiceProcess) -> Media:
    return await Media(bus, call_id).listen()


def check_frames(heard: Heard, rate_hz: int) -> None:
    """Numbered from 0 without a gap, at the asked rate, short, one last frame."""
    assert [frame.sequence for frame in heard.frames] == list(range(len(heard.frames)))
    assert {frame.rate_hz for frame in heard.frames} == {rate_hz}
    assert max(len(frame.pcm) for frame in heard.frames) <= rate_hz // 5 * 2
    assert [frame.last for frame in heard.frames] == [False] * (len(heard.frames) - 1) + [True]


@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_speech_comes_in_order_at_the_asked_rate_with_facts(
    media: Media, tts: ServiceProcess, rate_hz: int
) -> None:
    taken = await media.ask("u", rate_hz=rate_hz, cache_key=f"facts {rate_hz} {media.call_id}")
    heard = await media.all_of("u")

    assert taken.worker == tts.instance
    check_frames(heard, rate_hz)
    assert 0.8 < heard.seconds < 4
    facts = heard.frames[-1].facts
    assert heard.frames[-1].failure is None
    assert abs(int(facts["length"]) - heard.seconds * 1000) <= 1
    assert int(facts["ttfb"]) > 0
    assert int(facts["duration"]) > 0
    assert (facts["cached"], facts["speaker"]) == ("0", "en_US-joe-medium")
    assert np.abs(np.frombuffer(heard.pcm, "<i2")).max() > 3000, "it is audible"


async def test_text_without_a_word_is_one_last_frame(media: Media) -> None:
    heard = await media.speak("u", " … ")

    assert len(heard.frames) == 1
    assert (heard.frames[0].pcm, heard.frames[0].failure, heard.frames[0].facts["length"]) == (b"", None, "0")


async def test_speed_makes_speech_shorter(media: Media) -> None:
    slow = await media.speak("slow", PARAGRAPH[:100], speed=0.8)
    fast = await media.speak("fast", PARAGRAPH[:100], speed=1.6)

    assert 1.5 < slow.seconds / fast.seconds < 2.6


async def test_long_text_begins_early_and_keeps_ten_seconds_ahead_cached_or_not(media: Media) -> None:
    begun = time.monotonic()
    made = await media.speak("made", PARAGRAPH, cache_key=media.call_id)
    first_s, last_s = made.at[0] - begun, made.at[-1] - begun
    cached = await media.speak("cached", PARAGRAPH, cache_key=media.call_id)

    assert made.seconds > 13
    assert first_s < last_s / 3
    assert [heard.frames[-1].facts["cached"] for heard in (made, cached)] == ["0", "1"]
    assert cached.pcm == made.pcm
    for heard in (made, cached):
        check_frames(heard, 16000)
        sent_s = 0.0
        for frame, at in zip(heard.frames, heard.at, strict=True):
            sent_s += len(frame.pcm) / 2 / frame.rate_hz
            assert sent_s - (at - heard.at[0]) < 12, "the piece that crosses the limit is still sent"


async def test_second_time_comes_from_the_cache_at_its_own_volume(media: Media) -> None:
    text = f"Press {int(media.call_id[:4], 16)}."
    first = await media.speak("first", text)
    again = await media.speak("again", text)
    quiet = await media.speak("quiet", text, volume=2.5)

    assert [heard.frames[-1].facts["cached"] for heard in (first, again, quiet)] == ["0", "1", "1"]
    assert again.pcm == first.pcm
    check_frames(again, 16000)
    loud, soft = (np.abs(np.frombuffer(heard.pcm, "<i2").astype(float)).mean() for heard in (first, quiet))
    assert soft / loud == pytest.approx(0.5, abs=0.05)
    assert int(again.frames[-1].facts["duration"]) == 0


async def test_own_cache_key_is_honoured_at_any_rate(media: Media) -> None:
    first = await media.speak("first", "One two three.", cache_key=media.call_id)
    other = await media.speak("other", "Quite another text.", cache_key=media.call_id, rate_hz=8000)

    assert other.frames[-1].facts["cached"] == "1"
    check_frames(other, 8000)
    assert other.seconds == pytest.approx(first.seconds, abs=0.01)


async def test_cancel_stops_the_speech_and_what_waits_behind_it(media: Media) -> None:
    await media.ask("long", PARAGRAPH * 20)
    await media.ask("behind", "And now for something else.")
    await eventually(lambda: media.heard("long").frames)
    await media.cancel("long")
    behind = await media.all_of("behind")

    assert behind.frames[-1].failure is None
    assert not media.heard("long").ended.is_set(), "nothing more is published for it"
    # The next text was made after the cancellation, so what there was of the first came before.
    assert media.heard("long").at[-1] < behind.at[0]


async def test_cancel_of_a_queued_text_and_of_everything(media: Media) -> None:
    await media.ask("long", PARAGRAPH * 20)
    await media.ask("one", "The first that waits.")
    await media.ask("two", "The second that waits.")
    await media.cancel("one")
    await media.cancel()
    after = await media.speak("after")

    assert after.frames[-1].failure is None
    assert not media.heard("one").frames
    assert not media.heard("two").frames
    assert not media.heard("long").ended.is_set()


async def test_cancel_that_overtakes_its_text_counts(media: Media) -> None:
    await media.cancel("u")
    await media.speak("before")  # the worker has it: messages of one connection arrive in order
    await media.ask("u")
    await media.speak("after")

    assert not media.heard("u").frames


@pytest.mark.parametrize("more", [{"speaker": "broken"}, {"speaker": "broken.onnx"}, {"language": "fr"}])
async def test_failure_is_told_in_the_last_frame(media: Media, more: dict[str, str]) -> None:
    heard = await media.speak("u", "Bonjour.", **more)
    after = await media.speak("after")

    assert len(heard.frames) == 1
    assert "broken.onnx cannot be used" in (heard.frames[0].failure or "")
    assert heard.frames[0].facts["speaker"] == "broken"
    assert after.frames[-1].failure is None


async def test_cancel_leaves_other_calls_alone(bus: Bus, media: Media) -> None:
    other = await Media(bus, media.call_id + "-other").listen()
    await media.ask("u", PARAGRAPH * 5)
    await other.ask("u", "The other call goes on.", cache_key=other.call_id)
    await media.cancel()

    assert (await other.all_of("u")).frames[-1].failure is None


async def test_texts_of_a_call_come_one_after_another(media: Media) -> None:
    for number in range(3):
        await media.ask(f"u{number}", f"Number {number}.", cache_key=f"{media.call_id} {number}")
    heard = [await media.all_of(f"u{number}") for number in range(3)]

    assert heard[0].at[-1] <= heard[1].at[0] <= heard[1].at[-1] <= heard[2].at[0]


async def test_calls_at_once_do_not_mix(bus: Bus, media: Media) -> None:
    calls = [await Media(bus, f"{media.call_id}-{number}").listen() for number in range(5)]
    texts = [" ".join(["seven"] * (1 + 3 * number)) + "." for number in range(5)]
    heard = await asyncio.gather(
        *(call.speak("u", text, cache_key=call.call_id) for call, text in zip(calls, texts, strict=True))
    )

    for each in heard:
        check_frames(each, 16000)
    lengths = [each.seconds for each in heard]
    assert lengths == sorted(lengths), "each call got its own text"
    again = await calls[0].speak("again", texts[0], cache_key=calls[0].call_id)
    assert again.pcm == heard[0].pcm


async def test_repeated_request_is_spoken_once(media: Media) -> None:
    await media.ask("u", PARAGRAPH[:46], cache_key=media.call_id)
    await media.ask("u", PARAGRAPH[:46], cache_key=media.call_id)
    heard = await media.all_of("u")
    await media.speak("after")

    check_frames(heard, 16000)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"speaker": "nobody"}, 404),
        ({"speaker": "../../etc/passwd"}, 404),
        ({"speaker": "/etc/hostname.onnx"}, 404),
        ({"language": "de-DE"}, 404),
        ({"speaker": "default", "language": "zh"}, 404),
        ({"speaker": "7"}, 404),
        ({"speed": 0.0}, 400),
        ({"speed": -2.0}, 400),
        ({"volume": 11.0}, 400),
        ({"track": "server.a"}, 400),
        ({"text": "x" * 70000}, 400),
    ],
)
async def test_refused_at_once(media: Media, more: dict[str, Any], code: int) -> None:
    with pytest.raises(Refused) as refused:
        await media.ask("u", **more)

    assert refused.value.code == code
    assert refused.value.reason


async def test_language_of_the_voice_is_spoken(media: Media) -> None:
    assert (await media.speak("u", language="en-GB")).frames[-1].failure is None


async def test_health_metrics_and_heartbeat(bus: Bus, media: Media, tts: ServiceProcess) -> None:
    beats = await messages_of(bus, Heartbeat, instance=tts.instance)
    await media.speak("u")
    health = json.loads(await asyncio.to_thread(fetch, tts.facts["health"]))
    metrics = (await asyncio.to_thread(fetch, tts.facts["health"].replace("/health", "/metrics"))).decode()

    assert (health["ready"], health["voice"]) == (True, "en_US-joe-medium")
    assert 'dialbus_tts_syntheses_total{outcome="done"}' in metrics
    for name in (
        "dialbus_tts_audio_seconds_total",
        "dialbus_tts_first_audio_seconds_bucket",
        "dialbus_tts_queue_length",
    ):
        assert name in metrics
    beat = await next_message(beats)
    assert (beat.service, beat.capacity) == ("tts", 66)


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())
