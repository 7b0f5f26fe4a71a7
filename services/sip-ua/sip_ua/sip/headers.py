"""Header fields as one immutable, ordered multimap, and the names they go by (RFC 3261 §7.3, §20)."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from sip_ua.sip.grammar import bad, is_token, split_list

# The IANA registry of compact forms, at the time of writing complete.
COMPACT_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "a": "Accept-Contact",
        "b": "Referred-By",
        "c": "Content-Type",
        "d": "Request-Disposition",
        "e": "Content-Encoding",
        "f": "From",
        "i": "Call-ID",
        "j": "Reject-Contact",
        "k": "Supported",
        "l": "Content-Length",
        "m": "Contact",
        "n": "Identity-Info",
        "o": "Event",
        "r": "Refer-To",
        "s": "Subject",
        "t": "To",
        "u": "Allow-Events",
        "v": "Via",
        "x": "Session-Expires",
        "y": "Identity",
    }
)

# Spellings that capitalising each word does not give.
_SPELLINGS: Final = {
    name.lower(): name
    for name in (*COMPACT_FORMS.values(), "CSeq", "MIME-Version", "RAck", "RSeq", "SIP-ETag", "SIP-If-Match")
} | {"www-authenticate": "WWW-Authenticate", "min-se": "Min-SE"}

# Headers whose value is a comma-list (RFC 3261 §20 and the extensions we meet). Digest headers are not:
# their commas separate parameters.
# fmt: off
LIST_HEADERS: Final = frozenset(
    {
        "accept", "accept-contact", "accept-encoding", "accept-language", "alert-info", "allow",
        "allow-events", "call-info", "contact", "content-encoding", "content-language", "diversion",
        "error-info", "history-info", "in-reply-to", "p-asserted-identity", "path", "proxy-require",
        "reason", "record-route", "reject-contact", "request-disposition", "require", "route",
        "service-route", "supported", "unsupported", "via", "warning",
    }
)
_KNOWN: Final = LIST_HEADERS | frozenset(
    {
        "authorization", "content-disposition", "content-length", "content-type", "date", "expires", "from",
        "max-forwards", "min-expires", "organization", "priority", "proxy-authenticate",
        "proxy-authorization", "replaces", "reply-to", "retry-after", "server", "subject",
        "subscription-state", "timestamp", "to", "user-agent",
    }
)
# fmt: on


def canonical_name(name: str) -> str:
    """A header name in full and in its usual spelling; unknown names stay as they are."""
    lower = name.lower()
    full = COMPACT_FORMS.get(lower)
    if full is not None:
        return full
    spelling = _SPELLINGS.get(lower)
    if spelling is not None:
        return spelling
    return "-".join(word.capitalize() for word in lower.split("-")) if lower in _KNOWN else name


class Headers:
    """Header fields in order; an immutable multimap, hashable, whose names are case-blind and never compact.

    Construction raises GrammarError when a name is no token or a value holds CR or LF: no value can start a
    header of its own. Values are trimmed.
    """

    __slots__ = ("_items", "_keys")

    _items: tuple[tuple[str, str], ...]
    _keys: tuple[str, ...]

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        lines: list[tuple[str, str]] = []
        for name, value in items:
            if not is_token(name):
                bad("header name", name)
            if "\r" in value or "\n" in value:
                bad("header value", value)
            lines.append((canonical_name(name), value.strip(" \t")))
        self._items = tuple(lines)
        self._keys = tuple(name.lower() for name, _ in lines)

    def get(self, name: str) -> str | None:
        """The value of the first header of this name, whole, None when there is none."""
        key = canonical_name(name).lower()
        return self._items[self._keys.index(key)][1] if key in self._keys else None

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of this name in order; the elements of a comma-list count as values of their own."""
        key = canonical_name(name).lower()
        values = [value for (_, value), known in zip(self._items, self._keys, strict=True) if known == key]
        if key not in LIST_HEADERS:
            return tuple(values)
        return tuple(element for value in values for element in split_list(value))

    def lines(self) -> tuple[tuple[str, str], ...]:
        """The header lines in order, names in full."""
        return self._items

    def with_(self, name: str, value: str) -> "Headers":
        """A copy with one header of this name, where the first one stood or else at the end."""
        key = canonical_name(name).lower()
        if key not in self._keys:
            return self.adding(name, value)
        first = self._keys.index(key)
        kept = [line for i, line in enumerate(self._items) if i <= first or self._keys[i] != key]
        kept[first] = (name, value)
        return Headers(kept)

    def adding(self, name: str, value: str) -> "Headers":
        """A copy with one more header at the end."""
        return Headers((*self._items, (name, value)))

    def without(self, name: str) -> "Headers":
        """A copy without the headers of this name."""
        key = canonical_name(name).lower()
        return Headers(line for line, known in zip(self._items, self._keys, strict=True) if known != key)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and canonical_name(name).lower() in self._keys

    def __len__(self) -> int:
        return len(self._items)

    def _identity(self) -> tuple[tuple[str, str], ...]:
        return tuple((key, value) for key, (_, value) in zip(self._keys, self._items, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"Headers({list(self._items)!r})"
