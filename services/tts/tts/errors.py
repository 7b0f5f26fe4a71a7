"""What can go wrong between a text and its audio.

    TtsError
    ├── VoiceNotFound          the speaker names no voice that this worker has
    ├── LanguageNotSupported   the voice exists and does not speak the language asked for
    ├── VoiceBroken            the voice's files exist and cannot be loaded
    └── SynthesisFailed        the model failed on one text; the next one may well succeed

Each carries its verdict: `code` is the number in the client's `error` event (protocol 3.5) and `retry` tells
whether another worker could do better with the same request.
"""

from pathlib import Path
from typing import ClassVar


class TtsError(Exception):
    """Root of this service's errors."""

    code: ClassVar[int] = 500
    retry: ClassVar[bool] = False


class VoiceNotFound(TtsError):
    """No voice of that name; `reason` says where it was looked for. Another voice is never taken instead."""

    code = 404

    def __init__(self, speaker: str, reason: str) -> None:
        super().__init__(speaker, reason)
        self.speaker, self.reason = speaker, reason

    def __str__(self) -> str:
        return f"no voice {self.speaker!r}: {self.reason}"


class LanguageNotSupported(TtsError):
    """The voice speaks `spoken`, and `language` was asked for."""

    code = 400

    def __init__(self, language: str, voice: str, spoken: str) -> None:
        super().__init__(language, voice, spoken)
        self.language, self.voice, self.spoken = language, voice, spoken

    def __str__(self) -> str:
        return f"voice {self.voice!r} speaks {self.spoken}, not {self.language!r}"


class VoiceBroken(TtsError):
    """A voice's model or configuration cannot be read."""

    retry = True

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        # The file's name only: the text reaches clients, and the directory is none of their business.
        return f"voice file {self.path.name} cannot be used: {self.reason}"


class SynthesisFailed(TtsError):
    """The engine raised while it spoke `phrase`."""

    retry = True

    def __init__(self, phrase: str, reason: str) -> None:
        super().__init__(phrase, reason)
        self.phrase, self.reason = phrase, reason

    def __str__(self) -> str:
        return f"cannot synthesise {self.phrase[:40]!r}: {self.reason}"
