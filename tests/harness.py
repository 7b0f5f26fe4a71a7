"""What contract tests share: a real service as a process, and neighbours that the test plays over the bus.

Nothing here waits for a fixed time: each helper waits for something, under a timeout that fails the test.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

from dialbus.bus import REFUSED, Bus
from dialbus.contracts.base import Contract, Refusal, Request, Taken

T = TypeVar("T")
C = TypeVar("C", bound=Contract)
R = TypeVar("R", bound=Request[Any])

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
WAIT_S = 10.0


# -- waiting --------------------------------------------------------------------------------------


async def next_message(messages: "asyncio.Queue[T]", timeout_s: float = WAIT_S) -> T:
    """The next item of a queue; TimeoutError fails the test."""
    async with asyncio.timeout(timeout_s):
        return await messages.get()


@overload
async def eventually(
    probe: Callable[[], Awaitable[T | None]], timeout_s: float = WAIT_S, *, what: str = "the probe"
) -> T: ...


@overload
async def eventually(probe: Callable[[], T | None], timeout_s: float = WAIT_S, *, what: str = "the probe") -> T: ...


async def eventually(probe: Callable[[], Any], timeout_s: float = WAIT_S, *, what: str = "the probe") -> Any:
    """The first true value of `probe` (plain or async), asked every 10 ms; AssertionError when none comes."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        value = probe()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline, f"{what} stayed {value!r} for {timeout_s} s"
        await asyncio.sleep(0.01)


# -- neighbours -----------------------------------------------------------------------------------


async def requests_to(
    bus: Bus, request: type[R], answer: Callable[[R], Contract] | None = None, *, queue: str = "", **subject: str
) -> "asyncio.Queue[R]":
    """Serve a request contract as a neighbour would; every request, parsed by its contract, lands in the queue.

    `answer` gives the reply (default `Taken`) and may raise `Refused`. Listening has begun when this returns.
    """
    received: asyncio.Queue[R] = asyncio.Queue()

    async def handle(message: R) -> Contract:
        received.put_nowait(message)
        return answer(message) if answer else Taken()

    await bus.serve(request, handle, queue=queue, **subject)
    await bus.flush()
    return received


async def messages_of(bus: Bus, contract: type[C], **subject: str) -> "asyncio.Queue[C]":
    """Listen to a published contract; every message that fits its schema lands in the queue."""
    received: asyncio.Queue[C] = asyncio.Queue()

    async def handle(message: C) -> None:
        received.put_nowait(message)

    await bus.subscribe(contract, handle, **subject)
    await bus.flush()
    return received


# -- services -------------------------------------------------------------------------------------


@dataclass(slots=True)
class ServiceProcess:
    """A service that runs as `python -m <package>`."""

    package: str
    instance: str
    process: "subprocess.Popen[bytes]"
    log_path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    """What the service announced: `health`, `http`, `ws`, `sip`, …"""

    @property
    def log(self) -> str:
        """Everything that the service wrote so far."""
        return self.log_path.read_text(errors="replace")

    async def exited(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the end of the process and give its exit code."""
        return await asyncio.to_thread(self.process.wait, timeout_s)

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM; AssertionError (with the log) unless it exits with 0 in time. Harmless when already stopped."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = await self.exited(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.package} did not stop within {timeout_s} s\n{self.log}") from None
        assert code == 0, f"{self.package} exited with {code}\n{self.log}"

    def kill(self) -> None:
        """SIGKILL, as a crash; harmless when already gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def spawn(package: str, env: Mapping[str, str], run_dir: Path) -> ServiceProcess:
    """Start a service without waiting for it (for tests of starts that must fail)."""
    instance = env.get("DIALBUS_INSTANCE") or f"{package.replace('_', '-')}-{secrets.token_hex(4)}"
    log_path = run_dir / f"{instance}.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DIALBUS_")}
    with log_path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", package],
            env={**inherited, **env, "DIALBUS_RUN_DIR": str(run_dir), "DIALBUS_INSTANCE": instance},
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return ServiceProcess(package, instance, process, log_path)


async def refused_raw(
    bus: Bus, request: type[Request[Any]], call_id: str, command: Mapping[str, Any] | None = None, **fields: Any
) -> Refusal:
    """What is said to a request with a command or an option that no contract here would write."""
    data = json.dumps({"call_id": call_id, "command": command} | fields).encode()
    answer = await bus._client.request(request.pattern(call_id, **fields), data, timeout=5)
    assert REFUSED in (answer.headers or {}), answer.data
    return Refusal.from_bytes(answer.data)


@asynccontextmanager
async def run_service(
    package: str, env: Mapping[str, str], *, timeout_s: float = START_TIMEOUT_S
) -> AsyncIterator[ServiceProcess]:
    """Run `python -m <package>` while the block runs; entered when it has announced itself.

    `env` holds the DIALBUS_* settings (fixture `service_env` has the usual ones). Leaving the block stops it with
    SIGTERM and asserts exit code 0, unless the test stopped or killed it already, or the block itself failed.
    """
    with tempfile.TemporaryDirectory(prefix=f"{package}-") as directory:
        service = spawn(package, env, Path(directory))
        announcement = Path(directory) / f"{package.replace('_', '-')}-{service.instance}.json"
        try:
            await eventually(lambda: announcement.exists() or service.process.poll() is not None, timeout_s)
            assert announcement.exists(), f"{package} exited with {service.process.poll()}\n{service.log}"
            service.facts = json.loads(announcement.read_text())
            yield service
            if service.process.returncode is None:
                await service.stop()
        except BaseException as error:
            error.add_note(f"--- log of {package}\n{service.log[-8000:]}")
            raise
        finally:
            service.kill()
