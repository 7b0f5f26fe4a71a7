"""Keys in INFO requests, as phones without telephone-event send them."""

from __future__ import annotations

import re
from typing import Final

from sip_ua.sip.session_effects import DtmfReceived

_SIGNALS: Final = {**{character: character for character in "0123456789*#ABCD"}, "10": "*", "11": "#"}


def parse_dtmf(content_type: str, body: bytes) -> DtmfReceived | None:
    """The key in an INFO: `Signal=5 Duration=160` (dtmf-relay) or the bare digit (dtmf); None when there is none."""
    text = body.decode("ascii", errors="replace").strip()
    duration: int | None = None
    if content_type == "application/dtmf-relay":
        fields = dict(re.findall(r"(?im)^\s*(signal|duration)\s*=\s*(\S+)", text.lower()))
        text = fields.get("signal", "")
        if re.fullmatch(r"\d{1,6}", fields.get("duration", "")):
            duration = int(fields["duration"])
    digit = _SIGNALS.get(text.upper())
    return None if digit is None else DtmfReceived(digit, duration)
