"""Every table and key of `config.toml`, with its default (protocol section 8)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dialbus.config.values import (
    LOOPBACK,
    TOKEN,
    Address,
    Codecs,
    Duration,
    HeaderPairs,
    HostPort,
    Ip,
    Line,
    Network,
    Pattern,
    PortNumber,
    Share,
    host_and_port,
    listed,
    shown_url,
    unpacked,
)
from dialbus.contracts.media import LegKind


def _not_a_playbook(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "playbook":
        raise ValueError('playbooks are not supported, use type = "webhook" and decide in your application')
    return value


def _not_s3(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "s3":
        raise ValueError('s3 is not supported, use type = "local" or "http"')
    return value


ServiceName = Literal["gateway", "sip-ua", "media", "asr", "tts", "webhook-dispatcher"]
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, populate_by_name=True)


class HandlerConfig(Section):
    """`[ua.handler]`: who is told of an inbound call."""

    type: Annotated[Literal["webhook"], BeforeValidator(_not_a_playbook)] = "webhook"
    url: str | None = None
    urls: Annotated[list[str], BeforeValidator(listed)] = []
    method: Annotated[str, Field(pattern=f"^{TOKEN.pattern}$")] = "POST"
    headers: HeaderPairs = []
    timeout: Duration = 10.0
    secret: str | None = Field(default=None, repr=False)
    """Key of the `X-Dialbus-Signature` header; absent: not signed."""

    @property
    def targets(self) -> list[str]:
        """Every configured URL, in order."""
        return ([self.url] if self.url else []) + self.urls

    @model_validator(mode="after")
    def _http_only(self) -> "HandlerConfig":
        for target in self.targets:
            if not target.lower().startswith(("http://", "https://")):
                raise ValueError(f"a webhook URL begins with http:// or https://, not {shown_url(target)[:80]!r}")
        return self


class CredentialConfig(Section):
    """Digest credentials."""

    username: str
    password: str = Field(repr=False)
    realm: str | None = None


class RegisterUser(Section):
    """One entry of `register_users`."""

    server: Annotated[str, AfterValidator(host_and_port)]
    username: Annotated[str, Field(min_length=1)]
    display_name: Line | None = None
    disabled: bool = False
    credential: CredentialConfig | None = None
    allow_md5: bool = True
    """Whether MD5 challenges are answered, as the protocol's default hash."""


class UriPattern(Section):
    """Regular expressions, searched for in a URI's parts; absent: anything."""

    user: Pattern | None = None
    host: Pattern | None = None


class UriParts(Section):
    """New parts of a URI; absent: kept. A host may carry a port; without one the URI keeps its own."""

    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    host: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(host_and_port)] | None = None


class TrunkMatch(Section):
    """What a call must be for the rule: every pattern has to hold, none at all means every call."""

    from_: UriPattern = Field(default=UriPattern(), alias="from")
    to: UriPattern = UriPattern()


class TrunkRewrite(Section):
    """What the rule makes of the call."""

    from_: UriParts = Field(default=UriParts(), alias="from")
    to: UriParts = UriParts()
    contact: UriParts = UriParts()


class TrunkRuleBody(Section):
    """`rule` of one entry of `[[trunk_rules]]`."""

    match: TrunkMatch = TrunkMatch()
    rewrite: TrunkRewrite = TrunkRewrite()


class TrunkRule(Section):
    """One entry of `[[trunk_rules]]`: outbound calls that match are rewritten; the first match wins."""

    rule: TrunkRuleBody = TrunkRuleBody()


class UaConfig(Section):
    """`[ua]`: SIP."""

    addr: Ip = "0.0.0.0"
    udp_port: PortNumber = 13050
    useragent: Annotated[Line, Field(min_length=1)] = "dialbus/0.1.0"
    callid_suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    accept_timeout: Duration = 60.0
    max_calls: Annotated[int, Field(ge=1)] = 1000
    """Calls of all types at once, pending ones included; further ones get 503."""
    trusted_sources: Annotated[list[Network], BeforeValidator(listed)] = list(LOOPBACK)
    """Networks whose INVITEs are bounded by `max_calls` alone: those of trunks. The rest is for all others."""
    source_invites_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0
    source_invite_burst: Annotated[int, Field(ge=1)] = 100
    source_pending_share: Share = 0.25
    """Of `max_calls`, that one source may have pending."""
    source_call_share: Share = 0.5
    """Of `max_calls`, that one source may have in all."""
    source_unacknowledged: Annotated[int, Field(ge=1)] = 20
    """Calls of one source that were answered and not acknowledged yet."""
    reserve_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of `max_calls`, that is kept for trusted sources, servers of `register_users` and calls of clients."""
    register_users: Annotated[list[RegisterUser], BeforeValidator(unpacked)] = []
    graceful_shutdown: bool = True
    graceful_shutdown_timeout: Duration = 30.0
    handler: HandlerConfig = HandlerConfig()


class NatsConfig(Section):
    """`[nats]`: the bus."""

    url: str = "nats://127.0.0.1:4222"
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    event_retention: Duration = 3600.0
    """How long the events of a call can be replayed."""


class TraceConfig(Section):
    """`[trace]`: what `dialbus trace` can tell of calls. Kept in the bus server's memory."""

    enabled: bool = True
    max_age: Duration = 3600.0
    max_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """Of all calls together; the oldest lines go first."""


