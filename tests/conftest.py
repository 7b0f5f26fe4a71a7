"""Fixtures of every test that needs the bus: a real nats-server per file, a connection and a call id per test.

`nats_url`     a nats-server with JetStream on a free port, started once per file: queues hold what another file left
`bus`          a connected Bus for the test, which plays the neighbours of the service under test
`call_id`      a session id of the test's own, so that tests share the server without meeting
`service_env`  settings for `harness.run_service`: that server, port 0 everywhere, folders in the test's tmp_path
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dialbus.bus import Bus
from dialbus.config import NatsConfig

_START_TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a nats-server with JetStream that lives as long as the file runs."""
    directory = tmp_path_factory.mktemp("nats")
    server = Path(sys.executable).with_name("nats-server")
    command = [
        str(server), "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", str(directory / "store"),
        "--ports_file_dir", str(directory), "-l", str(directory / "nats.log"),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield _client_url(process, directory)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _client_url(process: "subprocess.Popen[bytes]", directory: Path) -> str:
    """The address that the server wrote into its ports file."""
    give_up_at = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        for path in directory.glob("*.ports"):
            try:
                return str(json.loads(path.read_text())["nats"][0])
            except (ValueError, KeyError, IndexError):
                break  # still being written
        time.sleep(0.01)
    raise RuntimeError(f"nats-server did not start (exit code {process.poll()}), see {directory / 'nats.log'}")


@pytest_asyncio.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    """A connection for the test, which plays the service's neighbours."""
    async with Bus.connect(NatsConfig(url=nats_url), service="test", instance=f"test-{secrets.token_hex(4)}") as bus:
        yield bus


@pytest.fixture
def call_id() -> str:
    """A session id that no other test uses, with the characters that real dialogIds have."""
    return f"{secrets.token_hex(6)}@192.0.2.15-{secrets.token_hex(4)}-{secrets.token_hex(4)}"


@pytest.fixture
def service_env(nats_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a service under test; a test adds its own on top."""
    return {
        "DIALBUS_NATS_URL": nats_url,
        "DIALBUS_HTTP_ADDR": "127.0.0.1:0",
        "DIALBUS_HEALTH_ADDR": "127.0.0.1:0",
        "DIALBUS_UA_ADDR": "127.0.0.1",
        "DIALBUS_UA_UDP_PORT": "0",
        "DIALBUS_UA_GRACEFUL_SHUTDOWN": "false",
        "DIALBUS_RTP_BIND_IP": "127.0.0.1",
        "DIALBUS_EXTERNAL_IP": "127.0.0.1",
        "DIALBUS_RECORDER_PATH": str(tmp_path / "recorders"),
        "DIALBUS_MEDIA_CACHE_PATH": str(tmp_path / "mediacache"),
        "DIALBUS_MEDIA_PATH": str(tmp_path / "media"),
        "DIALBUS_FETCH_ALLOW_LOOPBACK": "true",
    }
