"""`dialbus run`: an embedded nats-server and the six services as processes of this machine.

Everything starts at once; a service that dies is started again. The first signal ends all in order (who owns the calls
first, the bus last): within five seconds when there is no call, else when the calls have ended by themselves or
`ua.graceful_shutdown_timeout` is over. A second signal hangs up at once, a third kills. Exit codes: 0 after a signal,
2 when a setting can't work, 1 when a service doesn't come up for another reason.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialbus.config import Config, ConfigError, HostPort, Loaded, shown_url
from dialbus_cli import embedded_nats, running
from dialbus_cli.child import Child, Say
from dialbus_cli.environment import needed, needed_by_the_bus
from dialbus_cli.outgoing import OutgoingCall

REASON = "dialbus: "
"""How a line begins that tells the operator why something can't start."""
START_WITHIN_S = 120.0
NATS_WITHIN_S = 20.0
LONGEST_ANSWER = 1 << 16
GIVE_UP_AFTER = 3
"""Failures of one service before all are ready."""
HANG_UP_WITHIN_S = 5.0
"""What sip-ua needs at most after the grace: BYEs, last events, their answers."""

SERVICES = {
    "gateway": "gateway",
    "sip-ua": "sip_ua",
    "media": "media",
    "asr": "asr",
    "tts": "tts",
    "webhook-dispatcher": "webhook_dispatcher",
}
NICE = {"asr": 19, "tts": 19}
"""Models yield to the RTP clock."""
STOP_ORDER: tuple[tuple[tuple[str, ...], float], ...] = (
    (("sip-ua",), 2.0),
    (("gateway",), 0.8),
    (("webhook-dispatcher", "media", "asr", "tts"), 1.2),
    (("nats",), 0.5),
)
"""Who is stopped together, and after how many seconds they are killed unless they have calls; 4.5 s in all.

sip-ua is first, since it lets calls end, and needs all the others for that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    loaded: Loaded
    workers: Mapping[str, int]
    """Processes of a service, when not one."""
    run_dir: Path | None = None
    """Kept, for logs; None: a temporary one."""
    call: str | None = None
    """Whom to call when all is ready."""


class Backoff:
    """Seconds to wait before a service is started again: 0.5 doubling to 30, from the start after a good minute."""

    FIRST_S, MAX_S, GOOD_S = 0.5, 30.0, 60.0

    def __init__(self) -> None:
        self._next_s = self.FIRST_S
        self.failures = 0

    def after(self, lived_s: float) -> float:
        """The delay after a process that lived this long."""
        if lived_s >= self.GOOD_S:
            self._next_s, self.failures = self.FIRST_S, 0
        self.failures += 1
        delay, self._next_s = self._next_s, min(self._next_s * 2, self.MAX_S)
        return delay


class CannotRun(Exception):
    """The ensemble can't be started or kept; `lines` say why."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.code = code
        self.lines = lines


def brings_own_nats(config: Config) -> bool:
    """Whether no bus is configured, so that one is to be started."""
    return "nats" not in config.model_fields_set or "url" not in config.nats.model_fields_set


def check_ports(config: Config) -> None:
    """Raise ConfigError naming every setting whose port is taken, before anything has been started."""
    faults = []
    for setting, address, kind in (
        ("http_addr", config.http_addr, socket.SOCK_STREAM),
        ("ua.udp_port", HostPort(config.ua.addr, config.ua.udp_port), socket.SOCK_DGRAM),
    ):
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:  # a port in TIME_WAIT is free; for UDP the option would share the port
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address.host, address.port))
            except OSError as error:
                faults.append(f"{setting}: can't listen on {address}: {error.strerror or error}")
    if faults:
        raise ConfigError(*faults)


def environment(base: Mapping[str, str], config: Config, run_dir: Path, nats_url: str) -> dict[str, str]:
    """What every service is told beyond the settings that it reads itself."""
    return {
        **base,
        "PYTHONUNBUFFERED": "1",
        "DIALBUS_RUN_DIR": str(run_dir),
        "DIALBUS_SUPERVISOR_PID": str(os.getpid()),  # whom /ami/v1/shutdown tells
        "DIALBUS_NATS_URL": nats_url,
        # Several services on one machine can't share a port; which one each got is in its announcement.
        "DIALBUS_HEALTH_ADDR": str(HostPort(config.health.addr.host, 0)),
    }


def reasons(lines: list[str]) -> list[str]:
    """The lines of a service that could not start which say why; else its last lines."""
    told = [line for line in lines if line.startswith(REASON)]
    return told or lines[-5:]