class HealthConfig(Section):
    """`[health]`: how services tell that they are well."""

    addr: Address = HostPort("127.0.0.1", 0)
    """Where a service without an API of its own serves /health and /metrics."""
    expects: Annotated[list[ServiceName], BeforeValidator(listed)] = list(SERVICES)
    """The gateway's /health says `starting` until each of these has had a ready worker."""


class MediaConfig(Section):
    """`[media]`: a media worker."""

    max_calls: Annotated[int, Field(ge=1)] = 200
    accept: Annotated[list[LegKind], BeforeValidator(listed), Field(min_length=1)] = ["rtp", "webrtc", "socket"]
    """Kinds of legs that this worker takes: WebRTC costs much more CPU and can have workers of its own."""


class AsrConfig(Section):
    """`[asr]`: an asr worker."""

    model: str | None = None
    """A path, a hub name, or absent for the model of the wheel."""
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    """Utterances decoded at once; absent: the number of cores."""
    max_sessions: Annotated[int, Field(ge=1)] = 64
    beam: Annotated[int, Field(ge=1, le=10)] = 1


class TtsConfig(Section):
    """`[tts]`: a tts worker."""

    speaker: str | None = None
    """A path, a name in `voices_path`, or absent for the voice of the wheel."""
    voices_path: Path | None = None
    allow_downloads: bool = False
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Texts synthesised at once."""
    max_queue: Annotated[int, Field(ge=1)] = 64
    max_cache_queue: Annotated[int, Field(ge=1)] = 32
    """Texts that wait to be made ready (`/precache`), the one in the making included."""
    cache_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    """Finished speech kept in memory."""
    disk_cache_bytes: Annotated[int, Field(ge=0)] = 256 << 20
    """Finished speech kept below `media_cache_path`, for all workers that share it."""


class RecordingConfig(Section):
    """`[recording]`: flat names of the recorder's settings, and recording of every call."""

    enabled: bool = False
    auto_start: bool = False
    samplerate: Annotated[int, Field(ge=8000, le=48000)] = 16000
    ptime: Annotated[int, Field(ge=0)] = 200
    allow_absolute_paths: bool = False


class IceServer(Section):
    """One entry of `[[ice_servers]]`, as browsers know it."""

    urls: Annotated[list[str], BeforeValidator(listed)]
    username: str | None = None
    credential: str | None = Field(default=None, repr=False)


class AmbianceConfig(Section):
    """`[ambiance]`: the background sound of calls whose clients name none (protocol 8a, AmbianceOption)."""

    path: str | None = None
    enabled: bool | None = None
    duck_level: Annotated[float, Field(ge=0, le=1)] | None = None
    normal_level: Annotated[float, Field(ge=0, le=1)] | None = None
    transition_speed: Annotated[float, Field(gt=0, le=1)] | None = None


class CallRecordConfig(Section):
    """`[callrecord]`: where records of calls go."""

    type: Annotated[Literal["local", "http"], BeforeValidator(_not_s3)] = "local"
    root: Path = Path("./config/cdr")
    """Of `local`; of `http` for records that could not be sent."""
    url: str | None = None
    """Of `http`."""
    headers: HeaderPairs = []
    with_media: bool = False
    """`http`: send recordings and dumps along."""
    keep_media_copy: bool = True
    """`http` with media: keep the files here after they were sent."""

    @model_validator(mode="after")
    def _has_target(self) -> "CallRecordConfig":
        if self.type == "http" and not (self.url or "").lower().startswith(("http://", "https://")):
            raise ValueError("url: an http(s) URL is needed with type http")
        return self


class FetchConfig(Section):
    """`[fetch]`: URLs that are fetched on a client's behalf (play, ringtone, moh, ambiance, mediaPass)."""

    allow_private: bool = False
    """Also from private addresses; never from link-local ones and the metadata services of clouds."""
    allow_loopback: bool = False
    """Also from this machine; a web page or a peer that gets a client to name a URL would reach what listens here."""
    max_bytes: Annotated[int, Field(ge=1024)] = 50 << 20
    timeout: Duration = 10.0


