"""`/precache`: a `tts` command becomes a request to the tts workers (protocol 7.6). Pure."""

from typing import Any

from pydantic import ValidationError

from dialbus.config import ProvidersConfig
from dialbus.contracts.commands import BadCommand, Tts, command_from
from dialbus.contracts.options import SynthesisOption
from dialbus.contracts.speech import CacheSpeech
from dialbus.providers import synthesis

RATES_HZ = (16000, 8000)
"""Of wideband and narrowband calls: without a wish, speech is kept for both."""


def cache_request(data: Any, providers: ProvidersConfig, **asker: Any) -> CacheSpeech:
    """What to synthesise. Raises BadCommand and NotAvailable.

    Without `samplerate` and without a key of the client's own it is kept at two rates, since a call asks for its own.
    `asker` is what the request says of whoever asks.
    """
    if not isinstance(data, dict):
        raise BadCommand("a tts command is a JSON object")
    command = command_from({"command": "tts"} | {key: value for key, value in data.items() if value is not None})
    if not isinstance(command, Tts):
        raise BadCommand(f"only tts can be cached, not {command.command}")
    if command.base64:
        raise BadCommand("base64: only text can be synthesised")
    if not command.text.strip():
        raise BadCommand("text: nothing to speak")
    option = command.option or SynthesisOption()
    if command.speaker is not None:
        option = option.model_copy(update={"speaker": command.speaker})
    option = synthesis(option, providers.tts, providers.speakers)
    key = command.cache_key or option.cache_key
    rates = (option.samplerate,) if option.samplerate else RATES_HZ[:1] if key else RATES_HZ
    try:
        return CacheSpeech(
            text=command.text,
            speaker=option.speaker,
            language=option.language,
            speed=option.speed or 1.0,
            volume=5.0 if option.volume is None else option.volume,
            rate_hz=rates[0],
            cache_key=key,
            other_rates_hz=rates[1:],
            **asker,
        )
    except ValidationError as error:
        raise BadCommand(str(error.errors(include_url=False)[0]["msg"])) from None
