"""What is told of SIP messages that come and go: metrics, lines of the debug log, notes for the trace of their call."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter

from dialbus import telemetry
from dialbus.contracts.trace import TraceKind
from dialbus.quiet import quiet
from dialbus.trace import Tracer, masked_message
from sip_ua.sip.grammar import GrammarError
from sip_ua.sip.identity import Key, server_key
from sip_ua.sip.message import Message, Request
from sip_ua.sip.transaction_layer import Address

log = telemetry.get_logger()

MESSAGES = Counter(
    "dialbus_sip_messages_total", "SIP messages by direction and method or status class", ["way", "what"]
)
LINGER_S = 32.0
"""How long copies of a leg's last messages may still come (timers H and J of RFC 3261 §17)."""


@dataclass(frozen=True, slots=True)
class LegName:
    """Which leg of which call."""

    call_id: str
    leg_id: str


class Traffic:
    """Knows which leg a message is of: by its Call-ID and, where that is not enough, by our tag or its transaction."""

    def __init__(self, tracer: Tracer, clock: Callable[[], float]) -> None:
        self._tracer = tracer
        self._clock = clock
        self._legs: dict[str, dict[str, LegName]] = {}
        """By Call-ID and local tag: a call to ourselves has two legs with one Call-ID here."""
        self._invited: dict[Key, LegName] = {}
        """By the transaction of the caller's INVITE, for what has no tag of ours yet."""
        self._leaving: deque[tuple[float, str, str, Key | None]] = deque()

    def add(self, sip_call_id: str, local_tag: str, leg: LegName, invite: Key | None = None) -> None:
        """A leg begins."""
        self._forget_gone()
        self._legs.setdefault(sip_call_id, {})[local_tag] = leg
        if invite is not None:
            self._invited[invite] = leg

    def remove(self, sip_call_id: str, local_tag: str, invite: Key | None = None) -> None:
        """A leg has ended; copies of its last messages are still its own."""
        self._forget_gone()
        self._leaving.append((self._clock() + LINGER_S, sip_call_id, local_tag, invite))

    def _forget_gone(self) -> None:
        while self._leaving and self._leaving[0][0] <= self._clock():
            _, sip_call_id, local_tag, invite = self._leaving.popleft()
            legs = self._legs.get(sip_call_id, {})
            legs.pop(local_tag, None)
            if not legs:
                self._legs.pop(sip_call_id, None)
            if invite is not None:
                self._invited.pop(invite, None)

    def received(self, message: Message, data: bytes, source: Address) -> LegName | None:
        """A message has come; the leg it is of."""
        MESSAGES.labels("in", _label(message)).inc()
        leg = self._leg_of(message, ours=False)
        if leg is not None or not _may_begin_call(message, ours=False):
            self._log_received(leg, data, source)
        if leg is not None:
            self._note(TraceKind.SIP_IN, leg, data, source)
        return leg

    def began(self, message: Message, data: bytes, source: Address, at: float) -> None:
        """What came at this Unix time and was nobody's may have begun a leg; its log line waited for the call's id."""
        leg = self._leg_of(message, ours=False)
        if _may_begin_call(message, ours=False):
            self._log_received(leg, data, source)
        if leg is not None:
            self._note(TraceKind.SIP_IN, leg, data, source, at)

    def _log_received(self, leg: LegName | None, data: bytes, source: Address) -> None:
        if log.is_enabled_for(logging.DEBUG):
            log.debug("sip.received", source=str_of(source), text=masked_message(_text(data)), **facts(leg))

    def sent(self, message: Message, data: bytes, destination: Address) -> None:
        """A message has left."""
        MESSAGES.labels("out", _label(message)).inc()
        leg = self._leg_of(message, ours=True)
        if log.is_enabled_for(logging.DEBUG):
            log.debug("sip.sent", destination=str_of(destination), text=masked_message(_text(data)), **facts(leg))
        if leg is not None:
            self._note(TraceKind.SIP_OUT, leg, data, destination)

    def is_of_leg(self, message: Message) -> bool:
        """Whether a message that we send belongs to a call."""
        return self._leg_of(message, ours=True) is not None

    def not_sent(self, message: Message, destination: Address, error: OSError) -> None:
        """A message could not leave."""
        leg = self._leg_of(message, ours=True)
        quiet.log(log.warning, "sip.not_sent", destination=str_of(destination), error=str(error), **facts(leg))

    def _leg_of(self, message: Message, *, ours: bool) -> LegName | None:
        legs = self._legs.get(message.headers.get("Call-ID") or "")
        if legs is None:
            return None
        try:
            return self._one_of(legs, message, ours=ours)
        except GrammarError:  # our answer to garbage repeats it
            return None

    def _one_of(self, legs: dict[str, LegName], message: Message, *, ours: bool) -> LegName | None:
        if _may_begin_call(message, ours=ours):
            return self._invited.get(_invite_key(message))
        if len(legs) == 1:
            return next(iter(legs.values()))
        # From is whoever sent the request: of our requests, and of responses to them, that is us.
        tag = message.from_tag if isinstance(message, Request) is ours else message.to_tag
        return legs.get(tag) if tag is not None else self._invited.get(_invite_key(message))

    def _note(self, kind: TraceKind, leg: LegName, data: bytes, peer: Address, at: float | None = None) -> None:
        text, remote = _text(data), {"remote": str_of(peer)}
        start_line = text.partition("\r\n")[0]
        self._tracer.note(leg.call_id, kind, start_line, leg_id=leg.leg_id, text=text, facts=remote, at=at)


def facts(leg: LegName | None) -> dict[str, str]:
    """What log lines say of a leg."""
    return {} if leg is None else {"call_id": leg.call_id, "leg_id": leg.leg_id}


def str_of(address: Address) -> str:
    """host:port."""
    return f"{address.host}:{address.port}"


def _may_begin_call(message: Message, *, ours: bool) -> bool:
    return not ours and isinstance(message, Request) and message.method == "INVITE" and message.to_tag is None


def _invite_key(message: Message) -> Key:
    """The transaction of the INVITE that this is, answers or cancels."""
    return server_key(message)._replace(method="INVITE")


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _label(message: Message) -> str:
    return message.method if isinstance(message, Request) else f"{message.status // 100}xx"
