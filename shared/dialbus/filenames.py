"""File names made of ids that outsiders chose: recordings and dumps of one call must meet, those of two never."""

import hashlib

LONGEST_BYTES = 200
"""Of a name without its suffix; file systems stop at 255."""
_DIGEST_DIGITS = 8


def file_safe(identifier: str) -> str:
    """An id as one file name: separators, control characters, surrogates and a leading dot become `_`.

    An id that had to be changed or cut ends in a digest of what it was, so that two ids never share a file.
    Never empty, never `.` or `..`, at most LONGEST_BYTES long.
    """
    safe = component(identifier)
    encoded = safe.encode()
    if safe == identifier and len(encoded) <= LONGEST_BYTES:
        return safe
    digest = hashlib.sha256(identifier.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
    return encoded[: LONGEST_BYTES - _DIGEST_DIGITS - 1].decode(errors="ignore") + "-" + digest


def component(text: str) -> str:
    """A name somebody chose as one component of a path, by the same rules but without a digest."""
    safe = "".join("_" if _is_unsafe(character) else character for character in text)
    return "_" + safe[1:] if not safe or safe[0] == "." else safe


def _is_unsafe(character: str) -> bool:
    code = ord(character)
    return character in "/\\" or code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000
