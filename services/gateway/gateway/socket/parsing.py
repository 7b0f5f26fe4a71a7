"""A text frame as a command: the one place where a client's words are judged (protocol section 2). Pure."""

import json
from dataclasses import dataclass
from typing import Any

from dialbus.contracts.commands import BadCommand, ClientCommand, command_from, load_json

MAX_TEXT_BYTES = 1 << 20
"""Largest text frame (protocol Q-22); the WebSocket layer closes with 1009 above it."""
MAX_COMMAND_ID = 128


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that a client sent."""

    command: ClientCommand
    text: str
    """Its JSON as the client wrote it, for those who watch."""
    command_id: str | None = None

    @classmethod
    def by_us(cls, command: ClientCommand, command_id: str | None = None) -> "Sent":
        """A command whose text nobody has any more, or that no client wrote."""
        return cls(command, command.sent_json(), command_id)


def client_command(text: str) -> Sent:
    """A text frame as a command. Raises BadCommand, a ValueError, that says why it is none."""
    data = load_json(text)
    if "\\ud" in text.lower():  # escaped surrogates: without their other half they are no text
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise BadCommand("malformed JSON: half of a surrogate pair") from None
    return Sent(command_from(data), text, _command_id(data))


def _command_id(data: dict[str, Any]) -> str | None:
    value = data.get("commandId")
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_COMMAND_ID):
        return value
    raise BadCommand(f"commandId: a text of 1 to {MAX_COMMAND_ID} characters")
