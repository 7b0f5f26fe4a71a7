"""`dialbus trace`: a call's SIP messages, commands, events, inputs, requests and log lines, of all services, in order.

Reads what the services keep on the bus (dialbus.bus.trace_store), while it lives (`--follow`) and after it ended.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dialbus.bus import BusError
from dialbus.bus.trace_store import COMMAND, EVENT, CallLine, KeptCall, TraceStore
from dialbus.config import ConfigError, NatsConfig, load, shown_url
from dialbus.contracts.trace import TraceKind
from dialbus_cli import running

KINDS = (*(kind.value for kind in TraceKind), COMMAND, EVENT)
MAX_LISTED = 20
MAX_VALUE = 100
"""Characters of one fact; `--json` has all of it."""
_NAME_WIDTH, _SERVICE_WIDTH, _KIND_WIDTH = 28, 18, 8
_ARROWS = {TraceKind.SIP_IN.value: "sip  <-", TraceKind.SIP_OUT.value: "sip  ->"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NotFound(Exception):
    """No such call, or too many."""


# -- one line as text ---------------------------------------------------------------------------


def shown(line: CallLine, since: float, *, whole_sip: bool = False) -> Iterator[str]:
    """The lines of text for one of a trace; times are milliseconds after `since`."""
    if line.dropped:
        yield f"{'':>12}  {line.instance}: {line.dropped} lines were lost before this one"
    who = line.instance or line.service
    leg = f"[{line.leg_id}] " if line.leg_id not in (None, "main") else ""
    facts = " ".join(f"{name}={_value(value)}" for name, value in line.facts.items())
    kind = _ARROWS.get(line.kind, line.kind)
    text = (
        f"{(line.at - since) * 1000:>12.3f}  {who:<{_SERVICE_WIDTH}} {kind:<{_KIND_WIDTH}} "
        f"{leg}{_clean(line.name):<{_NAME_WIDTH}} {facts}"
    )
    yield text.rstrip()
    if whole_sip and line.text is not None:
        for part in line.text.splitlines():
            yield f"{'':>14}| {_clean(part)}".rstrip()


def _value(value: Any) -> str:
    text = value if isinstance(value, str) and value and not re.search(r"[\s\"=]", value) else _json(value)
    return _clean(text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _clean(text: str) -> str:
    """No control character of an outsider's text reaches the terminal as itself."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def as_json(line: CallLine) -> str:
    """A line as one JSON object, with everything that is kept."""
    return _json({name: value for name, value in asdict(line).items() if value not in (None, {}, "", 0)})


# -- which call -----------------------------------------------------------------------------------


def resolved(wanted: str, calls: Iterable[KeptCall]) -> str:
    """The id that begins like this. Raises NotFound unless there is exactly one, or one that is just that."""
    matching = [call.call_id for call in calls if call.call_id.startswith(wanted)]
    if wanted in matching:
        return wanted
    if not matching:
        raise NotFound(f"nothing is kept of a call {wanted!r}; dialbus trace --list shows which there are")
    if len(matching) > 1:
        raise NotFound(f"{wanted!r} begins the ids of {len(matching)} calls:", *matching[:MAX_LISTED])
    return matching[0]


def listed(calls: list[KeptCall], now: float) -> Iterator[str]:
    """The most recent calls."""
    for call in calls[:MAX_LISTED]:
        yield f"{_ago(now - call.last_at):>8} ago  {'ended' if call.ended else 'live':<5}  {_clean(call.call_id)}"
    if len(calls) > MAX_LISTED:
        yield f"… and {len(calls) - MAX_LISTED} more"


def _ago(seconds: float) -> str:
    return f"{max(0.0, seconds):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# -- which bus ------------------------------------------------------------------------------------


