"""Recordings, dumps and records are for their user and group."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dialbus.privatefiles import make_folder, open_private


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Each umask, for one test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_umask_takes_from_the_modes_and_adds_nothing(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "a" / "b" / "call.wav"
    os.close(open_private(path, os.O_WRONLY | os.O_CREAT))

    assert mode(path) == 0o640 & ~umask
    assert {mode(path.parent), mode(path.parent.parent)} == {0o750 & ~umask}


def test_what_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)
    make_folder(tmp_path / "a" / "b")

    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b") & 0o027) == (0o755, 0)


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        open_private(tmp_path / "a" / "b", os.O_WRONLY | os.O_CREAT)
