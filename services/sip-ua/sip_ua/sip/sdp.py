"""Session descriptions (RFC 8866) and the offer/answer model for one audio line (RFC 3264).

Directions in a Description are its author's; `NegotiatedAudio.direction` is always ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

Attributes: TypeAlias = tuple[tuple[str, str | None], ...]
"""`a=name:value` lines in order; None for a property such as rtcp-mux."""

MAX_LINES: Final = 1000
DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
_PROTOCOLS: Final = ("RTP/AVP", "RTP/AVPF")

_DIGITS: Final = re.compile(r"[0-9]{1,20}")
# media-field = %s"m" "=" media SP port ["/" integer] SP proto 1*(SP fmt) CRLF
_MEDIA: Final = re.compile(r"([!-~]+) ([0-9]{1,5})(?:/([0-9]{1,5}))? ([!-~]+)((?: [!-~]+)+) *")
_RTPMAP: Final = re.compile(r"([0-9]{1,3}) +([!-.0-~]+)/([0-9]{1,7})(?:/([0-9]{1,2}))? *")
_HOST: Final = re.compile(r"[A-Za-z0-9_.\-]{1,255}")
_ATTRIBUTE: Final = re.compile(r"[!-9;-~]+")  # att-field is a token; taken as anything printable but ":"
_PTIME: Final = re.compile(r"[0-9]{1,4}")


class SdpError(ValueError):
    """A description nobody can use; the call answers 488 (RFC 3261 §13.3.1.3) or hangs up."""


class NoCommonCodec(SdpError):
    """No audio line is left that both sides can use; the call answers 488."""


def _fail(what: str, text: str = "") -> NoReturn:
    raise SdpError(f"Bad {what}: {text[:80]!r}" if text else f"Bad {what}")


@dataclass(frozen=True, slots=True)
class Codec:
    """One RTP payload format. `rate_hz` is the clock that rtpmap names, 8000 for G722 (RFC 3551 §4.5.2)."""

    name: str
    rate_hz: int
    payload_type: int
    channels: int = 1
    fmtp: str | None = None

    @property
    def rtpmap(self) -> str:
        """The value of its rtpmap attribute, without the payload type."""
        return f"{self.name}/{self.rate_hz}" + (f"/{self.channels}" if self.channels > 1 else "")

    @property
    def is_telephone_event(self) -> bool:
        """Whether it carries DTMF (RFC 4733) instead of audio."""
        return self.name.lower() == "telephone-event"

    def matches(self, other: "Codec") -> bool:
        """Whether both are the same format, whatever their payload types and fmtp."""
        if self.name.lower() != other.name.lower() or self.channels != other.channels:
            return False
        # G722 samples at 16 kHz and counts at 8 kHz; peers that announce 16000 mean the same thing.
        rates = {self.rate_hz, other.rate_hz}
        return len(rates) == 1 or (self.name.upper() == "G722" and rates == {8000, 16000})


G722: Final = Codec("G722", 8000, 9)
PCMU: Final = Codec("PCMU", 8000, 0)
PCMA: Final = Codec("PCMA", 8000, 8)
OPUS: Final = Codec("opus", 48000, 111, channels=2, fmtp="minptime=10;useinbandfec=1")
TELEPHONE_EVENT: Final = Codec("telephone-event", 8000, 101, fmtp="0-16")
DEFAULT_CODECS: Final = (G722, PCMU, PCMA, TELEPHONE_EVENT)

# RFC 3551 §6 tables 4 and 5: what a payload type means without rtpmap.
STATIC_CODECS: Final = MappingProxyType(
    {
        codec.payload_type: codec
        for codec in (
            PCMU,
            Codec("GSM", 8000, 3),
            Codec("G723", 8000, 4),
            Codec("DVI4", 8000, 5),
            Codec("DVI4", 16000, 6),
            Codec("LPC", 8000, 7),
            PCMA,
            G722,
            Codec("L16", 44100, 10, channels=2),
            Codec("L16", 44100, 11),
            Codec("QCELP", 8000, 12),
            Codec("CN", 8000, 13),
            Codec("MPA", 90000, 14),
            Codec("G728", 8000, 15),
            Codec("DVI4", 11025, 16),
            Codec("DVI4", 22050, 17),
            Codec("G729", 8000, 18),
        )
    }
)


def _attribute(attributes: Attributes, name: str) -> str | None:
    return next((value or "" for key, value in attributes if key == name), None)


@dataclass(frozen=True, slots=True)
class Media:
    """One m= section. `address` is its own c= line, None when the session's holds; `lines` are its i=, b=, k=."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: Attributes = ()
    address: str | None = None
    port_count: int = 1
    lines: tuple[tuple[str, str], ...] = ()

    def attribute(self, name: str) -> str | None:
        """The value of the first attribute of this name; "" for a property, None when absent."""
        return _attribute(self.attributes, name)

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """Its formats as codecs, in order; dynamic payload types without rtpmap are left out. Raises SdpError."""
        maps = dict(_rtpmap(value or "") for key, value in self.attributes if key == "rtpmap")
        parameters: dict[str, str] = {}
        for key, value in self.attributes:
            if key == "fmtp":
                number, _, text = (value or "").partition(" ")
                parameters[number] = text.strip()
        codecs: list[Codec] = []
        for number in self.formats:
            if not _DIGITS.fullmatch(number) or int(number) > 127:
                _fail("RTP payload type", number)
            codec = maps.get(int(number)) or STATIC_CODECS.get(int(number))
            if codec is not None:
                codecs.append(replace(codec, fmtp=parameters.get(number) or None))
        return tuple(codecs)


