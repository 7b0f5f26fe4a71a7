"""How long an answer may be used, and that it comes back as it was."""

import math
from pathlib import Path

import httpx
import pytest

from dialbus.diskcache import DiskCache
from media.files.fetch import Fetched
from media.files.url_cache import Kept, UrlCache, kept, may_be_kept

NOW = 1000.0


def _answer(**headers: str) -> Fetched:
    return Fetched(b"body", "/a.wav", httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize(
    ("headers", "fresh_s"),
    [
        ({}, math.inf),
        ({"etag": '"1"'}, 60),
        ({"last_modified": "Tue, 24 Nov 2026 15:00:00 GMT"}, 60),
        ({"etag": '"1"', "cache_control": "public, Max-Age=5"}, 5),
        ({"cache_control": "max-age=5"}, 5),
        ({"etag": '"1"', "cache_control": "no-cache"}, 0),
        ({"cache_control": "max-age=oops"}, math.inf),
    ],
)
def test_freshness(headers: dict[str, str], fresh_s: float) -> None:
    assert kept(_answer(**headers), NOW).fresh_until == NOW + fresh_s


def test_no_store_is_not_kept() -> None:
    assert not may_be_kept({"Cache-Control": "private, No-Store"})
    assert may_be_kept({})


@pytest.mark.parametrize("until", [math.inf, 1234.5])
def test_what_is_kept_comes_back(tmp_path: Path, until: float) -> None:
    entry = Kept(b"\n{}\0body", "/a b.wav", "audio/wav", '"1"', "yesterday", until)
    UrlCache(tmp_path).put("http://h.test/a", entry)

    assert UrlCache(tmp_path).get("http://h.test/a") == entry
    assert entry.conditions == {"If-None-Match": '"1"', "If-Modified-Since": "yesterday"}
    assert UrlCache(tmp_path).get("http://h.test/b") is None


def test_an_entry_of_another_version_is_not_there(tmp_path: Path) -> None:
    DiskCache(tmp_path, 1 << 20).put("http://h.test/a", b"{}\nbody")

    assert UrlCache(tmp_path).get("http://h.test/a") is None
