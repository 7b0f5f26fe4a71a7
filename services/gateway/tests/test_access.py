"""Who may use the API: the shared token, in a header or in the query."""

from typing import Any

import pytest

from gateway.access import Access, Guard

TOKEN = "p+ss w/rd"


@pytest.mark.parametrize(
    ("header", "query", "allowed"),
    [
        ("Bearer p+ss w/rd", "", True),
        ("bearer p+ss w/rd", "id=a", True),
        ("", "token=p%2Bss%20w%2Frd", True),
        ("", "id=a&token=p+ss%20w/rd", True),
        ("", "token=p%2Bss+w/rd", True),
        ("Bearer wrong", "token=p%2Bss+w/rd", True),
        ("", "", False),
        ("Bearer", "", False),
        ("Basic p+ss w/rd", "", False),
        ("Bearer p+ss w/r", "token=p%2Bss", False),
        ("", "token=%ff%00", False),
        ("", "nottoken=p%2Bss%20w/rd", False),
    ],
)
def test_token_in_a_header_or_in_the_query_opens_the_api(header: str, query: str, allowed: bool) -> None:
    headers = [(b"authorization", header.encode())] if header else []
    assert Access(TOKEN).allows("/call/sip", headers, query) is allowed
    assert Access(None).allows("/call/sip", headers, query)


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/console/page.js"])
def test_page_and_health_are_open(path: str) -> None:
    assert Access(TOKEN).allows(path, [], "")


@pytest.mark.parametrize("path", ["/call", "/list", "/console", "/healthy", "//", "/x/console/"])
def test_everything_else_is_closed(path: str) -> None:
    assert not Access(TOKEN).allows(path, [], "")


@pytest.mark.parametrize(("kind", "prefix"), [("http", "http.response"), ("websocket", "websocket.http.response")])
async def test_denial_is_401_with_json_and_the_token_goes_no_further(kind: str, prefix: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["query_string"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        seen.append(message)

    guard = Guard(app, Access("right"))
    query = b"id=a%2Bb&token=right&%74oken=right&dump=1"
    scope: dict[str, Any] = {"type": kind, "path": "/list", "headers": [], "query_string": query}
    await guard(scope, receive, send)
    assert seen == [b"id=a%2Bb&dump=1"]

    seen.clear()
    await guard({**scope, "query_string": b"token=wrong"}, receive, send)
    assert [message["type"] for message in seen] == [f"{prefix}.start", f"{prefix}.body"]
    assert seen[0]["status"] == 401
    assert (b"www-authenticate", b"Bearer") in seen[0]["headers"]
    assert seen[1]["body"] == b'{"error": "token missing or wrong"}'
