"""`/ami/v1`: for operators, at addresses that are allowed to (protocol section 7.8)."""

import os
import signal
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask
from starlette.requests import Request

from dialbus import telemetry
from dialbus.contracts.session import CallState, CallType
from gateway.rest import models
from gateway.rest.ami import Allowed
from gateway.rest.answers import AWAY, CallPath, Responses, add, call_ids, trouble
from gateway.rest.calls import Calls, Gone, NotTaken

log = telemetry.get_logger()

SUPERVISOR = "DIALBUS_SUPERVISOR_PID"
"""Set by `dialbus run` for its children: whom /ami/v1/shutdown tells."""
_FORBIDDEN: Responses = {
    403: {"model": models.Denied, "description": "This address may not, or it is not known: no trusted proxy tells it."}
}


class AmiRoutes:
    """Lists in brief, and the ends of calls and of everything."""

    def __init__(self, calls: Calls, allowed: Allowed) -> None:
        self._calls = calls
        self._allowed = allowed

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        add(router, "/ami/v1/lists", self.ami_lists, "GET", response_model=models.AmiCalls, tags=["ami"],
            responses=_FORBIDDEN | AWAY)  # fmt: skip
        add(router, "/ami/v1/dialogs", self.ami_dialogs, "GET", response_model=list[models.AmiDialog], tags=["ami"],
            responses=_FORBIDDEN | AWAY)  # fmt: skip
        add(router, "/ami/v1/kill/{call_id:path}", self.ami_kill, "POST", response_model=bool, tags=["ami"],
            responses=_FORBIDDEN | AWAY | {404: {"model": bool, "description": "`false`: no such session."}}
            )  # fmt: skip
        add(router, "/ami/v1/shutdown", self.ami_shutdown, "POST", response_model=models.ShuttingDown, tags=["ami"],
            responses=_FORBIDDEN)  # fmt: skip

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
        session = await self._calls.find(call_ids(request, "/ami/v1/kill/"))
        try:
            if session is not None:
                await self._calls.kill(session)
        except Gone:
            session = None
        except NotTaken as error:
            return trouble(503, str(error))
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
        return None


def _since(moment: str | None, now: datetime) -> int:
    try:
        return max(0, int((now - datetime.fromisoformat(moment)).total_seconds())) if moment else 0
    except (ValueError, TypeError):
        return 0
