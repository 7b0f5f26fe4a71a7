"""How a service lives: configure, connect, announce itself, run, and leave in order on SIGTERM.

The same signal again asks to hurry: whoever lets calls end by themselves (`ua.graceful_shutdown`) ends them then.

Exit codes: 0 after SIGTERM or SIGINT, 2 for settings that can't work (one line on stderr names each), 1 for anything
that was not foreseen.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from dialbus import __version__, telemetry
from dialbus.bus import Bus
from dialbus.config import Config, ConfigError, Loaded, load_or_exit, masked
from dialbus.contracts.session import Heartbeat
from dialbus.health import Health, PortInUse, served
from dialbus.liveness import HEARTBEAT_S
from dialbus.tasks import cancel_all

log = telemetry.get_logger()

_hurry: ContextVar[asyncio.Event | None] = ContextVar("hurry", default=None)
"""Of this process, known to everything that `run` runs."""
CANNOT_START = (ConfigError, PortInUse)


@dataclass(slots=True)
class Service:
    """What every service has: settings, a name, the bus, health."""

    name: str
    instance: str
    config: Config
    bus: Bus
    health: Health
    addresses: dict[str, str] = field(default_factory=dict)
    capacity: Callable[[], tuple[int | None, int]] = lambda: (None, 0)
    """Most calls at once (or None), calls now."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when whoever stops the service does not want to wait for calls in progress."""
    facts: Callable[[], dict[str, int]] = dict
    """What else the heartbeats tell."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def announce(self) -> None:
        """Say that the service is ready: addresses to `DIALBUS_RUN_DIR`, heartbeats to the bus."""
        await self.bus.flush()  # whoever reads it may ask at once, and finds somebody who answers
        run_dir = os.environ.get("DIALBUS_RUN_DIR")
        if run_dir:
            path = Path(run_dir) / f"{self.name}-{self.instance}.json"
            facts = {"service": self.name, "instance": self.instance, "pid": os.getpid(), **self.addresses}
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(facts))
            temporary.replace(path)
        self._tasks.append(asyncio.create_task(self._beat(), name="heartbeat"))
        log.info("service.ready", **self.addresses)

    async def _beat(self) -> None:
        started_at = datetime.now(UTC).isoformat()
        while True:
            most, now = self.capacity()
            beat = Heartbeat(
                service=self.name, instance=self.instance, version=__version__, capacity=most, in_use=now,
                started_at=started_at, facts=self.facts(),
            )  # fmt: skip
            if self.bus.connected:
                with suppress(Exception):  # a heartbeat that can't be sent is what its watchers look for
                    await self.bus.publish(beat)
            await asyncio.sleep(HEARTBEAT_S)

    async def stop(self) -> None:
        """Stop heartbeats; watchers see the service leave."""
        await cancel_all(self._tasks)


@asynccontextmanager
async def service(name: str, loaded: Loaded, *, serve_health: bool = True) -> AsyncIterator[Service]:
    """Connect to the bus and serve /health on `health.addr` (unless the service has an API of its own)."""
    config = loaded.config
    instance = os.environ.get("DIALBUS_INSTANCE") or f"{name}-{secrets.token_hex(4)}"
    telemetry.configure(service=name, instance=instance, level=config.log_level, fmt=config.log_format)
    for warning in loaded.warnings:
        log.warning("config.odd", detail=warning)
    log.debug("config", **masked(config))
    health = Health(name, instance)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(
            Bus.connect(config.nats, service=name, instance=instance, trace=config.trace)
        )
        if bus.tracer.enabled:
            telemetry.follow(bus.tracer.log)
            stack.callback(telemetry.follow, None)
        health.check("nats", lambda: bus.connected)
        me = Service(name, instance, config, bus, health, hurry=_hurry.get() or asyncio.Event())
        if serve_health:
            bound = await stack.enter_async_context(served(health, config.health.addr, "health.addr"))
            me.addresses["health"] = f"http://{bound}/health"
        try:
            yield me
        finally:
            await me.stop()


def run(name: str, main: Callable[[Loaded], Awaitable[None]], argv: list[str] | None = None) -> None:
    """Run a service's `main` until SIGTERM or SIGINT cancels it; never returns."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--conf", type=Path, help="configuration file (default: config.toml if there is one)")
    loaded = load_or_exit(parser.parse_args(argv).conf)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_until_signal(name, main(loaded)))
    sys.stderr.flush()
    raise SystemExit(code)


async def _until_signal(name: str, main: Any) -> int:
    loop = asyncio.get_running_loop()
    hurry = asyncio.Event()
    _hurry.set(hurry)
    task = asyncio.create_task(main, name=name)
    told_to_stop: set[int] = set()

    def stop(number: int) -> None:
        # Ctrl-C may reach a service from the terminal and, as SIGTERM, from its supervisor: that is one wish, not two.
        if number in told_to_stop:
            hurry.set()
        elif not told_to_stop:
            task.cancel()
        told_to_stop.add(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        return 0 if told_to_stop else 1
    except BaseException as error:
        return _failed(name, error)
    return 0


def _failed(name: str, error: BaseException) -> int:
    cause = _first(error, CANNOT_START)
    if cause is not None:
        lines = cause.lines if isinstance(cause, ConfigError) else (str(cause),)
        for line in lines:
            print(f"dialbus: {name}: {line}", file=sys.stderr)  # noqa: T201 - the one line the operator reads
        return 2
    log.error("service.failed", exc_info=error)
    return 1


def _first(error: BaseException, kinds: tuple[type[BaseException], ...]) -> Any:
    """The first of these kinds inside (groups of) an error, or None."""
    if isinstance(error, kinds):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            found = _first(inner, kinds)
            if found is not None:
                return found
    return None
