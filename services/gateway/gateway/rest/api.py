"""The routes of REST (protocol section 7), and what they stand on: `Rest`, one per gateway.

A route reads the request, asks `Calls` or the bus, and phrases the answer. Ids in paths are looked up in three
readings, percent-decoded first (section 7). Bodies are bounded while they are read.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote, unquote_plus

import httpx
from fastapi import APIRouter, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.requests import Request

from dialbus import telemetry
from dialbus.bus import NoReply, NoResponder, Refused
from dialbus.contracts.commands import load_json
from dialbus.contracts.options import masked
from dialbus.contracts.session import CallState, CallType, Heartbeat, Session
from dialbus.contracts.speech import Cached, CacheSpeech
from dialbus.filenames import file_safe
from dialbus.lifecycle import Service
from dialbus.liveness import HEARTBEAT_S
from dialbus.providers import NotAvailable
from dialbus.sessions import Sessions
from gateway.ensemble import Ensemble
from gateway.rest import models
from gateway.rest.ami import Allowed, is_foreign_page
from gateway.rest.calls import Calls, Gone, NotTaken
from gateway.rest.descriptions import ASYNCAPI, COMMAND, SPEECH, asyncapi, descriptions
from gateway.rest.llm import MAX_BODY_BYTES, BadPath, LlmProxy, NotPassedOn
from gateway.rest.precache import cache_requests
from gateway.rest.records import MAX_RECORDS, recorded_calls
from gateway.rest.watch import CONTENT_TYPE, Watch
from gateway.socket.ids import is_possible
from gateway.socket.parsing import MAX_TEXT_BYTES, client_command, command_id_of

log = telemetry.get_logger()

MAX_WATCHERS = 1000
_SYNTHESIS_S = 120.0
SUPERVISOR = "DIALBUS_SUPERVISOR_PID"
"""Set by `dialbus run` for its children: whom /ami/v1/shutdown tells."""

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": models.NotFound}}
_AWAY: dict[int | str, dict[str, Any]] = {503: {"model": models.Trouble, "description": "It can't be reached now."}}
_BAD: dict[int | str, dict[str, Any]] = {400: {"model": models.Trouble, "description": "It is no such command."}}
_LARGE: dict[int | str, dict[str, Any]] = {413: {"model": models.Trouble, "description": "The body is too large."}}
_FORBIDDEN: dict[int | str, dict[str, Any]] = {
    403: {"model": models.Denied, "description": "This address may not, or a page of another server asks."}
}
CallPath = Annotated[str, Path(description="Session id; for an inbound call the dialogId.", examples=["s.9a0e0ce4"])]


class TooLarge(Exception):
    """A body above its limit."""


class Rest:
    """Everything behind the routes; `router` has them."""

    def __init__(self, me: Service, sessions: Sessions) -> None:
        self._me = me
        self._bus = me.bus
        self._config = me.config
        self._sessions = sessions
        self._ensemble = Ensemble(HEARTBEAT_S)
        self._calls = Calls(me.bus, sessions, self._is_gone)
        self._allowed = Allowed(me.config.ami.allows)
        self._started_at = datetime.now(UTC).isoformat()
        self._watches: set[Watch] = set()
        self._stopping = False
        # trust_env: neither a proxy nor a .netrc of the host's user takes part.
        self._http = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        self._llm: LlmProxy | None = None
        if me.config.llmproxy:
            key = os.environ.get("OPENAI_API_KEY")
            self._llm = LlmProxy(me.config.llmproxy, key=key, token=me.config.http_token, client=self._http)
        self.router = APIRouter()
        self._add_routes()

    async def listen(self) -> None:
        """Hear the workers' heartbeats."""
        await self._bus.subscribe(Heartbeat, self._on_heartbeat)
        self._is_gone("")  # from now on silence counts

    def facts(self) -> dict[str, Any]:
        """What `/health` tells about the exchange, summed over the sip-ua workers that are alive."""
        now = asyncio.get_running_loop().time()

        def total(fact: str) -> int:
            return self._ensemble.sum("sip-ua", fact, now)

        return {
            "uptime": self._started_at,
            "total": total("total"),
            "failed": total("failed"),
            "runnings": sum(beat.in_use for beat in self._ensemble.workers("sip-ua", now)),
            "useragent": {
                "pending": total("pending"),
                "dialogs": total("dialogs"),
                "transactions": {
                    name: total(f"transactions_{name}") for name in ("running", "finished", "waiting_ack")
                },
            },
        }

    def stop(self) -> None:
        """End the streams that would outlive the gateway."""
        self._stopping = True
        for watch in list(self._watches):
            watch.end()

    async def close(self) -> None:
        """Close what was opened."""
        await self._http.aclose()

    async def _on_heartbeat(self, beat: Heartbeat) -> None:
        self._ensemble.heard(beat, asyncio.get_running_loop().time())

    def _is_gone(self, instance: str) -> bool:
        now = asyncio.get_running_loop().time()
        if not self._bus.connected:
            self._ensemble.deaf(now)
        return self._ensemble.is_gone(instance, now)

    # -- routes -----------------------------------------------------------------------------------

    def _add_routes(self) -> None:
        def add(path: str, endpoint: Callable[..., Any], *methods: str, **options: Any) -> None:
            for method in methods:
                name = f"{endpoint.__name__}_{method.lower()}" if len(methods) > 1 else endpoint.__name__
                self.router.add_api_route(path, endpoint, methods=[method], operation_id=name, **options)

        add("/list", self.list_calls, "GET", response_model=models.CallList, tags=["calls"], responses=_AWAY)
        add("/kill/{call_id:path}", self.kill, "GET", "POST", response_model=models.Killed, tags=["calls"],
            responses=_UNKNOWN | _AWAY)  # fmt: skip
        add("/command/{call_id:path}", self.command, "POST", response_model=models.Sent, tags=["calls"],
            responses=_BAD | _UNKNOWN | _LARGE | _AWAY,
            openapi_extra=_json_body(COMMAND, {
                "tts": {"value": {"command": "tts", "text": "Hello.", "playId": "greeting"}},
                "hangup": {"value": {"command": "hangup", "reason": "done"}},
            }))  # fmt: skip
        add("/events/{call_id:path}", self.events, "GET", tags=["calls"], response_class=EventStream, responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description":
                  "`event: event` and `event: command`, each with one line of JSON, until the call is over."},
            404: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "No such live session."},
        } | _AWAY)  # fmt: skip
        add("/precache", self.precache, "POST", response_model=models.Precached, tags=["speech"],
            responses=_BAD | _LARGE | _AWAY | {
                500: {"model": models.Trouble, "description": "Synthesis failed."}},
            openapi_extra=_json_body(SPEECH, {"text": {"value": {"text": "One moment, please."}}}))  # fmt: skip
        add("/api/records", self.records, "GET", response_model=list[models.RecordedCall], tags=["records"],
            response_model_exclude_none=True,
            responses={422: {"model": models.Trouble, "description": "`limit` is no such number."}} | _AWAY
            )  # fmt: skip
        add("/api/descriptions", self.descriptions, "GET", response_model=models.Descriptions, tags=["descriptions"])
        for path, (_, name, title) in ASYNCAPI.items():
            add(path, self._served(path, f"asyncapi_{name}", title), "GET", tags=["descriptions"],
                responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})  # fmt: skip
        add("/ami/v1/lists", self.ami_lists, "GET", response_model=models.AmiCalls, tags=["ami"],
            responses=_FORBIDDEN | _AWAY)  # fmt: skip
        add("/ami/v1/dialogs", self.ami_dialogs, "GET", response_model=list[models.AmiDialog], tags=["ami"],
            responses=_FORBIDDEN | _AWAY)  # fmt: skip
        add("/ami/v1/kill/{call_id:path}", self.ami_kill, "POST", response_model=bool, tags=["ami"],
            responses=_FORBIDDEN | _AWAY | {404: {"model": bool, "description": "`false`: no such session."}}
            )  # fmt: skip
        add("/ami/v1/shutdown", self.ami_shutdown, "POST", response_model=models.ShuttingDown, tags=["ami"],
            responses=_FORBIDDEN)  # fmt: skip
        add("/llm/v1/{path:path}", self.llm, "POST", tags=["llm"],
            responses=_LARGE | {
                200: {"content": {"*/*": {}}, "description": "Whatever the server behind answers, as it comes."},
                "default": {"content": {"*/*": {}}, "description": "Of the server behind."},
                404: {"model": models.Denied, "description": "`llmproxy` is not configured."},
                502: {"model": models.Denied, "description": "The server behind does not answer."}},
            openapi_extra={"requestBody": {"content": {"*/*": {}}}})  # fmt: skip

    async def list_calls(self) -> Any:
        """Every live session of the exchange, on whichever gateway."""
        return models.CallList(active_calls=[models.active_call(session) for session in await self._calls.all()])

    async def kill(self, request: Request, call_id: CallPath) -> Any:
        """Hang up, reason `bySystem`."""
        session = await self._find(request, "/kill/")
        if session is None:
            return _not_found(call_id)
        try:
            await self._calls.kill(session)
        except Gone:
            return _not_found(session.call_id)
        except NotTaken as error:
            return _trouble(503, str(error))
        return models.Killed(id=session.call_id)

    async def command(self, request: Request, call_id: CallPath) -> Any:
        """Queue a command as if the call's own client had sent it; its effects show as events."""
        try:
            text = (await _body(request, MAX_TEXT_BYTES)).decode()
            command = client_command(text).json
            command_id = command_id_of(command)
        except TooLarge:
            return _trouble(413, f"a command has at most {MAX_TEXT_BYTES} bytes")
        except ValueError as error:  # BadCommand, or no UTF-8
            return _trouble(400, str(error))
        session = await self._find(request, "/command/")
        if session is None:
            return _not_found(call_id)
        try:
            await self._calls.command(session, command, command_id)
        except Gone:
            return _not_found(session.call_id)
        except NotTaken as error:
            return _trouble(503, str(error))
        except Refused as refused:
            return _trouble(503 if refused.code >= 500 else 400, refused.reason)
        except ValueError as error:  # JSON that parses and can't be written again: nested too deeply
            return _trouble(400, f"not a usable command: {error}")
        return models.Sent(id=session.call_id)

    async def events(self, request: Request, call_id: CallPath) -> Response:
        """The call's events and commands from now on, as server-sent events; ends with the call."""
        session = await self._find(request, "/events/")
        if session is None:
            return PlainTextResponse(f"no live session {call_id[:512]}", status_code=404)
        if self._stopping or len(self._watches) >= MAX_WATCHERS:
            return _trouble(503, "shutting down" if self._stopping else "too many watchers")
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

    async def precache(self, request: Request) -> Any:
        """Synthesise a text now, so that a later `tts` of the same text and voice starts at once."""
        try:
            wanted = cache_requests(load_json((await _body(request, MAX_TEXT_BYTES)).decode()), self._config.providers)
        except TooLarge:
            return _trouble(413, f"a command has at most {MAX_TEXT_BYTES} bytes")
        except (ValueError, NotAvailable) as error:
            return _trouble(400, str(error))
        answers: list[Cached] = []
        for speech in wanted:
            try:
                answers.append(await self._synthesise(speech))
            except NoResponder:
                return _trouble(503, "no tts worker is there")
            except NoReply:
                return _trouble(500, "synthesis took too long")
            except Refused as refused:
                status = 503 if refused.code == 503 else 400 if refused.code in (400, 404) else 500
                return _trouble(status, refused.reason)
        first = answers[0]
        return models.Precached(
            status="exists" if all(answer.existed for answer in answers) else "cached",
            cache_key=first.cache_key,
            key=first.cache_key,
            bytes=first.size_bytes,
        )

    async def _synthesise(self, speech: CacheSpeech) -> Cached:
        try:
            return await self._bus.request(speech, timeout_s=_SYNTHESIS_S)
        except (UnicodeEncodeError, ValueError) as error:
            raise Refused(400, f"not a usable text: {error}") from None

    async def records(self, limit: Annotated[int, Query(ge=1, le=10 * MAX_RECORDS)] = MAX_RECORDS) -> Any:
        """The calls that left an event dump here, newest first."""
        live = {file_safe(session.call_id) for session in await self._calls.all()}
        return await asyncio.to_thread(recorded_calls, self._config.recorder_path, live, limit)

    async def descriptions(self) -> Any:
        """All OpenAPI and AsyncAPI descriptions."""
        return models.Descriptions(descriptions=descriptions())

    def _served(self, path: str, name: str, title: str) -> Callable[[], Any]:
        content = asyncapi(ASYNCAPI[path][0])

        async def document() -> Response:
            return Response(content, media_type="application/json")

        document.__name__ = name
        document.__doc__ = f"AsyncAPI 3. {title}."
        return document

    # -- AMI --------------------------------------------------------------------------------------

    async def ami_lists(self, request: Request) -> Any:
        """Live sessions, in brief."""
        if (denied := self._denied(request)) is not None:
            return denied
        now = datetime.now(UTC)
        calls = [
            models.AmiCall(
                id=session.call_id,
                call_type=session.call_type,
                start_time=session.created_at,
                ring_time=session.ringing_at,
                answer_time=session.answered_at,
                duration=_since(session.answered_at, now),
            )
            for session in await self._calls.all()
        ]
        return models.AmiCalls(total=len(calls), calls=calls)

    async def ami_dialogs(self, request: Request) -> Any:
        """SIP calls that have begun, and their parties."""
        if (denied := self._denied(request)) is not None:
            return denied
        return [
            models.AmiDialog.model_validate(
                {"id": session.call_id, "state": session.state, "from": session.caller, "to": session.callee}
            )
            for session in await self._calls.all()
            if session.call_type is CallType.SIP and session.state is not CallState.IDLE
        ]

    async def ami_kill(self, request: Request, call_id: CallPath) -> Any:
        """Hang up; `true`."""
        if (denied := self._denied(request)) is not None:
            return denied
        session = await self._find(request, "/ami/v1/kill/")
        try:
            if session is not None:
                await self._calls.kill(session)
        except Gone:
            session = None
        except NotTaken as error:
            return _trouble(503, str(error))
        return JSONResponse(session is not None, status_code=404 if session is None else 200)

    async def ami_shutdown(self, request: Request) -> Any:
        """End in order: the whole ensemble when `dialbus run` started it, else this gateway."""
        if (denied := self._denied(request)) is not None:
            return denied
        supervisor = os.environ.get(SUPERVISOR)
        whole = supervisor is not None and supervisor == str(os.getppid())
        target = os.getppid() if whole else os.getpid()
        client = request.client.host if request.client else None
        log.warning("ami.shutdown", client=client, what="dialbus" if whole else "gateway")
        answer = models.ShuttingDown(what="dialbus" if whole else "gateway")
        return JSONResponse(answer.model_dump(), background=BackgroundTask(os.kill, target, signal.SIGTERM))

    def _denied(self, request: Request) -> Response | None:
        if not self._allowed.admits(request.client.host if request.client else None):
            return JSONResponse({"error": "address not allowed"}, status_code=403)
        if is_foreign_page(request.headers.get("origin"), request.headers.get("host")):
            return JSONResponse({"error": "not for pages of other servers"}, status_code=403)
        return None

    # -- LLM --------------------------------------------------------------------------------------

    async def llm(self, request: Request, path: str) -> Response:
        """Pass a request on to `llmproxy`, and its answer back as it comes."""
        if self._llm is None:
            return JSONResponse({"error": "llmproxy is not configured"}, status_code=404)
        try:
            body = await _body(request, MAX_BODY_BYTES)
            raw = _raw(request, "/llm/v1/")
            return await self._llm.pass_on(raw, request.url.query, request.headers.items(), body)
        except TooLarge:
            return _trouble(413, f"a request has at most {MAX_BODY_BYTES} bytes")
        except BadPath:
            return JSONResponse({"error": "not found"}, status_code=404)
        except NotPassedOn as error:
            return JSONResponse({"error": f"llmproxy does not answer: {error}"}, status_code=502)

    # -- what routes share ------------------------------------------------------------------------

    async def _find(self, request: Request, prefix: str) -> Session | None:
        raw = _raw(request, prefix)
        readings = dict.fromkeys((unquote(raw), raw, unquote_plus(raw)))
        return await self._calls.find([reading for reading in readings if is_possible(reading)])


