"""A call placed from the command line: a client of the API like any other, its events told in words.

`dialbus run --call URI` places one as soon as everything is ready, `dialbus call URI` at a server that runs already.
The session id is `c.` and a UUID (protocol 0.3).
"""

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

Say = Callable[[str], None]

HANG_UP_WITHIN_S = 3.0
"""How long the server may take to end the call that was hung up."""
MAX_FRAME_BYTES = 4 << 20
OPTION: dict[str, Any] = {"vad": {}, "asr": {}, "tts": {}}
"""What the call is placed with, besides the callee: what the other side says is shown."""


def describe(event: dict[str, Any]) -> str | None:
    """One line about an event, None for those that tell a person nothing."""
    of_the_transfer = "transfer: " if event.get("refer") and event.get("event") != "dtmf" else ""
    match event:
        case {"event": "ringing", "earlyMedia": early}:
            told = "it rings, with sound" if early else "it rings"
        case {"event": "answer"}:
            told = "answered"
        case {"event": "reject"}:
            told = f"refused: {event.get('code', '')} {event.get('reason', '')}".replace("  ", " ")
        case {"event": "asrFinal", "text": text} if text:
            told = f"heard: {text}"
        case {"event": "dtmf", "digit": digit}:
            told = f"the other side pressed {digit}"
        case {"event": "hold", "onHold": on_hold}:
            told = "put on hold" if on_hold else "taken off hold"
        case {"event": "message", "body": body}:
            told = f"message: {body}"
        case {"event": "transferRequest", "referTo": target}:
            told = f"the other side asks to be transferred to {target}"
        case {"event": "error", "sender": sender, "error": reason}:
            told = f"error from {sender}: {reason}"
        case {"event": "hangup"}:
            told = f"call ended: {event.get('reason', 'unknown')} by {event.get('initiator', 'unknown')}"
        case _:
            return None
    return _one_line(of_the_transfer + told)


def _one_line(text: str) -> str:
    """Text from afar as it may reach a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


class OutgoingCall:
    """One call; `run` lives as long as it does. `answered` tells whether it came that far."""

    def __init__(
        self, server: str, callee: str, tell: Say, *, token: str | None = None, say: str | None = None
    ) -> None:
        """`server` is `ws://host:port` or http; with `say` that is spoken after the answer, and then we hang up."""
        self.call_id = f"c.{uuid.uuid4()}"
        self.answered = False
        base = f"ws{server.removeprefix('http')}" if server.startswith("http") else server
        self._url = f"{base}/call/sip?id={self.call_id}"
        self._callee = callee
        self._tell = tell
        self._headers = {"Authorization": f"Bearer {token}"} if token else None
        self._text = say
        self._socket: ClientConnection | None = None
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Place the call and tell of it until it is over. What goes wrong is told, not raised."""
        self._tell(f"calling {self._callee} as {self.call_id}")
        try:
            async with connect(
                self._url, additional_headers=self._headers, proxy=None, max_size=MAX_FRAME_BYTES
            ) as socket:
                self._socket = socket
                await self._command("invite", option={"callee": self._callee, **OPTION})
                async for frame in socket:
                    if isinstance(frame, str):
                        await self._on_event(json.loads(frame))
        except (OSError, TimeoutError, WebSocketException) as error:
            self._tell(f"call lost: {error or type(error).__name__}")
        finally:
            self._ended.set()

    async def hang_up(self) -> None:
        """End the call; returns when the server has closed it, or after a while anyhow."""
        if self._socket is None:
            return
        with suppress(OSError, TimeoutError, WebSocketException):
            async with asyncio.timeout(HANG_UP_WITHIN_S):
                await self._command("hangup")
                await self._ended.wait()

    async def _on_event(self, event: dict[str, Any]) -> None:
        if (line := describe(event)) is not None:
            self._tell(line)
        if event.get("event") == "answer" and not event.get("refer"):
            self.answered = True
            if self._text is not None:
                await self._command("tts", text=self._text, autoHangup=True)

    async def _command(self, name: str, **fields: Any) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps({"command": name, **fields}))


async def _call(server: str, callee: str, token: str | None, say: str | None) -> int:
    call = OutgoingCall(server, callee, _print, token=token, say=say)
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told_to_stop.set)
    running = asyncio.create_task(call.run(), name="call")
    stopping = asyncio.create_task(told_to_stop.wait(), name="signal")
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await call.hang_up()
    for task in (running, stopping):
        task.cancel()
    await asyncio.gather(running, stopping, return_exceptions=True)
    return 0 if call.answered else 1


def _print(line: str) -> None:
    with suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def main(server: str, callee: str, token: str | None, say: str | None) -> int:
    """`dialbus call`: 0 when the call was answered, else 1."""
    return asyncio.run(_call(server.rstrip("/"), callee, token, say))
