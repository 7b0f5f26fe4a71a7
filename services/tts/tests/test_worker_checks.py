"""What a request may say, and which voice it gets, before anything is spoken."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dialbus.bus import Refused
from dialbus.contracts.speech import CacheSpeech, Speak
from tts import requests
from tts.cache import cache_key
from tts.errors import VoiceNotFound
from tts.requests import VoiceFinder, allowed_speaker, place_of
from tts.voices import Voice, Voices


def speak(**more: Any) -> Speak:
    return Speak(**{"call_id": "c", "utterance_id": "u", "text": "Hello.", **more})


@pytest.mark.parametrize(
    "more",
    [
        {"text": "x" * 65537},
        {"text": "é" * 32769},
        {"speed": 0.0},
        {"speed": -1.0},
        {"speed": float("nan")},
        {"speed": float("inf")},
        {"volume": -0.1},
        {"volume": 10.5},
        {"track": "server.x"},
        {"track": ""},
        {"track": "*"},
        {"utterance_id": ""},
        {"utterance_id": "a\r\nLast: 1"},
        {"utterance_id": "a\n"},
        {"cache_key": ""},
        {"speaker": "a\0b.onnx"},
        {"speaker": "x" * 1025},
        {"language": "x" * 65},
    ],
)
def test_bad_value_is_none_of_the_contract_and_the_fault_says_what_was_expected(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        speak(**more)
    (name,) = more
    (fault,) = error.value.errors()
    assert fault["loc"] == (name,)
    assert fault["msg"].startswith(f"{name}: expected ")


@pytest.mark.parametrize("more", [{}, {"text": ""}, {"text": "x" * 65536}, {"volume": 0}, {"speed": 10}])
def test_good_value_passes(more: dict[str, Any]) -> None:
    assert all(getattr(speak(**more), name) == value for name, value in more.items())


def test_what_is_made_ready_is_held_to_the_same() -> None:
    with pytest.raises(ValidationError, match="speed: expected a number above 0"):
        CacheSpeech(text="Hello.", speed=0)


@pytest.mark.parametrize("rate_hz", [0, 7999, 48001])
@pytest.mark.parametrize("request_type", [Speak, CacheSpeech])
def test_a_rate_that_no_voice_is_made_for_is_refused(request_type: type[Speak | CacheSpeech], rate_hz: int) -> None:
    asked = {"call_id": "c", "utterance_id": "u", "text": "Hello."}
    request_type.model_validate(asked)
    with pytest.raises(ValidationError, match="rate_hz"):
        request_type.model_validate(asked | {"rate_hz": rate_hz})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside.onnx").touch()
    voices = tmp_path / "voices"
    (voices / "sub").mkdir(parents=True)
    (voices / "in.onnx").touch()
    (voices / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    (voices / "up").symlink_to(tmp_path, target_is_directory=True)
    return voices


@pytest.mark.parametrize("speaker", [None, "", "default", "joe", "joe#2", "3"])
def test_names_need_no_directory(speaker: str | None) -> None:
    assert allowed_speaker(speaker, None) == speaker


@pytest.mark.parametrize("speaker", ["in.onnx", "./in.onnx", "sub/../in.onnx", "in.onnx#3", " in.onnx "])
def test_path_below_the_directory_is_made_absolute(root: Path, speaker: str) -> None:
    mark = "#3" if "#" in speaker else ""
    assert allowed_speaker(speaker, root) == os.path.realpath(root / "in.onnx") + mark


@pytest.mark.parametrize(
    "speaker",
    ["../outside.onnx", "link.onnx", "up/outside.onnx", "/etc/passwd", "sub/../../outside.onnx#1", "../voices2/x.onnx"],
)
def test_path_that_leads_out_is_not_found(root: Path, speaker: str) -> None:
    with pytest.raises(VoiceNotFound):
        allowed_speaker(speaker, root)


def test_absolute_path_is_judged_by_where_it_leads(root: Path) -> None:
    assert allowed_speaker(str(root / "in.onnx"), root) == os.path.realpath(root / "in.onnx")
    with pytest.raises(VoiceNotFound):
        allowed_speaker(str(root.parent / "outside.onnx"), root)


def test_no_path_without_a_directory(root: Path) -> None:
    with pytest.raises(VoiceNotFound):
        allowed_speaker(str(root / "in.onnx"), None)


def test_cache_key_is_the_clients_or_the_protocols() -> None:
    voice = Voice("eva", Path("eva.onnx"), Path("eva.onnx.json"), "de_DE")
    plain: dict[str, Any] = {"provider": "piper", "text": "Hello.", "rate_hz": 16000, "speed": 1.0}

    assert place_of(speak(cache_key="mine"), voice).keys == ("mine",)
    assert place_of(speak(), voice).keys == (cache_key(speaker=None, **plain),)
    assert place_of(speak(speaker="x"), voice).keys == (cache_key(speaker="x", **plain),)
    assert place_of(speak(language="de"), voice).keys == (cache_key(speaker="eva", **plain),)
    assert place_of(speak(text=" Hello.\N{GRINNING FACE}\n"), voice) == place_of(speak(), voice)


@pytest.mark.parametrize(
    ("more", "rates_hz"),
    [
        ({"rate_hz": 16000}, [16000]),
        ({"rate_hz": 8000}, [8000, 16000]),
        ({"rate_hz": 8000, "samplerate": 24000}, [8000, 24000]),
    ],
)
def test_speech_kept_at_the_clients_or_the_usual_rate_will_do(more: dict[str, int], rates_hz: list[int]) -> None:
    voice = Voice("eva", Path("eva.onnx"), Path("eva.onnx.json"), "de_DE")

    assert place_of(speak(**more), voice).keys == tuple(
        cache_key(provider="piper", text="Hello.", rate_hz=rate_hz, speaker=None, speed=1.0) for rate_hz in rates_hz
    )


def test_what_is_made_ready_is_found_when_it_is_spoken() -> None:
    voice = Voice("eva", Path("eva.onnx"), Path("eva.onnx.json"), "de_DE")
    made = place_of(CacheSpeech(text="Hello.", speaker="eva", speed=1.5), voice)

    assert made.keys[0] in place_of(speak(speaker="eva", speed=1.5, rate_hz=8000), voice).keys


def test_a_voice_is_told_from_another_one_of_its_name(tmp_path: Path) -> None:
    model = tmp_path / "eva.onnx"
    model.write_bytes(b"one")
    voice = Voice("eva", model, tmp_path / "eva.onnx.json", "de_DE")
    before = place_of(speak(), voice)
    model.write_bytes(b"another")

    assert before.voice != place_of(speak(), voice).voice
    assert place_of(speak(cache_key="mine"), voice).voice is None


class SlowVoices(Voices):
    """Voices that are being downloaded until `arrived`."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.downloads = 0

    def resolve(self, speaker: str | None = None, language: str | None = None) -> Voice:
        self.downloads += 1
        assert self.arrived.wait(10)
        return super().resolve(None, language)


async def test_voice_that_is_being_fetched_is_refused_and_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    voices = SlowVoices()
    finder = VoiceFinder(voices, None)
    monkeypatch.setattr(requests, "RESOLVE_S", 0.01)
    try:
        for _ in range(2):
            with pytest.raises(Refused, match="not here yet") as refused:
                await finder.find(speak(speaker="far-away"))
            assert refused.value.code == 503
    finally:
        voices.arrived.set()
    monkeypatch.setattr(requests, "RESOLVE_S", 10)

    speaker, voice = await finder.find(speak(speaker="far-away"))
    assert (speaker, voice.name) == ("far-away", "en_US-joe-medium")
    assert voices.downloads == 1, "asking again does not fetch again"
