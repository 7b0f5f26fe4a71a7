"""config.toml in both layouts, the environment, and faults that name their setting (protocol 8)."""

from pathlib import Path

import pytest

from dialbus.config import Config, ConfigError, HostPort, duration_s, load, masked, variables

SEED = """
http_addr = "127.0.0.1:8081"
recorder_path = "/tmp/rec"
[ua]
addr = "127.0.0.1"
udp_port = 13051
accept_timeout = "50s"
[ua.handler]
type = "webhook"
url = "http://127.0.0.1:9000/hook"
method = "PUT"
headers = [["X-Key", "k"]]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_the_seeds_form(tmp_path: Path) -> None:
    config = load(write(tmp_path, SEED), {}).config
    assert config.http_addr == HostPort("127.0.0.1", 8081)
    assert (config.ua.addr, config.ua.udp_port, config.ua.accept_timeout) == ("127.0.0.1", 13051, 50)
    assert config.ua.handler.targets == ["http://127.0.0.1:9000/hook"]
    assert config.ua.handler.method == "PUT"
    assert config.ua.handler.headers == [("X-Key", "k")]


def test_the_flat_form_and_the_table_wins(tmp_path: Path) -> None:
    text = 'udp_port = 1\naddr = "127.0.0.9"\naccept_timeout = "1m"\n[ua]\nudp_port = 2\n'
    text += '[recording]\npath = "/tmp/r"\n'
    loaded = load(write(tmp_path, text), {})
    assert (loaded.config.ua.udp_port, loaded.config.ua.addr, loaded.config.ua.accept_timeout) == (2, "127.0.0.9", 60)
    assert loaded.config.recorder_path == Path("/tmp/r")
    assert loaded.warnings == ()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = {
        "DIALBUS_UA_UDP_PORT": "0",
        "DIALBUS_UA_HANDLER_URLS": "http://a/, http://b/",
        "DIALBUS_UA_HANDLER_HEADERS": '{"K": "V"}',
        "DIALBUS_CODECS": '["pcmu", "2833"]',
        "DIALBUS_TTS_SEGMENT_GRACE": "100ms",
    }
    config = load(write(tmp_path, SEED), environ).config
    assert config.ua.udp_port == 0
    assert config.ua.handler.targets == ["http://127.0.0.1:9000/hook", "http://a/", "http://b/"]
    assert config.ua.handler.headers == [("K", "V")]
    assert config.codecs == ["pcmu", "telephone_event"]
    assert config.tts_segment_grace == pytest.approx(0.1)


def test_every_key_has_its_own_variable() -> None:
    names = [name for name, _ in variables()]
    assert len(names) == len(set(names))
    assert {"DIALBUS_HTTP_ADDR", "DIALBUS_UA_UDP_PORT", "DIALBUS_UA_HANDLER_URL", "DIALBUS_NATS_URL"} <= set(names)


def test_unknown_keys_warn_with_a_suggestion(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, 'http_adr = "x"\n[ua]\nudp_prt = 1\n[proxy]\na = 1\n'), {"DIALBUS_HTTP_ADRR": "1"})
    assert loaded.config == Config()
    assert loaded.warnings == (
        "http_adr: unknown key, ignored, did you mean http_addr?",
        "ua.udp_prt: unknown key, ignored, did you mean ua.udp_port?",
        "proxy: not supported by this version, ignored",
        "DIALBUS_HTTP_ADRR: unknown variable, ignored, did you mean DIALBUS_HTTP_ADDR?",
    )


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("[ua]\nudp_port = 70000\n", "ua.udp_port"),
        ('[ua]\naddr = "nowhere"\n', "ua.addr"),
        ('http_addr = "8080"\n', "http_addr"),
        ('[ua]\naccept_timeout = "soon"\n', "ua.accept_timeout"),
        ('[ua.handler]\ntype = "playbook"\n', "ua.handler.type"),
        ('[ua.handler]\nurl = "ftp://x"\n', "ua.handler"),
        ('codecs = ["g729"]\n', "codecs"),
        ("rtp_start_port = 5000\nrtp_end_port = 4000\n", "rtp_end_port"),
        ("ua = 5\n", "ua"),
        ("= 5\n", "config.toml"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(tmp_path: Path, text: str, setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    assert any(setting in line for line in caught.value.lines)
    assert all("\n" not in line.strip() for line in caught.value.lines)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {"DIALBUS_UA_UDP_PORT": "many", "DIALBUS_HTTP_ADDR": "x"})
    assert len(caught.value.lines) == 2


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load(tmp_path / "absent.toml", {})


def test_secrets_are_not_told(tmp_path: Path) -> None:
    text = '[ua.handler]\nsecret = "topsecret"\n[[ua.register_users]]\nserver = "s"\nusername = "u"\n'
    text += '[ua.register_users.credential]\nusername = "u"\npassword = "hunter2"\n'
    config = load(write(tmp_path, text), {"DIALBUS_NATS_URL": "nats://me:hunter2@nats:4222"}).config
    shown = str(masked(config))
    assert "hunter2" not in shown
    assert "topsecret" not in shown


@pytest.mark.parametrize(("text", "seconds"), [("50s", 50), ("1m", 60), ("1.5h", 5400), ("250ms", 0.25), ("7", 7)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
