"""The whole ensemble as a user starts it (`dialbus run`), a webhook, softphones as processes, and an ear.

`exchange` is started once per run on free ports. A call finds its test by the user part it dials: `exchange.number()`
gives one that nobody else has. `phone` starts `dialbus phone`, whose SIP is pyVoIP's and its own, not ours.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
import wave
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from tests.harness import eventually
from tests.peers.client import ApiClient

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
VOICES = DATA / "voices"
START_WITHIN_S = 90.0

Pcm = np.ndarray[Any, np.dtype[np.int16]]


class Webhook:
    """The application's webhook: announcements by the number dialled; some numbers fail on purpose.

    `broken…` is answered 500, `silent…` not at all (the connection closes), `slow…` and `held…` when
    `release` is set. `go…` is passed on to `relay`, whose status is the answer.
    """

    def __init__(self) -> None:
        self.announced: dict[str, list[dict[str, Any]]] = {}
        self.requests: dict[str, list[tuple[str, str, dict[str, str]]]] = {}
        """Method, path and headers (names in lower case) of the announcements."""
        self.release = threading.Event()
        self.relay = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def take(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = body["callee"].removeprefix("sip:").partition("@")[0]
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.setdefault(number, []).append((self.command, self.path, headers))
                outer.announced.setdefault(number, []).append(body)
                if number.startswith(("slow", "held")):
                    outer.release.wait(15)
                if number.startswith("silent"):
                    time.sleep(0.1)
                    self.connection.close()  # no answer at all
                    return
                status = 500 if number.startswith("broken") else 200
                if number.startswith("go"):
                    status = _pass_on(outer.relay, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_PUT = take  # noqa: N815 (names of http.server)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def _pass_on(url: str, body: dict[str, Any]) -> int:
    """POST an announcement to another webhook; its status."""
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
            return int(answer.status)
    except OSError:
        return 502


@dataclass
class Exchange:
    """A running ensemble; its addresses are looked up anew each time, since a service may have been restarted."""

    run_dir: Path
    recordings: Path
    webhook: Webhook
    process: "subprocess.Popen[bytes]"

    def announced(self) -> dict[str, dict[str, str]]:
        """What the running services announced, by service."""
        files = [json.loads(path.read_text()) for path in self.run_dir.glob("*-*.json")]
        return {fact["service"]: fact for fact in files}

    @property
    def http(self) -> str:
        """Base URL of the gateway."""
        return self.announced()["gateway"]["http"]

    @property
    def sip(self) -> str:
        """host:port of the sip-ua."""
        return self.announced()["sip-ua"]["sip"].removesuffix("/udp")

    @property
    def health(self) -> dict[str, str]:
        """URL of every service's /health."""
        return {name: fact["health"] for name, fact in self.announced().items()}

    @staticmethod
    def number(prefix: str = "n") -> str:
        """A number that only one test dials."""
        return f"{prefix}{secrets.token_hex(4)}"

    def address(self, number: str) -> str:
        """What a caller dials."""
        return f"sip:{number}@{self.sip}"

    async def announcement(self, number: str) -> dict[str, Any]:
        """The webhook's body for a call to this number."""
        found = await eventually(lambda: self.webhook.announced.get(number), what=f"webhook for {number}")
        return found[0]

    @asynccontextmanager
    async def client(
        self, call_id: str | None = None, *, path: str = "/call/sip", **query: str
    ) -> AsyncIterator[ApiClient]:
        """A client's socket."""
        base = self.http.replace("http://", "ws://")
        async with ApiClient.connect(base, path, call_id, headers=None, **query) as client:
            yield client