def _rtpmap(value: str) -> tuple[int, Codec]:
    match = _RTPMAP.fullmatch(value)
    if match is None or int(match[1]) > 127 or int(match[3]) == 0:
        _fail("rtpmap", value)
    number, channels = int(match[1]), int(match[4] or 1)
    return number, Codec(match[2], int(match[3]), number, max(1, channels))


@dataclass(frozen=True, slots=True)
class Description:
    """A whole session description. `lines` are session lines we carry without reading: i= u= e= p= b= k=."""

    username: str
    session_id: int
    version: int
    origin_address: str
    address: str | None
    media: tuple[Media, ...] = ()
    attributes: Attributes = ()
    name: str = "-"
    times: tuple[tuple[str, str], ...] = (("t", "0 0"),)
    lines: tuple[tuple[str, str], ...] = ()

    def attribute(self, name: str) -> str | None:
        """The value of the first session attribute of this name; "" for a property, None when absent."""
        return _attribute(self.attributes, name)

    def direction(self, media: Media) -> str:
        """The direction of one of its media, inherited from the session, else sendrecv (RFC 8866 §6.7)."""
        for attributes in (media.attributes, self.attributes):
            for key, _ in attributes:
                if key in DIRECTIONS:
                    return key
        return "sendrecv"


@dataclass(frozen=True, slots=True)
class NegotiatedAudio:
    """What both sides agreed on for the audio line: where to send, and what.

    `payload_type` and `telephone_event_pt` are those of the remote description. `direction` is ours.
    `on_hold` says that the peer wants no audio from us: sendonly, inactive, or the address 0.0.0.0.
    """

    remote_address: str
    remote_port: int
    remote_rtcp_port: int
    rtcp_mux: bool
    codec: Codec
    payload_type: int
    telephone_event_pt: int | None
    ptime_ms: int
    direction: str
    on_hold: bool
    telephone_event_hz: int | None = None
    """The clock of DTMF, which may be another one than the codec's."""


# --- text


def parse(body: bytes | str) -> Description:
    """The description in a message body; raises SdpError, and nothing else, when it is none.

    v=, o=, s= and t= must be there and v= comes first; lines may end in LF (RFC 8866 §5) and unknown types
    are ignored (§5). Codecs are looked at when they are asked for.
    """
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > MAX_LINES:
        _fail("description", "too many lines")
    if "\r" in text.replace("\r\n", "") or "\0" in text:
        _fail("line end or NUL")
    pairs = [_split_line(line) for line in lines]
    if pairs[0] != ("v", "0"):
        _fail("version", lines[0])
    starts = [index for index, (letter, _) in enumerate(pairs) if letter == "m"] + [len(pairs)]
    media = tuple(_parse_media(pairs[a:b]) for a, b in pairwise(starts))
    return _parse_session(pairs[1 : starts[0]], media)


def _split_line(line: str) -> tuple[str, str]:
    if len(line) < 2 or line[1] != "=" or not (line[0].isascii() and line[0].isalpha()):
        _fail("line", line)
    return line[0], line[2:]


