"""Lines about calls on their way to the stream TRACE, where `dialbus trace` finds them.

Whoever sees something of a call notes it: `Bus` the requests and messages, `telemetry` the log lines, sip-ua the SIP
messages and the inputs of the call machine. A note is put aside at once; masking, JSON and sending happen a moment
later in a task of its own, so that no call waits for its trace.
"""

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from prometheus_client import Counter
from pydantic import BaseModel

from dialbus import telemetry
from dialbus.contracts.base import ClientJson, Contract, Taken
from dialbus.contracts.options import MASK, is_secret, masked
from dialbus.contracts.session import CommandSeen
from dialbus.contracts.trace import TraceKind, TraceLine, TraceLines

log = telemetry.get_logger()

DROPPED = Counter("dialbus_trace_lines_dropped_total", "Trace lines that could not be sent")

BATCH_S = 0.05
"""Lines wait so long for others of their call; a process that is killed takes them along."""
MAX_WAITING = 10_000
"""Lines; further ones are dropped while the bus is away or slow."""
MAX_LINES = 32
"""In one message."""
MAX_TEXT = 8192
"""Characters of a SIP message, or of a line's facts as JSON; what is longer is cut."""

_HEADER = re.compile(r"^([A-Za-z0-9.!%*_+`'~-]{1,64})([ \t]*:[ \t]*)\S[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*", re.MULTILINE)
_SDP_KEY = re.compile(r"^(a=crypto:\S+ \S+ \w+:|a=ice-pwd:)\S+", re.MULTILINE)


_names_secret = lru_cache(maxsize=1024)(is_secret)


def masked_message(text: str) -> str:
    """A SIP message as it may be shown: no credentials in headers, in URIs or in its SDP.

    The digest of an `Authorization` header goes, too: whoever has it can try passwords against it.
    """
    return _SDP_KEY.sub(rf"\1{MASK}", str(masked(_HEADER.sub(_masked_header, text))))


def _masked_header(header: re.Match[str]) -> str:
    return f"{header[1]}{header[2]}{MASK}" if _names_secret(header[1]) else header[0]


def plain(value: Any) -> Any:
    """A contract, an input or anything within one as JSON."""
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return plain(value.value)
        case str():
            return str(value)
        case bytes():
            return value.decode(errors="replace")
        case Contract():
            return json.loads(value.to_bytes())
        case ClientJson():
            return value.to_fields()
        case BaseModel():
            return value.model_dump(mode="json", exclude_none=True)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() | deque():
            return [plain(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return str(value)


_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NOT_FACTS = frozenset(("call_id", "service", "instance", "event", "timestamp"))
_SEEN_ANYWAY = (CommandSeen, TraceLines)


@dataclass(frozen=True, slots=True)
class _Note:
    at: float
    kind: TraceKind
    name: str
    leg_id: str | None
    text: str | None
    facts: Any
    more: Mapping[str, Any]

    def line(self) -> TraceLine:
        """As it is sent: masked, and not too long."""
        facts = plain(self.facts)
        facts = masked(facts | plain(self.more)) if isinstance(facts, dict) else {}
        facts.pop("call_id", None)
        leg_id = facts.pop("leg_id", None) or self.leg_id
        if facts.get("leg") == leg_id:  # so call the inputs of the call machine what they concern
            facts.pop("leg", None)
        if len(whole := json.dumps(facts, ensure_ascii=False)) > MAX_TEXT:
            facts = {"cut": whole[:MAX_TEXT]}
        name, text = masked_message(self.name), self.text
        if text is not None:
            text = masked_message(text)[:MAX_TEXT]
        return TraceLine(at=self.at, kind=self.kind, name=name, leg_id=leg_id, text=text, facts=facts)


class Tracer:
    """Takes notes of a service instance's calls; `run` sends them. Nothing of it waits for anybody, or raises.

    `send` gives False when a message can't leave now.
    """

    def __init__(self, service: str, instance: str, send: Callable[[TraceLines], Awaitable[bool]] | None) -> None:
        """Without `send` every note is forgotten at once."""
        self._service = service
        self._instance = instance
        self._send = send
        self._notes: deque[tuple[str, _Note]] = deque()
        self._dropped = 0
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def enabled(self) -> bool:
        """Whether anything is kept."""
        return self._send is not None

    def note(
        self, call_id: str, kind: TraceKind, name: str, *, leg_id: str | None = None, text: str | None = None,
        facts: Any = _NOTHING, more: Mapping[str, Any] = _NOTHING, at: float | None = None,
    ) -> None:  # fmt: skip
        """Keep a line about a call; from any thread.

        `facts` (a mapping, a contract or a dataclass) must not change afterwards, and `more` neither, which is added to
        them. `at`: Unix epoch seconds, now if not given.
        """
        if self._send is None:
            return
        if len(self._notes) >= MAX_WAITING:
            self._drop(1)
            return
        self._notes.append((call_id, _Note(time.time() if at is None else at, kind, name, leg_id, text, facts, more)))
        if threading.get_ident() == self._thread:
            self._wake.set()
        else:
            self._loop.call_soon_threadsafe(self._wake.set)

    def request(self, request: Contract, asked_at: float, answer: Contract | BaseException) -> None:
        """Keep a request that concerns a call, now that it was answered, or won't be."""
        if self._send is not None and (call_id := getattr(request, "call_id", None)) is not None:
            if isinstance(answer, BaseException):
                told: Any = f"{type(answer).__name__}: {answer}"
            else:
                told = "taken" if isinstance(answer, Taken) else answer
            more = {"answer": told, "after_ms": round((time.time() - asked_at) * 1000, 1)}
            self.note(call_id, TraceKind.REQUEST, type(request).__name__, facts=request, more=more, at=asked_at)

    def message(self, message: Contract) -> None:
        """Keep a message that concerns a call, and that nobody answers."""
        call_id = getattr(message, "call_id", None)
        if call_id is not None and not isinstance(message, _SEEN_ANYWAY):
            self.note(call_id, TraceKind.MESSAGE, type(message).__name__, facts=message)

    def log(self, facts: Mapping[str, Any]) -> None:
        """Keep a log line that has a `call_id`."""
        kept = {key: value for key, value in facts.items() if key not in _NOT_FACTS}
        if kept.get("level") == "info":  # as most are
            del kept["level"]
        self.note(str(facts["call_id"]), TraceKind.LOG, str(facts.get("event", "")), facts=kept)

    async def run(self) -> None:
        """Send what was noted, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(BATCH_S)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send what was noted so far."""
        calls: dict[str, list[_Note]] = {}
        while self._notes:
            call_id, note = self._notes.popleft()
            calls.setdefault(call_id, []).append(note)
        for call_id, notes in calls.items():
            for start in range(0, len(notes), MAX_LINES):
                await self._send_lines(call_id, notes[start : start + MAX_LINES])
                await asyncio.sleep(0)  # live audio goes first

    async def _send_lines(self, call_id: str, notes: list[_Note]) -> None:
        assert self._send is not None
        dropped = self._dropped
        try:
            message = TraceLines(
                call_id=call_id,
                service=self._service,
                instance=self._instance,
                lines=[note.line() for note in notes],
                dropped=dropped,
            )
            sent = await self._send(message)
        except Exception:  # the boundary: what can't be told must not end the telling
            log.exception("trace.failed")
            sent = False
        if sent:
            self._dropped -= dropped
        else:
            self._drop(len(notes))

    def _drop(self, count: int) -> None:
        self._dropped += count
        DROPPED.inc(count)
