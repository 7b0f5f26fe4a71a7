"""`dialbus run` with real processes: a real nats-server, and stand-ins for the services that misbehave on demand."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dialbus.config import Config, ConfigError, NatsConfig, load
from dialbus_cli.supervisor import SERVICES, Backoff, brings_own_nats, check_ports, environment, local, reasons

STAND_IN = """
import http.server, json, os, signal, sys, time
from pathlib import Path
told = json.loads((Path(__file__).parents[1] / "told.json").read_text())
instance, service = os.environ["DIALBUS_INSTANCE"], os.environ["DIALBUS_INSTANCE"].rpartition("-")[0]
fault = told.get("FAULT_" + service.replace("-", "_").upper(), "")
if fault == "bad-setting":
    print(f"dialbus: {service}: {service}.model: no such model", file=sys.stderr)
    sys.exit(2)
if fault == "crash":
    print("Traceback: it fell over", file=sys.stderr)
    sys.exit(1)
ends = Path(told["ENDS"])
def asked_to_end(*_):
    with ends.open("a") as file:
        file.write(service + chr(10))
    if fault == "busy" and ends.read_text().count(service) == 1:
        return
    if fault != "stubborn":
        os._exit(0)
signal.signal(signal.SIGTERM, asked_to_end)
asked = []
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        starting = fault == "starting" and self.path == "/health" and asked.count("/health") <= 3
        self.send_response(503 if starting else 200)
        self.send_header("asked", " ".join(asked)); self.end_headers()
        self.wfile.write(b'{"calls": 2}' if fault == "busy" else b"{}")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Health)
port = server.server_port
facts = {"pid": os.getpid(), "instance": instance, "health": f"http://127.0.0.1:{port}/health", "http": f"http://127.0.0.1:{port}",
         "sip": "127.0.0.1:5070/udp", "nice": os.nice(0), "nats": os.environ["DIALBUS_NATS_URL"]}