def _one(pairs: Sequence[tuple[str, str]], letter: str) -> str | None:
    values = [value for key, value in pairs if key == letter]
    if len(values) > 1:
        _fail(f"repeated {letter}=", values[1])
    return values[0] if values else None


def _parse_session(pairs: Sequence[tuple[str, str]], media: tuple[Media, ...]) -> Description:
    origin, name, connection = _one(pairs, "o"), _one(pairs, "s"), _one(pairs, "c")
    times = tuple((key, value) for key, value in pairs if key in "trz")
    if origin is None or name is None or not any(key == "t" for key, _ in times):
        _fail("description", "o=, s= or t= is missing")
    fields = origin.split()
    if len(fields) != 6 or not (_DIGITS.fullmatch(fields[1]) and _DIGITS.fullmatch(fields[2])):
        _fail("o=", origin)
    return Description(
        fields[0],
        int(fields[1]),
        int(fields[2]),
        _parse_address(fields[3:], multicast=False),
        None if connection is None else _parse_address(connection.split()),
        media,
        _parse_attributes(pairs),
        name,
        times,
        tuple((key, value) for key, value in pairs if key in "iuepbk"),
    )


def _parse_media(pairs: Sequence[tuple[str, str]]) -> Media:
    match = _MEDIA.fullmatch(pairs[0][1])
    if match is None or int(match[2]) > 65535:
        _fail("m=", pairs[0][1])
    # Several c= lines in one section are legal for layered multicast only; the first counts.
    connection = next((value for key, value in pairs if key == "c"), None)
    return Media(
        match[1],
        int(match[2]),
        match[4],
        tuple(match[5].split()),
        _parse_attributes(pairs),
        None if connection is None else _parse_address(connection.split()),
        max(1, int(match[3] or 1)),
        tuple((key, value) for key, value in pairs if key in "ibk"),
    )


def _parse_attributes(pairs: Sequence[tuple[str, str]]) -> Attributes:
    attributes: list[tuple[str, str | None]] = []
    for key, text in pairs:
        if key == "a":
            name, colon, value = text.partition(":")
            if not _ATTRIBUTE.fullmatch(name.rstrip(" ")):
                _fail("a=", text)
            attributes.append((name.rstrip(" "), value if colon else None))
    return tuple(attributes)


def _parse_address(fields: Sequence[str], multicast: bool = True) -> str:
    """nettype SP addrtype SP address; a multicast TTL is dropped, we only ever send to one peer."""
    if len(fields) != 3 or fields[0].upper() != "IN":
        _fail("address", " ".join(fields))
    kind, address = fields[1].upper(), fields[2]
    if multicast:
        address = address.partition("/")[0]
    if not _is_address(kind, address):
        _fail("address", " ".join(fields))
    return address


def _is_address(kind: str, address: str) -> bool:
    try:
        if kind == "IP6" and ":" in address:
            return "%" not in address and bool(str(IPv6Address(address)))
        if kind == "IP4" and address.replace(".", "").isdigit():
            return bool(str(IPv4Address(address)))
    except AddressValueError:
        return False
    return kind in ("IP4", "IP6") and _HOST.fullmatch(address) is not None


def write(description: Description) -> bytes:
    """The description as text with CRLF; raises SdpError when a value holds a line end."""
    d = description
    lines = ["v=0", f"o={d.username} {d.session_id} {d.version} {_connection(d.origin_address)}", f"s={d.name}"]
    lines += [f"{key}={value}" for key, value in d.lines if key in "iuep"]
    if d.address is not None:
        lines.append(f"c={_connection(d.address)}")
    lines += [f"{key}={value}" for key, value in d.lines if key == "b"]
    lines += [f"{key}={value}" for key, value in d.times]
    lines += [f"{key}={value}" for key, value in d.lines if key == "k"]
    lines += _attribute_lines(d.attributes)
    for media in d.media:
        lines += _media_lines(media)
    if any("\r" in line or "\n" in line for line in lines):
        _fail("line end in a value")
    return ("\r\n".join(lines) + "\r\n").encode()


def _connection(address: str) -> str:
    return f"IN {'IP6' if ':' in address else 'IP4'} {address}"


def _attribute_lines(attributes: Attributes) -> list[str]:
    return [f"a={name}" if value is None else f"a={name}:{value}" for name, value in attributes]


