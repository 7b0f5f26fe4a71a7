"""Synthesised speech kept in memory, so that a prompt heard on every call is computed once.

Pure: no disk, no clock, no lock. One thread, the worker's event loop, owns the cache.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from dialbus.audio import Pcm


@dataclass(frozen=True)
class CachedSpeech:
    """One utterance: `pcm` is int16[n], mono, at `rate_hz`, of unity volume."""

    pcm: Pcm
    rate_hz: int

    @property
    def size_bytes(self) -> int:
        return int(self.pcm.nbytes)


def cache_key(*, provider: str, text: str, rate_hz: int, speaker: str | None, speed: float) -> str:
    """The key of one utterance: lower-case hex SHA-256. Source: protocol 2.5.7.

    Whole speeds are written without a fraction (`1`, `1.5`). Volume is not part of the key: it is applied to what
    the cache holds (`tts.resample.with_volume`).
    """
    plain = f"tts:{provider}{text}_{rate_hz}"
    if speaker:
        plain += f"_{speaker}"
    return hashlib.sha256(f"{plain}_{speed:g}".encode("utf-8", "surrogatepass")).hexdigest()


class SpeechCache:
    """Least recently used utterances leave first; never holds more than `capacity_bytes` of PCM.

    A capacity of 0 stores nothing. An utterance larger than the whole cache is not stored and evicts nobody.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[str, CachedSpeech] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        """Whether `key` is held; asking does not count as use."""
        return key in self._entries

    def get(self, key: str) -> CachedSpeech | None:
        """The utterance under `key`, which becomes the most recently used."""
        speech = self._entries.get(key)
        if speech is not None:
            self._entries.move_to_end(key)
        return speech

    def put(self, key: str, speech: CachedSpeech) -> bool:
        """Store a private, read-only copy under `key`; True when it is held afterwards."""
        self.discard(key)
        if speech.size_bytes > self.capacity_bytes:
            return False
        pcm = speech.pcm.copy()
        pcm.setflags(write=False)
        self._entries[key] = CachedSpeech(pcm, speech.rate_hz)
        self.size_bytes += speech.size_bytes
        while self.size_bytes > self.capacity_bytes:
            self.discard(next(iter(self._entries)))
        return True

    def discard(self, key: str) -> None:
        """Forget `key`, if it is held."""
        speech = self._entries.pop(key, None)
        if speech is not None:
            self.size_bytes -= speech.size_bytes
