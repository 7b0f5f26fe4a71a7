"""Providers of other vendors, and what stands for them here (`[providers]`, protocol 8a).

A client written for another server names its vendor's provider, engine and voice. Where the settings map that name, the
request is served by ours, and what only means something to the vendor is dropped: engine names, endpoints, accounts.
Where they don't, the client is told. Names are case-blind. Pure functions, used where a request meets our engines.
"""

from collections.abc import Mapping
from typing import Any

from dialbus.contracts.options import SynthesisOption, TranscriptionOption

WHISPER = "whisper"
PIPER = "piper"
ANY_SPEAKER = "*"
"""The entry of `speakers` that stands for every voice of a mapped provider that has none of its own."""

Names = Mapping[str, str]
"""Foreign name, in lower case → ours."""

_VENDORS_OWN = ("endpoint", "extra", "app_id", "secret_id", "secret_key")
"""Fields of both options that say how to reach a vendor."""


class NotAvailable(Exception):
    """Nobody here stands for this provider; the client gets an `error` event with code 404."""

    def __init__(self, kind: str, provider: str) -> None:
        super().__init__(kind, provider)
        self.kind = kind
        self.provider = provider

    def __str__(self) -> str:
        return f"{self.kind} provider not available: {self.provider[:64]}"


def recognition(option: TranscriptionOption, providers: Names) -> TranscriptionOption:
    """The option as our recogniser takes it. Raises NotAvailable.

    A mapped provider's `modelType` (such as `16k_zh`) names an engine of the vendor's and is dropped; `language` stays.
    """
    if not _is_mapped("asr", option.provider, providers, WHISPER):
        return option
    return option.model_copy(update=_without(*_VENDORS_OWN, "model_type"))


def synthesis(option: SynthesisOption, providers: Names, speakers: Names) -> SynthesisOption:
    """The option as our synthesiser takes it, its voice in `speaker` (None: the default one). Raises NotAvailable.

    A speaker in the table becomes the voice it names there ("": the default one). One that is not stays as it is, and
    the synthesiser says whether there is such a voice; except that `*` speaks for a mapped provider's.
    """
    mapped = _is_mapped("tts", option.provider, providers, PIPER)
    named = option.speaker or (None if mapped else option.model)
    voice = named
    if named is not None:
        voice = speakers.get(named.lower(), speakers.get(ANY_SPEAKER, named) if mapped else named)
    dropped = (*_VENDORS_OWN, "model", "emotion") if mapped else ("model",)
    return option.model_copy(update={"speaker": voice or None} | _without(*dropped))


def _is_mapped(kind: str, provider: str | None, providers: Names, ours: str) -> bool:
    """Whether a foreign provider is asked for that ours stands for. Raises NotAvailable when nothing does."""
    if provider is None or provider.lower() == ours:
        return False
    if providers.get(provider.lower()) != ours:
        raise NotAvailable(kind, provider)
    return True


def _without(*fields: str) -> dict[str, Any]:
    return dict.fromkeys(fields)
