"""Logs with the call bound to them, and trace context that travels in bus headers.

One info line per transition a person would tell a colleague. `call_id`, `leg_id` and `dialog_id` are bound where
the leg begins and never passed along; credentials, audio and transcripts are never logged at info.
"""

import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

TRACEPARENT = "traceparent"
_trace: ContextVar[str | None] = ContextVar("trace", default=None)
_DEBUG = "debug"
_follower: Callable[[Mapping[str, Any]], None] | None = None


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_IN_TRACES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


class _Quoted:
    """Text that the console renderer writes as a literal, as it does by itself for line ends but not for a NUL."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _quote_controls(_: Any, __: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No control character of an outsider's text reaches a terminal, or ends a line, as itself."""
    for name, value in facts.items():
        if isinstance(value, str) and _CONTROL.search(value):
            # Tracebacks, and messages, are written as they are.
            as_is = name in ("exception", "stack", "event")
            facts[name] = value.translate(_NOT_IN_TRACES) if as_is else _Quoted(value)
    return facts


def follow(follower: Callable[[Mapping[str, Any]], None] | None) -> None:
    """Let somebody else have the lines about calls, too, those for debugging excepted; None: nobody any more.

    What it is given holds `event`, `level`, `call_id` and the other facts; it must neither change nor wait.
    """
    global _follower
    _follower = follower


def _followed(_: Any, __: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _follower is not None and "call_id" in facts and facts.get("level") != _DEBUG:
        _follower(dict(facts))
    return facts


def configure(*, service: str, instance: str, level: str = "info", fmt: str = "text") -> None:
    """Write one line per event to standard error, as text or JSON, each with service and instance."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=28)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _followed,
            *([] if fmt == "json" else [_quote_controls]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service, instance=instance)


def get_logger() -> Any:
    """The logger; facts are keyword arguments."""
    return structlog.get_logger()


@contextmanager
def bound(**facts: Any) -> Iterator[None]:
    """Bind facts (call_id, leg_id, …) to every line logged inside."""
    with structlog.contextvars.bound_contextvars(**facts):
        yield


def trace_headers() -> dict[str, str]:
    """The current trace as W3C `traceparent`, begun here if there is none."""
    current = _trace.get()
    if current is None:
        current = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        _trace.set(current)
    return {TRACEPARENT: current}


def adopt_trace(headers: Mapping[str, str] | None) -> None:
    """Go on with the trace that a message carries, in the current task."""
    if headers and (parent := headers.get(TRACEPARENT)):
        _trace.set(parent)
