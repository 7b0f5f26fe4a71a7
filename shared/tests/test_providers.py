"""Foreign providers, engines and voices, and what they come to here (protocol 8a)."""

from typing import Any

import pytest

from dialbus.config import ConfigError, ProvidersConfig, load
from dialbus.contracts.options import SynthesisOption, TranscriptionOption
from dialbus.providers import NotAvailable, recognition, synthesis

MAPPED = ProvidersConfig.model_validate(
    {
        "asr": {"Tencent": "whisper"},
        "tts": {"tencent": "Piper", "ALIYUN": "piper"},
        "speakers": {"601003": "", "Longxiaochun": "en_US-joe-medium"},
    }
)
GO_EXAMPLE_ASR = {
    "provider": "tencent",
    "modelType": "16k_zh",
    "language": "en-US",
    "endpoint": "asr.example",
    "appId": "1",
    "secretId": "id",
    "secretKey": "key",
}


def asr(**fields: Any) -> TranscriptionOption:
    return recognition(TranscriptionOption.model_validate(fields), MAPPED.asr)


def tts(table: ProvidersConfig = MAPPED, **fields: Any) -> SynthesisOption:
    return synthesis(SynthesisOption.model_validate(fields), table.tts, table.speakers)


@pytest.mark.parametrize("provider", ["tencent", "TENCENT", "Tencent"])
def test_a_mapped_recogniser_keeps_the_language_and_loses_what_is_its_vendors(provider: str) -> None:
    option = asr(**GO_EXAMPLE_ASR | {"provider": provider})
    assert (option.language, option.model_type) == ("en-US", None)
    assert (option.endpoint, option.app_id, option.secret_id, option.secret_key) == (None,) * 4
    assert option.provider == provider, "metrics are named as the client asked"


@pytest.mark.parametrize("provider", [None, "whisper", "Whisper"])
def test_our_recogniser_gets_its_option_as_it_is(provider: str | None) -> None:
    option = asr(provider=provider, modelType="small.en", language="en")
    assert (option.model_type, option.language) == ("small.en", "en")


def test_a_recogniser_that_nobody_stands_for_is_told() -> None:
    with pytest.raises(NotAvailable, match="asr provider not available: aliyun"):
        asr(provider="aliyun")
    with pytest.raises(NotAvailable):
        asr(provider="")


@pytest.mark.parametrize(
    ("fields", "voice"),
    [
        ({}, None),
        ({"speaker": "en_US-joe-medium"}, "en_US-joe-medium"),
        ({"voice": "en_US-joe-medium"}, "en_US-joe-medium"),
        ({"provider": "piper", "speaker": "a", "model": "b"}, "a"),
        ({"provider": "PIPER", "speaker": "longxiaochun"}, "en_US-joe-medium"),
        ({"speaker": "601003"}, None),
        ({"provider": "tencent"}, None),
        ({"provider": "tencent", "speaker": "601003"}, None),
        ({"provider": "Tencent", "speaker": "LONGXIAOCHUN"}, "en_US-joe-medium"),
        ({"provider": "aliyun", "model": "cosyvoice-v2"}, None),
        ({"provider": "tencent", "speaker": "101001"}, "101001"),
    ],
)
def test_voices(fields: dict[str, Any], voice: str | None) -> None:
    option = tts(**fields)
    assert (option.speaker, option.model) == (voice, None)


def test_a_star_speaks_for_every_voice_of_a_mapped_provider_only() -> None:
    table = ProvidersConfig.model_validate({"tts": {"tencent": "piper"}, "speakers": {"*": "", "7": "joe"}})
    assert tts(table, provider="tencent", speaker="101001").speaker is None
    assert tts(table, provider="tencent", speaker="7").speaker == "joe"
    assert tts(table, speaker="nobody").speaker == "nobody"


def test_what_else_a_mapped_synthesis_asks_for_is_kept() -> None:
    option = tts(provider="tencent", speed=1.5, volume=7, language="en", emotion="sad", secretKey="k", cacheKey="c")
    assert (option.speed, option.volume, option.language, option.cache_key) == (1.5, 7, "en", "c")
    assert (option.emotion, option.secret_key, option.provider) == (None, None, "tencent")


def test_a_synthesiser_that_nobody_stands_for_is_told() -> None:
    with pytest.raises(NotAvailable, match="tts provider not available: deepgram"):
        tts(provider="deepgram")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DIALBUS_PROVIDERS_ASR", '{"tencent": "piper"}'), ("DIALBUS_PROVIDERS_TTS", '{"tencent": "tencent"}')],
)
def test_a_mapping_to_something_we_have_not_ends_the_start(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match="tencent"):
        load(None, {variable: value})
