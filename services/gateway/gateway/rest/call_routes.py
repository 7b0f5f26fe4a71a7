"""`/list`, `/kill`, `/command`, `/events`: the live calls of the exchange (protocol sections 7.1 to 7.4)."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.requests import Request

from dialbus.bus import Bus, Refused
from dialbus.sessions import Sessions
from gateway.rest import models
from gateway.rest.answers import (
    AWAY,
    BAD,
    LARGE,
    UNKNOWN,
    CallPath,
    TooLarge,
    add,
    body_of,
    call_ids,
    json_body,
    not_found,
    trouble,
)
from gateway.rest.calls import Calls, Gone, NotTaken
from gateway.rest.descriptions import COMMAND
from gateway.rest.watch import CONTENT_TYPE, Watch
from gateway.socket.parsing import MAX_TEXT_BYTES, client_command

MAX_WATCHERS = 1000


class EventStream(StreamingResponse):
    """Server-sent events, content type to the letter of protocol 7.4."""

    def __init__(self, content: Any = None, status_code: int = 200, background: BackgroundTask | None = None) -> None:
        headers = {"content-type": CONTENT_TYPE, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(content, status_code, headers, background=background)


class CallRoutes:
    """What is done with live calls, on whichever gateway their sockets are."""

    def __init__(self, bus: Bus, sessions: Sessions, calls: Calls) -> None:
        self._bus = bus
        self._sessions = sessions
        self._calls = calls
        self._watches: set[Watch] = set()
        self._stopping = False

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        add(router, "/list", self.list_calls, "GET", response_model=models.CallList, tags=["calls"], responses=AWAY)
        add(router, "/kill/{call_id:path}", self.kill, "GET", "POST", response_model=models.Killed, tags=["calls"],
            responses=UNKNOWN | AWAY)  # fmt: skip
        add(router, "/command/{call_id:path}", self.command, "POST", response_model=models.Sent, tags=["calls"],
            responses=BAD | UNKNOWN | LARGE | AWAY,
            openapi_extra=json_body(COMMAND, {
                "tts": {"value": {"command": "tts", "text": "Hello.", "playId": "greeting"}},
                "hangup": {"value": {"command": "hangup", "reason": "done"}},
            }))  # fmt: skip
        add(router, "/events/{call_id:path}", self.events, "GET", tags=["calls"], response_class=EventStream,
            responses={
                200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description":
                      "`event: event` and `event: command`, each with one line of JSON, until the call is over."},
                404: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description":
                      "No such live session."},
            } | AWAY)  # fmt: skip

    def stop(self) -> None:
        """End the streams that would outlive the gateway."""
        self._stopping = True
        for watch in list(self._watches):
            watch.end()

    async def list_calls(self) -> Any:
        """Every live session of the exchange, on whichever gateway."""
        return models.CallList(active_calls=[models.active_call(session) for session in await self._calls.all()])

    async def kill(self, request: Request, call_id: CallPath) -> Any:
        """Hang up, reason `bySystem`."""
        session = await self._calls.find(call_ids(request, "/kill/"))
        if session is None:
            return not_found(call_id)
        try:
            await self._calls.kill(session)
        except Gone:
            return not_found(session.call_id)
        except NotTaken as error:
            return trouble(503, str(error))
        return models.Killed(id=session.call_id)

    async def command(self, request: Request, call_id: CallPath) -> Any:
        """Queue a command as if the call's own client had sent it; its effects show as events."""
        try:
            sent = client_command((await body_of(request, MAX_TEXT_BYTES)).decode())
        except TooLarge:
            return trouble(413, f"a command has at most {MAX_TEXT_BYTES} bytes")
        except ValueError as error:  # BadCommand, or no UTF-8
            return trouble(400, str(error))
        session = await self._calls.find(call_ids(request, "/command/"))
        if session is None:
            return not_found(call_id)
        try:
            await self._calls.command(session, sent)
        except Gone:
            return not_found(session.call_id)
        except NotTaken as error:
            return trouble(503, str(error))
        except Refused as refused:
            return trouble(503 if refused.code >= 500 else 400, refused.reason)
        except ValueError as error:  # JSON that parses and can't be written again: nested too deeply
            return trouble(400, f"not a usable command: {error}")
        return models.Sent(id=session.call_id)

    async def events(self, request: Request, call_id: CallPath) -> Response:
        """The call's events and commands from now on, as server-sent events; ends with the call."""
        session = await self._calls.find(call_ids(request, "/events/"))
        if session is None:
            return PlainTextResponse(f"no live session {call_id[:512]}", status_code=404)
        if self._stopping or len(self._watches) >= MAX_WATCHERS:
            return trouble(503, "shutting down" if self._stopping else "too many watchers")
        watch = await Watch.open(self._bus, self._sessions, session)
        self._watches.add(watch)
        return EventStream(self._watched(watch), background=BackgroundTask(self._unwatch, watch))

    async def _watched(self, watch: Watch) -> Any:
        try:
            async for frame in watch.frames():
                yield frame
        finally:
            await self._unwatch(watch)

    async def _unwatch(self, watch: Watch) -> None:
        self._watches.discard(watch)
        await watch.close()
