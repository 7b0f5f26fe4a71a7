"""A browser's offer, and our answer to it: one audio line over ICE and DTLS-SRTP. Sans-IO.

Sources: RFC 9429 (JSEP), RFC 8839 (ICE), RFC 8842 (DTLS), RFC 9143 (BUNDLE), RFC 5761 (rtcp-mux), RFC 3264 §6.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from dialbus.sdp import (
    TELEPHONE_EVENT,
    Attributes,
    Description,
    Media,
    SdpError,
    all_values,
    first_value,
    parse_attributes,
    parse_media,
    sections,
    write,
)
from media.audio.codec import FORMATS, CodecFormat
from media.webrtc import candidate as ice
from media.webrtc.candidate import Candidate, CandidateError

Setup = Literal["active", "passive"]
Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

MAX_CHARACTERS: Final = 1 << 16
MAX_LINES: Final = 2000
MAX_CANDIDATES: Final = 64

_PROTOCOLS = frozenset({"UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP"})
_TOKEN = re.compile(r"[!-~]{1,256}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){15,63}")
_DIGESTS = ("sha-256", "sha-384", "sha-512")
_EVENT_CLOCKS = frozenset({8000, 16000, 48000})
_FMTP = {"opus": "minptime=10;useinbandfec=1"}
_REVERSED: dict[str, Direction] = {"sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class OfferError(ValueError):
    """An offer that is no usable SDP (400)."""


class NothingInCommon(OfferError):
    """An offer whose media we can't take (488)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What an offer says of the audio line that we take, and of the lines around it."""

    lines: tuple[Media, ...]
    index: int
    """Of the audio line."""
    bundled: frozenset[str]
    """The `mid` of every line of the BUNDLE group."""
    ufrag: str
    password: str
    is_lite: bool
    fingerprints: tuple[tuple[str, str], ...]
    """Algorithm, and digest in capitals."""
    setup: Setup
    """Ours."""
    candidates: tuple[Candidate, ...]
    is_complete: bool
    """No further candidates will come."""
    codec: CodecFormat
    payload_type: int
    telephone_event: tuple[int, int] | None
    """Payload type and clock rate."""
    direction: Direction
    """Ours."""

    @property
    def audio(self) -> Media:
        """The line that we take."""
        return self.lines[self.index]


@dataclass(frozen=True, slots=True)
class Local:
    """What we tell of ourselves."""

    session_id: int
    ufrag: str
    password: str
    fingerprint: str
    """sha-256."""
    candidates: tuple[Candidate, ...]
    ssrc: int


def _fail(what: str, text: str = "") -> NoReturn:
    raise OfferError(f"bad {what} in the offer: {text[:80]!r}" if text else f"bad offer: {what}")


def parse_offer(text: str, codecs: Collection[str], *, ipv6: bool) -> Offer:
    """The audio line that we take of an offer, with the first codec in its order that is one of `codecs`.

    IPv6 candidates are left out unless `ipv6`. Raises OfferError, or NothingInCommon.
    """
    try:
        return _parse_offer(text, codecs, ipv6=ipv6)
    except SdpError as error:
        raise OfferError(f"bad offer: {error}") from None


def _parse_offer(text: str, codecs: Collection[str], *, ipv6: bool) -> Offer:
    session, lines = _sections(text)
    index = next((n for n, line in enumerate(lines) if _is_ours(line, codecs)), None)
    if index is None:
        raise NothingInCommon("the offer has no audio line with a codec of ours")
    audio = lines[index]
    if audio.attribute("rtcp-mux") is None:
        raise NothingInCommon("the offer is without rtcp-mux")
    codec, payload_type, event = _pick_codec(audio, codecs) or _fail("codecs")
    ended = audio.attribute("end-of-candidates"), first_value(session, "end-of-candidates")
    return Offer(
        lines=lines,
        index=index,
        bundled=_bundled(session),
        ufrag=_credential(session, audio, "ice-ufrag", _UFRAG),
        password=_credential(session, audio, "ice-pwd", _PASSWORD),
        is_lite=first_value(session, "ice-lite") is not None,
        fingerprints=_fingerprints(session, audio),
        setup=_setup(audio.attribute("setup") or first_value(session, "setup")),
        candidates=tuple(item for item in _candidates(audio) if item.is_usable and (ipv6 or not item.is_ipv6)),
        is_complete=ended != (None, None),
        codec=codec,
        payload_type=payload_type,
        telephone_event=event,
        direction=_direction(session, audio),
    )


def write_answer(offer: Offer, local: Local) -> str:
    """Our answer, with CRLF: the audio line with one codec, every other one refused."""
    mid = offer.audio.attribute("mid")
    group = (("group", f"BUNDLE {mid}"),) if mid is not None and mid in offer.bundled else ()
    lines = [_audio(offer, local) if index == offer.index else _refused(line) for index, line in enumerate(offer.lines)]
    attributes = (*group, ("msid-semantic", "WMS *"))
    answer = Description("-", local.session_id, 1, "127.0.0.1", None, tuple(lines), attributes)
    return write(answer).decode()


# -- reading ---------------------------------------------------------------------------------------


def _sections(text: str) -> tuple[Attributes, tuple[Media, ...]]:
    """The session's attributes, and the media lines; what else a browser writes says nothing to us."""
    if len(text) > MAX_CHARACTERS:
        _fail("too long")
    session, *media = sections(text.lstrip("\r\n"), MAX_LINES)
    return parse_attributes(session, strict=False), tuple(parse_media(lines, strict=False) for lines in media)