def _media_lines(media: Media) -> list[str]:
    count = f"/{media.port_count}" if media.port_count > 1 else ""
    lines = [f"m={media.kind} {media.port}{count} {media.protocol} {' '.join(media.formats)}"]
    lines += [f"{key}={value}" for key, value in media.lines if key == "i"]
    if media.address is not None:
        lines.append(f"c={_connection(media.address)}")
    lines += [f"{key}={value}" for key, value in media.lines if key != "i"]
    return lines + _attribute_lines(media.attributes)


# --- offer and answer


def make_offer(
    address: str,
    port: int,
    codecs: Sequence[Codec],
    session_id: int,
    version: int,
    ptime: int = 20,
    direction: str = "sendrecv",
    rtcp_mux: bool = True,
    previous: Description | None = None,
) -> Description:
    """One RTP/AVP audio line with these codecs in this order.

    Within a session `previous` is what we or the peer described last: its other lines stay, refused, because
    lines are never taken away (RFC 3264 §8). `version` grows by one with every change.
    """
    audio = _audio("RTP/AVP", port, codecs, ptime, direction, rtcp_mux)
    if previous is None:
        return _describe(address, session_id, version, (audio,))
    index = next((i for i, m in enumerate(previous.media) if m.kind == "audio" and m.port), None)
    lines = [audio if i == index else _refused(m) for i, m in enumerate(previous.media)]
    if index is None:
        lines.append(audio)
    return _describe(address, session_id, version, tuple(lines))


def _describe(address: str, session_id: int, version: int, media: tuple[Media, ...]) -> Description:
    if not _is_address("IP6" if ":" in address else "IP4", address):
        _fail("address", address)
    return Description("-", session_id, version, address, address, media)


def _audio(protocol: str, port: int, codecs: Sequence[Codec], ptime: int, direction: str, rtcp_mux: bool) -> Media:
    if direction not in DIRECTIONS:
        _fail("direction", direction)
    attributes: list[tuple[str, str | None]] = []
    for codec in codecs:
        attributes.append(("rtpmap", f"{codec.payload_type} {codec.rtpmap}"))
        if codec.fmtp:
            attributes.append(("fmtp", f"{codec.payload_type} {codec.fmtp}"))
    attributes += [("ptime", str(ptime)), (direction, None)]
    if rtcp_mux:
        attributes.append(("rtcp-mux", None))
    return Media("audio", port, protocol, tuple(str(c.payload_type) for c in codecs), tuple(attributes))


def _refused(media: Media) -> Media:
    return Media(media.kind, 0, media.protocol, media.formats)


def negotiate(
    offer: Description,
    supported: Sequence[Codec],
    address: str,
    port: int,
    session_id: int,
    version: int,
    direction: str = "sendrecv",
    rtcp_mux: bool = True,
) -> tuple[Description, NegotiatedAudio]:
    """The answer to an offer, and what follows from it.

    One line per offered line, same index. The first audio line with a codec both know is taken, with all
    common codecs in the offerer's order under its payload types, telephone-event whenever offered; every other
    line gets port 0. The first codec is the one in use; ptime follows the offer, else 20 ms. `direction` is
    what we would like, narrowed to what the offer allows. Raises NoCommonCodec, or SdpError when the offer
    cannot be used. Source: RFC 3264 §6.
    """
    index, codecs = _pick_line(offer, supported)
    theirs = offer.media[index]
    mux = rtcp_mux and theirs.attribute("rtcp-mux") is not None
    audio = next(codec for codec in codecs if not codec.is_telephone_event)
    chosen = _negotiated(offer, theirs, audio, codecs, direction, mux)
    ours = _audio(theirs.protocol, port, codecs, chosen.ptime_ms, chosen.direction, mux)
    lines = tuple(ours if i == index else _refused(media) for i, media in enumerate(offer.media))
    answer = _describe(address, session_id, version, lines)
    return replace(answer, times=offer.times), chosen


