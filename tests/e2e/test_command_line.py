"""Calls placed from the command line: `dialbus call` at a running server, and `dialbus run --call`."""

import asyncio
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Exchange, StartPhone, read_wav
from tests.ensemble import Phone, running
from tests.harness import eventually
from tests.wer import wer

TEXT = "The water in your street will be off from nine to eleven tomorrow."


async def listening(phone: StartPhone, *arguments: str) -> tuple[Phone, str]:
    """A waiting phone and its address."""
    callee: Phone = await phone("--listen", *arguments)
    found = re.search(r"sip:\S+", await callee.told("listening on"))
    assert found is not None
    return callee, found[0]


async def call(exchange: Exchange, address: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `dialbus call`."""
    server = exchange.http.replace("http://", "ws://")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialbus_cli", "call", address, "--server", server, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_text_is_spoken_to_a_phone(
    exchange: Exchange, phone: StartPhone, transcribe: Callable[..., str]
) -> None:
    callee, address = await listening(phone)
    code, output = await call(exchange, address, "--say", TEXT)
    told = output.splitlines()
    assert re.fullmatch(rf"calling {re.escape(address)} as c\.[0-9a-f-]{{36}}", told[0])
    assert told[1:] == ["it rings", "answered", "call ended: autohangup by system"]
    assert code == 0
    assert await callee.over() == 0
    heard, rate_hz = read_wav(callee.heard)
    assert wer(TEXT, transcribe(heard, rate_hz)) <= 0.15


async def test_a_refusal_is_told_and_is_no_success(exchange: Exchange, phone: StartPhone) -> None:
    _, address = await listening(phone, "--refuse", "486")
    code, output = await call(exchange, address)
    assert output.splitlines()[-2:] == ["refused: 486 Busy Here", "call ended: rejected by callee"]
    assert code == 1


async def test_run_places_a_call_when_ready_and_ends_it_with_ctrl_c(tmp_path: Path, phone: StartPhone) -> None:
    callee, address = await listening(phone)
    with running(tmp_path, options=("--call", address)) as exchange:
        log = tmp_path / "supervisor.log"
        await eventually(lambda: "call: answered" in log.read_text(), 20, what="the answer")
        exchange.process.send_signal(signal.SIGINT)
        await callee.told("hung up by the other side")
        assert await asyncio.to_thread(exchange.process.wait, 15) == 0
    assert "call: call ended: bySystem by system" in log.read_text()
