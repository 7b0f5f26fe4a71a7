"""The parts of REST that need no gateway: addresses, dumps, speech requests, headers, one watcher's stream."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from dialbus.bus import Bus, StreamedEvent
from dialbus.config import ConfigError, ProvidersConfig
from dialbus.contracts.commands import BadCommand
from dialbus.contracts.session import CallType, CommandSeen, Session
from dialbus.filenames import file_safe
from dialbus.providers import NotAvailable
from dialbus.sessions import Sessions
from gateway.rest import watch
from gateway.rest.ami import Allowed
from gateway.rest.llm import BadPath, LlmProxy
from gateway.rest.precache import cache_request
from gateway.rest.records import recorded_calls

# -- who may use AMI ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allows", "client", "admitted"),
    [
        ([], "127.0.0.1", True), ([], "127.8.8.8", True), ([], "::1", True), ([], "::ffff:127.0.0.1", True),
        ([], "10.0.0.1", False), ([], None, False), ([], "localhost", False),
        (["10.0.0.0/8"], "10.1.2.3", True), (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.7"], "10.0.0.8", False),
        (["10.0.0.7/8"], "10.9.9.9", True), (["2001:db8::/32"], "2001:db8::1", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["*"], "203.0.113.9", True), (["*"], None, True),
    ],
)  # fmt: skip
def test_loopback_and_listed_addresses_are_admitted(allows: list[str], client: str | None, admitted: bool) -> None:
    assert Allowed(allows).admits(client) is admitted


def test_list_entry_that_is_no_address_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"ami\.allows.*'home'"):
        Allowed(["10.0.0.1", "home"])


# -- /api/records ---------------------------------------------------------------------------------


def hangup(call_id: str, **fields: Any) -> str:
    content = json.dumps({"event": "hangup", "trackId": call_id, "reason": "byCaller", **fields})
    return json.dumps({"type": "event", "timestamp": 1, "content": content}) + "\n"


def test_records_tell_how_each_call_went_newest_first(tmp_path: Path) -> None:
    odd = "a/b@c"
    times = {"answerTime": "2026-03-04T09:15:20.6+00:00", "hangupTime": "2026-03-04T10:15:54+01:00"}
    filler = json.dumps({"type": "event", "timestamp": 1, "content": "x" * 200_000}) + "\n"
    dumps = {
        "unanswered": hangup("unanswered", reason="noAnswer", hangupTime=times["hangupTime"]),
        "talked": filler + hangup("talked", **times) + '{"type":"command","timestamp":2,"content":"{}"}\n',
        "cut": hangup("cut", **times) + filler,
        "torn": '{"type":"event","timestamp":1,"content":"{\\"event\\":\\"hangup',
        "binary": "hangup\x00\n[1]hangup\n",
        "transfer": hangup("server-side-track", refer=True, **times),
        "again": hangup("again", **times),
        file_safe(odd): hangup(odd, **times),
    }
    for age, (stem, text) in enumerate(dumps.items()):
        path = tmp_path / f"{stem}.events.jsonl"
        path.write_text(text)
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "talked.wav").write_bytes(b"RIFF")
    found = recorded_calls(tmp_path, {"again"})
    assert [(item.id, item.duration, item.status, item.reason) for item in found] == [
        ("unanswered", "0s", "unanswered", "noAnswer"), ("talked", "33s", "completed", "byCaller"),
        ("cut", "0s", "incomplete", None), ("torn", "0s", "incomplete", None), ("binary", "0s", "incomplete", None),
        ("transfer", "0s", "incomplete", None), ("again", "0s", "active", None), (odd, "33s", "completed", "byCaller"),
    ]  # fmt: skip
    assert found[0].date == "1970-01-01T00:16:40.000000+00:00"
    assert [item.id for item in recorded_calls(tmp_path, set(), 1)] == ["unanswered"]
    assert recorded_calls(tmp_path / "none", set()) == []


# -- /precache ------------------------------------------------------------------------------------

PROVIDERS = ProvidersConfig(tts={"tencent": "piper"}, speakers={"601003": "amy"})


def test_a_text_is_made_for_wideband_and_narrowband_unless_told() -> None:
    one = cache_request(
        {"text": "Hi", "option": {"provider": "tencent", "speaker": "601003", "speed": 2}}, PROVIDERS, asker="a"
    )
    assert (one.text, one.speaker, one.speed, one.asker) == ("Hi", "amy", 2, "a")
    assert (one.rate_hz, one.other_rates_hz) == (16000, (8000,))
    one = cache_request({"command": "tts", "text": "Hi", "option": {"samplerate": 24000}}, PROVIDERS)
    assert (one.rate_hz, one.other_rates_hz) == (24000, ())
    one = cache_request({"text": "Hi", "speaker": "joe", "cacheKey": "k"}, PROVIDERS)
    assert (one.speaker, one.cache_key, one.rate_hz, one.other_rates_hz) == ("joe", "k", 16000, ())


@pytest.mark.parametrize(
    "data", [None, [], {}, {"text": " "}, {"text": "QUJD", "base64": True}, {"command": "hangup"}, {"text": 7}]
)
def test_what_is_no_text_to_speak_is_refused(data: Any) -> None:
    with pytest.raises(BadCommand):
        cache_request(data, PROVIDERS)


def test_provider_that_nobody_stands_for_is_not_available() -> None:
    with pytest.raises(NotAvailable, match="acme"):
        cache_request({"text": "Hi", "option": {"provider": "acme"}}, PROVIDERS)


# -- /llm -----------------------------------------------------------------------------------------


async def passed_on(path: str, query: str = "", key: str | None = "sk", **headers: str) -> httpx.Request:
    """The request that reaches the server behind."""
    sent: list[httpx.Request] = []

    def behind(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    async with httpx.AsyncClient(transport=httpx.MockTransport(behind)) as client:
        proxy = LlmProxy("http://llm.example/v1/", key=key, token="ours", client=client)
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        answer = await proxy.pass_on(path, query, named, b"{}")
        assert [part async for part in answer.body_iterator] == [b"{}"]
    return sent[0]


async def test_llm_path_query_and_headers_are_passed_on_but_ours_are_not() -> None:
    request = await passed_on("chat/a%2Fb", "x=1", Authorization="bearer ours", X_Forwarded_For="1.2.3.4", X_Own="1")
    assert str(request.url) == "http://llm.example/v1/chat/a%2Fb?x=1"
    assert request.headers["authorization"] == "Bearer sk"
    assert (request.headers["x-own"], request.headers["accept-encoding"]) == ("1", "identity")
    assert "x-forwarded-for" not in request.headers
    theirs = await passed_on("chat", Authorization="Bearer theirs", Accept_Encoding="br")
    assert (theirs.headers["authorization"], theirs.headers["accept-encoding"]) == ("Bearer theirs", "br")
    assert "authorization" not in (await passed_on("chat", key=None)).headers


@pytest.mark.parametrize(
    "path", ["../admin", "chat/..", "%2e%2e/admin", "a/%252e%252e/b", "./x", "a%2F..%2Fb", "..\\x"]
)
async def test_llm_path_never_leaves_its_base(path: str) -> None:
    with pytest.raises(BadPath):
        await passed_on(path)


# -- /events --------------------------------------------------------------------------------------


class QuietBus:
    """A bus on which nothing happens until the test says so."""

    def __init__(self, *events: StreamedEvent) -> None:
        self._events = events

    async def events(self, call_id: str, first_sequence: int) -> AsyncIterator[StreamedEvent]:
        for event in self._events:
            yield event
        await asyncio.Event().wait()


class LiveSessions:
    """Books in which the session stays."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, call_id: str) -> Session:
        return self._session


