"""config.toml in both layouts, the environment, and faults that name their setting (protocol 8)."""

import json
import math
import unittest.mock
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dialbus.config import Config, ConfigError, HostPort, duration_s, load, masked, shown_url, variables

RUSTPBX = """
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


def config_of(table: dict[str, Any]) -> Config:
    """The settings of a file whose content this is."""
    with unittest.mock.patch("dialbus.config.loading._read", return_value=table):
        return load(None, {}).config


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_the_seeds_form(tmp_path: Path) -> None:
    config = load(write(tmp_path, RUSTPBX), {}).config
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


def test_both_layouts_in_one_file(tmp_path: Path) -> None:
    """Every key that active-call has flat, beside the tables of RustPBX."""
    text = """
    addr = "127.0.0.9"
    useragent = "flat"
    callid_suffix = "flat.example"
    graceful_shutdown = false
    graceful_shutdown_timeout = 5
    recorder_path = "/tables"
    [[register_users]]
    server = "flat"
    username = "u"
    [handler]
    type = "webhook"
    url = "http://flat/"
    [recording]
    path = "/flat"
    format = "wav"
    auto_start = true
    [ua]
    useragent = "tables"
    """
    config = load(write(tmp_path, text), {}).config
    assert (config.ua.addr, config.ua.useragent, config.ua.callid_suffix) == ("127.0.0.9", "tables", "flat.example")
    assert (config.ua.graceful_shutdown, config.ua.graceful_shutdown_timeout) == (False, 5)
    assert [user.server for user in config.ua.register_users] == ["flat"]
    assert config.ua.handler.targets == ["http://flat/"]
    assert (config.recorder_path, config.recorder_format, config.recording.auto_start) == (Path("/tables"), "wav", True)

    handler = '\n[ua.handler]\nurl = "http://tables/"\n'
    assert load(write(tmp_path, text + handler), {}).config.ua.handler.targets == ["http://tables/"]


def test_codecs_by_all_their_names_each_once_and_without_those_we_lack(tmp_path: Path) -> None:
    text = 'codecs = ["Opus", "g729", "pcma", "PCMU", "g722", "2833", "dtmf", "telephone_event", "pcma"]\n'
    loaded = load(write(tmp_path, text), {})
    assert loaded.config.codecs == ["opus", "pcma", "pcmu", "g722", "telephone_event"]
    assert loaded.warnings == ("codecs: g729 is not available, left out",)
    assert load(None, {"DIALBUS_CODECS": "pcmu,g729"}).warnings == loaded.warnings


def test_tables_and_lists_of_tables_from_the_environment() -> None:
    environ = {
        "DIALBUS_CALLRECORD_TYPE": "http",
        "DIALBUS_CALLRECORD_URL": "https://example.org/cdr",
        "DIALBUS_CALLRECORD_HEADERS": '[["Authorization", "Bearer x"]]',
        "DIALBUS_ICE_SERVERS": '[{"urls": ["turn:t:3478"], "username": "u", "credential": "c"}]',
        "DIALBUS_UA_REGISTER_USERS": (
            '[{"server": "s", "username": "u", "credential": {"username": "u", "password": "p"}}]'
        ),
        "DIALBUS_PROVIDERS_TTS": '{"tencent": "piper"}',
        "DIALBUS_TRUNK_RULES": '[{"rule": {"match": {"from": {"user": "^7"}}, "rewrite": {"to": {"host": "h:5062"}}}}]',
        "DIALBUS_AMI_ALLOWS": "10.0.0.0/8, 192.0.2.1",
    }
    loaded = load(None, environ)
    config = loaded.config
    assert loaded.warnings == ()
    assert config.callrecord is not None
    assert (config.callrecord.type, config.callrecord.url) == ("http", "https://example.org/cdr")
    assert config.callrecord.headers == [("Authorization", "Bearer x")]
    assert config.ice_servers is not None
    assert config.ice_servers[0].credential == "c"
    assert config.ua.register_users[0].credential is not None
    assert config.ua.register_users[0].credential.password == "p"
    assert config.providers.tts == {"tencent": "piper"}
    (rule,) = config.trunk_rules
    assert rule.rule.match.from_.user is not None
    assert rule.rule.match.from_.user.pattern == "^7"
    assert rule.rule.rewrite.to.host == "h:5062"
    assert config.ami.allows == ["10.0.0.0/8", "192.0.2.1"]
    assert load(None, {}).config.callrecord is None


def test_bad_json_in_a_variable_is_told_without_what_it_holds() -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            None,
            {
                "DIALBUS_UA_REGISTER_USERS": '[{"password": "hunter2"',
                "DIALBUS_ICE_SERVERS": '[{"credential": "hunter2"}]',
            },
        )
    lines = sorted(caught.value.lines)
    assert lines[0].startswith("DIALBUS_ICE_SERVERS (ice_servers.0.urls)")
    assert lines[1].startswith("DIALBUS_UA_REGISTER_USERS (ua.register_users): not JSON")
    assert "hunter2" not in str(lines)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = {
        "DIALBUS_UA_UDP_PORT": "0",
        "DIALBUS_UA_HANDLER_URLS": "http://a/, http://b/",
        "DIALBUS_UA_HANDLER_HEADERS": '{"K": "V"}',
        "DIALBUS_CODECS": '["pcmu", "2833"]',
        "DIALBUS_TTS_SEGMENT_GRACE": "100ms",
    }
    config = load(write(tmp_path, RUSTPBX), environ).config
    assert config.ua.udp_port == 0
    assert config.ua.handler.targets == ["http://127.0.0.1:9000/hook", "http://a/", "http://b/"]
    assert config.ua.handler.headers == [("K", "V")]
    assert config.codecs == ["pcmu", "telephone_event"]
    assert config.tts_segment_grace == pytest.approx(0.1)


def test_every_key_has_its_own_variable() -> None:
    names = [name for name, _ in variables()]
    assert len(names) == len(set(names))
    assert {"DIALBUS_HTTP_ADDR", "DIALBUS_UA_UDP_PORT", "DIALBUS_UA_HANDLER_URL", "DIALBUS_NATS_URL"} <= set(names)


def test_keys_of_the_anchors_that_are_not_ours_are_named(tmp_path: Path) -> None:
    text = (
        'log_file = "/x"\ntls_port = 5061\npeers = ["a:1"]\nenable_srtp = true\n[recording]\nfilename_pattern = "x"\n'
    )
    text += '[[trunk_rules]]\nrule.match.form.user = "x"\nname = "n"\n'
    assert load(write(tmp_path, text), {}).warnings == (
        "log_file: not supported by this version, ignored",
        "tls_port: not supported by this version, ignored",
        "peers: not supported by this version, ignored",
        "enable_srtp: not supported by this version, ignored",
        "recording.filename_pattern: not supported by this version, ignored",
        "trunk_rules[0].rule.match.form: unknown key, ignored, did you mean trunk_rules[0].rule.match.from?",
        "trunk_rules[0].name: unknown key, ignored",
    )


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
        ('[ua.handler]\ntype = "playbook"\n', "ua.handler.type: playbooks are not supported"),
        ('[handler]\ntype = "playbook"\ndefault = "x.md"\n', "ua.handler.type: playbooks are not supported"),
        ('[callrecord]\ntype = "s3"\nbucket = "b"\n', "callrecord.type: s3 is not supported"),
        ('[callrecord]\ntype = "http"\n', "callrecord: url: an http(s) URL is needed"),
        ('external_ip = "203.0.113.7:5060"\n', "external_ip: an IP address without a port"),
        ('external_ip = "sip.example.org"\n', "external_ip"),
        ('codecs = ["g729", "dtmf"]\n', "codecs: no codec for audio is left"),
        ('codecs = ["gsm"]\n', "codecs.0"),
        ('recorder_format = "ogg"\n', "recorder_format"),
        ('[[trunk_rules]]\nrule.match.to.user = "+1("\n', "trunk_rules.0.rule.match.to.user: not a regular expression"),
        ('[[trunk_rules]]\nrule.rewrite.to.host = "a b"\n', "trunk_rules.0.rule.rewrite.to.host: a host"),
        ("udp_port = 1\nua = 5\n", "ua"),
        ('useragent = "a\\r\\nb"\n', "ua.useragent: control characters"),
        ('callid_suffix = "a b"\n', "ua.callid_suffix"),
        ('[handler]\nheaders = [["X Y", "1"]]\n', "ua.handler.headers: 'X Y' and its value make no header"),
        ('[handler]\nheaders = { A = "1\\n2" }\n', "ua.handler.headers"),
        ('[handler]\nmethod = "GET /"\n', "ua.handler.method"),
        ('[[register_users]]\nserver = "sip:a b"\nusername = "u"\n', "ua.register_users.0.server"),
        ('[ua.handler]\nurl = "ftp://x"\n', "ua.handler"),
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


ODDITIES: list[Any] = [-1, 1 << 70, math.inf, math.nan, "", "x\ny", True, [], [[]], [5], {}, {"a": {"b": 1}}, [{}]]


@pytest.mark.parametrize("path", [path for _, path in variables()], ids=".".join)
def test_no_value_of_any_kind_is_more_than_a_fault(path: tuple[str, ...]) -> None:
    """Whatever stands in a file or a variable is taken or told, in one line."""
    for value in ODDITIES:
        table: Any = value
        for key in reversed(path):
            table = {key: table}
        in_its_place = faults(partial(config_of, table))
        faults(partial(config_of, {path[0]: value}))
        if value == {"a": {"b": 1}} and path[0] != "providers":
            assert in_its_place, "a table is nowhere a value"
    variable = "DIALBUS_" + "_".join(path).upper()
    for text in ("", " ", "{", "[1", "null", "[null]", '{"a": null}', "\x00", "9" * 40):
        faults(partial(load, None, {variable: text}))


def faults(act: Callable[[], object]) -> tuple[str, ...]:
    """What a load has to complain of, each in one line."""
    lines: tuple[str, ...] = ()
    try:
        act()
    except ConfigError as error:
        lines = error.lines or ("nothing",)
    assert not [line for line in lines if "\n" in line or line == "nothing"]
    return lines


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {"DIALBUS_UA_UDP_PORT": "many", "DIALBUS_HTTP_ADDR": "x"})
    assert len(caught.value.lines) == 2


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load(tmp_path / "absent.toml", {})


def test_secrets_are_not_told(tmp_path: Path) -> None:
    text = """
    http_token = "hunter2"
    llmproxy = "https://key:hunter2@llm.example/v1"
    [ua.handler]
    secret = "hunter2"
    url = "https://me:hunter2@app.example/hook?token=hunter2"
    headers = [["Authorization", "Bearer hunter2"]]
    [[ua.register_users]]
    server = "s"
    username = "u"
    credential = { username = "u", password = "hunter2" }
    [[ice_servers]]
    urls = ["turn:t"]
    username = "u"
    credential = "hunter2"
    [callrecord]
    type = "http"
    url = "https://cdr.example/?key=hunter2"
    headers = { X-Key = "hunter2" }
    """
    config = load(write(tmp_path, text), {"DIALBUS_NATS_URL": "nats://me:hunter2@nats:4222"}).config
    shown = json.dumps(masked(config))
    assert "hunter2" not in shown
    assert "hunter2" not in shown_url(config.ua.handler.targets[0])
    assert "hunter2" not in repr(config.ua.register_users)
    assert '"username": "u"' in shown, "what is no secret is shown"
    assert "https://***@app.example/hook?***" in shown


@pytest.mark.parametrize(
    "environ",
    [
        {"DIALBUS_HTTP_TOKEN": "hunter2", "DIALBUS_UA_HANDLER_HEADERS": "hunter2"},
        {"DIALBUS_UA_HANDLER_URL": "ftp://me:hunter2@x"},
        {"DIALBUS_UA_HANDLER_SECRET": "hunter2", "DIALBUS_UA_UDP_PORT": "x"},
        {"DIALBUS_EXTERNAL_IP": "//me:hunter2@x"},
    ],
)
def test_a_fault_tells_no_secret(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("50s", 50), ("1m", 60), ("1.5h", 5400), ("250ms", 0.25), ("7", 7)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
