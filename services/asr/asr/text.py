"""From the model's raw text to the text of an event: blanks and non-speech annotations, nothing else.

Spelling, case, punctuation and numbers stay as the model wrote them; clients may match on them.
"""

from __future__ import annotations

import re

# Whisper annotates sounds as [BLANK_AUDIO], (music), *laughs* or ♪ … ♪. A parenthesis with a digit is
# speech: "(555) 123-4567" is how it writes telephone numbers.
_ANNOTATION = re.compile(r"\[[^\[\]]*\]|\([^()\d]*\)|\*[^*\d]+\*|♪[^♪]*♪|[♪♫♬]")
_BLANKS = re.compile(r"\s+")
_BLANK_BEFORE_POINT = re.compile(r" (?=[,.;:!?](?:\s|$))")


def normalise(text: str) -> str:
    """The text without annotations, stripped, with single blanks; "" when no letter or digit is left.

    Idempotent.
    """
    spoken = _annotations_dropped(text)
    if not any(character.isalnum() for character in spoken):
        return ""
    return _BLANK_BEFORE_POINT.sub("", _BLANKS.sub(" ", spoken)).strip()


def _annotations_dropped(text: str) -> str:
    """Repeats until nothing changes, since annotations nest: "((music))"."""
    while (shorter := _ANNOTATION.sub(" ", text)) != text:
        text = shorter
    return text