@contextmanager
def running(
    folder: Path, *, settings: Mapping[str, str] | None = None, config: str = "", options: Sequence[str] = ()
) -> Iterator[Exchange]:
    """`dialbus run` on free ports while the block runs; leaving checks that it stopped well and nothing was raised.

    `settings` are environment variables, `options` more of the command line. `config` is the text of its config.toml,
    with `WEBHOOK` for the URL of the webhook and `FOLDER` for a folder of its own; absent, all is at its default.
    """
    run_dir, recordings = folder / "run", folder / "recorders"
    webhook = Webhook()
    environment = {
        "DIALBUS_RECORDER_PATH": str(recordings),
        "DIALBUS_MEDIA_PATH": str(ROOT / "tests" / "data"),
        "DIALBUS_UA_HANDLER_TIMEOUT": "3s",
        "DIALBUS_ICE_SERVERS": "[]",  # nobody outside of this machine is asked
        "DIALBUS_FETCH_ALLOW_LOOPBACK": "true",  # the tests serve their sounds here
        "DIALBUS_UA_GRACEFUL_SHUTDOWN_TIMEOUT": "1s",
        **(settings or {}),
    }
    environment = {name: value for name, value in environment.items() if value}
    command = [sys.executable, "-m", "dialbus_cli", "run", "--run-dir", str(run_dir), *options]
    if config:
        text = config.replace("WEBHOOK", webhook.url).replace("FOLDER", str(folder))
        (folder / "config.toml").write_text(text)
        command += ["--conf", str(folder / "config.toml")]
    else:
        command += ["--http", "127.0.0.1:0", "--sip", "127.0.0.1:0", "--handler", webhook.url]
    log = (folder / "supervisor.log").open("wb")
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT, cwd=folder
    ) as process:
        try:
            _wait_until_ready(process, folder / "supervisor.log")
            yield Exchange(run_dir, recordings, webhook, process)
        finally:
            process.terminate()
            process.wait(15)
            webhook.close()
            log.close()
    text = (folder / "supervisor.log").read_text(errors="replace")
    assert process.returncode == 0, text[-4000:]
    assert "Traceback" not in text, text[-8000:]


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """`dialbus run` on free ports."""
    with running(tmp_path_factory.mktemp("ensemble")) as exchange:
        yield exchange


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the supervisor says that all services are ready."""
    give_up_at = time.monotonic() + START_WITHIN_S
    while time.monotonic() < give_up_at and process.poll() is None:
        if "dialbus is ready" in log.read_text(errors="replace"):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the ensemble did not start (exit code {process.poll()}):\n{log.read_text()[-4000:]}")


class Phone:
    """A `dialbus phone` process."""

    def __init__(self, process: asyncio.subprocess.Process, heard: Path) -> None:
        self.process = process
        self.heard = heard
        self.lines: list[str] = []
        self._reader = asyncio.create_task(self._read(), name="phone output")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())

    async def told(self, text: str, timeout_s: float = 20.0) -> str:
        """The first line that holds this text."""
        return await eventually(
            lambda: next((line for line in self.lines if text in line), None),
            timeout_s,
            what=f"{text!r} in {self.lines}",
        )

    async def over(self, timeout_s: float = 60.0) -> int:
        """The exit code."""
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
            await self._reader
        return code

    async def stop(self) -> None:
        """End it whatever it does."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._reader


StartPhone = Callable[..., Any]


@pytest.fixture
async def phone(tmp_path: Path) -> AsyncIterator[StartPhone]:
    """Start softphones: `await phone("sip:…", "--say", path)`."""
    started: list[Phone] = []

    async def start(*arguments: str) -> Phone:
        heard = tmp_path / f"heard-{secrets.token_hex(4)}.wav"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dialbus_cli", "phone", *arguments, "--record", str(heard), "--host", "127.0.0.1",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        one = Phone(process, heard)
        started.append(one)
        # Ten at once on a busy machine need longer to start than a webhook to come.
        await eventually(
            lambda: one.lines or process.returncode is not None, START_WITHIN_S, what="a word of the phone"
        )
        return one

    yield start
    for one in started:
        await one.stop()


# -- voices and ears ------------------------------------------------------------------------------


def read_wav(path: Path) -> tuple[Pcm, int]:
    """Samples (int16[n] or int16[n, 2]) and rate."""
    with wave.open(str(path), "rb") as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return (pcm.reshape(-1, file.getnchannels()) if file.getnchannels() > 1 else pcm), file.getframerate()


def write_wav(path: Path, pcm: Pcm, rate_hz: int) -> Path:
    """A mono WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm.tobytes())
    return path


@pytest.fixture(scope="session")
def transcribe() -> Callable[[Pcm, int], str]:
    """What a recording says, by the recogniser itself, in pieces cut at silence."""
    from asr.engine import WhisperTranscriber
    from asr.models import resolve_model

    engine = WhisperTranscriber(resolve_model(None, "asr.model"))

    def listen(pcm: Pcm, rate_hz: int) -> str:
        wide = pcm if rate_hz == 16000 else soxr.resample(pcm, rate_hz, 16000)
        return " ".join(engine.transcribe(part).text for part in _spoken(np.ascontiguousarray(wide))).strip()

    return listen


def _spoken(pcm: Pcm, rate_hz: int = 16000) -> list[Pcm]:
    """The stretches of a recording that are not silent, pauses under a second included."""
    frame = rate_hz // 50
    count = len(pcm) // frame
    levels = np.abs(pcm[: count * frame].astype(np.int32)).reshape(count, frame).max(axis=1)
    loud = np.flatnonzero(levels > 400)
    if not len(loud):
        return []
    edges = np.flatnonzero(np.diff(loud) > 50)
    starts = [loud[0], *loud[edges + 1]]
    ends = [*loud[edges], loud[-1]]
    margin = rate_hz // 5
    return [pcm[max(0, a * frame - margin) : b * frame + frame + margin] for a, b in zip(starts, ends, strict=True)]


@pytest.fixture(scope="session")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A WAV of a sentence, by the synthesiser itself."""
    from tts.engine import PiperSynthesiser
    from tts.voices import Voices

    engine = PiperSynthesiser(Voices())
    folder = tmp_path_factory.mktemp("spoken")

    def speak(text: str) -> Path:
        pcm = np.concatenate([chunk.pcm for chunk in engine.stream(text, rate_hz=8000)])
        quiet = np.zeros(2400, np.int16)
        return write_wav(folder / f"{secrets.token_hex(4)}.wav", np.concatenate([quiet, pcm, quiet]), 8000)

    return speak
