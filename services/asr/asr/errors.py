"""The recogniser's exceptions.

AsrError
├── ModelNotFound          the setting names a model that is neither here nor obtainable
├── ModelUnusable          the folder is there, the engine cannot load it
├── ModelNotReady          it may be had later: being loaded, or waiting for room
├── LanguageNotSupported   the loaded model does not know the language asked for
└── AudioNotAccepted       wrong shape, type or length: our own mistake, not the caller's
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class AsrError(Exception):
    """What can go wrong in recognition; never raised as itself."""


class ModelNotFound(AsrError):
    """No model under this name; `setting` is the key the operator has to change."""

    def __init__(self, name: str, setting: str, reason: str) -> None:
        super().__init__(name, setting, reason)
        self.name = name
        self.setting = setting
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.setting}: no speech model {self.name!r}: {self.reason}"


class ModelUnusable(AsrError):
    """A model folder that the engine refuses."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the speech model in {self.path} cannot be loaded: {self.reason}"


class ModelNotReady(AsrError):
    """A model that this worker can't use yet."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"the speech model {self.name!r} is not ready: {self.reason}"


class LanguageNotSupported(AsrError):
    """The model was not trained for this language; a session with it gets an `error` event."""

    def __init__(self, language: str, supported: Iterable[str]) -> None:
        self.language = language
        self.supported = tuple(sorted(supported))
        super().__init__(language, self.supported)

    def __str__(self) -> str:
        shown = ", ".join(self.supported[:8]) + (", …" if len(self.supported) > 8 else "")
        return f"the speech model does not know the language {self.language!r} (it knows {shown})"


class AudioNotAccepted(AsrError):
    """Audio outside what a decode or a window takes."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"audio not accepted: {self.reason}"
