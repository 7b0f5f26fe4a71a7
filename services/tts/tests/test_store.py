"""Finished speech in memory and in a folder that workers share."""

from pathlib import Path

import numpy as np
import pytest

from dialbus.diskcache import DiskCache
from tts.cache import CachedSpeech, SpeechCache
from tts.store import Place, SpeechStore

SPEECH = CachedSpeech(np.arange(-400, 400, dtype=np.int16), 8000)
PLACE = Place(("key",), "eva 7")


def _worker(folder: Path | None, memory: int = 10_000, disk: int = 10_000) -> SpeechStore:
    return SpeechStore(SpeechCache(memory), DiskCache(folder, disk) if folder is not None else None)


async def test_what_one_worker_keeps_another_finds(tmp_path: Path) -> None:
    assert await _worker(tmp_path).keep(PLACE, SPEECH)
    other = _worker(tmp_path)

    assert other.recall(PLACE.keys) is None
    found = await other.find(PLACE)

    assert found is not None
    assert (found.pcm.tolist(), found.rate_hz) == (SPEECH.pcm.tolist(), 8000)
    assert other.recall(PLACE.keys) is not None, "from then on in memory"


async def test_a_voice_does_not_speak_with_anothers_tongue(tmp_path: Path) -> None:
    await _worker(tmp_path).keep(PLACE, SPEECH)

    assert await _worker(tmp_path).find(Place(("key",), "eva 8")) is None
    assert await _worker(tmp_path).find(Place(("key",), None)) is not None, "the client's own key is whatever it holds"


async def test_the_other_rates_are_looked_for_behind_the_asked_one(tmp_path: Path) -> None:
    store = _worker(tmp_path)
    await store.keep(Place(("16k",), "eva 7"), SPEECH)

    assert await _worker(tmp_path).find(Place(("8k", "16k"), "eva 7")) is not None
    assert store.recall(("8k", "16k")) is not None
    assert store.recall(("8k",)) is None


@pytest.mark.parametrize(
    ("memory", "disk", "kept"), [(10_000, 10_000, True), (10, 10_000, True), (10_000, 10, True), (10, 10, False)]
)
async def test_it_is_kept_wherever_there_is_room(tmp_path: Path, memory: int, disk: int, kept: bool) -> None:
    assert await _worker(tmp_path, memory, disk).keep(PLACE, SPEECH) is kept


async def test_a_folder_that_cannot_be_written_leaves_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = _worker(tmp_path / "file" / "tts")

    assert await store.keep(PLACE, SPEECH)
    assert await store.find(PLACE) is not None
    assert await _worker(None).find(PLACE) is None


async def test_an_entry_of_another_version_is_not_there(tmp_path: Path) -> None:
    DiskCache(tmp_path, 10_000).put("key", b'{"rate": 8000}\n\0\0')
    DiskCache(tmp_path, 10_000).put("odd", b'{"rate_hz": 8000, "voice": "eva 7"}\n\0')

    assert await _worker(tmp_path).find(PLACE) is None
    assert await _worker(tmp_path).find(Place(("odd",), "eva 7")) is None
