"""Speech made ready before the call, by one worker for all that share its folder (protocol 2.5.7, 7.6)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dialbus.bus import Bus, Refused
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.speech import Cached, CacheSpeech, Speak
from tests.harness import next_message, run_service

START_S = 60.0
WELCOME = "Welcome to the town library."


async def _cache(bus: Bus, **fields: Any) -> Cached:
    """As one that does not look at what it asks for."""
    return await bus.request(CacheSpeech.model_construct(**fields), timeout_s=30.0)


async def _spoken(bus: Bus, call_id: str, text: str, **more: Any) -> AudioFrame:
    """The last frame of a text."""
    frames: asyncio.Queue[AudioFrame] = asyncio.Queue()

    async def put(frame: AudioFrame) -> None:
        if frame.last:
            frames.put_nowait(frame)

    subscription = await bus.subscribe_audio(call_id, "server", put)
    await bus.flush()
    request = Speak(call_id=call_id, utterance_id="u", text=text, **more)
    await bus.request(request, timeout_s=10.0)
    last = await next_message(frames, 30.0)
    await subscription.drop()
    return last


async def test_speech_made_ready_by_one_worker_is_spoken_by_another(
    bus: Bus, call_id: str, service_env: dict[str, str], tmp_path: Path
) -> None:
    voices = tmp_path / "voices"
    voices.mkdir()
    (voices / "broken.onnx").write_bytes(b"no graph")
    (voices / "broken.onnx.json").write_text(json.dumps({"language": {"code": "fr_FR"}}))
    env = {**service_env, "DIALBUS_TTS_VOICES_PATH": str(voices)}
    async with run_service("tts", env, timeout_s=START_S):
        made = await _cache(bus, text=WELCOME)
        again = await _cache(bus, text=f" {WELCOME} \N{WAVING HAND SIGN}")
        own = await _cache(bus, text="Please hold.", cache_key="hold", rate_hz=8000)
        refused = {}
        unfit: dict[str, dict[str, Any]] = {
            "no such voice": {"text": "x", "speaker": "nobody"},
            "no such language": {"text": "x", "language": "zh"},
            "broken voice": {"text": "Bonjour.", "speaker": "broken"},
            "no word": {"text": " … "},
            "bad speed": {"text": "x", "speed": 0},
        }
        for name, fields in unfit.items():
            with pytest.raises(Refused) as error:
                await _cache(bus, **fields)
            refused[name] = error.value.code

    assert not made.existed
    assert made.size_bytes > 2 * 16000 * 0.8
    assert (again.existed, again.cache_key, again.size_bytes) == (True, made.cache_key, made.size_bytes)
    assert own.cache_key == "hold"
    assert refused == {
        "no such voice": 404, "no such language": 404, "broken voice": 500, "no word": 400, "bad speed": 400,
    }  # fmt: skip

    async with run_service("tts", env, timeout_s=START_S):
        wide = await _spoken(bus, call_id, WELCOME)
        narrow = await _spoken(bus, call_id, WELCOME, rate_hz=8000)
        held = await _spoken(bus, call_id, "Anything.", cache_key="hold")
        faster = await _spoken(bus, call_id, WELCOME, speed=1.2)
        streamed = await _spoken(bus, call_id, WELCOME, use_cache=False)
        streamed_again = await _spoken(bus, call_id, "Only once.", use_cache=False)
        later = await _spoken(bus, call_id, "Only once.")

    assert [last.facts["cached"] for last in (wide, narrow, held)] == ["1", "1", "1"]
    assert [last.facts["cached"] for last in (faster, streamed, streamed_again, later)] == ["0"] * 4
    seconds = made.size_bytes / 2 / 16000
    assert int(wide.facts["length"]) / 1000 == pytest.approx(seconds, abs=0.01)
    assert int(narrow.facts["length"]) / 1000 == pytest.approx(seconds, abs=0.01)