path = Path(os.environ["DIALBUS_RUN_DIR"]) / f"{service}-{instance}.json"
path.with_suffix(".tmp").write_text(json.dumps(facts)); path.with_suffix(".tmp").replace(path)
print("service.ready", flush=True)
server.serve_forever()
"""


class Ensemble:
    """A running `dialbus run`, its output read line by line."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        for module in SERVICES.values():
            (folder / module).mkdir(exist_ok=True)
            (folder / module / "__init__.py").touch()
            (folder / module / "__main__.py").write_text(STAND_IN)
        self.ends = folder / "ends"
        # A file, since the supervisor hands no variable down that is none of its services'.
        (folder / "told.json").write_text(json.dumps({"ENDS": str(self.ends), **environ}))
        self.run_dir = folder / "run"
        self.output: list[str] = []
        base = {name: value for name, value in os.environ.items() if not name.startswith("DIALBUS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dialbus_cli", "run", "--http", "127.0.0.1:0", "--sip", "127.0.0.1:0",
             "--run-dir", str(self.run_dir), *options],
            env={**base, "PYTHONPATH": str(folder), **environ},
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def until(self, pattern: str) -> str:
        """Read until a line matches; that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"no {pattern!r} in:\n{''.join(self.output)}")

    def facts(self, service: str, number: int = 1) -> dict[str, object]:
        """What a stand-in announced."""
        (path,) = self.run_dir.glob(f"{service}-{service}-{number}*.json")
        facts = json.loads(path.read_text())
        assert isinstance(facts, dict)
        return facts

    def pids(self) -> list[int]:
        """Every direct child of the supervisor."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def end(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Signal the supervisor; its exit code and how long it took in seconds."""
        began = time.monotonic()
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=20)
        self.output.append(rest)
        return self.process.returncode, time.monotonic() - began


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[list[Ensemble]]:
    started: list[Ensemble] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_gone(pids: list[int], within_s: float = 3.0) -> bool:
    deadline = time.monotonic() + within_s
    while not all(gone(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
class TestRealProcesses:
    def test_starts_all_tells_where_to_connect_and_ctrl_c_leaves_nothing(
        self, tmp_path: Path, ensemble: list[Ensemble]
    ) -> None:
        one = Ensemble(tmp_path, "--media", "2", "--handler", "http://127.0.0.1:1/hook")
        ensemble.append(one)

        assert re.search(r"ws://127.0.0.1:\d+/call/sip", one.until("WebSocket"))
        assert re.search(r"http://127.0.0.1:\d+/$", one.until("Test page"))
        assert "sip:127.0.0.1:5070 " in one.until("  SIP")
        assert "POST http://127.0.0.1:1/hook" in one.until("Webhook")
        one.until("Ctrl-C")
        pids = one.pids()
        assert len(pids) == 8  # nats, six services, and a second media
        assert [one.facts(name)["nice"] for name in ("asr", "tts", "media")] == [19, 19, os.nice(0)]
        code, took_s = one.end()

        assert code == 0
        assert took_s < 5
        assert all_gone(pids)
        assert sorted(path.suffix for path in one.run_dir.iterdir()) == [".log"] * 8
        order = one.ends.read_text().split()
        assert order[:2] == ["sip-ua", "gateway"]
        assert sorted(order[2:]) == ["asr", "media", "media", "tts", "webhook-dispatcher"]

    def test_it_is_ready_when_the_gateway_has_heard_every_service(
        self, tmp_path: Path, ensemble: list[Ensemble]
    ) -> None:
        one = Ensemble(tmp_path, FAULT_GATEWAY="starting")
        ensemble.append(one)
        one.until("dialbus is ready")
        with urllib.request.urlopen(f"{one.facts('gateway')['http']}/asked") as answer:
            asked = answer.headers["asked"].split()
        assert asked.count("/health?service=gateway") >= 1, "the process alone"
        assert asked.count("/health") == 4, "three times it was told to wait"

    def test_a_service_that_dies_is_started_again_and_stubborn_ones_are_killed(
        self, tmp_path: Path, ensemble: list[Ensemble]
    ) -> None:
        one = Ensemble(tmp_path, FAULT_SIP_UA="stubborn", FAULT_ASR="stubborn")
        ensemble.append(one)
        one.until("Ctrl-C")
        first = one.facts("tts")["pid"]
        assert isinstance(first, int)

        os.kill(first, signal.SIGKILL)

        assert "-9" in one.until("tts-1 ended")
        one.until(r"tts-1 .*service.ready")
        assert one.facts("tts")["pid"] != first
        assert one.facts("tts")["instance"] == "tts-1r2", "its successor is another worker on the bus"
        pids = one.pids()
        code, took_s = one.end(signal.SIGTERM)
        assert code == 0
        assert took_s < 5
        assert "sip-ua-1 does not end by itself; killed" in "".join(one.output)
        assert all_gone(pids)

    def test_calls_may_end_by_themselves_and_a_second_ctrl_c_hangs_them_up(
        self, tmp_path: Path, ensemble: list[Ensemble]
    ) -> None:
        one = Ensemble(tmp_path, FAULT_SIP_UA="busy")
        ensemble.append(one)
        one.until("Ctrl-C ends it")
        one.process.send_signal(signal.SIGINT)
        assert "waiting for 2 call(s) to end, 30 s at most" in one.until("waiting")
        assert one.ends.read_text().split() == ["sip-ua"], "everybody else is still needed"

        code, took_s = one.end()

        assert code == 0
        assert took_s < 5
        assert one.ends.read_text().split()[:3] == ["sip-ua", "sip-ua", "gateway"]
        assert "killed" not in "".join(one.output)

    def test_a_killed_parent_leaves_no_orphans(self, tmp_path: Path, ensemble: list[Ensemble]) -> None:
        one = Ensemble(tmp_path)
        ensemble.append(one)
        one.until("Ctrl-C")
        pids = one.pids()
        assert len(pids) == 7

        one.process.kill()

        assert all_gone(pids)

    def test_a_service_that_cannot_start_is_one_line_and_exit_code_2(
        self, tmp_path: Path, ensemble: list[Ensemble]
    ) -> None:
        one = Ensemble(tmp_path, FAULT_ASR="bad-setting")
        ensemble.append(one)

        output, _ = one.process.communicate(timeout=30)

        assert one.process.returncode == 2
        assert output.count("asr.model: no such model") == 1
        assert output.splitlines()[-1] == "dialbus: asr: asr.model: no such model"

    def test_a_service_that_keeps_crashing_ends_the_start_with_its_last_lines(
        self, tmp_path: Path, ensemble: list[Ensemble]
    ) -> None:
        one = Ensemble(tmp_path, FAULT_MEDIA="crash")
        ensemble.append(one)

        output, _ = one.process.communicate(timeout=30)

        assert one.process.returncode == 1
        assert output.splitlines()[-1] == "dialbus: Traceback: it fell over"

    def test_a_configured_bus_is_used_and_none_is_started(self, tmp_path: Path, ensemble: list[Ensemble]) -> None:
        one = Ensemble(tmp_path, DIALBUS_NATS_URL="nats://127.0.0.1:4999")
        ensemble.append(one)

        one.until("Ctrl-C")

        assert one.facts("media")["nats"] == "nats://127.0.0.1:4999"
        assert len(one.pids()) == 6
        assert one.end()[0] == 0

    @pytest.mark.parametrize(
        ("option", "kind", "setting"),
        [("--http", socket.SOCK_STREAM, "http_addr"), ("--sip", socket.SOCK_DGRAM, "ua.udp_port")],
    )
    def test_a_port_in_use_is_one_line_before_anything_starts(
        self, tmp_path: Path, ensemble: list[Ensemble], option: str, kind: socket.SocketKind, setting: str
    ) -> None:
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            if kind == socket.SOCK_STREAM:
                taken.listen()
            one = Ensemble(tmp_path, option, address)
            ensemble.append(one)
            output, _ = one.process.communicate(timeout=30)

        assert one.process.returncode == 2
        assert output.splitlines()[-1].startswith(f"dialbus: {setting}: can't listen on {address}: ")
        assert not one.run_dir.exists()

    def test_a_bad_setting_is_one_line(self, tmp_path: Path, ensemble: list[Ensemble]) -> None:
        one = Ensemble(tmp_path, "--external-ip", "nowhere")
        ensemble.append(one)

        output, _ = one.process.communicate(timeout=30)

        assert one.process.returncode == 2
        assert len(output.splitlines()) == 1
        assert "external_ip" in output


def test_backoff_doubles_to_its_limit_and_starts_over_after_a_good_run() -> None:
    backoff = Backoff()

    assert [backoff.after(1.0) for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert backoff.after(120.0) == 0.5
    assert backoff.failures == 1


def test_a_bus_is_brought_along_unless_one_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[nats]\nurl = "nats://127.0.0.1:4222"\n')

    assert brings_own_nats(Config())
    assert brings_own_nats(Config(nats=NatsConfig(replicas=1)))
    assert not brings_own_nats(load(file, {}).config)
    assert not brings_own_nats(load(None, {"DIALBUS_NATS_URL": "nats://bus:4222"}).config)


def test_services_share_no_health_port() -> None:
    config = load(None, {"DIALBUS_HEALTH_ADDR": "0.0.0.0:9100"}).config

    told = environment({"KEPT": "1"}, config, Path("/run"), "nats://127.0.0.1:1")

    assert told["DIALBUS_HEALTH_ADDR"] == "0.0.0.0:0"
    assert told["KEPT"] == "1"
    assert told["DIALBUS_SUPERVISOR_PID"] == str(os.getpid())
    assert load(None, told).warnings == ()


def test_free_ports_pass_the_check() -> None:
    with pytest.raises(ConfigError, match="http_addr"):
        check_ports(load(None, {"DIALBUS_HTTP_ADDR": "192.0.2.1:80"}).config)
    check_ports(load(None, {"DIALBUS_HTTP_ADDR": "127.0.0.1:0", "DIALBUS_UA_UDP_PORT": "0"}).config)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("http://0.0.0.0:8080", "127.0.0.1:8080"),
        ("http://192.0.2.7:80", "192.0.2.7:80"),
        ("[::]:80", "[::1]:80"),
    ],
)
def test_shows_addresses_as_one_connects_to_them(address: str, shown: str) -> None:
    assert local(address) == shown


def test_reasons_are_the_told_ones_else_the_last_lines() -> None:
    assert reasons(["noise", "dialbus: asr: x: y"]) == ["dialbus: asr: x: y"]
    assert reasons([str(number) for number in range(9)]) == ["4", "5", "6", "7", "8"]
