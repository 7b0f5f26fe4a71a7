"""A receptionist: answers every call, greets, repeats what the caller says, and hangs up after "goodbye".

    make run ARGS="--handler http://127.0.0.1:8090/webhook"
    .venv/bin/python examples/receptionist.py

dialbus announces a call by POST to the webhook; the answer to the webhook means nothing, the call is taken by
connecting to the WebSocket with its dialogId and sending `accept`.
"""

import argparse
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

GREETING = "Hello, this is the dialbus receptionist. How can I help you?"


async def command(socket: ClientConnection, name: str, **fields: Any) -> None:
    """Send one command."""
    await socket.send(json.dumps({"command": name, **fields}))


async def answer(server: str, call: dict[str, Any]) -> None:
    """One call, from the announcement to the end; what goes wrong with it harms no other."""
    try:
        await converse(server, call)
    except (OSError, WebSocketException) as error:
        print(f"call lost: {error}", flush=True)


async def converse(server: str, call: dict[str, Any]) -> None:
    """Greet, listen, repeat, say goodbye."""
    print(f"{call['caller']} calls {call['callee']}", flush=True)
    async with connect(f"{server}/call/sip?id={quote(call['dialogId'], safe='')}") as socket:
        async for frame in socket:
            event = json.loads(frame)
            match event["event"]:
                case "incoming":
                    option = {"vad": {}, "asr": {"provider": "whisper"}, "tts": {"provider": "piper"}, "recorder": {}}
                    await command(socket, "accept", option=option)
                case "answer":
                    await command(socket, "tts", text=GREETING, playId="greeting", endOfStream=True)
                case "speaking":
                    await command(socket, "interrupt")  # the caller may cut us short
                case "asrFinal" if event["text"]:
                    print(f"caller: {event['text']}", flush=True)
                    if "goodbye" in event["text"].lower().replace("-", "").replace("good bye", "goodbye"):
                        await command(socket, "tts", text="Goodbye!", playId="bye", endOfStream=True, autoHangup=True)
                    else:
                        text = f"You said: {event['text']}"
                        await command(socket, "tts", text=text, playId=f"reply {event['index']}", endOfStream=True)
                case "error":
                    print(f"error from {event['sender']}: {event['error']}", flush=True)
                case "hangup":
                    print(f"call ended: {event['reason']} by {event['initiator']}", flush=True)


def serve_webhook(host: str, port: int, announced: "asyncio.Queue[dict[str, Any]]") -> ThreadingHTTPServer:
    """Receive the announcements in a thread; they come out of the queue."""
    loop = asyncio.get_running_loop()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            loop.call_soon_threadsafe(announced.put_nowait, body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Our own lines are enough."""

    httpd = ThreadingHTTPServer((host, port), Webhook)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    return httpd


async def main() -> None:
    """Answer calls until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="ws://127.0.0.1:8080", help="where dialbus listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="port of the webhook")
    arguments = parser.parse_args()
    announced: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    try:
        httpd = serve_webhook("127.0.0.1", arguments.port, announced)
    except OSError as error:
        parser.error(f"--port {arguments.port}: {error.strerror}")
    print(f"webhook: http://127.0.0.1:{httpd.server_port}/webhook", flush=True)
    try:
        async with asyncio.TaskGroup() as calls:
            while True:
                call = await announced.get()
                calls.create_task(answer(arguments.server, call), name=call["dialogId"])
    finally:
        httpd.shutdown()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("bye")