def _lowered_keys(value: Any) -> Any:
    value = unpacked(value)
    return {str(name).lower(): item for name, item in value.items()} if isinstance(value, Mapping) else value


def _lowered(value: Any) -> Any:
    value = _lowered_keys(value)
    if not isinstance(value, dict):
        return value
    return {name: item.lower() if isinstance(item, str) else item for name, item in value.items()}


class ProvidersConfig(Section):
    """`[providers]`: names of other vendors and what stands for them here (dialbus.providers); case-blind."""

    asr: Annotated[dict[str, Literal["whisper"]], BeforeValidator(_lowered)] = {}
    """Provider name → `whisper`."""
    tts: Annotated[dict[str, Literal["piper"]], BeforeValidator(_lowered)] = {}
    """Provider name → `piper`."""
    speakers: Annotated[dict[str, str], BeforeValidator(_lowered_keys)] = {}
    """Speaker name → a voice of ours; an empty text is the default voice. `*`: any other of a mapped provider."""


class RtpConfig(Section):
    """`[rtp]`: whose packets are believed."""

    latching: Literal["host", "any"] = "host"
    """With `enable_rtp_latching`: `host` follows a phone to other ports of the SDP's host and to the signalling's host,
    `any` for the first seconds to any host that sends first."""


class AmiConfig(Section):
    """`[ami]`: who may use /ami/v1 besides loopback addresses."""

    allows: Annotated[list[str], BeforeValidator(listed)] = []
    """Addresses or networks; `*` is everybody."""


class GatewayConfig(Section):
    """`[gateway]`: what browsers and proxies may do at the API (protocol section 1)."""

    hosts: Annotated[list[str], BeforeValidator(listed)] = []
    """Names, addresses or networks under which clients reach us, besides the machine's own."""
    origins: Annotated[list[str], BeforeValidator(listed)] = []
    """Of the web pages of other servers that may use the API: scheme://host[:port]."""
    trusted_proxies: Annotated[list[str], BeforeValidator(listed)] = []
    """Addresses or networks of the proxies whose word on a client's address counts."""
    max_sockets: int = Field(default=10_000, ge=1)
    """Client sockets open at a time; further upgrades are answered 503."""


class Config(Section):
    """The whole file. Larger than most because a setting of the file is a field, table by table."""

    http_addr: Address = HostPort("0.0.0.0", 8080)
    http_token: str | None = Field(default=None, repr=False)
    """Shared secret of the API: `Authorization: Bearer …` or `?token=`; absent: open."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "text"
    external_ip: Ip | None = None
    rtp_start_port: PortNumber = 12000
    rtp_end_port: PortNumber = 42000
    rtp_bind_ip: Ip | None = None
    enable_rtp_latching: bool = True
    codecs: Codecs = ["g722", "pcmu", "pcma", "telephone_event"]
    trunk_rules: Annotated[list[TrunkRule], BeforeValidator(unpacked)] = []
    """Rewrite outbound calls, `invite` and `refer` alike; the first rule that matches."""
    ice_servers: Annotated[list[IceServer] | None, BeforeValidator(unpacked)] = None
    """Told to browsers and used by us; absent: one public STUN entry is told, none is used."""
    recorder_path: Path = Path("./config/recorders")
    recorder_format: Literal["wav"] = "wav"
    media_cache_path: Path = Path("./config/mediacache")
    media_path: Path = Path("./config/media")
    """Root of the local files that `play` may name."""
    enable_options_response: bool = True
    tts_segment_grace: Duration = 2.0
    tts_stream_flush: Duration = 0.8
    tts_stream_idle: Duration = 5.0
    ua: UaConfig = UaConfig()
    nats: NatsConfig = NatsConfig()
    trace: TraceConfig = TraceConfig()
    health: HealthConfig = HealthConfig()
    media: MediaConfig = MediaConfig()
    asr: AsrConfig = AsrConfig()
    tts: TtsConfig = TtsConfig()
    recording: RecordingConfig = RecordingConfig()
    callrecord: CallRecordConfig | None = None
    ambiance: AmbianceConfig | None = None
    fetch: FetchConfig = FetchConfig()
    rtp: RtpConfig = RtpConfig()
    providers: ProvidersConfig = ProvidersConfig()
    gateway: GatewayConfig = GatewayConfig()
    ami: AmiConfig = AmiConfig()
    llmproxy: str | None = None
    """Base URL of `/llm/v1`; absent: off."""

    @model_validator(mode="after")
    def _port_range(self) -> "Config":
        if self.rtp_end_port < self.rtp_start_port:
            raise ValueError("rtp_end_port: must not be below rtp_start_port")
        return self
