"""The latency ledger of a turn: from the end of the caller's speech to the first packet of the reply."""

from dataclasses import dataclass

KEY = "turn"


@dataclass(slots=True)
class _Turn:
    index: int
    speech_ended: float
    final: float
    text: float | None = None
    audio: float | None = None


class TurnLedger:
    """One entry for each reply: the first spoken playback after a final transcript. Seconds on one clock."""

    def __init__(self) -> None:
        self._turn: _Turn | None = None

    def final(self, index: int, speech_ended: float, now: float) -> None:
        """An utterance became text; a reply may follow."""
        self._turn = _Turn(index, speech_ended, now)

    def text(self, now: float) -> None:
        """Text was given to the synthesiser."""
        if self._turn is not None and self._turn.text is None:
            self._turn.text = now

    def audio(self, now: float) -> None:
        """Synthesised audio arrived."""
        turn = self._turn
        if turn is not None and turn.text is not None and turn.audio is None:
            turn.audio = now

    def sent(self, now: float) -> dict[str, int] | None:
        """A packet with that audio left: the ledger in milliseconds since the end of speech, once per turn."""
        turn = self._turn
        if turn is None or turn.text is None or turn.audio is None:
            return None
        self._turn = None
        moments = {"final": turn.final, "text": turn.text, "audio": turn.audio, "rtp": now}
        entry = {name: max(0, round((at - turn.speech_ended) * 1000)) for name, at in moments.items()}
        return {"index": turn.index, **entry}
