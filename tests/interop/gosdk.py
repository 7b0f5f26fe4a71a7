"""The Go program of tests/interop/go-sdk: built once, started with flags, its JSON lines read.

`build(folder)` puts the stand-in of tests/interop/go-sdk/standin in the SDK's place; `build_with_sdk(folder)` takes the
SDK itself: from the module proxy, or from the folder that DIALBUS_GO_SDK names (a checkout of its repository).
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.harness import eventually

HERE = Path(__file__).parent / "go-sdk"
MODULE = "github.com/restsend/rustpbxgo"
VERSION = "v0.0.0-20260526032620-42508edeb646"
NEEDED = (1, 24)
BUILD_WITHIN_S = 300
SOON_S = 20.0
SPOKEN_S = 60.0


class CannotBuild(Exception):
    """No Go, too old a Go, or a module that can't be had."""


def build(folder: Path) -> Path:
    """The program with the stand-in; CannotBuild."""
    _go("build", "-o", str(folder / "standin"), ".", cwd=HERE)
    return folder / "standin"


def build_with_sdk(folder: Path) -> Path:
    """The program with the SDK as it is; CannotBuild."""
    for name in ("main.go", "webrtc.go", "go.mod", "go.sum"):
        shutil.copy(HERE / name, folder)
    checkout = os.environ.get("DIALBUS_GO_SDK")
    if checkout:
        _go("mod", "edit", f"-replace={MODULE}={checkout}", cwd=folder)
    else:
        _go("mod", "edit", f"-dropreplace={MODULE}", f"-require={MODULE}@{VERSION}", cwd=folder)
    _go("build", "-mod=mod", "-o", str(folder / "with-sdk"), ".", cwd=folder)
    return folder / "with-sdk"


def _go(*arguments: str, cwd: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise CannotBuild("no go in PATH")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd=cwd).stdout
    found = tuple(int(part) for part in version.strip().removeprefix("go").split(".")[:2])
    if found < NEEDED:
        raise CannotBuild(f"Go {version.strip()} is older than {NEEDED[0]}.{NEEDED[1]}")
    try:
        done = subprocess.run([go, *arguments], capture_output=True, text=True, cwd=cwd, timeout=BUILD_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"go {arguments[0]} took longer than {BUILD_WITHIN_S} s") from None
    if done.returncode:
        raise CannotBuild(f"go {' '.join(arguments[:2])}: {done.stderr.strip()[-2000:]}")


class GoProgram:
    """A running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen: list[tuple[str, Any]] = []
        self.noise: list[str] = []
        self._readers = [
            asyncio.create_task(self._read(process.stdout)),
            asyncio.create_task(self._read(process.stderr)),
        ]

    @classmethod
    @asynccontextmanager
    async def run(cls, program: Path, endpoint: str, **flags: str | bool) -> AsyncIterator["GoProgram"]:
        """Start it; leaving ends it."""
        arguments = [f"-{name}={str(value).lower() if value is True else value}" for name, value in flags.items()]
        process = await asyncio.create_subprocess_exec(
            str(program), f"-endpoint={endpoint}", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        running = cls(process)
        try:
            yield running
        except BaseException as error:
            error.add_note(f"--- the Go program saw {running.seen}\n{''.join(running.noise)[-3000:]}")
            raise
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await asyncio.gather(*running._readers)

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            try:
                entry = json.loads(line)
                self.seen.append((entry["saw"], entry["fact"]))
            except (ValueError, TypeError, KeyError):
                self.noise.append(line.decode(errors="replace"))

    async def saw(self, what: str, timeout_s: float = SOON_S, **facts: Any) -> Any:
        """The first fact of a kind with these members."""

        def find() -> tuple[Any] | None:
            for name, fact in self.seen:
                if name == what and all(isinstance(fact, dict) and fact.get(k) == v for k, v in facts.items()):
                    return (fact,)  # the fact may be empty
            return None

        return (await eventually(find, timeout_s, what=f"{what} {facts} among {self.names}"))[0]

    def of(self, what: str) -> list[Any]:
        """All facts of a kind."""
        return [fact for name, fact in self.seen if name == what]

    @property
    def names(self) -> list[str]:
        """What was seen, in order."""
        return [name for name, _ in self.seen if name != "event"]

    async def tell(self, line: str) -> None:
        """A command: say, interrupt, play, refer, hangup."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def over(self) -> int:
        """It ends by itself; the exit code."""
        async with asyncio.timeout(SOON_S):
            return await self.process.wait()

    def assert_understood(self) -> None:
        """No event was thrown away and nothing panicked."""
        assert "discarded" not in self.of("event"), self.of("event")
        for word in ("anic", "Error unmarshalling", "rror parsing"):
            assert not any(word in line for line in self.noise), "".join(self.noise)[-3000:]
