"""What tells things apart: transactions by Via and method, copies of a request, dialogs by their tags.

Sources: RFC 3261 §8.2.2.2, §12, §17.1.3 and §17.2.3.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from sip_ua.sip.message import Message, Request

MAGIC_COOKIE: Final = "z9hG4bK"

MergeKey: TypeAlias = tuple[str | None, str, int, str]
"""From tag, Call-ID, CSeq number, method."""


class Key(NamedTuple):
    """What tells transactions apart. Source: RFC 3261 §17.1.3 and §17.2.3."""

    side: Literal["client", "server"]
    branch: str
    """The top Via's branch; for peers before RFC 3261, whose branches mean nothing, all that stays the same."""
    sent_by: str
    """The top Via's host and port; empty for client transactions, whose branches are all ours."""
    method: str
    """INVITE for an ACK."""


def client_key(message: Message) -> Key:
    """The client transaction of a request we send, or of a response we get."""
    return Key("client", message.via.branch, "", _method(message))


def server_key(message: Message) -> Key:
    """The server transaction of a request we get (stamped with received and rport), or of our response to it."""
    via = message.via
    branch = via.branch
    if not branch.startswith(MAGIC_COOKIE):
        branch = f"{message.call_id} {message.from_tag} {message.cseq.number} {via}"
    return Key("server", branch, f"{via.host.lower()}:{via.port or 5060}", _method(message))


def _method(message: Message) -> str:
    method = message.cseq.method
    return "INVITE" if method == "ACK" else method


def merge_key(request: Request) -> MergeKey:
    """What two copies of a request that took different ways have in common. Source: RFC 3261 §8.2.2.2."""
    return (request.from_tag, request.call_id, request.cseq.number, request.method)


def dialog_id(call_id: str, from_tag: str, to_tag: str) -> str:
    """The id by which API clients know a dialog: Call-ID, the larger tag, the smaller tag.

    Tags compare byte by byte, as str does for all of UTF-8, so either party computes the same id.
    """
    larger, smaller = sorted((from_tag, to_tag), reverse=True)
    return f"{call_id}-{larger}-{smaller}"
