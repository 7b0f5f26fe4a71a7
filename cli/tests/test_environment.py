"""What the supervisor's children are told of its environment."""

import pytest

from dialbus_cli.environment import needed, needed_by_the_bus

NEEDED = [
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "SSL_CERT_FILE",
    "DIALBUS_HTTP_TOKEN", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "http_proxy", "HTTPS_PROXY", "no_proxy", "LD_LIBRARY_PATH", "HF_HOME",
]  # fmt: skip
FOREIGN = [
    "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "SSH_AUTH_SOCK", "DATABASE_URL", "PGPASSWORD", "UV_INDEX_URL",
    "PIP_INDEX_URL", "KUBECONFIG", "LD_PRELOAD", "dialbus_x", "PATHS", "XPATH", "NATS_PASSWORD", "SUDO_USER",
]  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_a_service_gets_what_it_needs(name: str) -> None:
    assert needed({name: "x"}, "media") == {name: "x"}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_service_gets_nothing_else(name: str) -> None:
    assert needed({name: "x"}, "media") == {}


def test_the_key_of_the_language_model_is_the_gateways() -> None:
    environ = {"OPENAI_API_KEY": "sk-x"}
    assert needed(environ, "gateway") == environ
    assert needed(environ, "asr") == {}


def test_the_bus_gets_no_setting_of_ours() -> None:
    assert needed_by_the_bus({"PATH": "/bin", "DIALBUS_HTTP_TOKEN": "t", "LC_ALL": "C"}) == {"PATH": "/bin"}
