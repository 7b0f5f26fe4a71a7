"""Header fields as one immutable, ordered multimap, and the names they go by (RFC 3261 §7.3, §20)."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from sip_ua.sip.grammar import bad, is_token, split_list

T = TypeVar("T")

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
    header of its own. Values are trimmed. Values are split and parsed once for an object and all copies of it that
    have the same lines of that name: what a stranger sends costs its octets once, not once per question.
    """

    __slots__ = ("_items", "_keys", "_known")

    _items: tuple[tuple[str, str], ...]
    _keys: tuple[str, ...]
    _known: dict[tuple[str, Any], Any]
    """By name and parser: what came out."""

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
        self._known = {}

    def get(self, name: str) -> str | None:
        """The value of the first header of this name, whole, None when there is none."""
        key = canonical_name(name).lower()
        return self._items[self._keys.index(key)][1] if key in self._keys else None

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of this name in order; the elements of a comma-list count as values of their own."""
        key = canonical_name(name).lower()
        if (split := self._known.get((key, None))) is None:
            values = [value for (_, value), known in zip(self._items, self._keys, strict=True) if known == key]
            if key in LIST_HEADERS:
                values = [element for value in values for element in split_list(value)]
            split = self._known[key, None] = tuple(values)
        return tuple(split)

    def parsed(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Every value of this name in order, as `parse` (a function, not a lambda) gives it, or what it raises."""
        key = (canonical_name(name).lower(), parse)
        if (known := self._known.get(key)) is None:
            known = self._known[key] = tuple(parse(value) for value in self.get_all(name))
        return tuple(known)

    def first(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The first value of this name, as `parse` gives it, or what it raises; None when there is none."""
        key = (canonical_name(name).lower(), (parse,))
        if key not in self._known:
            whole, values = self._known.get((key[0], parse)), self.get_all(name)
            self._known[key] = whole[0] if whole else parse(values[0]) if values else None
        found: T | None = self._known[key]
        return found

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
        return self._copy(kept, key)

    def adding(self, name: str, value: str) -> "Headers":
        """A copy with one more header at the end."""
        return self._copy((*self._items, (name, value)), canonical_name(name).lower())

    def without(self, name: str) -> "Headers":
        """A copy without the headers of this name."""
        key = canonical_name(name).lower()
        return self._copy((line for line, known in zip(self._items, self._keys, strict=True) if known != key), key)

    def with_line(self, index: int, value: str) -> "Headers":
        """A copy whose line of this index has another value."""
        lines = list(self._items)
        lines[index] = (lines[index][0], value)
        return self._copy(lines, self._keys[index])

    def _copy(self, lines: Iterable[tuple[str, str]], changed: str) -> "Headers":
        copy = Headers(lines)
        copy._known = {key: known for key, known in self._known.items() if key[0] != changed}
        return copy

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
