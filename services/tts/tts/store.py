"""Where finished speech is kept: in memory, and below that in a folder that several workers share.

What the folder holds under a key of protocol 2.5.7 is used only for the voice that it was made with: the key of a text
without a speaker does not say which voice is the default one.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dialbus.diskcache import DiskCache
from tts.cache import CachedSpeech, SpeechCache


@dataclass(frozen=True)
class Place:
    """Where an utterance is looked for and kept."""

    keys: tuple[str, ...]
    """The first is the one it is kept under; the others are as good, at another rate."""
    voice: str | None
    """What the voice is told by; None when a client's own key stands for whatever was kept under it."""


class SpeechStore:
    """Used on one event loop; the folder is read and written in threads."""

    def __init__(self, memory: SpeechCache, disk: DiskCache | None = None) -> None:
        self._memory = memory
        self._disk = disk

    def recall(self, keys: Sequence[str]) -> CachedSpeech | None:
        """What memory holds under the first of the keys that is there."""
        return next((found for key in keys if (found := self._memory.get(key)) is not None), None)

    async def find(self, place: Place) -> CachedSpeech | None:
        """The utterance, from memory or else from the folder; then memory has it, too."""
        found = self.recall(place.keys)
        if found is not None or self._disk is None:
            return found
        for key in place.keys:
            found = _unpacked(await asyncio.to_thread(self._disk.get, key), place.voice)
            if found is not None:
                self._memory.put(key, found)
                return found
        return None

    async def keep(self, place: Place, speech: CachedSpeech) -> bool:
        """Keep the utterance, wherever there is room; whether there was."""
        key = place.keys[0]
        kept = self._memory.put(key, speech)
        if self._disk is not None:
            kept = await asyncio.to_thread(self._disk.put, key, _packed(speech, place.voice)) or kept
        return kept


def _packed(speech: CachedSpeech, voice: str | None) -> bytes:
    head = {"rate_hz": speech.rate_hz, "voice": voice}
    return json.dumps(head).encode() + b"\n" + speech.pcm.astype("<i2", copy=False).tobytes()


def _unpacked(data: bytes | None, voice: str | None) -> CachedSpeech | None:
    """The utterance of an entry; None when it is of another voice or was written by another version."""
    if data is None:
        return None
    try:
        line, _, pcm = data.partition(b"\n")
        head = json.loads(line)
        if voice is not None and head["voice"] != voice:
            return None
        return CachedSpeech(np.frombuffer(pcm, "<i2").astype(np.int16), int(head["rate_hz"]))
    except (ValueError, KeyError, TypeError):
        return None