SESSION = Session(call_id="s.1", call_type=CallType.SIP, created_at="then")


def watching(*events: StreamedEvent) -> watch.Watch:
    return watch.Watch(cast(Bus, QuietBus(*events)), cast(Sessions, LiveSessions(SESSION)), SESSION)


async def test_quiet_call_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch.KEEP_ALIVE_S == 15.0
    monkeypatch.setattr(watch, "KEEP_ALIVE_S", 0.01)
    one = watching()
    frames = one.frames()
    assert [await anext(frames) for _ in range(3)] == [": watching\n\n", ": keep-alive\n\n", ": keep-alive\n\n"]
    one.end()
    assert [frame async for frame in frames] == []


async def test_watcher_who_lets_too_many_commands_wait_is_cut_off() -> None:
    one = watching()
    frames = one.frames()
    await anext(frames)
    for _ in range(300):
        await one._on_seen(CommandSeen(call_id="s.1", at_ms=1, via="socket", command={"command": "pause"}))
    async with asyncio.timeout(5):
        assert [frame async for frame in frames] == []


async def test_only_the_hangup_of_the_main_track_ends_the_stream() -> None:
    def event(number: int, **fields: Any) -> StreamedEvent:
        return StreamedEvent(number, number, "hangup", json.dumps({"event": "hangup", **fields}).encode())

    one = watching(event(1, trackId="server-side-track", refer=True), event(2, trackId="s.1"), event(3, trackId="s.1"))
    async with asyncio.timeout(5):
        frames = [frame async for frame in one.frames()]
    assert frames[1:] == [
        'event: event\ndata: {"event": "hangup", "trackId": "server-side-track", "refer": true,"seq":1}\n\n',
        'event: event\ndata: {"event": "hangup", "trackId": "s.1","seq":2}\n\n',
    ]


async def test_large_events_wait_in_the_stream_until_the_watcher_has_read() -> None:
    def large(number: int) -> StreamedEvent:
        data = {"event": "custom", "data": "x" * (1 << 20)}
        return StreamedEvent(number, number, "custom", json.dumps(data).encode())

    bus = QuietBus(*(large(number) for number in range(1, 40)))
    one = watch.Watch(cast(Bus, bus), cast(Sessions, LiveSessions(SESSION)), SESSION)
    frames = one.frames()
    await anext(frames)
    async with asyncio.timeout(10):
        first = await anext(frames)
        assert 5 < one._waiting.qsize() < 12
        found = [first, *[await anext(frames) for _ in range(38)]]
    assert [json.loads(frame.partition("data: ")[2])["seq"] for frame in found] == list(range(1, 40))
    await frames.aclose()  # type: ignore[attr-defined]  # an async generator, declared as an iterator
