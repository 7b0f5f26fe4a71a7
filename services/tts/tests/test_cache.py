"""The key of protocol 2.5.7, and a cache that stays within its bytes."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.cache import CachedSpeech, SpeechCache, cache_key


def speech(samples: int) -> CachedSpeech:
    return CachedSpeech(np.zeros(samples, dtype=np.int16), 8000)


@pytest.mark.parametrize(
    ("speaker", "speed", "plain"),
    [
        (None, 1.0, "tts:piperHello_16000_1"),
        ("", 1.5, "tts:piperHello_16000_1.5"),
        ("alan", 0.25, "tts:piperHello_16000_alan_0.25"),
    ],
)
def test_key_is_the_documented_hash(speaker: str | None, speed: float, plain: str) -> None:
    key = cache_key(provider="piper", text="Hello", rate_hz=16000, speaker=speaker, speed=speed)

    assert key == hashlib.sha256(plain.encode()).hexdigest()


def test_key_of_a_text_with_a_lone_surrogate_exists() -> None:
    assert len(cache_key(provider="piper", text="\ud800", rate_hz=8000, speaker=None, speed=1)) == 64


def test_least_recently_used_leaves_first() -> None:
    cache = SpeechCache(400)
    cache.put("a", speech(100))
    cache.put("b", speech(100))
    cache.get("a")

    cache.put("c", speech(100))

    assert "a" in cache
    assert "b" not in cache
    assert cache.size_bytes == 400


def test_replacing_counts_once() -> None:
    cache = SpeechCache(400)
    cache.put("a", speech(100))
    cache.put("a", speech(50))

    assert (len(cache), cache.size_bytes) == (1, 100)


def test_too_large_an_entry_is_refused_and_evicts_nobody() -> None:
    cache = SpeechCache(400)
    cache.put("a", speech(100))

    assert not cache.put("b", speech(201))
    assert "a" in cache


def test_stored_audio_cannot_be_changed_from_outside() -> None:
    cache = SpeechCache(400)
    original = speech(10)
    cache.put("a", original)
    original.pcm[:] = 7

    held = cache.get("a")
    assert held is not None
    assert not held.pcm.any()
    with pytest.raises(ValueError, match="read-only"):
        held.pcm[0] = 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 300), st.booleans()), max_size=40))
def test_size_is_exact_and_bounded(steps: list[tuple[str, int, bool]]) -> None:
    cache = SpeechCache(500)
    for key, samples, store in steps:
        if store:
            assert cache.put(key, speech(samples)) == (key in cache)
        else:
            cache.get(key)
        assert cache.size_bytes == sum(entry.size_bytes for entry in cache._entries.values()) <= 500
