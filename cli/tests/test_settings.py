"""What `dialbus run` makes of its options, and the example file that it is configured from."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dialbus.config import Config, ConfigError, load, variables
from dialbus_cli.__main__ import _parser, settings
from dialbus_cli.embedded_nats import announced_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"


def given(*options: str) -> dict[str, str]:
    return settings(_parser().parse_args(["run", *options]))


def test_options_become_the_settings_they_name() -> None:
    values = given(
        "--http", ":9000", "--sip", "127.0.0.1:5070", "--handler", "http://h/", "--external-ip", "203.0.113.7",
        "--codecs", "pcmu,dtmf",
    )  # fmt: skip

    config = load(None, values).config

    assert str(config.http_addr) == "0.0.0.0:9000"
    assert (config.ua.addr, config.ua.udp_port) == ("127.0.0.1", 5070)
    assert config.ua.handler.targets == ["http://h/"]
    assert config.external_ip == "203.0.113.7"
    assert config.codecs == ["pcmu", "telephone_event"]


def test_a_handler_option_takes_the_place_of_every_handler_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[ua.handler]\nurl = "http://a/"\nurls = ["http://b/", "http://c/"]\nmethod = "PUT"\n')

    handler = load(file, given("--handler", "http://h/")).config.ua.handler

    assert handler.targets == ["http://h/"]
    assert handler.method == "PUT"


def test_no_option_changes_nothing() -> None:
    assert given() == {}


def test_a_named_file_is_found_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert given("--conf", "x.toml")["DIALBUS_CONF"] == str(tmp_path / "x.toml")


def test_a_bad_sip_address_names_its_option() -> None:
    with pytest.raises(ConfigError, match="--sip"):
        given("--sip", "nowhere")


@pytest.mark.parametrize("count", ["0", "-1", "x", "65"])
def test_a_bad_number_of_workers_is_a_usage_error(count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(["run", f"--media={count}"])
    assert ended.value.code == 2


def test_the_example_file_as_it_is_changes_no_default() -> None:
    loaded = load(EXAMPLE, {})

    assert loaded.config == Config()
    assert loaded.warnings == ()


def test_the_example_file_names_every_key_and_no_other(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[a-z_.]+ = |\[\[|\[[a-z]+\] *(?:#|$))", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    file = tmp_path / "config.toml"
    file.write_text(text.replace('"…', '"'))

    assert load(file, {}).warnings == ()
    table = tomllib.loads(text)
    for _, path in variables():
        if path == ("ua", "handler", "urls"):
            continue  # named beside `url`
        section = table
        for key in path[:-1]:
            section = section[key]
        assert path[-1] in section, ".".join(path)


def test_locks_pin_by_hash_and_name_no_place() -> None:
    locks = [
        *ROOT.glob("requirements-*.lock"),
        *ROOT.glob("services/*/requirements.lock"),
        ROOT / "cli/requirements.lock",
    ]
    assert len(locks) == 9
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, lock
        pins = len(re.findall(r"^[a-z0-9].*==", text, flags=re.MULTILINE))
        assert pins > 0
        assert len(re.findall(r"^[a-z0-9].*\\\n {4}--hash=sha256:", text, flags=re.MULTILINE)) == pins, lock


def test_the_ports_file_of_another_server_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "nats-server_7.ports").write_text('{"nats": ["nats://127.0.0.1:4567"]}')
    (tmp_path / "nats-server_8.ports").write_text('{"nats": [')

    assert announced_port(tmp_path, 7) == 4567
    assert announced_port(tmp_path, 8) is None
    assert announced_port(tmp_path, 9) is None


def test_the_command_says_what_it_can() -> None:
    said = subprocess.run([sys.executable, "-m", "dialbus_cli", "--help"], capture_output=True, text=True, check=True)

    assert "run" in said.stdout
    assert "phone" in said.stdout
