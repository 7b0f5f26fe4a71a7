"""sipp as a process: one scenario, on ports of its own, against an address or as one."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.harness import eventually
from tests.interop.ports import free_port, is_bound

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

SCENARIOS = Path(__file__).with_name("scenarios")
LIMIT_S = 30


class Sipp:
    """A running sipp."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, sip_port: int) -> None:
        self._process = process
        self._folder = folder
        self.address = f"sip:service@127.0.0.1:{sip_port}"

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, scenario: str, *arguments: str, remote: str | None = None, rtp_port: int | None = None
    ) -> AsyncIterator["Sipp"]:
        """Call `remote` ("host:port"), or wait to be called. The descriptions it sends name `rtp_port`,
        else a port of its own where it sends back all that it hears.

        More `arguments` as sipp takes them, such as `-s number`. Leaving ends it.
        """
        sip_port, echo_port = free_port(), free_port(span=4)  # video and RTCP take the ports above
        command = [
            "sipp", *([remote] if remote else []), "-sf", str(SCENARIOS / f"{scenario}.xml"),
            "-i", "127.0.0.1", "-p", str(sip_port), "-mi", "127.0.0.1", "-mp", str(echo_port), "-rtp_echo",
            "-ci", "127.0.0.1", "-cp", str(free_port()), "-key", "rtp_port", str(rtp_port or echo_port),
            "-nostdin", "-timeout", f"{LIMIT_S}s", "-timeout_error",
            "-trace_err", "-error_file", str(folder / "errors"),
            "-trace_msg", "-message_file", str(folder / "messages"),
            *([] if "-m" in arguments else ["-m", "1"]), *arguments,
        ]  # fmt: skip
        with (folder / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                env={**os.environ, "TERM": "dumb"},
            )  # fmt: skip
        sipp = cls(process, folder, sip_port)
        try:
            if remote is None:
                await eventually(lambda: is_bound(sip_port) or process.returncode is not None, what="sipp's port")
                assert process.returncode is None, "sipp ended at once"
            yield sipp
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            log.info("sipp exited with %d\n%s", process.returncode, sipp.told)  # pytest shows it for a failed test

    @property
    def messages(self) -> str:
        """Every SIP message it sent and received."""
        path = self._folder / "messages"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def received(self) -> list[str]:
        """The start lines of what it received, in order."""
        return re.findall(r"message received \[\d+\] bytes *:\s*\n\s*\n(.*)", self.messages)

    @property
    def told(self) -> str:
        """The last of its errors, messages and screen."""
        parts = {name: self._folder / name for name in ("messages", "output", "errors")}
        texts = {name: path.read_text(errors="replace") for name, path in parts.items() if path.exists()}
        return "\n".join(f"--- sipp's {name}\n{text[-6000:]}" for name, text in texts.items())

    async def succeeded(self) -> None:
        """Wait for its end; AssertionError unless every call followed the scenario."""
        async with asyncio.timeout(LIMIT_S + 5):
            code = await self._process.wait()
        assert code == 0, f"sipp exited with {code}"
