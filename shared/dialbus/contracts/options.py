"""CallOption and the objects inside it, as clients send them (protocol section 8a)."""

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from dialbus.contracts.base import U32, ClientJson


def _seconds(value: Any) -> Any:
    """`30`, `"30"` and `"30s"` all mean thirty seconds."""
    if isinstance(value, str) and value.strip().lower().endswith("s"):
        return value.strip()[:-1]
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=86_400)]
StringMap = dict[str, str]


class RecorderOption(ClientJson):
    """Recording of the call; `{}` switches it on with its defaults."""

    recorder_file: str | None = Field(default=None, max_length=1024)
    samplerate: Annotated[int, Field(ge=8000, le=48000)] = 16000
    ptime: Annotated[int, Field(ge=0, le=60_000)] = 200
    """Write interval in ms; 0 means 200."""
    format: str = "wav"


class VADOption(ClientJson):
    """Voice activity detection and the pauses that end speech; milliseconds unless named otherwise."""

    type: str = "silero"
    samplerate: U32 = 16000
    speech_padding: U32 = 250
    silence_padding: U32 = 100
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    voice_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_buffer_duration_secs: Annotated[int, Field(ge=1, le=3600)] = 50
    silence_timeout: U32 | None = None


class TranscriptionOption(ClientJson):
    """Speech recognition of a leg. `model` is an old name of `modelType`; if both are sent, modelType wins."""

    provider: str | None = None
    language: str | None = None
    model_type: str | None = Field(default=None, validation_alias=AliasChoices("modelType", "model", "model_type"))
    samplerate: U32 = Field(default=16000, validation_alias=AliasChoices("samplerate", "sampleRate"))
    buffer_size: U32 | None = None
    endpoint: str | None = None
    extra: StringMap | None = None
    start_when_answer: bool = False
    app_id: str | None = None
    secret_id: str | None = None
    secret_key: str | None = Field(default=None, validation_alias=AliasChoices("secretKey", "apiKey", "secret_key"))


class SynthesisOption(ClientJson):
    """Speech synthesis; every field is optional so that a command overrides only what it names."""

    provider: str | None = None
    speaker: str | None = None
    speed: Annotated[float, Field(gt=0, le=10)] | None = None
    volume: Annotated[float, Field(ge=0, le=10)] | None = None
    """0–10, 5 is the voice as it is."""
    samplerate: Annotated[int, Field(ge=8000, le=48000)] | None = None
    codec: str | None = None
    language: str | None = None
    model: str | None = Field(default=None, validation_alias=AliasChoices("model", "voice"))
    emotion: str | None = None
    subtitle: bool | None = None
    endpoint: str | None = None
    extra: StringMap | None = None
    max_concurrent_tasks: U32 | None = None
    wait_input_timeout: U32 | None = None
    """Milliseconds; default for the command's own field (Go SDK)."""
    cache_key: str | None = None
    app_id: str | None = None
    secret_id: str | None = None
    secret_key: str | None = Field(default=None, validation_alias=AliasChoices("secretKey", "apiKey", "secret_key"))

    def overridden_by(self, other: "SynthesisOption | None") -> "SynthesisOption":
        """These values, with those that `other` really names on top."""
        if other is None:
            return self
        return self.model_copy(update=other.model_dump(exclude_none=True))


class SipOption(ClientJson):
    """Credentials and headers of the SIP leg; snake_case and camelCase are both in use in the field."""

    username: str | None = None
    password: str | None = None
    realm: str | None = None
    contact: str | None = None
    headers: StringMap | None = None
    hangup_headers: StringMap | None = Field(
        default=None, validation_alias=AliasChoices("hangup_headers", "hangupHeaders")
    )


class CallOption(ClientJson):
    """What a client asks of a call with `invite` or `accept`."""

    caller: str | None = Field(default=None, max_length=1024)
    callee: str | None = Field(default=None, max_length=1024)
    denoise: bool = False
    recorder: RecorderOption | None = None
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    sip: SipOption | None = None
    extra: StringMap | None = None
    handshake_timeout: Seconds | None = None
    enable_ipv6: bool = False


SECRET_FIELDS = frozenset({"password", "secretKey", "secretId", "apiKey", "secret_key", "secret_id", "credential"})
"""JSON keys whose values are never written to a log, a dump, a list or a KV value."""


def masked(value: Any) -> Any:
    """The same JSON value with every secret replaced by `***`."""
    if isinstance(value, dict):
        return {key: "***" if key in SECRET_FIELDS and item else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value
