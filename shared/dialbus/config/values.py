"""Values as a settings file and the environment write them: durations, addresses, headers, patterns, lists."""

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

MAX_SECONDS = 86_400 * 366
MAX_PATTERN_LENGTH = 256
"""Of a regular expression in the settings."""
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*$")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


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


def host_and_port(value: str) -> str:
    match = _HOST_AND_PORT.fullmatch(value)
    if match is None or not 0 < int(match[1] or 5060) < 65536:
        raise ValueError("a host, or host:port, such as sip.example.org:5060")
    return value


def _network(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"neither an address nor a network: {value[:64]!r}") from None


def _line(value: str) -> str:
    """Text that stands in a header: nothing in it may begin another one."""
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


def _header_lines(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for name, value in pairs:
        if not TOKEN.fullmatch(name) or not value.isprintable():
            raise ValueError(f"{name[:64]!r} and its value make no header")
    return pairs


def _pattern(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        return value
    if not isinstance(value, str) or len(value) > MAX_PATTERN_LENGTH:
        raise ValueError(f"a regular expression of at most {MAX_PATTERN_LENGTH} characters")
    try:
        return re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None


def listed(value: Any) -> Any:
    """Lists may come from the environment as JSON or separated by commas."""
    if isinstance(value, str):
        text = value.strip()
        return unpacked(text) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
    return value


def unpacked(value: Any) -> Any:
    """Tables and lists of tables come from the environment as JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
    return value


def _header_pairs(value: Any) -> Any:
    """`[["K","V"]]`, a table, or JSON of either."""
    value = unpacked(value)
    return list(value.items()) if isinstance(value, dict) else value


Duration = Annotated[float, BeforeValidator(duration_s), Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Address = Annotated[HostPort, BeforeValidator(parse_host_port)]
Ip = Annotated[str, AfterValidator(_ip)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Share = Annotated[float, Field(gt=0, le=1)]
LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
PortNumber = Annotated[int, Field(ge=0, le=65535)]
HeaderPairs = Annotated[list[tuple[str, str]], BeforeValidator(_header_pairs), AfterValidator(_header_lines)]
Line = Annotated[str, AfterValidator(_line)]
Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
CodecName = Literal["pcmu", "pcma", "g722", "opus", "telephone_event"]


def _codec_names(value: Any, info: ValidationInfo) -> Any:
    """Names in their order, each once; what RustPBX or active-call has and we don't is left out with a warning."""
    names = listed(value)
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


def shown_url(value: object) -> str:
    """A URL, or any value, as it may be printed: neither its user's name and password nor the query are left."""
    text = re.sub(r"//[^/@\s]+@", "//***@", str(value))
    return re.sub(r"^(https?://[^?\s]+)\?\S+$", r"\1?***", text, flags=re.IGNORECASE)
