"""Text as synthesisers get it: what nobody can pronounce is gone (protocol 2.5.6)."""

import re

# Pictographs with what modifies them (variation selectors, skin tones, joiners, keycap enclosure, tags);
# lone surrogates, which a client may produce by cutting a string inside an emoji, cannot be encoded at all.
_PICTOGRAPH = "\U0001f000-\U0001faff\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u231a\u231b\u23e9-\u23fa"
_EMOJI = re.compile(f"[{_PICTOGRAPH}][\ufe0e\ufe0f\u200d]*|[\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f\ud800-\udfff]")


def without_emoji(text: str) -> str:
    """The text without emoji and lone surrogates."""
    return _EMOJI.sub("", text)
