"""One engine for the run: opening the voice is the slow part."""

from pathlib import Path

import pytest

from tts.engine import LoadedVoice, PiperSynthesiser
from tts.voices import Voices


@pytest.fixture(scope="session")
def split_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("split")


@pytest.fixture(scope="session")
def engine(split_cache: Path) -> PiperSynthesiser:
    return PiperSynthesiser(Voices(), cache=split_cache)


@pytest.fixture(scope="session")
def voice(engine: PiperSynthesiser) -> LoadedVoice:
    return engine.load()
