"""What of its environment a process hands down to those it starts: what they need, by name.

A shell holds more than its owner thinks of: tokens of clouds, of registries, of repositories. None is a service's, and
what a service does not have it can't lose, to a dump, a child or a fault.
"""

from collections.abc import Iterable, Mapping

_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "TZ", "TZDIR", "LANG", "LANGUAGE", "TMPDIR", "TEMP", "TMP", "TERM", "NO_COLOR",
    "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "CUDA_VISIBLE_DEVICES", "COVERAGE_PROCESS_START",
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT",
})  # fmt: skip
_PREFIXES = ("DIALBUS_", "LC_", "XDG_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "CT2_", "MALLOC_")
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
"""In either case: webhooks and records of calls may have to go through one."""
_OF_ONE = {"gateway": frozenset({"OPENAI_API_KEY"}), "asr": frozenset({"HF_TOKEN", "HF_TOKEN_PATH"})}
"""What one service alone is given: the key of `llmproxy`, that of the hub where `[asr] model` may lie."""


def needed(environ: Mapping[str, str], service: str) -> dict[str, str]:
    """The variables that a service needs."""
    also = _OF_ONE.get(service, frozenset())
    return {name: value for name, value in environ.items() if _is_needed(name) or name in also}


def needed_by_the_bus(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that nats-server needs: no setting of ours, and so no secret in one."""
    return {name: environ[name] for name in _present(environ, ("PATH", "HOME", "TMPDIR", "TZ", "LANG"))}


def _is_needed(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIXES) or name.lower() in _PROXIES


def _present(environ: Mapping[str, str], names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if name in environ)
