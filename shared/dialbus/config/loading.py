"""Settings out of the file and the environment, faults in words, and what of them may be printed."""

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from dialbus.config.tables import Config, Section
from dialbus.config.values import shown_url

PREFIX = "DIALBUS_"
_FLAT_UA = ("addr", "udp_port", "useragent", "accept_timeout", "register_users", "graceful_shutdown",
            "graceful_shutdown_timeout", "handler", "callid_suffix")  # fmt: skip
_FLAT_RECORDING = {"path": "recorder_path", "format": "recorder_format"}
_IGNORED = frozenset({
    "proxy", "console", "database_url", "restsend_token", "stun_server", "log_file", "http_gzip", "tls_port",
    "tls_cert_file", "tls_key_file", "enable_srtp", "enable_ice_lite", "auto_learn_public_address",
    "http_access_skip_paths", "rewrites", "peers", "recording.filename_pattern",
    "recording.native_samplerate",
})  # fmt: skip
"""Keys of RustPBX and active-call that this version does not act on; named in one warning each."""


class ConfigError(Exception):
    """Settings that can't be used; `lines` has one readable line per fault, each naming its setting."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


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
    table = _rustpbx_form(data)
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


def _rustpbx_form(data: dict[str, Any]) -> dict[str, Any]:
    """Flat keys of active-call moved to where RustPBX has them; a key in its form wins."""
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
    shown = f", got {shown_url(value)[:200]!r}" if item["type"] != "missing" and tellable else ""
    return f"{where}: {message}{shown}" if where else f"{message}"


def _is_secret(key: str) -> bool:
    """Whether what is below this key is, or holds, something that nobody else may read."""
    return key in _SECRET_KEYS or key in ("register_users", "ice_servers")


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
        return value.pattern if isinstance(value, re.Pattern) else shown_url(value)

    return {name: walk(getattr(config, name), name) for name in type(config).model_fields}
