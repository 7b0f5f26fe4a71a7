"""`dialbus trace` as text, and how it finds a call and a bus."""

import stat
from pathlib import Path

import pytest

from dialbus.bus.trace_store import CallLine, KeptCall
from dialbus_cli import running
from dialbus_cli.__main__ import main
from dialbus_cli.trace import NotFound, as_json, buses, listed, resolved, shown

SIP = CallLine(
    100.0125, "sip-ua", "sip-ua-1", "sip-in", "INVITE sip:a@b SIP/2.0", "refer",
    "INVITE sip:a@b SIP/2.0\r\nTo: \x1b[2J\r\n", {"remote": "192.0.2.1:5060"}, dropped=3,
)  # fmt: skip


def test_a_line_has_its_time_who_what_and_facts() -> None:
    lost, text = shown(SIP, 100.0)
    assert lost.endswith("sip-ua-1: 3 lines were lost before this one")
    assert text.split() == [
        "12.500",
        "sip-ua-1",
        "sip",
        "<-",
        "[refer]",
        "INVITE",
        "sip:a@b",
        "SIP/2.0",
        "remote=192.0.2.1:5060",
    ]


def test_a_whole_message_is_shown_on_demand_and_steers_no_terminal() -> None:
    *_, first, second = shown(SIP, 100.0, whole_sip=True)
    assert first.strip() == "| INVITE sip:a@b SIP/2.0"
    assert second.strip() == r"| To: \x1b[2J"


def test_facts_are_on_one_line_and_short() -> None:
    line = CallLine(
        1, "media", "media-1", "event", "answer", facts={"sdp": "v=0\r\n" * 90, "n": 1, "text": "a b", "e": ""}
    )
    (text,) = shown(line, 1)
    assert "\n" not in text
    assert len(text) < 250
    assert text.endswith('n=1 text="a b" e=""')
    assert '"sdp":"v=0\\r\\n' in as_json(line)
    assert as_json(CallLine(1.5, "media", "", "log", "x")) == '{"at":1.5,"service":"media","kind":"log","name":"x"}'


CALLS = [KeptCall("s.abc", 90.0, ended=True), KeptCall("s.abcd", 80.0, ended=False), KeptCall("t", -600.0, ended=True)]


def test_ids_may_be_abbreviated_while_they_name_one_call() -> None:
    assert resolved("s.abcd", CALLS) == "s.abcd"
    assert resolved("s.abc", CALLS) == "s.abc"
    assert resolved("t", CALLS) == "t"
    with pytest.raises(NotFound, match="2 calls"):
        resolved("s.", CALLS)
    with pytest.raises(NotFound, match="nothing is kept"):
        resolved("x", CALLS)


def test_the_list_says_what_lives() -> None:
    assert [text.split() for text in listed(CALLS, 100.0)] == [
        ["10", "s", "ago", "ended", "s.abc"],
        ["20", "s", "ago", "live", "s.abcd"],
        ["12", "min", "ago", "ended", "t"],
    ]
    assert list(listed(CALLS * 7, 100.0))[-1] == "… and 1 more"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where ensembles announce themselves."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dialbus"


def test_the_bus_of_a_running_ensemble_is_found_by_its_user_alone(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert buses(None, None) == ["nats://127.0.0.1:4222"]
    with running.announced("nats://me:hush@127.0.0.1:4333"):
        (path,) = runtime.iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert buses(None, None) == ["nats://me:hush@127.0.0.1:4333"]
        assert buses("nats://named", None) == ["nats://named"]
        monkeypatch.setenv("DIALBUS_NATS_URL", "nats://configured")
        assert buses(None, None) == ["nats://configured"]
    assert list(runtime.iterdir()) == []


def test_what_the_dead_and_others_left_is_not_believed(runtime: Path) -> None:
    with running.announced("nats://here"):
        (runtime / "4194999.json").write_text('{"pid": 4194999, "nats_url": "nats://dead"}')
        (runtime / "1.json").write_text("{")
        assert [one.nats_url for one in running.found()] == ["nats://here"]
        runtime.chmod(0o777)
        assert running.found() == []
        runtime.chmod(0o700)


def test_where_nothing_can_be_written_nothing_is_announced(runtime: Path) -> None:
    runtime.write_text("in the way")
    with running.announced("nats://here"):
        assert running.found() == []
    assert runtime.read_text() == "in the way"


def test_without_a_bus_the_command_says_where_it_looked(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trace", "s.1", "--nats", "nats://me:hush@127.0.0.1:1"])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "no bus at" in told
    assert "127.0.0.1:1" in told
    assert "hush" not in told


@pytest.mark.parametrize(
    "arguments", [[], ["s.1", "--list"], ["s.1", "--without", "sipp"], ["s.1", "--conf", "absent"]]
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], runtime: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trace", *arguments])
    assert ended.value.code == 2