def buses(nats: str | None, conf: Path | None) -> list[str]:
    """URLs to look at: the one that is named, or configured, or those of ensembles that run here, or the usual one.

    Raises ConfigError.
    """
    if nats is not None:
        return [nats]
    configured = load(conf).config
    if "nats" in configured.model_fields_set and "url" in configured.nats.model_fields_set:
        return [configured.nats.url]
    return [one.nats_url for one in running.found()] or [NatsConfig().url]


# -- the command ----------------------------------------------------------------------------------


async def _run(arguments: argparse.Namespace) -> None:
    """Find the call on whichever bus has it. Raises NotFound, BusError, ConfigError."""
    stores: list[tuple[KeptCall, TraceStore]] = []
    failures: list[BusError] = []
    urls = buses(arguments.nats, arguments.conf)
    async with AsyncExitStack() as stack:
        for url in urls:
            try:
                store = await stack.enter_async_context(TraceStore.connect(url))
                stores += [(call, store) for call in await store.calls()]
            except BusError as error:
                failures.append(BusError(f"no bus at {shown_url(url)} ({error}); --nats URL names another one"))
        if len(failures) == len(urls):
            raise failures[0]
        calls = sorted((call for call, _ in stores), key=lambda call: call.last_at, reverse=True)
        if arguments.list:
            print("\n".join(listed(calls, time.time())))
            return
        call_id = resolved(arguments.call, calls)
        await _show(next(store for call, store in stores if call.call_id == call_id), call_id, arguments)


async def _show(store: TraceStore, call_id: str, arguments: argparse.Namespace) -> None:
    since: float | None = None
    async with aclosing(_wanted(store.lines(call_id, follow=arguments.follow), arguments)) as lines:
        async for line in lines:
            if arguments.json:
                print(as_json(line), flush=True)
                continue
            if since is None:
                since = line.at
                print(f"{_clean(call_id)}  {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S.%f} UTC")
            for text in shown(line, since, whole_sip=arguments.sip):
                print(text, flush=arguments.follow)


async def _wanted(
    lines: AsyncGenerator[CallLine, None], arguments: argparse.Namespace
) -> AsyncGenerator[CallLine, None]:
    async with aclosing(lines):
        async for line in lines:
            if line.kind not in arguments.without:
                yield line


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command's options."""
    trace = commands.add_parser("trace", help="tell what happened in a call: SIP, commands, events, inputs, logs")
    trace.add_argument("call", nargs="?", metavar="CALL-ID", help="the session id, or how it begins")
    trace.add_argument("--list", action="store_true", help="which calls there are, the latest first")
    trace.add_argument("-f", "--follow", action="store_true", help="wait for more, until the call has ended")
    trace.add_argument("--sip", action="store_true", help="whole SIP messages instead of their first lines")
    trace.add_argument(
        "--without", metavar="KINDS", type=_kinds, default=(), help=f"leave out: sip, {', '.join(KINDS)} (a,b,…)"
    )
    trace.add_argument("--json", action="store_true", help="a JSON object a line, with everything that is kept")
    trace.add_argument(
        "--nats", metavar="URL", help="the bus (default: the configured one, or of a `dialbus run` here)"
    )
    trace.add_argument("--conf", metavar="FILE", type=Path, help="settings (default: config.toml if there is one)")


def _kinds(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in (*KINDS, "sip")]:
        raise argparse.ArgumentTypeError(f"no such kind: {', '.join(unknown)}")
    return names + (tuple(_ARROWS) if "sip" in names else ())


def main(arguments: argparse.Namespace) -> int:
    """Run the command; its exit code: 1 when there is no such call or no bus, 2 for a bad command line."""
    if (arguments.call is None) is not arguments.list:
        print("dialbus: trace: a CALL-ID or --list", file=sys.stderr)
        return 2
    try:
        asyncio.run(_run(arguments))
    except (NotFound, BusError) as error:
        for part in error.args:
            print(f"dialbus: {part}", file=sys.stderr)
        return 1
    except ConfigError as error:
        for part in error.lines:
            print(f"dialbus: config: {part}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
