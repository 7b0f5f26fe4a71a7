"""Calls from the command line: what is told of them, against a server that the test plays."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from dialbus_cli.outgoing import OutgoingCall, describe
from tests.harness import eventually


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"event": "ringing", "earlyMedia": False}, "it rings"),
        ({"event": "ringing", "earlyMedia": True, "refer": True}, "transfer: it rings, with sound"),
        ({"event": "answer", "sdp": "v=0"}, "answered"),
        ({"event": "reject", "code": 486, "reason": "Busy Here"}, "refused: 486 Busy Here"),
        ({"event": "reject", "reason": "no"}, "refused: no"),
        ({"event": "asrFinal", "text": "Hello."}, "heard: Hello."),
        ({"event": "asrFinal", "text": ""}, None),
        ({"event": "dtmf", "digit": "5"}, "the other side pressed 5"),
        ({"event": "hold", "onHold": True}, "put on hold"),
        ({"event": "message", "body": "a\x1b[2Jb"}, "message: a [2Jb"),
        ({"event": "transferRequest", "referTo": "<sip:1@h>"}, "the other side asks to be transferred to <sip:1@h>"),
        ({"event": "error", "sender": "tts", "error": "no"}, "error from tts: no"),
        ({"event": "hangup", "reason": "byCallee", "initiator": "callee"}, "call ended: byCallee by callee"),
        ({"event": "metrics"}, None),
        ({"event": "trackStart"}, None),
    ],
)
def test_events_in_words(event: dict[str, Any], line: str | None) -> None:
    assert describe(event) == line


class Server:
    """Answers a call and speaks as told; `commands` is what the client sent."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.commands: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        self._events = events

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        self.tokens.append(socket.request.headers.get("Authorization"))
        async for frame in socket:
            self.commands.append(json.loads(frame))
            if self.commands[-1]["command"] == "invite":
                for event in self._events:
                    await socket.send(json.dumps(event))
            else:
                await socket.send('{"event": "hangup", "reason": "bySystem", "initiator": "system"}')
                return


async def played(server: Server, act: Any, scheme: str = "ws", **options: Any) -> tuple[OutgoingCall, list[str]]:
    told: list[str] = []
    async with serve(server, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        call = OutgoingCall(f"{scheme}://127.0.0.1:{port}", "sip:1@h", told.append, **options)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(call.run())
            await act(call, told)
    return call, told


async def test_the_call_is_placed_under_an_id_of_its_own_and_hung_up_when_told() -> None:
    server = Server({"event": "ringing", "earlyMedia": False}, {"event": "answer", "sdp": ""})

    async def act(call: OutgoingCall, told: list[str]) -> None:
        await eventually(lambda: call.answered, what="the answer")
        await call.hang_up()

    call, told = await played(server, act, token="t0k")
    assert call.call_id.startswith("c.")
    assert server.paths == [f"/call/sip?id={call.call_id}"]
    assert server.tokens == ["Bearer t0k"]
    invite, hangup = server.commands
    assert (invite["command"], invite["option"]["callee"]) == ("invite", "sip:1@h")
    assert hangup == {"command": "hangup"}
    assert told == [f"calling sip:1@h as {call.call_id}", "it rings", "answered", "call ended: bySystem by system"]


async def test_a_text_is_spoken_after_the_answer() -> None:
    server = Server({"event": "answer", "sdp": ""})

    async def nothing(*_: Any) -> None:
        """The text ends the call."""

    call, _ = await played(server, nothing, "http", say="Hello.")  # the API's other scheme is understood
    assert call.answered
    assert server.tokens == [None]
    assert server.commands[1] == {"command": "tts", "text": "Hello.", "autoHangup": True}


async def test_a_server_that_is_not_there_is_told() -> None:
    told: list[str] = []
    call = OutgoingCall("ws://127.0.0.1:1", "sip:1@h", told.append)
    await call.run()
    await call.hang_up()
    assert not call.answered
    assert told[1].startswith("call lost: ")
