"""Files that hold what people said: recordings, event dumps, records of calls. Other users of the machine read none.

A umask may take more from these modes, never add to them; what exists already keeps the mode that it has.
"""

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
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)  # `parents` would make those with the mode of anything


def open_private(path: Path, flags: int) -> int:
    """A descriptor of the file, made if `flags` say so, its folders too; `os.open` otherwise. Raises OSError."""
    make_folder(path.parent)
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
