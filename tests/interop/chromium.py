"""Chromium without a window, driven over its DevTools protocol; its microphone is a WAV file."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.harness import eventually

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
_START_S = 60.0
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--metrics-recording-only", "--mute-audio", "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--allow-loopback-in-peer-connection", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """A tab. `troubles` has what it wrote into its console as an error, exceptions and refused resources included."""

    def __init__(self, socket: ClientConnection) -> None:
        self.troubles: list[str] = []
        self._socket = socket
        self._session = ""
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read(), name="devtools")

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, voice: Path | None = None, *options: str, size: tuple[int, int] = (1440, 900)
    ) -> AsyncIterator["Page"]:
        """A browser with one blank tab whose microphone plays `voice` once, from when it is first used."""
        profile = folder / "chromium"
        microphone = (f"--use-file-for-fake-audio-capture={voice}%noloop",) if voice else ()
        flags = (
            *_FLAGS, *microphone, *options, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
            "about:blank",
        )  # fmt: skip
        with (folder / "chromium.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(EXECUTABLE, *flags, stdout=log, stderr=log)
        try:
            facts = await eventually(
                lambda: _read_port(profile / "DevToolsActivePort"), _START_S, what="chromium's DevTools port"
            )
            async with connect(f"ws://127.0.0.1:{facts[0]}{facts[1]}", max_size=None, proxy=None) as socket:
                page = cls(socket)
                try:
                    await page._attach()
                    yield page
                finally:
                    page._reader.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 15)

    async def goto(self, url: str) -> None:
        """Load a page, with its modules."""
        await self._call("Page.navigate", url=url)
        address = json.dumps(url.partition("#")[0])
        await self.wait_for(f"document.readyState === 'complete' && location.href.startsWith({address})")

    async def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression, awaited if it is a promise; AssertionError if it throws."""
        answer = await self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    async def wait_for(self, expression: str, timeout_s: float = 10.0) -> None:
        """Return when an expression is true."""
        await eventually(lambda: self.evaluate(f"Boolean({expression})"), timeout_s, what=expression)

    async def click(self, selector: str) -> None:
        """Click an element."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    async def before_load(self, script: str) -> None:
        """Run a script in every page before its own."""
        await self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    async def _attach(self) -> None:
        targets = (await self._call("Target.getTargets"))["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        answer = await self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._call(f"{domain}.enable")

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = len(self._answers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send(json.dumps(message))
        answer = await asyncio.wait_for(self._answers[number], 60)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            params = message.get("params", {})
            match message.get("method"):
                case None:
                    self._answers[message["id"]].set_result(message)
                case "Runtime.exceptionThrown":
                    details = params["exceptionDetails"]
                    self.troubles.append(details.get("exception", {}).get("description", details["text"]))
                case "Runtime.consoleAPICalled" if params["type"] == "error":
                    self.troubles.append(str([argument.get("value") for argument in params["args"]]))
                case "Log.entryAdded" if params["entry"]["level"] == "error":
                    self.troubles.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


def _read_port(path: Path) -> tuple[str, str] | None:
    """Port and path of the browser's DevTools, once both lines are written."""
    lines = path.read_text().split("\n") if path.exists() else []
    return (lines[0], lines[1]) if len(lines) == 2 and lines[1] else None
