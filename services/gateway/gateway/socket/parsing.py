"""A text frame as a command: the one place where a client's words are judged (protocol section 2). Pure."""

import json
from dataclasses import dataclass
from typing import Any

from dialbus.contracts.commands import Accept, BadCommand, Invite, command_from, load_json
from gateway.socket.uplink import bytes_per_second

MAX_TEXT_BYTES = 1 << 20
"""Largest text frame (protocol Q-22); the WebSocket layer closes with 1009 above it."""
MAX_COMMAND_ID = 128


@dataclass(frozen=True, slots=True)
class Command:
    """A client's command: its JSON, and what in it concerns the socket itself."""

    json: dict[str, Any]
    subscribes: bool = False
    """It asks for the call's audio as binary frames (protocol section 10.2)."""
    bytes_per_second: int | None = None
    """Of the audio on a `/call` socket, when the command says so."""


def client_command(text: str) -> Command:
    """A text frame, known to be a valid command. Raises BadCommand, a ValueError, that says why not."""
    data = load_json(text)
    if "\\ud" in text.lower():  # escaped surrogates: without their other half they are no text
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise BadCommand("malformed JSON: half of a surrogate pair") from None
    command = command_from(data)
    if isinstance(command, Invite | Accept):
        option = command.option
        return Command(data, option.subscribe, bytes_per_second(option.codec, option.sample_rate))
    return Command(data)


def command_id_of(command: dict[str, Any]) -> str | None:
    """The client's `commandId`; raises ValueError for one that can't be one."""
    value = command.get("commandId")
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_COMMAND_ID):
        return value
    raise ValueError(f"commandId: a text of 1 to {MAX_COMMAND_ID} characters")
