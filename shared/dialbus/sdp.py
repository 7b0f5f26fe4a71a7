"""Session descriptions: their grammar (RFC 8866), read and written, and RTP payload formats in them (RFC 3551).

What offer and answer make of them (RFC 3264) is for those who negotiate: `sip_ua.sip.audio_offer` for telephones,
`media.webrtc.sdp` for browsers. Directions in a Description are its author's.
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

Lines: TypeAlias = "Sequence[tuple[str, str]]"
"""Type letter and value of each line."""

MAX_LINES: Final = 1000
DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")

_DIGITS: Final = re.compile(r"[0-9]{1,20}")
# media-field = %s"m" "=" media SP port ["/" integer] SP proto 1*(SP fmt) CRLF
_MEDIA: Final = re.compile(r"([!-~]+) ([0-9]{1,5})(?:/([0-9]{1,5}))? ([!-~]+)((?: [!-~]+)+) *")
_RTPMAP: Final = re.compile(r"([0-9]{1,3}) +([!-.0-~]+)/([0-9]{1,7})(?:/([0-9]{1,2}))? *")
_RTPMAP_OF_NONE: Final = re.compile(r"(?:12[89]|1[3-9][0-9]|[2-9][0-9]{2}) .*")
_HOST: Final = re.compile(r"[A-Za-z0-9_.\-]{1,255}")
_ATTRIBUTE: Final = re.compile(r"[!-9;-~]+")  # att-field is a token; taken as anything printable but ":"


class SdpError(ValueError):
    """A description nobody can use."""


def fail(what: str, text: str = "") -> NoReturn:
    """Raise SdpError."""
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


def first_value(attributes: Attributes, name: str) -> str | None:
    """The value of the first attribute of this name, trimmed; "" for a property, None when absent."""
    return next(iter(all_values(attributes, name)), None)


def all_values(attributes: Attributes, name: str) -> list[str]:
    """The values of every attribute of this name, trimmed; "" for a property."""
    return [(value or "").strip() for key, value in attributes if key == name]


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
        return first_value(self.attributes, name)

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
            if not _is_payload_type(number):
                fail("RTP payload type", number)
            codec = maps.get(int(number)) or STATIC_CODECS.get(int(number))
            if codec is not None:
                codecs.append(replace(codec, fmtp=parameters.get(number) or None))
        return tuple(codecs)

    @property
    def readable_codecs(self) -> tuple[Codec, ...]:
        """`codecs` without formats that are no payload types, whatever an rtpmap says of them. Raises SdpError."""
        formats = tuple(number for number in self.formats if _is_payload_type(number))
        foreign = _RTPMAP_OF_NONE.fullmatch
        attributes = tuple((k, v) for k, v in self.attributes if k != "rtpmap" or not foreign(v or ""))
        return replace(self, formats=formats, attributes=attributes).codecs


def _is_payload_type(text: str) -> bool:
    return _DIGITS.fullmatch(text) is not None and int(text) <= 127


def _rtpmap(value: str) -> tuple[int, Codec]:
    match = _RTPMAP.fullmatch(value)
    if match is None or int(match[1]) > 127 or int(match[3]) == 0:
        fail("rtpmap", value)
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
        return first_value(self.attributes, name)

    def direction(self, media: Media) -> str:
        """The direction of one of its media, inherited from the session, else sendrecv (RFC 8866 §6.7)."""
        for attributes in (media.attributes, self.attributes):
            for key, _ in attributes:
                if key in DIRECTIONS:
                    return key
        return "sendrecv"


def parse(body: bytes | str) -> Description:
    """The description in a message body; raises SdpError, and nothing else, when it is none.

    v=, o=, s= and t= must be there and v= comes first; lines may end in LF (RFC 8866 §5) and unknown types
    are ignored (§5). Codecs are looked at when they are asked for.
    """
    session, *media = sections(body)
    return _parse_session(session, tuple(parse_media(pairs) for pairs in media))


def sections(body: bytes | str, max_lines: int = MAX_LINES) -> list[Lines]:
    """The lines of the session, without v=, and of each media section. Raises SdpError.

    For who reads only some of them; `parse` reads all.
    """
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > max_lines:
        fail("description", "too many lines")
    if "\r" in text.replace("\r\n", "") or "\0" in text:
        fail("line end or NUL")
    pairs = [_split_line(line) for line in lines]
    if pairs[0] != ("v", "0"):
        fail("version", lines[0])
    starts = [index for index, (letter, _) in enumerate(pairs) if letter == "m"] + [len(pairs)]
    return [pairs[1 : starts[0]], *(pairs[a:b] for a, b in pairwise(starts))]


def _split_line(line: str) -> tuple[str, str]:
    if len(line) < 2 or line[1] != "=" or not (line[0].isascii() and line[0].isalpha()):
        fail("line", line)
    return line[0], line[2:]


def _one(pairs: Lines, letter: str) -> str | None:
    values = [value for key, value in pairs if key == letter]
    if len(values) > 1:
        fail(f"repeated {letter}=", values[1])
    return values[0] if values else None


def _parse_session(pairs: Lines, media: tuple[Media, ...]) -> Description:
    origin, name, connection = _one(pairs, "o"), _one(pairs, "s"), _one(pairs, "c")
    times = tuple((key, value) for key, value in pairs if key in "trz")
    if origin is None or name is None or not any(key == "t" for key, _ in times):
        fail("description", "o=, s= or t= is missing")
    fields = origin.split()
    if len(fields) != 6 or not (_DIGITS.fullmatch(fields[1]) and _DIGITS.fullmatch(fields[2])):
        fail("o=", origin)
    return Description(
        fields[0],
        int(fields[1]),
        int(fields[2]),
        _parse_address(fields[3:], multicast=False),
        None if connection is None else _parse_address(connection.split()),
        media,
        parse_attributes(pairs),
        name,
        times,
        tuple((key, value) for key, value in pairs if key in "iuepbk"),
    )


def parse_media(pairs: Lines, *, strict: bool = True) -> Media:
    """One media section. Not `strict`: without its c= lines, and its attributes are kept whatever their names.

    Raises SdpError.
    """
    match = _MEDIA.fullmatch(pairs[0][1])
    if match is None or int(match[2]) > 65535:
        fail("m=", pairs[0][1])
    # Several c= lines in one section are legal for layered multicast only; the first counts.
    connection = next((value for key, value in pairs if key == "c"), None) if strict else None
    return Media(
        match[1],
        int(match[2]),
        match[4],
        tuple(match[5].split()),
        parse_attributes(pairs, strict=strict),
        None if connection is None else _parse_address(connection.split()),
        max(1, int(match[3] or 1)),
        tuple((key, value) for key, value in pairs if key in "ibk"),
    )


def parse_attributes(pairs: Lines, *, strict: bool = True) -> Attributes:
    """The a= lines of a section. Raises SdpError when `strict`, and a name is none."""
    attributes: list[tuple[str, str | None]] = []
    for key, text in pairs:
        if key == "a":
            name, colon, value = text.partition(":")
            if strict and not _ATTRIBUTE.fullmatch(name.rstrip(" ")):
                fail("a=", text)
            attributes.append((name.rstrip(" "), value if colon else None))
    return tuple(attributes)


def _parse_address(fields: Sequence[str], multicast: bool = True) -> str:
    """nettype SP addrtype SP address; a multicast TTL is dropped, we only ever send to one peer."""
    if len(fields) != 3 or fields[0].upper() != "IN":
        fail("address", " ".join(fields))
    kind, address = fields[1].upper(), fields[2]
    if multicast:
        address = address.partition("/")[0]
    if not is_address(kind, address):
        fail("address", " ".join(fields))
    return address


def is_address(kind: str, address: str) -> bool:
    """Whether c= may name this address with this type, IP4 or IP6."""
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
        fail("line end in a value")
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
