from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr.errors import ModelNotFound
from asr.models import resolve_model

pytestmark = pytest.mark.model


def model_folder(where: Path, *without: str) -> Path:
    for name in {"model.bin", "tokenizer.json", "config.json"} - set(without):
        (where / name).touch()
    return where


@pytest.mark.parametrize("name", [None, "", "tiny.en"])
def test_the_default_comes_with_a_wheel(name: str | None) -> None:
    folder = resolve_model(name, download=False)

    assert (folder / "model.bin").stat().st_size > 10_000_000


def test_a_path_names_its_folder(tmp_path: Path) -> None:
    assert resolve_model(str(model_folder(tmp_path))) == tmp_path


def test_a_folder_that_is_not_complete_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"lacks tokenizer\.json, config\.json"):
        resolve_model(str(model_folder(tmp_path, "tokenizer.json", "config.json")))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_path_to_nowhere_is_never_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no such folder"):
        resolve_model(name)


def test_the_error_names_the_setting_and_the_model() -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve_model("/no/such/folder", setting="ASR_MODEL")

    assert str(caught.value) == "ASR_MODEL: no speech model '/no/such/folder': there is no such folder"


def test_an_unknown_size_is_refused_without_asking_the_hub() -> None:
    with pytest.raises(ModelNotFound, match=r"^asr\.modelType: no speech model 'gigantic': Invalid model size"):
        resolve_model("gigantic")


ASK = """
from asr.errors import ModelNotFound
from asr.models import resolve_model
try:
    print(resolve_model(%r, download=%r))
except ModelNotFound as error:
    print(error)
"""


def ask_the_hub(name: str, cache: Path, *, download: bool) -> str:
    """What a process prints that has this cache and may not use the network; the hub client reads both at import."""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ASK % (name, download)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_hub_name_is_found_in_the_local_cache_without_the_network(tmp_path: Path) -> None:
    repository = tmp_path / "models--Systran--faster-whisper-base"
    snapshot = repository / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    model_folder(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)

    for name in ("base", "Systran/faster-whisper-base"):
        assert ask_the_hub(name, tmp_path, download=True) == str(snapshot)


@pytest.mark.parametrize(("download", "reason"), [(False, "downloading is switched off"), (True, "the hub did not")])
def test_a_hub_name_that_cannot_be_had_is_one_clear_line(tmp_path: Path, download: bool, reason: str) -> None:
    printed = ask_the_hub("base", tmp_path, download=download)

    assert printed.startswith("asr.modelType: no speech model 'base': ")
    assert reason in printed
    assert "\n" not in printed
