"""A folder of cached bytes that stays within its size; several processes may share it.

One file for each entry, named by the hash of its key, written beside and moved into place, so that readers see a
whole entry or none. Nothing here is needed for correctness: what can't be read is not there, what can't be written is
not kept. Everything blocks; call it from a thread.
"""

import hashlib
import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from dialbus import telemetry

log = telemetry.get_logger()

_MAGIC = b"dialbus-cache-1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size
_ENTRY = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = "unfinished-"
_UNFINISHED_S = 3600.0
"""An unfinished file of this age belongs to a writer that died."""


class DiskCache:
    """Entries by key; the least recently used leave first. Thread-safe, and safe beside other processes."""

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._folder = folder
        self._capacity = capacity_bytes
        self._complained = False

    def get(self, key: str) -> bytes | None:
        """The entry, which becomes the most recently used; None when there is none, or a damaged one."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = data[_HEAD:]
        if data[:_HEAD] != _MAGIC + hashlib.sha256(body).digest():
            log.warning("cache.damaged", path=str(path))
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return body

    def put(self, key: str, body: bytes) -> bool:
        """Keep the entry; whether it is kept. One larger than the whole cache is not."""
        if len(body) + _HEAD > self._capacity:
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._path(key), body)
            self._make_room()
        except OSError as error:
            if not self._complained:
                self._complained = True  # once: a full or read-only disk fails for every entry
                log.warning("cache.not_written", folder=str(self._folder), error=str(error))
            return False
        return True

    def discard(self, key: str) -> None:
        """Forget the entry; fine when there is none."""
        with suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()

    def _write(self, path: Path, body: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC)
                file.write(hashlib.sha256(body).digest())
                file.write(body)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def _make_room(self) -> None:
        """Remove the least recently used entries beyond the capacity, and what dead writers left behind."""
        entries: list[tuple[float, int, str]] = []
        with os.scandir(self._folder) as found:
            for item in found:
                with suppress(OSError):  # another process was faster
                    facts = item.stat(follow_symlinks=False)
                    if _ENTRY.fullmatch(item.name):
                        entries.append((facts.st_mtime_ns, facts.st_size, item.path))
                    elif item.name.startswith(_UNFINISHED) and time.time() - facts.st_mtime > _UNFINISHED_S:
                        os.unlink(item.path)
        size = sum(entry[1] for entry in entries)
        for _, length, path in sorted(entries):
            if size <= self._capacity:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            size -= length
