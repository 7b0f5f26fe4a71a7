"""A browser's offer, and our answer to it: one audio line over ICE and DTLS-SRTP. Sans-IO.

Sources: RFC 9429 (JSEP), RFC 8839 (ICE), RFC 8842 (DTLS), RFC 9143 (BUNDLE), RFC 5761 (rtcp-mux), RFC 3264 §6.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NoReturn

from media.audio.codec import FORMATS, CodecFormat
from media.webrtc import candidate as ice
from media.webrtc.candidate import Candidate, CandidateError

Setup = Literal["active", "passive"]
Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

MOST_CHARACTERS: Final = 1 << 16
MOST_LINES: Final = 2000
MOST_CANDIDATES: Final = 64

_PROTOCOLS = frozenset({"UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP"})
_MEDIA = re.compile(r"([!-~]+) ([0-9]{1,5})(?:/[0-9]{1,5})? ([!-~]+)((?: [!-~]+)+) *")
_RTPMAP = re.compile(r"([0-9]{1,3}) +([!-.0-~]+)/([0-9]{1,7})(?:/([0-9]{1,2}))? *")
_TOKEN = re.compile(r"[!-~]{1,256}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){15,63}")
_DIGESTS = ("sha-256", "sha-384", "sha-512")
_STATIC = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000"}
_EVENT_CLOCKS = frozenset({8000, 16000, 48000})
_FMTP = {"opus": "minptime=10;useinbandfec=1"}
_REVERSED: dict[str, Direction] = {"sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class OfferError(ValueError):
    """An offer that is no usable SDP (400)."""


class NothingInCommon(OfferError):
    """An offer whose media we can't take (488)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One `m=` section with its attributes, in order."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """The values of every attribute of this name; "" for a property."""
        return [value for key, value in self.attributes if key == name]

    def value(self, name: str) -> str | None:
        """The first of them."""
        return next(iter(self.values(name)), None)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an offer says of the audio line that we take, and of the lines around it."""

    lines: tuple[Line, ...]
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
    def audio(self) -> Line:
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
    session, lines = _sections(text)
    index = next((n for n, line in enumerate(lines) if _is_ours(line, codecs)), None)
    if index is None:
        raise NothingInCommon("the offer has no audio line with a codec of ours")
    audio = lines[index]
    if audio.value("rtcp-mux") is None:
        raise NothingInCommon("the offer is without rtcp-mux")
    codec, payload_type, event = _pick_codec(audio, codecs) or _fail("codecs")
    ended = audio.value("end-of-candidates") is not None or session.value("end-of-candidates") is not None
    return Offer(
        lines=lines,
        index=index,
        bundled=_bundled(session),
        ufrag=_credential(session, audio, "ice-ufrag", _UFRAG),
        password=_credential(session, audio, "ice-pwd", _PASSWORD),
        is_lite=session.value("ice-lite") is not None,
        fingerprints=_fingerprints(session, audio),
        setup=_setup(audio.value("setup") or session.value("setup")),
        candidates=tuple(item for item in _candidates(audio) if item.is_usable and (ipv6 or not item.is_ipv6)),
        is_complete=ended,
        codec=codec,
        payload_type=payload_type,
        telephone_event=event,
        direction=_direction(session, audio),
    )


def write_answer(offer: Offer, local: Local) -> str:
    """Our answer, with CRLF: the audio line with one codec, every other one refused."""
    mid = offer.audio.value("mid")
    grouped = mid is not None and mid in offer.bundled
    lines = ["v=0", f"o=- {local.session_id} 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    if grouped:
        lines.append(f"a=group:BUNDLE {mid}")
    lines.append("a=msid-semantic: WMS *")
    for index, line in enumerate(offer.lines):
        lines += _audio_lines(offer, local) if index == offer.index else _refused_lines(line)
    return "\r\n".join(lines) + "\r\n"


# -- reading ---------------------------------------------------------------------------------------


def _sections(text: str) -> tuple[Line, tuple[Line, ...]]:
    """The session's attributes, as a line without media, and the media lines."""
    if len(text) > MOST_CHARACTERS:
        _fail("too long")
    rows = text.replace("\r\n", "\n").strip("\n").split("\n")
    if len(rows) > MOST_LINES or "\r" in text.replace("\r\n", "") or "\0" in text:
        _fail("too many lines, or a line end inside one")
    for row in rows:
        if len(row) < 2 or row[1] != "=" or not row[0].isalpha():
            _fail("line", row)
    if rows[0] != "v=0":
        _fail("version", rows[0])
    starts = [n for n, row in enumerate(rows) if row.startswith("m=")] + [len(rows)]
    session = Line("", 0, "", (), _attributes(rows[: starts[0]]))
    return session, tuple(_line(rows[a:b]) for a, b in pairwise(starts))


def _line(rows: Sequence[str]) -> Line:
    match = _MEDIA.fullmatch(rows[0][2:])
    if match is None or int(match[2]) > 65535:
        _fail("m=", rows[0])
    return Line(match[1], int(match[2]), match[3], tuple(match[4].split()), _attributes(rows[1:]))


