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
    with pytest.raises(OSError, match="not a folder"):
        open_private(tmp_path / "a" / "b", os.O_WRONLY | os.O_CREAT)


MAKE = os.O_WRONLY | os.O_CREAT


def test_links_lead_nowhere_but_within_the_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "recorders", tmp_path / "outside"
    (root / "day").mkdir(parents=True)
    outside.mkdir()
    (root / "in").symlink_to("day")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../outside/new")
    (root / "file.wav").symlink_to(outside / "stolen.wav")
    (root / "loop").symlink_to("loop")

    os.close(open_private(root / "in" / "a.wav", MAKE, below=root))
    for name in ("out/a.wav", "out/deep/a.wav", "up/a.wav", "file.wav", "loop/a.wav"):
        with pytest.raises(OSError, match=r"link|symbolic|not a folder"):
            open_private(root / name, MAKE, below=root)

    assert (root / "day" / "a.wav").exists()
    assert not list(outside.iterdir())


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "recorders").symlink_to("disk")

    os.close(open_private(tmp_path / "recorders" / "sub" / "a.wav", MAKE, below=tmp_path / "recorders"))

    assert (tmp_path / "disk" / "sub" / "a.wav").exists()
