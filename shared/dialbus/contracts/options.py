"""CallOption and the objects inside it, as clients send them (protocol section 8a)."""

import re
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
    extract_headers: list[str] | None = Field(
        default=None, validation_alias=AliasChoices("extract_headers", "extractHeaders")
    )
    enable_srtp: bool | None = Field(default=None, validation_alias=AliasChoices("enable_srtp", "enableSrtp"))


class MediaPassOption(ClientJson):
    """The call's raw audio to and from a WebSocket server of the client's (protocol 10.3)."""

    url: Annotated[str, Field(min_length=1, max_length=4096)]
    input_sample_rate: Annotated[int, Field(ge=8000, le=48000)]
    """Of what the peer sends, Hz."""
    output_sample_rate: Annotated[int, Field(ge=8000, le=48000)]
    """Of what the peer gets, Hz."""
    packet_size: Annotated[int, Field(ge=160, le=65536, multiple_of=2)] = 2560
    """Bytes of each message to the peer."""
    ptime: U32 | None = None


class AGCOption(ClientJson):
    """Automatic gain control of the remote party's audio."""

    headroom_db: Annotated[float, Field(ge=0, le=30)] = 5.0
    max_gain_db: Annotated[float, Field(ge=0, le=90)] = 50.0
    initial_gain_db: Annotated[float, Field(ge=0, le=90)] = 15.0
    max_gain_change_db_per_second: Annotated[float, Field(gt=0, le=90)] = 6.0
    max_output_noise_level_dbfs: Annotated[float, Field(ge=-120, le=0)] = -50.0
    adjacent_speech_frames_threshold: Annotated[int, Field(ge=1, le=1000)] = 12
    enable_limiter: bool = True


class AmbianceOption(ClientJson):
    """A background sound that the remote party hears, softer while somebody speaks."""

    path: str | None = Field(default=None, max_length=4096)
    enabled: bool | None = None
    duck_level: Annotated[float, Field(ge=0, le=1)] = 0.1
    normal_level: Annotated[float, Field(ge=0, le=1)] = 0.3
    transition_speed: Annotated[float, Field(gt=0, le=1)] = 0.01
    """How much of the way to its new level the gain goes in each 20 ms."""


class ReferOption(ClientJson):
    """How `refer` places the second leg and what is done with its audio (protocol section 6)."""

    timeout: Annotated[int, Field(ge=1, le=3600)] = 30
    """Seconds of ringing."""
    moh: str | None = Field(default=None, max_length=4096)
    auto_hangup: bool = True
    denoise: bool = False
    agc: AGCOption | None = None
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    sip: SipOption | None = None
    call_id: str | None = Field(default=None, max_length=256)
    """SIP Call-ID of the second leg."""
    pause_parent_asr: bool = False
    forward_dtmf: bool = True


class CallOption(ClientJson):
    """What a client asks of a call with `invite` or `accept`.

    `eou`, `ringbackDetection` and `realtime` are named by the protocol and not provided; they become `error` events.
    """

    caller: str | None = Field(default=None, max_length=1024)
    callee: str | None = Field(default=None, max_length=1024)
    offer: str | None = None
    """SDP of a WebRTC peer."""
    denoise: bool = False
    recorder: RecorderOption | None = None
    vad: VADOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    sip: SipOption | None = None
    extra: StringMap | None = None
    handshake_timeout: Seconds | None = None
    enable_ipv6: bool = False
    codec: str | None = Field(default=None, max_length=16)
    """Of the audio on the socket itself (`/call`): pcm, pcmu, pcma, g722."""
    sample_rate: Annotated[int, Field(ge=8000, le=48000)] | None = Field(
        default=None, validation_alias=AliasChoices("sampleRate", "samplerate", "sample_rate")
    )
    """Of `codec: pcm`, Hz; absent: 16000."""
    media_pass: MediaPassOption | None = None
    subscribe: bool = False
    inactivity_timeout: Seconds | None = None
    agc: AGCOption | None = None
    ambiance: AmbianceOption | None = None
    enable_ice_lite: bool | None = None
    eou: dict[str, Any] | None = None
    ringback_detection: dict[str, Any] | None = None
    realtime: dict[str, Any] | None = None


MASK = "***"
_SECRET_ENDINGS = (
    "password", "passwd", "secret", "secretkey", "secretid", "accesskey", "apikey", "privatekey", "token",
    "authorization", "credential", "credentials", "cookie",
)  # fmt: skip
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,31}://)[^/?#@\s]{1,1024}@")
_SIP_PASSWORD = re.compile(r"\b(sips?:[^:@\s;>]{1,256}):[^:@\s;>]{1,256}@", re.IGNORECASE)
_QUERY_SECRET = re.compile(
    r"([?&](?:[\w.-]{0,64}(?:token|secret|password|signature|key)|sig)=)[^&#\s]{1,4096}", re.IGNORECASE
)


def is_secret(key: str) -> bool:
    """Whether a JSON key or a SIP or HTTP header names something that only its owner may read.

    By the end of the name, however it is spelled: `password`, `secretKey`, `secret_id`, `X-Api-Key`,
    `Proxy-Authorization`.
    """
    return re.sub(r"[^a-z0-9]", "", key.lower()).endswith(_SECRET_ENDINGS)


def masked(value: Any) -> Any:
    """The same JSON value as it may be written to a log, a dump, a list or a KV value.

    What `is_secret` names becomes `***`, and so do user and password in a URL, the password in a SIP URI, and
    secrets in a URL's query.
    """
    if isinstance(value, dict):
        return {key: MASK if item and is_secret(str(key)) else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return _without_credentials(value) if isinstance(value, str) else value


def _without_credentials(text: str) -> str:
    if "://" in text:
        text = _QUERY_SECRET.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}@", text))
    return _SIP_PASSWORD.sub(rf"\1:{MASK}@", text) if "@" in text else text