def _attributes(rows: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = (row[2:].partition(":") for row in rows if row.startswith("a="))
    return tuple((name, value.strip()) for name, _, value in pairs)


def _is_ours(line: Line, codecs: Collection[str]) -> bool:
    return (
        line.kind == "audio" and line.port > 0 and line.protocol in _PROTOCOLS and _pick_codec(line, codecs) is not None
    )


def _pick_codec(line: Line, codecs: Collection[str]) -> tuple[CodecFormat, int, tuple[int, int] | None] | None:
    """The first offered codec that is one of ours, with the telephone-event that goes best with it."""
    maps = dict(_STATIC)
    for value in line.values("rtpmap"):
        match = _RTPMAP.fullmatch(value)
        if match is None:
            _fail("rtpmap", value)
        maps[match[1]] = f"{match[2]}/{match[3]}" + (f"/{match[4]}" if match[4] not in (None, "1") else "")
    ours = {FORMATS[name].rtpmap.lower(): FORMATS[name] for name in codecs if name in FORMATS}
    ours |= {"g722/16000": ours["g722/8000"]} if "g722/8000" in ours else {}  # what some write for the same thing
    offered = [(number, maps[number].lower()) for number in line.formats if number in maps and int(number) < 128]
    chosen = next(((ours[name], int(number)) for number, name in offered if name in ours), None)
    if chosen is None:
        return None
    events = [(int(number), int(name.split("/")[1])) for number, name in offered if name.startswith("telephone-event/")]
    events = [event for event in events if event[1] in _EVENT_CLOCKS]
    same = [event for event in events if event[1] == chosen[0].clock_rate_hz]
    return *chosen, next(iter(same + events), None)


def _candidates(line: Line) -> list[Candidate]:
    """Those that can be read: what a later standard adds is no fault of the offer (RFC 8839 §5.1)."""
    found: list[Candidate] = []
    for value in line.values("candidate")[:MOST_CANDIDATES]:
        try:
            item = ice.parse(value)
        except CandidateError:
            continue
        if item is not None:
            found.append(item)
    return found


def _credential(session: Line, line: Line, name: str, form: re.Pattern[str]) -> str:
    value = line.value(name) or session.value(name)
    if value is None or not form.fullmatch(value):
        _fail(name, value or "absent")
    return value


def _fingerprints(session: Line, line: Line) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for value in line.values("fingerprint") or session.values("fingerprint"):
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


def _direction(session: Line, line: Line) -> Direction:
    for name, _ in (*reversed(line.attributes), *reversed(session.attributes)):
        if name == "sendrecv" or name in _REVERSED:
            return _REVERSED.get(name, "sendrecv")
    return "sendrecv"


def _bundled(session: Line) -> frozenset[str]:
    for value in session.values("group"):
        words = value.split()
        if words and words[0] == "BUNDLE":
            return frozenset(words[1:])
    return frozenset()


# -- writing ---------------------------------------------------------------------------------------


def _audio_lines(offer: Offer, local: Local) -> list[str]:
    number, codec = offer.payload_type, offer.codec
    numbers = [str(number)] + ([str(offer.telephone_event[0])] if offer.telephone_event else [])
    address, port = _default(local.candidates)
    lines = [f"m=audio {port} {offer.audio.protocol} {' '.join(numbers)}"]
    lines.append(f"c=IN {'IP6' if ':' in address else 'IP4'} {address}")
    if (mid := offer.audio.value("mid")) is not None and _TOKEN.fullmatch(mid):
        lines.append(f"a=mid:{mid}")
    lines += [f"a=ice-ufrag:{local.ufrag}", f"a=ice-pwd:{local.password}"]
    lines += [f"a=fingerprint:sha-256 {local.fingerprint}", f"a=setup:{offer.setup}", "a=rtcp-mux"]
    lines.append(f"a={offer.direction}")
    lines.append(f"a=rtpmap:{number} {codec.rtpmap}")
    if codec.name in _FMTP:
        lines.append(f"a=fmtp:{number} {_FMTP[codec.name]}")
    if offer.telephone_event is not None:
        event, rate_hz = offer.telephone_event
        lines += [f"a=rtpmap:{event} telephone-event/{rate_hz}", f"a=fmtp:{event} 0-16"]
    lines += ["a=ptime:20", "a=msid:dialbus audio", f"a=ssrc:{local.ssrc} cname:{local.ssrc:08x}@dialbus"]
    lines += [f"a=candidate:{item}" for item in local.candidates]
    lines.append("a=end-of-candidates")
    return lines


def _refused_lines(line: Line) -> list[str]:
    lines = [f"m={line.kind} 0 {line.protocol} {' '.join(line.formats)}", "c=IN IP4 0.0.0.0"]
    if (mid := line.value("mid")) is not None and _TOKEN.fullmatch(mid):
        lines.append(f"a=mid:{mid}")
    return [*lines, "a=inactive"]


def _default(candidates: Sequence[Candidate]) -> tuple[str, int]:
    """What a peer without ICE would use: the address most likely to be reached (RFC 8839 §4.2.1.2)."""
    order = ("relay", "srflx", "host")
    ranked = sorted(candidates, key=lambda item: (item.is_ipv6, order.index(item.kind), -item.priority))
    return (ranked[0].address, ranked[0].port) if ranked else ("0.0.0.0", 9)
