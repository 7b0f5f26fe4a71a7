"""Files that hold what people said: recordings, event dumps, records of calls.

Other users of the machine read none, and no link leads them elsewhere.
A umask may take more from these modes, never add to them; what exists already keeps the mode that it has.
"""

import errno
import os
from pathlib import Path

FILE_MODE = 0o640
FOLDER_MODE = 0o750


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing. Raises OSError."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    try:
        folder.mkdir(mode=FOLDER_MODE)  # `parents` would make those with the mode of anything
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from None


def open_private(path: Path, flags: int, *, below: Path | None = None) -> int:
    """A descriptor of the file, made if `flags` say so, its folders too; `os.open` otherwise. Raises OSError.

    The file itself is never a link that is followed. `below`: nor is any folder one that leads out of this one, which
    may be a link itself.
    """
    folder = Path(os.path.realpath(path.parent))  # Path.resolve raises RuntimeError for a loop before Python 3.13
    if below is not None and not folder.is_relative_to(os.path.realpath(below)):
        raise OSError(errno.ELOOP, f"a link leads out of {below}", str(path))
    make_folder(folder)
    return os.open(folder / path.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
