"""What the parts of a call machine have in common: its clock, addresses as events carry them, words for ends."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dialbus.contracts.base import ClientJson
from dialbus.contracts.events import Attendee

REASONS = (
    "byCaller", "byCallee", "byRefer", "bySystem", "autohangup", "canceled", "rejected", "noAnswer", "noBalance",
    "answerMachine", "serverUnavailable", "failed", "inactivityTimeout",
)  # fmt: skip
"""Protocol 3.1."""

_SYNONYMS = {word.lower(): word for word in REASONS} | {
    "caller": "byCaller", "callee": "byCallee", "refer": "byRefer", "system": "bySystem",
    "cancel": "canceled", "cancelled": "canceled", "reject": "rejected",
}  # fmt: skip

_URI = re.compile(r"^(?:sips?:)?(?:([^@]*)@)?(\[[^\]]*\]|[^:;?>]*)", re.IGNORECASE)


def reason_word(text: str) -> str:
    """A reason as the vocabulary of protocol 3.1 writes it, whatever its capitals or short form; else the text."""
    return _SYNONYMS.get(text.strip().lower(), text)


def attendee(uri: str | None) -> Attendee | None:
    """The parts of an address, `realm` without its port, as the anchors' CDR has them (protocol 3.1)."""
    if not uri:
        return None
    match = _URI.match(uri)
    user, host = (match[1] or "", match[2] or "") if match else ("", "")
    return Attendee(username=user.partition(":")[0].partition(";")[0], realm=host, source=uri)


def as_fields(option: ClientJson | None) -> dict[str, Any] | None:
    """An option as the media worker is told it."""
    return None if option is None else option.to_fields()


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time of a monotonic `now`: `epoch` is what the wall showed at `started`."""

    started: float
    epoch: datetime

    def ms(self, now: float) -> int:
        """Unix epoch milliseconds."""
        return int(self._at(now).timestamp() * 1000)

    def wall(self, now: float) -> str:
        """RFC 3339."""
        return self._at(now).isoformat()

    def wall_or_none(self, now: float | None) -> str | None:
        """RFC 3339 of a moment that may not have come."""
        return None if now is None else self.wall(now)

    def _at(self, now: float) -> datetime:
        return self.epoch + timedelta(seconds=now - self.started)
