"""A child process: bound to its parent's life, its output line by line to a file and to the terminal."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LINE_MAX = 64 * 1024
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child must not have to load a library between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Say = Callable[[str], None]


def _prepare(parent: int, nice: int) -> None:
    """Run in the child before exec: die with the parent (Linux, prctl(2)), and step back if asked to.

    The signal is SIGKILL: a parent that could still ask kindly stops its children itself.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)
    if nice:
        with contextlib.suppress(OSError):  # a sandbox may forbid it: the service then runs at normal priority
            os.setpriority(os.PRIO_PROCESS, 0, nice)


class Child:
    """One program that may be started again; `lines` holds the last lines it wrote."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        log: Path,
        say: Say | None,
        nice: int = 0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.lines: deque[str] = deque(maxlen=50)
        self.started_at = 0.0
        self.lives = 0
        self._environ = dict(environ)
        self._say = say
        self._nice = nice
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def instance(self) -> str:
        """What this life is called on the bus: a process that died and its successor are two workers."""
        return self.name if self.lives <= 1 else f"{self.name}r{self.lives}"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it. Where the parent's death can't be signalled it stays in the terminal's process group."""
        self.lines.clear()
        self.lives += 1
        parent = os.getpid()
        self.started_at = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environ | {"DIALBUS_INSTANCE": self.instance},
            start_new_session=_LIBC is not None,
            preexec_fn=lambda: _prepare(parent, self._nice),
        )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read(self._process.stdout), name=f"output of {self.name}")

    async def wait(self) -> int:
        """Its exit code (negative: the signal that ended it), when it has ended and all it wrote was read."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=0.2)  # a grandchild may hold the pipe open
            self._reader.cancel()
        return code

    def signal(self, number: int) -> None:
        """Send it a signal; nothing when it has ended. SIGKILL goes to everything that it started."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL and _LIBC is not None:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        with self.log.open("ab", buffering=0) as log:
            while chunk := await stream.read(LINE_MAX):
                log.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_MAX:
                    lines, rest = [*lines, rest], b""
                self._tell(lines)
        if rest:
            self._tell([rest])

    def _tell(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            if self._say is not None:
                self._say(f"{self.name:<20} | {text}")
