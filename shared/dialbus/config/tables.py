"""One `config.toml` in the seed's form, every key also an environment variable (protocol section 8).

`DIALBUS_` plus the key's path in capitals joined by `_` names the variable: `[ua] udp_port` is
`DIALBUS_UA_UDP_PORT`. The environment wins over the file. Both layouts are accepted in one file; the seed's
`[ua]` table wins over the flat key. A bad value ends the process with the list of all of them; an unknown key
warns and names the nearest known one.
"""

import difflib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

PREFIX = "DIALBUS_"

MOST_SECONDS = 86_400 * 366
MOST_PATTERN_LENGTH = 256
"""Of a regular expression in the settings."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*$")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class ConfigError(Exception):
    """Settings that can't be used; `lines` has one readable line per fault, each naming its setting."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def duration_s(value: Any) -> Any:
    """Seconds of a duration text: `50s`, `1m`, `1.5h`, `250ms`; a bare number is seconds."""
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ValueError("a duration is a number with ms, s, m or h, such as 50s")
        return float(match[1]) * _UNIT_S[match[2]]
    return value


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address to listen on or connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(value: Any) -> Any:
    """`host:port`, `[v6]:port` or `:port` (all interfaces)."""
    if isinstance(value, HostPort):
        return value
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        if colon and port.isdigit() and int(port) <= 65535:
            return HostPort(host.strip("[]") or "0.0.0.0", int(port))
    raise ValueError("an address is host:port, such as 0.0.0.0:8080")