class EventStream(StreamingResponse):
    """Server-sent events, content type to the letter of protocol 7.4."""

    def __init__(self, content: Any = None, status_code: int = 200, background: BackgroundTask | None = None) -> None:
        headers = {"content-type": CONTENT_TYPE, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(content, status_code, headers, background=background)


async def bus_is_away(request: Request, error: Exception) -> JSONResponse:
    """Handler of BusError: sessions can't be looked up now."""
    log.warning("rest.bus_away", path=request.url.path, error=str(error)[:200])
    return _trouble(503, "bus not reachable")


async def bad_parameter(request: Request, error: Exception) -> JSONResponse:
    """Handler of RequestValidationError: a parameter of the query that is none."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    return _trouble(422, f"{fault['loc'][-1]}: {fault['msg']}")


def _raw(request: Request, prefix: str) -> str:
    """What follows the prefix in the path, as the client wrote it."""
    raw = bytes(request.scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    return raw.removeprefix(prefix) if raw.startswith(prefix) else str(request.scope["path"]).removeprefix(prefix)


async def _body(request: Request, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def _since(moment: str | None, now: datetime) -> int:
    try:
        return max(0, int((now - datetime.fromisoformat(moment)).total_seconds())) if moment else 0
    except (ValueError, TypeError):
        return 0


def _not_found(call_id: str) -> JSONResponse:
    return JSONResponse(models.NotFound(id=call_id).model_dump(), status_code=404)


def _trouble(status: int, error: str) -> JSONResponse:
    return JSONResponse(models.Trouble(error=str(masked(error))).model_dump(), status_code=status)


def _json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}
