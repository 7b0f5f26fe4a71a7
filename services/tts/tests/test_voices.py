"""A speaker names one voice or is refused; nothing is replaced silently."""

import json
from pathlib import Path

import pytest
from piper import download_voices

from tts.errors import LanguageNotSupported, VoiceBroken, VoiceNotFound
from tts.voices import Voices

JOE = "en_US-joe-medium"


def install(directory: Path, name: str, language: str = "de_DE", speakers: dict[str, int] | None = None) -> Path:
    model = directory / f"{name}.onnx"
    model.touch()
    config = {
        "language": {"code": language},
        "num_speakers": len(speakers or {}) or 1,
        "speaker_id_map": speakers or {},
    }
    (directory / f"{name}.onnx.json").write_text(json.dumps(config), encoding="utf-8")
    return model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    install(tmp_path, "de_DE-eva-low")
    install(tmp_path, "en_GB-many-medium", "en_GB", {"alice": 0, "bob": 7, "carol": 2})
    return tmp_path


@pytest.mark.parametrize("speaker", [None, "", " ", "default", JOE])
def test_default_is_the_installed_voice(speaker: str | None) -> None:
    voice = Voices().resolve(speaker)

    assert (voice.name, voice.language, voice.speaker_id) == (JOE, "en_US", None)
    assert voice.model.is_file()


@pytest.mark.parametrize(
    ("speaker", "name", "number"),
    [
        ("de_DE-eva-low", "de_DE-eva-low", None),
        ("en_GB-many-medium", "en_GB-many-medium", None),
        ("en_GB-many-medium#2", "en_GB-many-medium", 2),
        ("en_GB-many-medium#bob", "en_GB-many-medium", 7),
        (f"{JOE}#0", JOE, 0),
        ("0", JOE, 0),
    ],
)
def test_names_come_from_the_directory(directory: Path, speaker: str, name: str, number: int | None) -> None:
    voice = Voices(directory).resolve(speaker)

    assert (voice.name, voice.speaker_id) == (name, number)


def test_configured_default_may_be_a_path_a_name_or_one_speaker(directory: Path) -> None:
    path = str(directory / "de_DE-eva-low.onnx")

    assert Voices(default=path, allow_paths=False).resolve().name == "de_DE-eva-low"
    assert Voices(directory, default="de_DE-eva-low").resolve().name == "de_DE-eva-low"
    assert Voices(directory, default="en_GB-many-medium#bob").resolve().speaker_id == 7
    assert Voices(directory, default="en_GB-many-medium#bob").resolve("1").speaker_id == 1
    assert Voices(directory, default="de_DE-eva-low").resolve(JOE).name == JOE


NO_VOICES = ["nobody", "5", f"{JOE}#1", f"{JOE}#x", f"{JOE}#", "#", "en_GB-many-medium#9", "en_US-lessac-medium"]
NO_NAMES = ["../x", "..", ".hidden", "a b", "x" * 200, "\x00", "name\n/", "/nowhere.onnx", "/dev/null", "a.onnx.json"]


@pytest.mark.parametrize("speaker", [*NO_VOICES, *NO_NAMES])
def test_missing_voices_are_errors(directory: Path, speaker: str) -> None:
    with pytest.raises(VoiceNotFound):
        Voices(directory).resolve(speaker)


def test_clients_may_name_paths_only_when_allowed(directory: Path) -> None:
    path = str(directory / "de_DE-eva-low.onnx")

    assert Voices().resolve(path).language == "de_DE"
    with pytest.raises(VoiceNotFound, match="not allowed"):
        Voices(allow_paths=False).resolve(path)


@pytest.mark.parametrize(
    ("speaker", "language", "name"),
    [
        (None, "en", JOE),
        (None, "en-GB", JOE),
        (None, "de", "de_DE-eva-low"),
        (None, "DE-at", "de_DE-eva-low"),
        ("en_GB-many-medium", "en_US", "en_GB-many-medium"),
    ],
)
def test_language_chooses_among_voices_that_speak_it(
    directory: Path, speaker: str | None, language: str, name: str
) -> None:
    assert Voices(directory).resolve(speaker, language).name == name


@pytest.mark.parametrize(("speaker", "language"), [(None, "fr"), (JOE, "de"), ("de_DE-eva-low", "en")])
def test_language_that_the_voice_does_not_speak_is_an_error(
    directory: Path, speaker: str | None, language: str
) -> None:
    with pytest.raises(LanguageNotSupported) as caught:
        Voices(directory).resolve(speaker, language)
    assert caught.value.language == language


def test_voice_without_readable_configuration_is_broken(directory: Path) -> None:
    (directory / "x.onnx").touch()
    (directory / "y.onnx").touch()
    (directory / "y.onnx.json").write_text("[]")

    for name in "xy":
        with pytest.raises(VoiceBroken, match=f"{name}.onnx.json"):
            Voices(directory).resolve(name)


def test_hub_names_are_downloaded_once_and_only_when_allowed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, into: Path) -> None:
        asked.append(name)
        install(into, name, "en_GB")

    monkeypatch.setattr(download_voices, "download_voice", fetch)
    with pytest.raises(VoiceNotFound, match="downloads are not allowed"):
        Voices(directory).resolve("en_GB-alan-medium")
    voices = Voices(directory, allow_downloads=True)

    assert voices.resolve("en_GB-alan-medium").model == directory / "en_GB-alan-medium.onnx"
    assert voices.resolve("en_GB-alan-medium").language == "en_GB"
    assert asked == ["en_GB-alan-medium"]
    with pytest.raises(VoiceNotFound, match="hub name"):
        voices.resolve("nobody")


def test_failed_download_leaves_no_voice(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, into: Path) -> None:
        (into / f"{name}.onnx").write_bytes(b"half")
        raise OSError("no route to host")

    monkeypatch.setattr(download_voices, "download_voice", fetch)
    before = sorted(directory.iterdir())

    with pytest.raises(VoiceNotFound, match="no route"):
        Voices(directory, allow_downloads=True).resolve("en_GB-alan-medium")
    assert sorted(directory.iterdir()) == before


def test_names_lists_the_default_first(directory: Path) -> None:
    assert Voices(directory).names() == [JOE, "de_DE-eva-low", "en_GB-many-medium"]
