"""Trunk rules: outbound calls rewritten before they are placed (protocol 8, `[[trunk_rules]]`). Pure functions.

The first rule whose patterns all hold is applied, and no other; a rule without patterns holds for every call. A pattern
is searched for in the user or host of the caller (From) or the callee (To and Request-URI). They come from the
operator, what they are searched in from a client: that is bounded.
"""

from collections.abc import Sequence
from dataclasses import replace

from dialbus.config import TrunkRewrite, TrunkRule, UriParts, UriPattern
from sip_ua.errors import BadAddress
from sip_ua.sip.grammar import GrammarError
from sip_ua.sip.uri import NameAddr, Uri, escape_user, parse_uri

MAX_SEARCHED = 256
"""Characters of a user or host; no pattern holds for a longer one."""
_NOBODY = UriParts()


def matching(rules: Sequence[TrunkRule], caller: Uri | None, callee: Uri) -> TrunkRewrite:
    """What is to be rewritten; nothing when no rule holds. A caller that is not known yet has empty parts."""
    for entry in rules:
        wanted = entry.rule.match
        if _holds(wanted.from_, caller) and _holds(wanted.to, callee):
            return entry.rule.rewrite
    return TrunkRewrite()


def rewritten(address: NameAddr, parts: UriParts) -> NameAddr:
    """The address with new parts; a host without a port keeps the port. A tel URI that gets a host becomes a SIP URI.

    Raises BadAddress when the parts make no URI.
    """
    if parts == _NOBODY:
        return address
    try:
        return replace(address, uri=_rewritten(address.uri, parts))
    except GrammarError as error:
        raise BadAddress(f"a trunk rule makes no address of {str(address.uri)[:200]!r}: {error}") from None


def _rewritten(uri: Uri, parts: UriParts) -> Uri:
    user = uri.user if parts.user is None else escape_user(parts.user)
    if parts.host is None:
        return replace(uri, user=user)
    place = parse_uri(f"sip:{parts.host}")
    if uri.scheme == "tel":
        return Uri("sip", user, place.host, place.port)
    return replace(uri, user=user, host=place.host, port=place.port or uri.port)


def _holds(pattern: UriPattern, uri: Uri | None) -> bool:
    user, host = ("", "") if uri is None else (uri.user_text, uri.host)
    return all(
        wanted is None or (len(text) <= MAX_SEARCHED and wanted.search(text) is not None)
        for wanted, text in ((pattern.user, user), (pattern.host, host))
    )
