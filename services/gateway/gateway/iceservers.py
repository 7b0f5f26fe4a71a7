"""What browsers and the Go SDK are told of ICE servers (protocol sections 1.3 G6 and 7.5)."""

from collections.abc import Sequence
from typing import Any

from dialbus.config import IceServer

PUBLIC_STUN = "stun:stun.l.google.com:19302"
"""Told when nothing is configured, as RustPBX and active-call do."""


def ice_servers(configured: Sequence[IceServer] | None) -> list[dict[str, Any]]:
    """The body of `/iceservers`: `urls` is always a list, and what an entry lacks is left out, never null."""
    entries = [IceServer(urls=[PUBLIC_STUN])] if configured is None else configured
    return [entry.model_dump(exclude_none=True) for entry in entries]
