"""`/llm/v1/{path}`: requests passed on to the configured server as they are, answers streamed back (protocol 7.9)."""

from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.parse import unquote

import httpx
from starlette.responses import StreamingResponse

from dialbus import telemetry

log = telemetry.get_logger()

MAX_BODY_BYTES = 16 << 20
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
_HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""RFC 9110 section 7.6.1: of one connection only."""
_NOT_SENT = frozenset({"host", "content-length", "cookie", "origin", "referer", "forwarded", "x-real-ip"})
_NOT_RETURNED = frozenset({"set-cookie", "server", "date"})


class NotPassedOn(Exception):
    """The server behind gave no answer."""


class BadPath(Exception):
    """A path that leads out of the configured base."""


class LlmProxy:
    """Passes requests on to one base URL.

    `key` is the server's own, sent where a request brings none; `token` is that of our API and never leaves.
    """

    def __init__(self, base: str, *, key: str | None, token: str | None, client: httpx.AsyncClient) -> None:
        self._base = base.rstrip("/")
        self._key = key
        self._token = token
        self._client = client

    async def pass_on(
        self, path: str, query: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> StreamingResponse:
        """The answer, as it comes. `path` is raw, without its leading slash. Raises BadPath and NotPassedOn."""
        if any(unquote(unquote(segment)) in (".", "..") for segment in unquote(path).split("/")) or "\\" in path:
            raise BadPath
        url = f"{self._base}/{path}" + (f"?{query}" if query else "")
        try:
            request = self._client.build_request(
                "POST", url, headers=self._request_headers(headers), content=body, timeout=_TIMEOUT
            )
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            log.warning("llm.not_reached", error=type(error).__name__)
            raise NotPassedOn(type(error).__name__) from None
        answer = StreamingResponse(_streamed(response), status_code=response.status_code)
        answer.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in _end_to_end(response.headers.multi_items())
            if name not in _NOT_RETURNED
        ]
        return answer

    def _request_headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        passed = [(name, value) for name, value in _end_to_end(headers) if name not in _NOT_SENT]
        passed = [item for item in passed if not item[0].startswith("x-forwarded-") and not self._is_ours(*item)]
        names = {name for name, _ in passed}
        if "authorization" not in names and self._key:
            passed.append(("authorization", f"Bearer {self._key}"))
        if "accept-encoding" not in names:  # what the client can't read must not be sent to it
            passed.append(("accept-encoding", "identity"))
        return passed

    def _is_ours(self, name: str, value: str) -> bool:
        return name == "authorization" and self._token is not None and value[7:].strip() == self._token


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers, names in lower case, without those of the connection and those that `Connection` names."""
    items = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in items if name == "connection" for part in value.split(",")}
    return [(name, value) for name, value in items if name not in _HOP_BY_HOP and name not in named]


async def _streamed(response: httpx.Response) -> AsyncIterator[Any]:
    """The body as it comes; an answer that breaks off ends our connection, so that the client notices."""
    try:
        async for part in response.aiter_raw():
            yield part
    finally:
        await response.aclose()
