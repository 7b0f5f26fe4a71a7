"""What URLs gave, kept on disk, and when it must be asked for again (a small part of RFC 9111).

An answer with a validator (ETag, Last-Modified) is used for a minute, then asked for with that validator. An answer
without one is used as it is until it leaves the cache: URLs of prompts rarely change what they mean. The server's
`Cache-Control` (max-age, no-cache, no-store) goes before both.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dialbus.diskcache import DiskCache
from media.files.fetch import Fetched

CAPACITY_BYTES = 256 << 20
FRESH_S = 60.0
"""Of an answer with a validator, without a word of the server."""

_MAX_AGE = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was kept."""

    body: bytes
    path: str
    """See `Fetched.path`."""
    content_type: str | None
    etag: str | None
    last_modified: str | None
    fresh_until: float
    """Unix time; infinite when the answer may be used as it is."""

    @property
    def conditions(self) -> dict[str, str]:
        """Headers that ask only for something newer."""
        conditions = {}
        if self.etag is not None:
            conditions["If-None-Match"] = self.etag
        if self.last_modified is not None:
            conditions["If-Modified-Since"] = self.last_modified
        return conditions


class UrlCache:
    """Answers by URL, in a folder that several workers may share. Blocking; for a thread."""

    def __init__(self, folder: Path, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._disk = DiskCache(folder, capacity_bytes)

    def get(self, url: str) -> Kept | None:
        """What was kept of the URL, fresh or not."""
        data = self._disk.get(url)
        if data is None:
            return None
        try:
            head, _, body = data.partition(b"\n")
            facts = json.loads(head)
            until = facts["fresh_until"]
            return Kept(
                body,
                facts["path"],
                facts["content_type"],
                facts["etag"],
                facts["last_modified"],
                math.inf if until is None else until,
            )
        except (ValueError, KeyError, TypeError):  # written by another version
            return None

    def put(self, url: str, kept: Kept) -> None:
        """Keep an answer, if there is room."""
        facts = {
            "path": kept.path,
            "content_type": kept.content_type,
            "etag": kept.etag,
            "last_modified": kept.last_modified,
            "fresh_until": None if math.isinf(kept.fresh_until) else kept.fresh_until,
        }
        self._disk.put(url, json.dumps(facts).encode() + b"\n" + kept.body)

    def discard(self, url: str) -> None:
        """Forget the URL."""
        self._disk.discard(url)


def kept(answer: Fetched, now: float) -> Kept:
    """The answer as it may be kept; `now` is Unix time."""
    headers = answer.headers
    etag, last_modified = headers.get("ETag"), headers.get("Last-Modified")
    has_validator = etag is not None or last_modified is not None
    until = now + _fresh_s(headers, FRESH_S if has_validator else math.inf)
    return Kept(answer.body, answer.path, headers.get("Content-Type"), etag, last_modified, until)


def may_be_kept(headers: Mapping[str, str]) -> bool:
    """Whether the server lets us keep the answer at all."""
    return "no-store" not in headers.get("Cache-Control", "").lower()


def _fresh_s(headers: Mapping[str, str], otherwise: float) -> float:
    control = headers.get("Cache-Control", "")
    if "no-cache" in control.lower():
        return 0.0
    told = _MAX_AGE.search(control)
    return float(told[1]) if told else otherwise
