"""Session timers: how long a session lives without a refresh, and who refreshes. Source: RFC 4028.

We never ask for one. The peer may, and refreshes then, unless it asks us to.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

from sip_ua.sip.extensions import SUPPORTED, option_tags
from sip_ua.sip.message import Message, Request, Response

MIN_SESSION_S: Final = 90
"""The shortest session interval we accept (RFC 4028 §5)."""


class SessionDue(Enum):
    """What a session timer asks for."""

    REFRESH = "session to refresh"
    EXPIRED = "session not refreshed"


class SessionTimer:
    """The session timer of one session: negotiated in each INVITE and UPDATE, in either direction.

    `deadline` is the moment of the next `take_due`, in monotonic seconds; None while no timer runs.
    """

    def __init__(self) -> None:
        self.interval_s = 0
        """0 while none runs."""
        self.we_refresh = False
        self.deadline: float | None = None

    @staticmethod
    def refused(request: Request) -> list[tuple[str, str]] | None:
        """The headers of a 422 to a session interval that is too short; None when it is not."""
        asked = session_interval(request)
        return [("Min-SE", str(MIN_SESSION_S))] if asked is not None and asked[0] < MIN_SESSION_S else None

    def accept(self, request: Request, now: float) -> list[tuple[str, str]]:
        """The headers of a 2xx that agree to the session timer the request asks for, which starts now."""
        asked = session_interval(request)
        if asked is None or SUPPORTED not in option_tags(request, "Supported", "Require"):
            self.stop()
            return []
        self._start(asked[0], asked[1] == "uas", now)
        if self.we_refresh:
            return [("Session-Expires", f"{asked[0]};refresher=uas")]
        return [("Require", SUPPORTED), ("Session-Expires", f"{asked[0]};refresher=uac")]

    def request_headers(self) -> list[tuple[str, str]]:
        """What keeps a running session timer, and its refresher, through a re-INVITE or UPDATE of ours."""
        if not self.interval_s:
            return []
        refresher = "uac" if self.we_refresh else "uas"
        return [("Supported", SUPPORTED), ("Session-Expires", f"{self.interval_s};refresher={refresher}")]

    def answered(self, response: Response, now: float) -> None:
        """Go by what a 2xx to our re-INVITE or UPDATE says of the session timer; silence turns it off."""
        granted = session_interval(response) if self.interval_s else None
        if granted is None:
            self.stop()
        else:
            self._start(granted[0], granted[1] == "uac", now)

    def take_due(self, now: float) -> SessionDue:
        """What is due at the deadline; a refresh is due again half an interval later."""
        self.deadline = now + self.interval_s / 2 if self.we_refresh else None
        return SessionDue.REFRESH if self.we_refresh else SessionDue.EXPIRED

    def stop(self) -> None:
        self.interval_s, self.we_refresh, self.deadline = 0, False, None

    def _start(self, interval_s: int, we_refresh: bool, now: float) -> None:
        """RFC 4028 §10: refresh at half the interval; BYE a third of it before its end, at most 32 s before."""
        self.interval_s, self.we_refresh = interval_s, we_refresh
        after = interval_s / 2 if we_refresh else interval_s - min(32.0, interval_s / 3)
        self.deadline = now + after if interval_s else None

    def to_state(self, now: float) -> dict[str, Any]:
        return {
            "interval_s": self.interval_s,
            "we_refresh": self.we_refresh,
            "due_in_s": None if self.deadline is None else self.deadline - now,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], now: float) -> SessionTimer:
        timer = cls()
        timer.interval_s, timer.we_refresh = state["interval_s"], state["we_refresh"]
        timer.deadline = None if state["due_in_s"] is None else now + state["due_in_s"]
        return timer


def session_interval(message: Message) -> tuple[int, str] | None:
    """Session-Expires as seconds and refresher ("uac", "uas" or ""); None when absent or no number."""
    value = message.headers.get("Session-Expires")
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:;(.*))?", value) if value else None
    if match is None:
        return None
    refresher = re.search(r"refresher\s*=\s*(uac|uas)", match[2] or "", re.IGNORECASE)
    return int(match[1]), refresher[1].lower() if refresher else ""
