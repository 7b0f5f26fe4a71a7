"""Offer and answer for one audio line (RFC 3264), as telephones speak it. The grammar is `dialbus.sdp`'s.

Directions in a Description are its author's; `NegotiatedAudio.direction` is always ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Final

from dialbus.sdp import (
    DIRECTIONS,
    TELEPHONE_EVENT,
    Codec,
    Description,
    Media,
    SdpError,
    fail,
    is_address,
)

_PROTOCOLS: Final = ("RTP/AVP", "RTP/AVPF")
_PTIME: Final = re.compile(r"[0-9]{1,4}")
_PORT: Final = re.compile(r"[0-9]{1,5}")


class NoCommonCodec(SdpError):
    """No audio line is left that both sides can use; the call answers 488."""


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
    if not is_address("IP6" if ":" in address else "IP4", address):
        fail("address", address)
    return Description("-", session_id, version, address, address, media)


def _audio(protocol: str, port: int, codecs: Sequence[Codec], ptime: int, direction: str, rtcp_mux: bool) -> Media:
    if direction not in DIRECTIONS:
        fail("direction", direction)
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


def make_answer(
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
        fail("offer", "no audio line")
    if len(answer.media) != len(offer.media):
        fail("answer", "number of media lines differs")
    ours, theirs = offer.media[index], answer.media[index]
    if theirs.kind != "audio" or (theirs.port and theirs.protocol not in _PROTOCOLS):
        fail("answer", f"{theirs.kind} {theirs.protocol}")
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
        fail("description", "c= is missing")
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
    if _PORT.fullmatch(value) and 0 < int(value) <= 65535:
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