def accept_answer(offer: Description, answer: Description, supported: Sequence[Codec]) -> NegotiatedAudio:
    """What follows from the answer to our offer; of several codecs the first in our preference is used.

    Raises NoCommonCodec when our audio line was refused, SdpError when the answer does not fit the offer.
    """
    index = next((i for i, media in enumerate(offer.media) if media.kind == "audio" and media.port), None)
    if index is None:
        _fail("offer", "no audio line")
    if len(answer.media) != len(offer.media):
        _fail("answer", "number of media lines differs")
    ours, theirs = offer.media[index], answer.media[index]
    if theirs.kind != "audio" or (theirs.port and theirs.protocol not in _PROTOCOLS):
        _fail("answer", f"{theirs.kind} {theirs.protocol}")
    codecs = theirs.codecs if theirs.port else ()
    common = [codec for codec in _common(codecs, supported) if not codec.is_telephone_event]
    if not common:
        raise NoCommonCodec("The answer has no audio codec of ours")
    audio = next(codec for own in supported for codec in common if own.matches(codec))
    mux = ours.attribute("rtcp-mux") is not None and theirs.attribute("rtcp-mux") is not None
    return _negotiated(answer, theirs, audio, codecs, offer.direction(ours), mux)


def _is_audio(codec: Codec) -> bool:
    return not codec.is_telephone_event and codec.name.upper() != "CN"


def _pick_line(offer: Description, supported: Sequence[Codec]) -> tuple[int, tuple[Codec, ...]]:
    """The index of the audio line to accept, and the codecs to answer it with."""
    for index, media in enumerate(offer.media):
        if media.kind == "audio" and media.port and media.protocol in _PROTOCOLS:
            codecs = _common(media.codecs, supported)
            if any(not codec.is_telephone_event for codec in codecs):
                return index, codecs
    raise NoCommonCodec("No audio line with a codec of ours")


def _common(offered: Sequence[Codec], supported: Sequence[Codec]) -> tuple[Codec, ...]:
    """The offered codecs we know, in their order and numbers, described with our name, rate and fmtp."""
    common: list[Codec] = []
    for codec in offered:
        own = next((s for s in supported if _is_audio(s) and s.matches(codec)), None)
        if own is not None:
            common.append(replace(own, payload_type=codec.payload_type))
    rates = {8000} | {codec.rate_hz for codec in common}
    numbers = {codec.payload_type: codec for codec in common}
    for codec in offered:
        if codec.is_telephone_event and codec.rate_hz in rates:
            event = replace(TELEPHONE_EVENT, rate_hz=codec.rate_hz, payload_type=codec.payload_type)
            numbers[codec.payload_type] = event
    ordered = dict.fromkeys(codec.payload_type for codec in offered)
    return tuple(numbers[number] for number in ordered if number in numbers)


def _negotiated(
    remote: Description, media: Media, codec: Codec, codecs: Sequence[Codec], wanted: str, mux: bool
) -> NegotiatedAudio:
    address = media.address or remote.address
    if address is None:
        _fail("description", "c= is missing")
    theirs = remote.direction(media)
    hold = theirs in ("sendonly", "inactive") or _is_unspecified(address)
    sends = not hold and wanted in ("sendrecv", "sendonly")
    receives = theirs in ("sendrecv", "sendonly") and wanted in ("sendrecv", "recvonly")
    event = _telephone_event(codec, codecs)
    return NegotiatedAudio(
        address,
        media.port,
        media.port if mux else _rtcp_port(media),
        mux,
        codec,
        codec.payload_type,
        event.payload_type if event is not None else None,
        _ptime(media),
        {(True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly"}.get(
            (sends, receives), "inactive"
        ),
        hold,
        event.rate_hz if event is not None else None,
    )


def _is_unspecified(address: str) -> bool:
    """0.0.0.0, the hold of RFC 2543, or its IPv6 counterpart."""
    return address == "0.0.0.0" or (":" in address and IPv6Address(address).is_unspecified)


def _rtcp_port(media: Media) -> int:
    """The port of a=rtcp (RFC 3605), else the one above RTP's."""
    value = (media.attribute("rtcp") or "").partition(" ")[0]
    if _DIGITS.fullmatch(value) and 0 < int(value) <= 65535:
        return int(value)
    return min(media.port + 1, 65535)


def _telephone_event(codec: Codec, codecs: Sequence[Codec]) -> Codec | None:
    """DTMF with the codec's clock (RFC 4733 §2.1), else as there is."""
    events = [event for event in codecs if event.is_telephone_event]
    same = [event for event in events if event.rate_hz == codec.rate_hz]
    return (same or events)[0] if events else None


def _ptime(media: Media) -> int:
    """The packet length the peer asks for, if it is one our codecs can make: 10 to 60 ms by tens; else 20."""
    value = (media.attribute("ptime") or "").strip()
    if _PTIME.fullmatch(value) and int(value) in (10, 20, 30, 40, 50, 60):
        return int(value)
    return 20
