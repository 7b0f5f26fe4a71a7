"""A call's session between fakes: what runs beside a call and breaks is told to the call, and to the log."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from dialbus.bus import NoResponder
from dialbus.config import Config
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.events import ErrorEvent, Event
from dialbus.contracts.media import AllocateLeg, CloseLeg, LegAllocated, LegClosed, Playback
from dialbus.contracts.session import BridgeWanted, CallType, OpenSession
from sip_ua.call.session import CallSession

Answer = Contract | Exception


class Silence:
    """Whatever is asked of it, nothing happens."""

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return lambda *_, **__: None


class FakeBus:
    """Answers requests as the test says, at once or when it says; keeps events."""

    def __init__(self) -> None:
        self.answers: dict[type[Contract], Answer] = {CloseLeg: LegClosed(), BridgeWanted: Taken()}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[Contract] = []
        self.events: list[Event] = []
        self.tracer = Silence()

    async def request(self, message: Contract, *, timeout_s: float) -> Contract:
        self.asked.append(message)
        if isinstance(message, AllocateLeg):
            await self.may_answer.wait()
        answer = self.answers.get(type(message), Taken())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def emit(self, _: str, event: Event) -> int:
        self.events.append(event)
        return len(self.events)


class FakeSessions:
    """No books."""

    async def get(self, _: str) -> None: ...
    async def delete(self, _: str) -> None: ...
    async def change(self, _: str, __: object) -> None: ...


class FakeHost:
    """The service of one call."""

    def __init__(self) -> None:
        self.bus: Any = FakeBus()
        self.sessions: Any = FakeSessions()
        self.ua: Any = Silence()
        self.config = Config()
        self.instance = "sip-ua-1"
        self.ended: list[CallSession] = []

    def over(self, call: CallSession) -> None:
        self.ended.append(call)


def opened(host: FakeHost) -> CallSession:
    command: Any = {"command": "invite", "option": {}}
    opening = OpenSession(
        call_id="s.1", call_type=CallType.WEBSOCKET, created_at="", gateway="gateway-1", command=command
    )
    return CallSession.opened(host, opening)


def command(call: CallSession, **fields: Any) -> None:
    """A client's command, as the bus brings it."""
    sent = OpenSession(call_id="s.1", created_at="", gateway="g", command=fields)
    call._requests.command(sent.command)


async def happened(probe: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not probe():  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)


async def test_an_allocation_that_breaks_ends_the_call_and_is_logged_with_it() -> None:
    host = FakeHost()
    host.bus.answers[AllocateLeg] = RuntimeError("the reply made no sense")
    with capture_logs() as lines:
        await opened(host).run()
    assert [event.event for event in host.bus.events] == ["error", "hangup"]
    error = host.bus.events[0]
    assert isinstance(error, ErrorEvent)
    assert (error.sender, error.error, error.code) == ("invite", "internal error", 500)
    (broken,) = [line for line in lines if line["event"] == "call.beside_failed"]
    assert (broken["work"], broken["log_level"]) == ("allocation", "error")
    assert len(host.ended) == 1


async def test_a_hangup_waits_for_no_worker_whose_leg_is_given_back_when_it_comes() -> None:
    host = FakeHost()
    host.bus.may_answer.clear()
    host.bus.answers[AllocateLeg] = LegAllocated(worker="media-1", ssrc=1)
    call = opened(host)
    living = asyncio.create_task(call.run())
    await happened(lambda: host.bus.asked)
    command(call, command="hangup")
    await happened(lambda: host.bus.events)
    assert [event.event for event in host.bus.events] == ["hangup"]
    assert not living.done(), "its id stays taken until nothing of it is left"

    host.bus.may_answer.set()
    await asyncio.wait_for(living, 5)

    assert isinstance(host.bus.asked[-1], CloseLeg)
    assert [event.event for event in host.bus.events] == ["hangup"]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (NoResponder("s.2"), 404, "bridge: no such session: s.2"),
        (RuntimeError("no sense"), 500, "bridge: internal error"),
    ],
)
async def test_a_bridge_that_nobody_answers_is_an_error(answer: Exception, code: int, text: str) -> None:
    host = FakeHost()
    host.bus.answers |= {AllocateLeg: LegAllocated(worker="media-1", ssrc=1), BridgeWanted: answer}
    call = opened(host)
    living = asyncio.create_task(call.run())
    command(call, command="bridge", targetSessionId="s.2")
    await happened(lambda: [event for event in host.bus.events if isinstance(event, ErrorEvent)])
    error = host.bus.events[-1]
    assert (error.error, error.code) == (text, code)
    command(call, command="hangup")
    with suppress(TimeoutError):
        await asyncio.wait_for(living, 5)
    assert host.bus.events[-1].event == "hangup"


async def test_a_call_that_breaks_tells_its_client_and_gives_its_media_back() -> None:
    host = FakeHost()
    host.bus.answers[AllocateLeg] = LegAllocated(worker="media-1", ssrc=1)
    call = opened(host)
    living = asyncio.create_task(call.run())
    await happened(lambda: len(host.bus.events) == 2)
    host.bus.answers[Playback] = RuntimeError("no sense")
    with capture_logs() as lines:
        command(call, command="play", url="a.wav")
        await asyncio.wait_for(living, 5)
    assert "call.broken" in [line["event"] for line in lines]
    assert any(isinstance(asked, CloseLeg) for asked in host.bus.asked)
    told = [event.event for event in host.bus.events]
    assert told == ["trackStart", "answer", "error", "trackEnd", "hangup"]
    assert len(host.ended) == 1
