"""Why a call ended, in the words of protocol 3.1."""

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