def _ip(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        raise ValueError("an IP address without a port or a name, such as 203.0.113.7") from None
    return value


def _host_and_port(value: str) -> str:
    match = _HOST_AND_PORT.fullmatch(value)
    if match is None or not 0 < int(match[1] or 5060) < 65536:
        raise ValueError("a host, or host:port, such as sip.example.org:5060")
    return value


def _line(value: str) -> str:
    """Text that stands in a header: nothing in it may begin another one."""
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


def _header_lines(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for name, value in pairs:
        if not _TOKEN.fullmatch(name) or not value.isprintable():
            raise ValueError(f"{name[:64]!r} and its value make no header")
    return pairs


def _pattern(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        return value
    if not isinstance(value, str) or len(value) > MOST_PATTERN_LENGTH:
        raise ValueError(f"a regular expression of at most {MOST_PATTERN_LENGTH} characters")
    try:
        return re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _list(value: Any) -> Any:
    """Lists may come from the environment as JSON or separated by commas."""
    if isinstance(value, str):
        text = value.strip()
        return _json(text) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
    return value


def _json(value: Any) -> Any:
    """Tables and lists of tables come from the environment as JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
    return value


def _header_pairs(value: Any) -> Any:
    """`[["K","V"]]`, a table, or JSON of either."""
    value = _json(value)
    return list(value.items()) if isinstance(value, dict) else value


Duration = Annotated[float, BeforeValidator(duration_s), Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
Address = Annotated[HostPort, BeforeValidator(parse_host_port)]
Ip = Annotated[str, AfterValidator(_ip)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]
HeaderPairs = Annotated[list[tuple[str, str]], BeforeValidator(_header_pairs), AfterValidator(_header_lines)]
Line = Annotated[str, AfterValidator(_line)]
Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
CodecName = Literal["pcmu", "pcma", "g722", "opus", "telephone_event"]
LegKind = Literal["rtp", "webrtc", "socket"]


def _codec_names(value: Any, info: ValidationInfo) -> Any:
    """Names in their order, each once; what an anchor has and we don't is left out with a warning."""
    names = _list(value)
    if not isinstance(names, list):
        return names
    lowered = [str(name).strip().lower() for name in names]
    known = dict.fromkeys(_CODEC_SYNONYMS.get(name, name) for name in lowered if name not in _ABSENT_CODECS)
    for name in sorted(_ABSENT_CODECS & set(lowered)):
        _warn(info, f"codecs: {name} is not available, left out")
    return list(known)


def _has_audio(names: list[CodecName]) -> list[CodecName]:
    if set(names) <= {"telephone_event"}:
        raise ValueError("no codec for audio is left")
    return names


def _warn(info: ValidationInfo, text: str) -> None:
    if info.context is not None:
        info.context.append(text)


Codecs = Annotated[list[CodecName], BeforeValidator(_codec_names), AfterValidator(_has_audio)]
_CODEC_SYNONYMS = {"dtmf": "telephone_event", "2833": "telephone_event", "telephone-event": "telephone_event"}
_ABSENT_CODECS = frozenset({"g729"})


def _not_a_playbook(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "playbook":
        raise ValueError('playbooks are not supported, use type = "webhook" and decide in your application')
    return value


def _not_s3(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "s3":
        raise ValueError('s3 is not supported, use type = "local" or "http"')
    return value


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, populate_by_name=True)


class HandlerConfig(Section):
    """`[ua.handler]`: who is told of an inbound call."""

    type: Annotated[Literal["webhook"], BeforeValidator(_not_a_playbook)] = "webhook"
    url: str | None = None
    urls: Annotated[list[str], BeforeValidator(_list)] = []
    method: Annotated[str, Field(pattern=f"^{_TOKEN.pattern}$")] = "POST"
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
                raise ValueError(
                    f"a webhook URL begins with http:// or https://, not {_without_credentials(target)[:80]!r}"
                )
        return self


class CredentialConfig(Section):
    """Digest credentials."""

    username: str
    password: str = Field(repr=False)
    realm: str | None = None


class RegisterUser(Section):
    """One entry of `register_users`."""

    server: Annotated[str, AfterValidator(_host_and_port)]
    username: Annotated[str, Field(min_length=1)]
    display_name: Line | None = None
    disabled: bool = False
    credential: CredentialConfig | None = None


class UriPattern(Section):
    """Regular expressions, searched for in a URI's parts; absent: anything."""

    user: Pattern | None = None
    host: Pattern | None = None


class UriParts(Section):
    """New parts of a URI; absent: kept. A host may carry a port; without one the URI keeps its own."""

    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    host: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_host_and_port)] | None = None


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
    register_users: Annotated[list[RegisterUser], BeforeValidator(_json)] = []
    graceful_shutdown: bool = True
    graceful_shutdown_timeout: Duration = 30.0
    handler: HandlerConfig = HandlerConfig()


class NatsConfig(Section):
    """`[nats]`: the bus."""

    url: str = "nats://127.0.0.1:4222"
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    event_retention: Duration = 3600.0
    """How long the events of a call can be replayed."""


class HealthConfig(Section):
    """`[health]`: where a service without an API of its own serves /health and /metrics."""

    addr: Address = HostPort("127.0.0.1", 0)


class MediaConfig(Section):
    """`[media]`: a media worker."""

    max_calls: Annotated[int, Field(ge=1)] = 200
    accept: Annotated[list[LegKind], BeforeValidator(_list), Field(min_length=1)] = ["rtp", "webrtc", "socket"]
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

    urls: Annotated[list[str], BeforeValidator(_list)]
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
    """Also from private and link-local addresses."""
    allow_loopback: bool | None = None
    """Absent: only when `http_addr` is itself a loopback address."""
    max_bytes: Annotated[int, Field(ge=1024)] = 50 << 20
    timeout: Duration = 10.0


def _lowered_keys(value: Any) -> Any:
    value = _json(value)
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


class AmiConfig(Section):
    """`[ami]`: who may use /ami/v1 besides loopback addresses."""

    allows: Annotated[list[str], BeforeValidator(_list)] = []
    """Addresses or networks; `*` is everybody."""


class Config(Section):
    """The whole file."""

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
    trunk_rules: Annotated[list[TrunkRule], BeforeValidator(_json)] = []
    """Rewrite outbound calls, `invite` and `refer` alike; the first rule that matches."""
    ice_servers: Annotated[list[IceServer] | None, BeforeValidator(_json)] = None
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
    health: HealthConfig = HealthConfig()
    media: MediaConfig = MediaConfig()
    asr: AsrConfig = AsrConfig()
    tts: TtsConfig = TtsConfig()
    recording: RecordingConfig = RecordingConfig()
    callrecord: CallRecordConfig | None = None
    ambiance: AmbianceConfig | None = None
    fetch: FetchConfig = FetchConfig()
    providers: ProvidersConfig = ProvidersConfig()
    ami: AmiConfig = AmiConfig()
    llmproxy: str | None = None
    """Base URL of `/llm/v1`; absent: off."""

    @model_validator(mode="after")
    def _port_range(self) -> "Config":
        if self.rtp_end_port < self.rtp_start_port:
            raise ValueError("rtp_end_port: must not be below rtp_start_port")
        return self


_FLAT_UA = ("addr", "udp_port", "useragent", "accept_timeout", "register_users", "graceful_shutdown",
            "graceful_shutdown_timeout", "handler", "callid_suffix")  # fmt: skip
_FLAT_RECORDING = {"path": "recorder_path", "format": "recorder_format"}
_IGNORED = frozenset({
    "proxy", "console", "database_url", "restsend_token", "stun_server", "log_file", "http_gzip", "tls_port",
    "tls_cert_file", "tls_key_file", "enable_srtp", "enable_ice_lite", "auto_learn_public_address",
    "http_access_skip_paths", "rewrites", "peers", "recording.filename_pattern",
    "recording.native_samplerate",
})  # fmt: skip
"""Keys of the anchors that this version does not act on; named in one warning each."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and what was odd about them."""

    config: Config
    warnings: tuple[str, ...] = ()


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """Settings from the file (the default `config.toml` may be absent, a named one may not) and the environment.

    Raises ConfigError with every fault at once.
    """
    environ = os.environ if environ is None else environ
    named = path or (Path(environ[PREFIX + "CONF"]) if environ.get(PREFIX + "CONF") else None)
    data = _read(named or Path("config.toml"), required=named is not None)
    warnings: list[str] = []
    table = _seed_form(data)
    warnings += _unknown(table, Config)
    for keys, value in _from_environment(environ, warnings):
        _put(table, keys, value)
    try:
        config = Config.model_validate(table, context=warnings)
        return Loaded(config, tuple(warnings))
    except ValidationError as error:
        raise ConfigError(*(_fault(item, environ) for item in error.errors(include_url=False))) from None


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"--conf: no file {path}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _seed_form(data: dict[str, Any]) -> dict[str, Any]:
    """Flat keys of active-call moved to where the seed has them; a key of the seed's form wins."""
    table = dict(data)
    flat = {key: table.pop(key) for key in _FLAT_UA if key in table}
    if flat and isinstance(table.get("ua", {}), Mapping):
        table["ua"] = flat | dict(table.get("ua", {}))
    recording = table.get("recording")
    if isinstance(recording, Mapping):
        table["recording"] = {key: value for key, value in recording.items() if key not in _FLAT_RECORDING}
        for key, name in _FLAT_RECORDING.items():
            if key in recording:
                table.setdefault(name, recording[key])
    return table


def _unknown(table: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> list[str]:
    warnings = []
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in table.items():
        if key not in fields:
            if f"{prefix}{key}" in _IGNORED:
                warnings.append(f"{prefix}{key}: not supported by this version, ignored")
            else:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f", did you mean {prefix}{near[0]}?" if near else ""
                warnings.append(f"{prefix}{key}: unknown key, ignored{hint}")
        elif (section := _section(fields[key].annotation)) is not None:
            for item, index in _tables(value):
                warnings += _unknown(item, section, f"{prefix}{key}{index}.")
    return warnings


def _tables(value: Any) -> Iterator[tuple[Mapping[str, Any], str]]:
    """A table itself, or those in a list, each with its index as text."""
    if isinstance(value, Mapping):
        yield value, ""
    elif isinstance(value, list):
        yield from ((item, f"[{number}]") for number, item in enumerate(value) if isinstance(item, Mapping))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The table behind `Table`, `Table | None`, `list[Table]`, …"""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section(part)) is not None), None)


def variables(model: type[BaseModel] = Config, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every environment variable with the key path that it sets, in the file's order.

    A table has one for each of its keys; a list, or a table of names, is one variable with JSON in it.
    """
    for name, field in model.model_fields.items():
        keys = (*path, name)
        section = _section(field.annotation)
        if section is not None and get_origin(field.annotation) is not list and not _holds_list(field.annotation):
            yield from variables(section, keys)
        else:
            yield PREFIX + "_".join(keys).upper(), keys


def _holds_list(annotation: Any) -> bool:
    return any(get_origin(part) is list for part in get_args(annotation))


_SECRET_KEYS = frozenset({"password", "secret", "headers", "credential", "http_token"})
"""Keys whose text or list is never printed; `credential` is a table in one place and a text in another."""
_OWN = frozenset({"CONF", "RUN_DIR", "SUPERVISOR_PID", "INSTANCE", "BUILD_NETWORK", "CONFIG", "HTTP_PORT", "NATS_PORT"})
"""Variables of the supervisor and of docker-compose.yml, which are no settings."""


def _from_environment(environ: Mapping[str, str], warnings: list[str]) -> Iterator[tuple[tuple[str, ...], Any]]:
    known = dict(variables())
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name[len(PREFIX) :] in _OWN:
            continue
        if name in known:
            yield known[name], value
        else:
            near = difflib.get_close_matches(name, known, n=1)
            warnings.append(f"{name}: unknown variable, ignored" + (f", did you mean {near[0]}?" if near else ""))


def _put(table: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        below = table.get(key, {})
        if not isinstance(below, Mapping):
            return  # no table at all: the fault is told where the whole is checked
        table[key] = dict(below)
        table = table[key]
    table[keys[-1]] = value


def _fault(item: Any, environ: Mapping[str, str]) -> str:
    """One line: the setting, and the variable when it came from there; its value unless it may be a secret."""
    keys = tuple(str(part) for part in item["loc"])
    names = (PREFIX + "_".join(keys[:depth]).upper() for depth in range(len(keys), 0, -1))
    variable = next((name for name in names if name in environ), None)
    where = f"{variable} ({'.'.join(keys)})" if variable is not None else ".".join(keys)
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    tellable = isinstance(value, str | int | float) and not any(_is_secret(key) for key in keys)
    shown = f", got {_without_credentials(value)[:200]!r}" if item["type"] != "missing" and tellable else ""
    return f"{where}: {message}{shown}" if where else f"{message}"


def _is_secret(key: str) -> bool:
    """Whether what is below this key is, or holds, something that nobody else may read."""
    return key in _SECRET_KEYS or key in ("register_users", "ice_servers")


def _without_credentials(value: Any) -> str:
    """A value as text; of a URL neither the user's name and password nor the query are left."""
    text = re.sub(r"//[^/@\s]+@", "//***@", str(value))
    return re.sub(r"^(https?://[^?\s]+)\?\S+$", r"\1?***", text, flags=re.IGNORECASE)


def load_or_exit(path: Path | None = None) -> Loaded:
    """`load`, but a fault is printed as one line each and ends the process with code 2."""
    try:
        return load(path)
    except ConfigError as error:
        for line in error.lines:
            print(f"dialbus: config: {line}", file=sys.stderr)  # noqa: T201 - before logging is configured
        raise SystemExit(2) from None


def masked(config: Config) -> dict[str, Any]:
    """The settings for the log, secrets replaced by `***`."""

    def walk(value: Any, key: str = "") -> Any:
        if value and key in _SECRET_KEYS and not isinstance(value, BaseModel):
            return "***"
        if isinstance(value, BaseModel):
            return {name: walk(getattr(value, name), name) for name in type(value).model_fields}
        if isinstance(value, dict):
            return {name: walk(item, name) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, key) for item in value]
        if isinstance(value, int | float | bool | type(None)):
            return value
        return value.pattern if isinstance(value, re.Pattern) else _without_credentials(value)

    return {name: walk(getattr(config, name), name) for name in type(config).model_fields}


def shown_url(url: str) -> str:
    """A URL as it may be printed: without the secrets that some put into it."""
    return _without_credentials(url)
