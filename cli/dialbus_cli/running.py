"""Which ensembles run on this machine, so that other commands find their bus without being told.

Each `dialbus run` keeps a file, `<process id>.json`, in the user's runtime folder: `$XDG_RUNTIME_DIR/dialbus`, else
`dialbus-<user id>` below the temporary folder. Only that user can read it, since a bus URL may hold a password.
"""

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Running:
    """An ensemble that runs."""

    pid: int
    nats_url: str


def folder() -> Path:
    """The user's own folder; it may not exist yet."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "dialbus" if runtime else Path(tempfile.gettempdir()) / f"dialbus-{os.getuid()}"


@contextmanager
def announced(nats_url: str) -> Iterator[None]:
    """Let this process be found while the block runs; where that is not possible it just isn't."""
    path = folder() / f"{os.getpid()}.json"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(path.parent):
            path.unlink(missing_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as text:
                json.dump({"pid": os.getpid(), "nats_url": nats_url}, text)
    except OSError:
        pass
    try:
        yield
    finally:
        if _is_ours(path.parent):
            path.unlink(missing_ok=True)


def found() -> list[Running]:
    """Ensembles that run, the newest first; what a killed one left behind is passed over."""
    place, running = folder(), []
    if not _is_ours(place):
        return []
    for path in sorted(place.glob("*.json"), key=_age):
        try:
            facts = json.loads(path.read_text())
            one = Running(int(facts["pid"]), str(facts["nats_url"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if _lives(one.pid):
            running.append(one)
    return running


def _is_ours(place: Path) -> bool:
    """Whether only this user can have written what is in it; below /tmp another one may have been there first."""
    try:
        found = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return False
    return pid > 0
