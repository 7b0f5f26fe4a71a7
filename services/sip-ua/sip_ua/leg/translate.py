"""Between SIP and the contracts: addresses, descriptions, the webhook's body. Pure functions."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, cast

from dialbus.contracts.media import Direction, RemoteMedia
from dialbus.contracts.options import SipOption
from dialbus.contracts.session import Announcement
from dialbus.sdp import G722, OPUS, PCMA, PCMU, TELEPHONE_EVENT, Codec
from sip_ua.errors import BadAddress
from sip_ua.sip.audio_offer import NegotiatedAudio
from sip_ua.sip.digest import Credentials
from sip_ua.sip.extensions import custom
from sip_ua.sip.grammar import CALL_ID_RE, GrammarError
from sip_ua.sip.message import Request
from sip_ua.sip.uri import NameAddr, Uri, escape_user, parse_name_addr, parse_uri

CODECS: dict[str, Codec] = {
    "g722": G722,
    "pcmu": PCMU,
    "pcma": PCMA,
    "opus": OPUS,
    "telephone_event": TELEPHONE_EVENT,
}
_CALL_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_WELL_KNOWN = frozenset({
    "accept", "accept-encoding", "accept-language", "alert-info", "allow-events", "call-info", "content-disposition",
    "content-language", "date", "error-info", "history-info", "in-reply-to", "mime-version", "organization",
    "p-asserted-identity", "p-preferred-identity", "privacy", "reason", "referred-by", "replaces", "reply-to",
    "server", "subject", "user-to-user", "warning", "priority", "diversion", "remote-party-id", "identity", "join",
    "recv-info", "request-disposition", "target-dialog", "p-early-media", "p-charging-vector",
})  # fmt: skip
"""Headers with a meaning of their own; the rest is what `incoming.headers` carries."""


def codecs(names: Sequence[str]) -> tuple[Codec, ...]:
    """The codecs of the setting `codecs`, in its order."""
    return tuple(CODECS[name] for name in names)


def remote_media(audio: NegotiatedAudio) -> RemoteMedia:
    """What was negotiated, as the media worker needs it."""
    return RemoteMedia(
        address=audio.remote_address,
        port=audio.remote_port,
        rtcp_port=None if audio.rtcp_mux else audio.remote_rtcp_port,
        codec=cast(Literal["pcmu", "pcma", "g722", "opus"], audio.codec.name.lower()),
        payload_type=audio.payload_type,
        telephone_event_pt=audio.telephone_event_pt,
        telephone_event_hz=audio.telephone_event_hz,
        ptime_ms=audio.ptime_ms,
        direction=cast(Direction, audio.direction),
        on_hold=audio.on_hold,
    )


def vouched(agreed: RemoteMedia | None, host: str, *, acknowledged: bool) -> RemoteMedia | None:
    """The same with what vouches for its address, since anybody can name any in an INVITE.

    That is the host of the peer's signalling, and whether a caller `acknowledged` our answer: it got what we sent.
    """
    return agreed and agreed.model_copy(update={"signalling_host": host, "acknowledged": acknowledged})


def parse_address(text: str, what: str) -> NameAddr:
    """An address as a client writes it, a tel URI included; `sip:` is added without a scheme. Raises BadAddress."""
    written = text.strip()
    try:
        if "<" in written:
            return parse_name_addr(written)
        scheme = re.match(r"(sips?|tel):", written, re.IGNORECASE)
        return NameAddr("", parse_uri(written if scheme else f"sip:{written}"))
    except GrammarError as error:
        raise BadAddress(f"{what}: not a SIP URI: {written[:200]!r} ({error})") from None


def usable(address: NameAddr, what: str) -> NameAddr:
    """The address, if it is one that we can call or call as. Raises BadAddress."""
    uri = address.uri
    if uri.scheme not in ("sip", "sips") or not uri.host:
        raise BadAddress(f"{what}: not a SIP URI with a host: {str(address)[:200]!r}")
    if uri.scheme == "sips" or (uri.transport or "udp").lower() != "udp":
        raise BadAddress(f"{what}: only SIP over UDP is there: {str(address)[:200]!r}")
    return address


def default_caller(option: SipOption | None, host: str, port: int) -> NameAddr:
    """Who calls when the client does not say (protocol 5.1): its SIP user, else nobody, at our address."""
    if option is None or not option.username:
        return NameAddr("", Uri("sip", None, host, port))
    user, _, domain = option.username.partition("@")  # many providers' names for digest are addresses
    try:
        return NameAddr("", Uri("sip", escape_user(user), option.realm or domain or host))
    except GrammarError as error:
        raise BadAddress(f"sip.username or sip.realm makes no SIP address, name a caller: {error}") from None


def credentials(option: SipOption | None) -> Credentials | None:
    """The client's digest credentials, if it gave any."""
    if option is None or not option.username:
        return None
    return Credentials(option.username, option.password or "")


def is_call_id(text: str) -> bool:
    """Whether a session id may stand as Call-ID without any peer misreading it."""
    return _CALL_ID.fullmatch(text) is not None


def is_any_call_id(text: str) -> bool:
    """Whether RFC 3261 allows this as a Call-ID, and no line gets too long by it."""
    return len(text) <= 256 and CALL_ID_RE.fullmatch(text) is not None


def bare_uri(address: NameAddr) -> str:
    """The URI of From or To, without display name, brackets and tag."""
    return str(address.uri)


def unusual_headers(invite: Request) -> dict[str, str]:
    """The INVITE's headers that neither SIP nor a well-known extension defines."""
    return {name: value for name, value in custom(invite.headers.lines()) if name.lower() not in _WELL_KNOWN}


def webhook_body(invite: Request, dialog_id: str, created_at: datetime) -> Announcement:
    """The announcement of an inbound call, to the letter of protocol 5.5."""
    return Announcement(
        dialog_id=dialog_id,
        caller=bare_uri(invite.from_),
        callee=bare_uri(invite.to),
        created_at=created_at.astimezone(UTC).isoformat(),
        headers=[f"{name}: {value}" for name, value in invite.headers.lines()],
        offer=invite.body.decode(errors="replace"),
    )
