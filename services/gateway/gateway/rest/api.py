"""REST (protocol section 7): its routes by subject, and what they stand on.

A route reads the request, asks `Calls` or the bus, and phrases the answer.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Query
from fastapi.responses import Response

from dialbus.filenames import file_safe
from dialbus.lifecycle import Service
from dialbus.sessions import Sessions
from gateway.rest import models
from gateway.rest.ami import Allowed
from gateway.rest.ami_routes import AmiRoutes
from gateway.rest.answers import AWAY, add
from gateway.rest.call_routes import CallRoutes
from gateway.rest.calls import Calls
from gateway.rest.descriptions import ASYNCAPI, asyncapi, descriptions
from gateway.rest.llm import LlmProxy
from gateway.rest.llm_routes import LlmRoutes
from gateway.rest.records import MAX_RECORDS, recorded_calls
from gateway.rest.speech_routes import SpeechRoutes
from gateway.workers import Workers


class Rest:
    """Everything behind the routes; `router` has them."""

    def __init__(self, me: Service, sessions: Sessions, workers: Workers) -> None:
        config = me.config
        self._recorder_path = config.recorder_path
        self._live = Calls(me.bus, sessions, workers.is_gone)
        self._calls = CallRoutes(me.bus, sessions, self._live)
        # trust_env: neither a proxy nor a .netrc of the host's user takes part.
        self._http = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        proxy = None
        if config.llmproxy:
            key = os.environ.get("OPENAI_API_KEY")
            proxy = LlmProxy(config.llmproxy, key=key, token=config.http_token, client=self._http)
        self.router = APIRouter()
        self._calls.add_to(self.router)
        SpeechRoutes(me.bus, config.providers).add_to(self.router)
        self._add_files(self.router)
        AmiRoutes(self._live, Allowed(config.ami.allows)).add_to(self.router)
        LlmRoutes(proxy).add_to(self.router)

    def _add_files(self, router: APIRouter) -> None:
        """What is read from files: records and descriptions."""
        add(router, "/api/records", self.records, "GET", response_model=list[models.RecordedCall], tags=["records"],
            response_model_exclude_none=True,
            responses={422: {"model": models.Trouble, "description": "`limit` is no such number."}} | AWAY
            )  # fmt: skip
        add(router, "/api/descriptions", self.descriptions, "GET", response_model=models.Descriptions,
            tags=["descriptions"])  # fmt: skip
        for path, (_, name, title) in ASYNCAPI.items():
            add(router, path, self._served(path, f"asyncapi_{name}", title), "GET", tags=["descriptions"],
                responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})  # fmt: skip

    def stop(self) -> None:
        """End the streams that would outlive the gateway."""
        self._calls.stop()

    async def close(self) -> None:
        """Close what was opened."""
        await self._http.aclose()

    async def records(self, limit: Annotated[int, Query(ge=1, le=10 * MAX_RECORDS)] = MAX_RECORDS) -> Any:
        """The calls that left an event dump here, newest first."""
        live = {file_safe(session.call_id) for session in await self._live.all()}
        return await asyncio.to_thread(recorded_calls, self._recorder_path, live, limit)

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
