"""Is the client still there? Pings in both forms, and pongs that are missed (protocol section 1.2). Pure."""

import json
import math

from gateway.socket.effects import GOING_AWAY, Close, Effect, Ping, Send

MISSED_PONGS = 3


class KeepAlive:
    """Pings every interval, none at time 0; three intervals without a pong mean that nobody is there (Q-21)."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._next = now + interval if interval > 0 else math.inf
        self._unanswered = 0

    @property
    def deadline(self) -> float:
        """When `tick` is due; infinite when pings are off."""
        return self._next

    def pong(self) -> None:
        """The client answered."""
        self._unanswered = 0

    def tick(self, now: float, timestamp_ms: int, rfc3339: str) -> list[Effect]:
        """The interval is over: ping in both forms (section 1.2), or give up."""
        if now < self._next:
            return []
        self._next += self._interval
        if self._next <= now:  # a late tick: those that it missed are left out
            self._next = now + self._interval
        if self._unanswered >= MISSED_PONGS:
            self._next = math.inf
            return [Close(GOING_AWAY, "no pong")]
        self._unanswered += 1
        event = {"event": "ping", "timestamp": timestamp_ms, "payload": rfc3339}
        return [Ping(rfc3339.encode()), Send(json.dumps(event, separators=(",", ":")), recorded=False)]
