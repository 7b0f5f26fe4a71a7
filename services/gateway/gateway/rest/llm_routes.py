"""`/llm/v1/{path}`: the route to what `llm.py` passes on."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

from gateway.rest import models
from gateway.rest.answers import LARGE, TooLarge, add, body_of, raw_path, trouble
from gateway.rest.llm import MAX_BODY_BYTES, BadPath, LlmProxy, NotPassedOn


class LlmRoutes:
    """`proxy` None: nothing is configured behind."""

    def __init__(self, proxy: LlmProxy | None) -> None:
        self._llm = proxy

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        add(router, "/llm/v1/{path:path}", self.llm, "POST", tags=["llm"],
            responses=LARGE | {
                200: {"content": {"*/*": {}}, "description": "Whatever the server behind answers, as it comes."},
                "default": {"content": {"*/*": {}}, "description": "Of the server behind."},
                404: {"model": models.Denied, "description": "`llmproxy` is not configured."},
                502: {"model": models.Denied, "description": "The server behind does not answer."}},
            openapi_extra={"requestBody": {"content": {"*/*": {}}}})  # fmt: skip

    async def llm(self, request: Request, path: str) -> Response:
        """Pass a request on to `llmproxy`, and its answer back as it comes."""
        if self._llm is None:
            return JSONResponse({"error": "llmproxy is not configured"}, status_code=404)
        try:
            body = await body_of(request, MAX_BODY_BYTES)
            raw = raw_path(request, "/llm/v1/")
            return await self._llm.pass_on(raw, request.url.query, request.headers.items(), body)
        except TooLarge:
            return trouble(413, f"a request has at most {MAX_BODY_BYTES} bytes")
        except BadPath:
            return JSONResponse({"error": "not found"}, status_code=404)
        except NotPassedOn as error:
            return JSONResponse({"error": f"llmproxy does not answer: {error}"}, status_code=502)
