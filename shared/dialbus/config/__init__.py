"""One `config.toml` in RustPBX's form, every key also an environment variable (protocol section 8).

`DIALBUS_` plus the key's path in capitals joined by `_` names the variable: `[ua] udp_port` is
`DIALBUS_UA_UDP_PORT`. The environment wins over the file. Both layouts are accepted in one file; RustPBX's
`[ua]` table wins over the flat key. A bad value ends the process with the list of all of them; an unknown key
warns and names the nearest known one.
"""

from dialbus.config.loading import ConfigError, Loaded, load, load_or_exit, masked, variables
from dialbus.config.tables import (
    SERVICES,
    AsrConfig,
    CallRecordConfig,
    Config,
    FetchConfig,
    HandlerConfig,
    IceServer,
    NatsConfig,
    ProvidersConfig,
    RegisterUser,
    TraceConfig,
    TrunkRewrite,
    TrunkRule,
    TtsConfig,
    UaConfig,
    UriParts,
    UriPattern,
)
from dialbus.config.values import HostPort, duration_s, parse_host_port, shown_url

__all__ = [
    "SERVICES",
    "AsrConfig",
    "CallRecordConfig",
    "Config",
    "ConfigError",
    "FetchConfig",
    "HandlerConfig",
    "HostPort",
    "IceServer",
    "Loaded",
    "NatsConfig",
    "ProvidersConfig",
    "RegisterUser",
    "TraceConfig",
    "TrunkRewrite",
    "TrunkRule",
    "TtsConfig",
    "UaConfig",
    "UriParts",
    "UriPattern",
    "duration_s",
    "load",
    "load_or_exit",
    "masked",
    "parse_host_port",
    "shown_url",
    "variables",
]