@contextmanager
def _run_folder(kept: Path | None) -> Iterator[Path]:
    """A private folder that is gone afterwards, or the given one, of which only the logs stay."""
    if kept is None:
        folder = Path(tempfile.mkdtemp(prefix="dialbus-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for stale in kept.glob("*.log"):
            stale.unlink()
    except OSError as error:
        raise ConfigError(f"--run-dir: {kept}: {error.strerror}") from None
    try:
        _forget(kept)
        yield kept
    finally:
        _forget(kept)


def _forget(folder: Path) -> None:
    for name in SERVICES:
        for path in folder.glob(f"{name}-*.json"):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / "nats", ignore_errors=True)


async def _healthy(url: str) -> bool:
    """Whether GET of an http://host:port/path answers 200 within two seconds."""
    return (await _get(url))[0] == 200


async def _get(url: str) -> tuple[int, bytes]:
    """Status and body of GET of an http://host:port/path; (0, b"") when there is no answer within two seconds."""
    host_port, _, path = url.removeprefix("http://").partition("/")
    host, _, port = host_port.rpartition(":")
    host = host.strip("[]").replace("0.0.0.0", "127.0.0.1")
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET /{path} HTTP/1.1\r\nHost: {host_port}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while len(answer) < LONGEST_ANSWER and (more := await reader.read(LONGEST_ANSWER)):
                    answer += more
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, b""


async def _calls(url: str) -> int:
    """How many calls a service's /health counts; 0 when it says nothing."""
    _, body = await _get(url)
    try:
        return int(json.loads(body)["calls"])
    except (ValueError, KeyError, TypeError):
        return 0


class Supervisor:
    """Starts, watches and stops the processes of a plan."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._config = plan.loaded.config
        self._say = say
        self._children: dict[str, list[Child]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._folder: Path | None = None
        self._call: OutgoingCall | None = None
        self._findable = contextlib.ExitStack()
        """Open while other commands can find us."""
        self._stopping = False
        self._ready = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over.add_done_callback(lambda over: over.exception())  # seen, even when another error came first
        self._impatient = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal (0) or until it can't be kept running; raises ConfigError and CannotRun."""
        check_ports(self._config)
        started_at = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        with _run_folder(self._plan.run_dir) as folder, self._findable:
            self._folder = folder
            try:
                await self._until_over(self._start(folder))
                if not self._over.done():
                    self._ready = True
                    self._welcome(folder, time.monotonic() - started_at)
                    self._place_call(folder)
                await self._over
            finally:
                await self._end_call()
                await self._stop()
        return 0

    def _on_signal(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
        elif not self._impatient.is_set():
            self._impatient.set()
        else:
            self._hurry.set()

    def _fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    async def _until_over(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work unless it is all over before."""
        task = asyncio.create_task(work, name="start")
        await asyncio.wait([task, self._over], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        else:
            task.cancel()
            await asyncio.wait([task])

    # -- start -----------------------------------------------------------------------------------

    async def _start(self, folder: Path) -> None:
        if brings_own_nats(self._config):
            nats_url = await self._start_nats(folder)
        else:
            nats_url = self._config.nats.url
        self._findable.enter_context(running.announced(nats_url))
        self._say("starting " + ", ".join(SERVICES))
        for service, module in SERVICES.items():
            for number in range(1, self._plan.workers.get(service, 1) + 1):
                instance = f"{service}-{number}"
                child = Child(
                    instance,
                    [sys.executable, "-m", module],
                    environ=environment(needed(os.environ, service), self._config, folder, nats_url),
                    log=folder / f"{instance}.log",
                    say=self._relay,
                    nice=NICE.get(service, 0),
                )
                self._keep(service, child)
        await self._all_ready(folder)

    async def _start_nats(self, folder: Path) -> str:
        store = folder / "nats"
        store.mkdir(mode=0o700)
        program = embedded_nats.executable()
        child = Child(
            "nats",
            embedded_nats.command(program, store),
            environ=needed_by_the_bus(os.environ),
            log=folder / "nats.log",
            say=None,
        )
        self._keep("nats", child)
        deadline = time.monotonic() + NATS_WITHIN_S
        while time.monotonic() < deadline:
            port = embedded_nats.announced_port(store, child.pid) if child.pid else None
            if port is not None:
                # Started again, it must be where the services look for it.
                child.command = embedded_nats.command(program, store, port)
                return f"nats://{embedded_nats.HOST}:{port}"
            await asyncio.sleep(0.02)
        raise CannotRun(1, f"nats-server is not up after {NATS_WITHIN_S:.0f} s:", *reasons(list(child.lines)))

    def _keep(self, service: str, child: Child) -> None:
        self._children.setdefault(service, []).append(child)
        self._tasks.append(asyncio.create_task(self._kept(service, child), name=f"keep {child.name}"))

    async def _kept(self, service: str, child: Child) -> None:
        """Start a process again whenever it ends, until everything is told to stop."""
        backoff = Backoff()
        while not self._is_stopping():
            try:
                await child.start()
            except OSError as error:
                self._fail(CannotRun(1, f"{child.name}: {child.command[0]}: {error.strerror}"))
                return
            if self._is_stopping():  # it was told while the process was being made
                child.signal(signal.SIGKILL)
            code = await child.wait()
            if self._is_stopping():
                return
            if self._folder is not None:
                (self._folder / f"{service}-{child.instance}.json").unlink(missing_ok=True)
            delay_s = backoff.after(time.monotonic() - child.started_at)
            if code == 2 and service != "nats":
                self._fail(CannotRun(2, *reasons(list(child.lines))))
                return
            if not self._ready and backoff.failures >= GIVE_UP_AFTER:
                self._fail(
                    CannotRun(1, f"{child.name} ended {GIVE_UP_AFTER} times; its last lines:", *list(child.lines)[-15:])
                )
                return
            self._say(f"{child.name} ended with code {code}; starting it again in {delay_s:g} s")
            await asyncio.sleep(delay_s)

    def _is_stopping(self) -> bool:
        return self._stopping

    def _relay(self, line: str) -> None:
        """Show a service's line, unless it is why it can't start: that one comes last and alone."""
        name, _, text = line.partition("| ")
        if not text.startswith(REASON):
            instance = name.strip()
            line = re.sub(rf" instance={re.escape(instance)}(r\d+)?(?= |$)", "", line)
            line = line.replace(f" service={instance.rpartition('-')[0]}", "")
            self._say(line)

    async def _all_ready(self, folder: Path) -> None:
        waiting = {
            child.name: asyncio.create_task(self._one_ready(folder, service, child), name=f"ready {child.name}")
            for service in SERVICES
            for child in self._children[service]
        }
        deadline = time.monotonic() + START_WITHIN_S
        try:
            while pending := [name for name, task in waiting.items() if not task.done()]:
                if time.monotonic() > deadline:
                    raise CannotRun(1, f"not ready after {START_WITHIN_S:.0f} s: {', '.join(pending)}")
                await asyncio.wait([waiting[name] for name in pending], timeout=10.0)
                still = [name for name in pending if not waiting[name].done()]
                if still:
                    self._say(f"waiting for {', '.join(still)}")
            await self._exchange_ready(folder, deadline)
        finally:
            for task in waiting.values():
                task.cancel()

    async def _one_ready(self, folder: Path, service: str, child: Child) -> None:
        """Return when the running process has announced itself and its /health is ready, whatever the others do."""
        while True:
            facts = announcement(folder, service, child.instance) or {}
            if facts.get("pid") == child.pid and await _healthy(f"{facts.get('health', '')}?service={service}"):
                return
            await asyncio.sleep(0.05)

    async def _exchange_ready(self, folder: Path, deadline: float) -> None:
        """Return when the gateway has heard a ready worker of each service, so that a call finds them."""
        gateway = self._children["gateway"][0]
        while True:
            facts = announcement(folder, "gateway", gateway.instance) or {}
            if await _healthy(str(facts.get("health", ""))):
                return
            if time.monotonic() > deadline:
                raise CannotRun(1, f"not ready after {START_WITHIN_S:.0f} s: the gateway has yet to hear every service")
            await asyncio.sleep(0.05)

    def _welcome(self, folder: Path, after_s: float) -> None:
        gateway = announcement(folder, "gateway", "gateway-1") or {}
        sip_ua = announcement(folder, "sip-ua", "sip-ua-1") or {}
        targets = self._config.ua.handler.targets
        api = local(str(gateway.get("http", self._config.http_addr)))
        lines = [
            f"dialbus is ready after {after_s:.1f} s",
            f"  WebSocket  ws://{api}/call/sip",
            f"  Test page  http://{api}/",
            f"  SIP        sip:{local(str(sip_ua.get('sip', '')).removesuffix('/udp'))} over UDP",
            *(f"  Webhook    {self._config.ua.handler.method} {shown_url(target)}" for target in targets),
            *([] if targets else ["  Webhook    none: inbound calls are refused until --handler URL names one"]),
            f"  Logs       {folder}" + ("" if self._plan.run_dir else " (gone at the end; --run-dir keeps them)"),
            "Ctrl-C ends it.",
        ]
        for line in lines:
            self._say(line)

    def _place_call(self, folder: Path) -> None:
        if self._plan.call is None:
            return
        gateway = announcement(folder, "gateway", "gateway-1") or {}
        server = f"ws://{local(str(gateway.get('http', self._config.http_addr)))}"
        self._call = OutgoingCall(
            server, self._plan.call, lambda line: self._say(f"call: {line}"), token=self._config.http_token
        )
        self._tasks.append(asyncio.create_task(self._call.run(), name="call"))

    async def _end_call(self) -> None:
        """The call from the command line ends with the command, whatever the grace of the others."""
        if self._call is not None:
            await self._call.hang_up()

    # -- stop ------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        """End every process in order; nothing is left afterwards."""
        self._stopping = True
        if not self._hurry.is_set():
            self._say("stopping")
        for services, within_s in STOP_ORDER:
            grace_s = self._grace_s if "sip-ua" in services else 0.0
            await self._stop_group([c for name in services for c in self._children.get(name, ())], within_s, grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _grace_s(self) -> float:
        ua = self._config.ua
        return ua.graceful_shutdown_timeout if ua.graceful_shutdown and self._ready else 0.0

    async def _stop_group(self, children: list[Child], within_s: float, grace_s: float) -> None:
        running = {
            child: asyncio.create_task(child.wait(), name=f"end of {child.name}")
            for child in children
            if child.pid is not None
        }
        if not running:
            return
        for child in running:
            child.signal(signal.SIGTERM)
        everyone: asyncio.Future[Any] = asyncio.gather(*running.values())
        if grace_s:
            await self._ended(everyone, within_s, self._impatient)
            calls = 0 if everyone.done() or self._impatient.is_set() else await self._calls_of(running)
            if calls:
                self._say(f"waiting for {calls} call(s) to end, {grace_s:g} s at most; Ctrl-C hangs up")
                await self._ended(everyone, grace_s - within_s + HANG_UP_WITHIN_S, self._impatient)
            if self._impatient.is_set():
                for child in running:
                    child.signal(signal.SIGTERM)  # once more: don't wait
                await self._ended(everyone, HANG_UP_WITHIN_S)
        else:
            await self._ended(everyone, within_s)
        for child, ended in running.items():
            if not ended.done():
                if self._ready:  # before, it was still loading
                    self._say(f"{child.name} does not end by itself; killed")
                child.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(everyone, 1.0)

    async def _ended(self, everyone: asyncio.Future[Any], within_s: float, *events: asyncio.Event) -> None:
        """Wait until all have ended, one of the events or a third signal comes, or the time is over."""
        waits = [asyncio.create_task(event.wait(), name="hurry") for event in (self._hurry, *events)]
        await asyncio.wait([everyone, *waits], timeout=max(0.0, within_s), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _calls_of(self, children: Iterable[Child]) -> int:
        """Calls that these processes still have."""
        folder, calls = self._folder, 0
        for child in children:
            facts = None if folder is None else announcement(folder, "sip-ua", child.instance)
            calls += await _calls(str(facts.get("health", ""))) if facts else 0
        return calls


def announcement(folder: Path, service: str, instance: str) -> dict[str, object] | None:
    """What a service wrote about itself when it was ready, or None."""
    try:
        facts = json.loads((folder / f"{service}-{instance}.json").read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def local(address: str) -> str:
    """An address as one connects to it from this machine."""
    host, colon, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    return f"{'127.0.0.1' if host in ('', '0.0.0.0') else '[::1]' if host in ('::', '[::]') else host}{colon}{port}"


def say(line: str) -> None:
    """Print a line at once; a terminal that has gone is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


async def _main(plan: Plan) -> int:
    return await Supervisor(plan, say).run()


def run(plan: Plan) -> int:
    """Run the ensemble in this process; the exit code."""
    try:
        return asyncio.run(_main(plan))
    except ConfigError as error:
        code, lines = 2, error.lines
    except CannotRun as failure:
        code, lines = failure.code, failure.lines
    for line in lines:
        print(line if line.startswith(REASON) else f"{REASON}{line}", file=sys.stderr, flush=True)
    return code