def _is_ours(line: Media, codecs: Collection[str]) -> bool:
    return (
        line.kind == "audio" and line.port > 0 and line.protocol in _PROTOCOLS and _pick_codec(line, codecs) is not None
    )


def _pick_codec(line: Media, codecs: Collection[str]) -> tuple[CodecFormat, int, tuple[int, int] | None] | None:
    """The first offered codec that is one of ours, with the telephone-event that goes best with it."""
    ours = {FORMATS[name].rtpmap.lower(): FORMATS[name] for name in codecs if name in FORMATS}
    ours |= {"g722/16000": ours["g722/8000"]} if "g722/8000" in ours else {}  # what some write for the same thing
    offered = [(codec, ours[codec.rtpmap.lower()]) for codec in line.readable_codecs if codec.rtpmap.lower() in ours]
    if not offered:
        return None
    codec, chosen = offered[0]
    events = [event for event in line.readable_codecs if event.is_telephone_event and event.rate_hz in _EVENT_CLOCKS]
    same = [event for event in events if event.rate_hz == chosen.clock_rate_hz]
    event = next(iter(same + events), None)
    return chosen, codec.payload_type, None if event is None else (event.payload_type, event.rate_hz)


def _candidates(line: Media) -> list[Candidate]:
    """Those that can be read: what a later standard adds is no fault of the offer (RFC 8839 §5.1)."""
    found: list[Candidate] = []
    for value in all_values(line.attributes, "candidate")[:MAX_CANDIDATES]:
        try:
            item = ice.parse(value)
        except CandidateError:
            continue
        if item is not None:
            found.append(item)
    return found


def _credential(session: Attributes, line: Media, name: str, form: re.Pattern[str]) -> str:
    value = line.attribute(name) or first_value(session, name)
    if value is None or not form.fullmatch(value):
        _fail(name, value or "absent")
    return value


def _fingerprints(session: Attributes, line: Media) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for value in all_values(line.attributes, "fingerprint") or all_values(session, "fingerprint"):
        algorithm, _, digest = value.partition(" ")
        if not _DIGEST.fullmatch(digest.strip()):
            _fail("fingerprint", value)
        found.append((algorithm.lower(), digest.strip().upper()))
    known = tuple(pair for pair in found if pair[0] in _DIGESTS)
    if not known:
        _fail("fingerprint", found[0][0] if found else "absent")
    return known


def _setup(offered: str | None) -> Setup:
    """Our part of the DTLS handshake; we open it where we may choose (RFC 8842 §5.3)."""
    match offered:
        case "active":
            return "passive"
        case "passive" | "actpass" | None:
            return "active"
    _fail("setup", offered)


def _direction(session: Attributes, line: Media) -> Direction:
    for name, _ in (*reversed(line.attributes), *reversed(session)):
        if name == "sendrecv" or name in _REVERSED:
            return _REVERSED.get(name, "sendrecv")
    return "sendrecv"


def _bundled(session: Attributes) -> frozenset[str]:
    for value in all_values(session, "group"):
        words = value.split()
        if words and words[0] == "BUNDLE":
            return frozenset(words[1:])
    return frozenset()


# -- writing ---------------------------------------------------------------------------------------


def _audio(offer: Offer, local: Local) -> Media:
    address, port = _default(local.candidates)
    attributes: list[tuple[str, str | None]] = [
        *_mid(offer.audio),
        ("ice-ufrag", local.ufrag),
        ("ice-pwd", local.password),
        ("fingerprint", f"sha-256 {local.fingerprint}"),
        ("setup", offer.setup),
        ("rtcp-mux", None),
        (offer.direction, None),
        ("rtpmap", f"{offer.payload_type} {offer.codec.rtpmap}"),
    ]
    formats = [str(offer.payload_type)]
    if offer.codec.name in _FMTP:
        attributes.append(("fmtp", f"{offer.payload_type} {_FMTP[offer.codec.name]}"))
    if offer.telephone_event is not None:
        event, rate_hz = offer.telephone_event
        formats.append(str(event))
        attributes += [("rtpmap", f"{event} telephone-event/{rate_hz}"), ("fmtp", f"{event} {TELEPHONE_EVENT.fmtp}")]
    attributes += [("ptime", "20"), ("msid", "dialbus audio"), ("ssrc", f"{local.ssrc} cname:{local.ssrc:08x}@dialbus")]
    attributes += [("candidate", str(item)) for item in local.candidates]
    attributes.append(("end-of-candidates", None))
    return Media("audio", port, offer.audio.protocol, tuple(formats), tuple(attributes), address)


def _refused(line: Media) -> Media:
    return Media(line.kind, 0, line.protocol, line.formats, (*_mid(line), ("inactive", None)), "0.0.0.0")


def _mid(line: Media) -> list[tuple[str, str | None]]:
    mid = line.attribute("mid")
    return [("mid", mid)] if mid is not None and _TOKEN.fullmatch(mid) else []


def _default(candidates: Sequence[Candidate]) -> tuple[str, int]:
    """What a peer without ICE would use: the address most likely to be reached (RFC 8839 §4.2.1.2)."""
    order = ("relay", "srflx", "host")
    ranked = sorted(candidates, key=lambda item: (item.is_ipv6, order.index(item.kind), -item.priority))
    return (ranked[0].address, ranked[0].port) if ranked else ("0.0.0.0", 9)
