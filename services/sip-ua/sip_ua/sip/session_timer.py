"""Session timers: how long a session lives without a refresh, and who refreshes. Source: RFC 4028."""

from __future__ import annotations

import re
from typing import Final

from sip_ua.sip.message import Message

MIN_SESSION_S: Final = 90
"""The shortest session interval we accept (RFC 4028 §5)."""


def session_interval(message: Message) -> tuple[int, str] | None:
    """Session-Expires as seconds and refresher ("uac", "uas" or ""); None when absent or no number."""
    value = message.headers.get("Session-Expires")
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:;(.*))?", value) if value else None
    if match is None:
        return None
    refresher = re.search(r"refresher\s*=\s*(uac|uas)", match[2] or "", re.IGNORECASE)
    return int(match[1]), refresher[1].lower() if refresher else ""
