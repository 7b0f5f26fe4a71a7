"""Why a call ended, in the words of protocol 3.1."""

from dataclasses import dataclass

REASONS = (
    "byCaller", "byCallee", "byRefer", "bySystem", "autohangup", "canceled", "rejected", "noAnswer", "noBalance",
    "answerMachine", "serverUnavailable", "failed", "inactivityTimeout",
)  # fmt: skip
"""Protocol 3.1."""

_SYNONYMS = {word.lower(): word for word in REASONS} | {
    "caller": "byCaller", "callee": "byCallee", "refer": "byRefer", "system": "bySystem",
    "cancel": "canceled", "cancelled": "canceled", "reject": "rejected",
}  # fmt: skip


def reason_word(text: str) -> str:
    """A reason as the vocabulary of protocol 3.1 writes it, whatever its capitals or short form; else the text."""
    return _SYNONYMS.get(text.strip().lower(), text)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a leg ended and who brought it about; `code` and `phrase` are its final SIP status when it was never up."""

    reason: str
    """A word of `REASONS`, or what a client wrote."""
    initiator: str
    """`caller`, `callee`, `system`, or what a client wrote."""
    code: int | None = None
    phrase: str | None = None
