"""A folder of cached bytes: whole entries or none, within its size, and never in the way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dialbus.diskcache import DiskCache

ROOM = 10_000


def _age(folder: Path, seconds: float) -> None:
    """Everything in the folder was last used so much earlier."""
    for path in folder.iterdir():
        at = path.stat().st_mtime - seconds
        os.utime(path, (at, at))


def test_an_entry_is_found_by_another_process_of_the_same_folder(tmp_path: Path) -> None:
    assert DiskCache(tmp_path / "new", ROOM).put("../k\0ey", b"body")

    assert DiskCache(tmp_path / "new", ROOM).get("../k\0ey") == b"body"
    assert DiskCache(tmp_path / "new", ROOM).get("other") is None
    assert [len(path.name) for path in (tmp_path / "new").iterdir()] == [64]


def test_the_least_recently_used_leaves_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ROOM)
    for key in ("a", "b", "c"):
        assert cache.put(key, bytes(3000))
        _age(tmp_path, 10)
    assert cache.get("a") is not None

    assert cache.put("d", bytes(3000))

    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= ROOM


def test_an_entry_larger_than_the_cache_is_not_kept_and_evicts_nobody(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ROOM)
    cache.put("a", b"a")

    assert not cache.put("b", bytes(ROOM))
    assert cache.get("a") == b"a"


def test_replacing_gives_the_new_body(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, ROOM)
    cache.put("a", b"old")
    cache.put("a", b"new")

    assert cache.get("a") == b"new"
    cache.discard("a")
    cache.discard("a")
    assert cache.get("a") is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"?"])
def test_a_damaged_entry_is_not_there(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = DiskCache(tmp_path, ROOM)
    cache.put("a", b"body")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))

    assert cache.get("a") is None
    assert not path.exists()


def test_what_a_dead_writer_left_is_removed_and_a_strangers_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "unfinished-x").write_bytes(bytes(5000))
    (tmp_path / "strange.txt").write_bytes(bytes(50_000))
    _age(tmp_path, 4000)
    (tmp_path / "unfinished-y").write_bytes(b"being written")

    DiskCache(tmp_path, ROOM).put("a", b"a")

    assert sorted(path.name for path in tmp_path.iterdir() if len(path.name) < 64) == ["strange.txt", "unfinished-y"]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    cache = DiskCache(blocked / "cache", ROOM)

    assert not cache.put("a", b"body")
    assert not cache.put("b", b"body")
    assert cache.get("a") is None
