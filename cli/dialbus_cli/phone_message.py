"""SIP as the softphone reads and writes it: pyVoIP's where that holds, and done here from outside where it doesn't.

pyVoIP is GPL-3; only the softphone imports it.
"""

import re
import secrets
import warnings
from dataclasses import dataclass
from typing import Any

from dialbus_cli.voice import PCMA, PCMU, Peer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import pyVoIP.VoIP  # noqa: F401 - before SIP: the two import each other
    from pyVoIP import RTP, SIP

EVENT_TYPE = 101
COMPACT = {
    "v": "Via",
    "f": "From",
    "t": "To",
    "i": "Call-ID",
    "m": "Contact",
    "l": "Content-Length",
    "c": "Content-Type",
}

Address = tuple[str, int]


class PhoneError(Exception):
    """The phone can't do what it was asked; the text is for its user."""


@dataclass(frozen=True, slots=True)
class Message:
    """A SIP message, as far as a phone looks into it; `headers` in their order, names in full."""

    method: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes

    @classmethod
    def parse(cls, datagram: bytes) -> "Message":
        """Raises ValueError for what is no SIP."""
        head, _, _ = datagram.partition(b"\r\n\r\n")
        first, *lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"no header: {line[:80]!r}")
            name = name.strip()
            headers.append((COMPACT.get(name.lower(), _canonical(name)), value.strip()))
        response = re.match(r"SIP/2\.0 (\d{3}) ?(.*)", first)
        request = re.match(r"([A-Z]+) (\S+) SIP/2\.0$", first)
        if response:
            status, reason, method = int(response[1]), response[2], ""
        elif request:
            status, reason, method = 0, "", request[1]
        else:
            raise ValueError(f"no SIP: {first[:80]!r}")
        message = cls(method, status, reason, tuple(headers), datagram)
        if not all(message.header(name) for name in ("Via", "From", "To", "Call-ID", "CSeq")):
            raise ValueError("a mandatory header is missing")
        return message

    def header(self, name: str) -> str:
        """The first value, or an empty text."""
        return next((value for key, value in self.headers if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value, in order."""
        return [value for key, value in self.headers if key == name]

    @property
    def answers(self) -> str:
        """The method that a response answers."""
        return self.header("CSeq").rpartition(" ")[2]

    @property
    def number(self) -> int:
        """The number of CSeq."""
        return int(self.header("CSeq").split()[0])

    def description(self) -> Peer | None:
        """The media of an SDP body in pyVoIP's reading, or None when there is none that this phone can speak."""
        head, _, body = self.raw.partition(b"\r\n\r\n")
        if b"m=audio" not in body or not head:
            return None
        # pyVoIP splits at ": ", wants its own spelling, and knows no lines it doesn't expect.
        lines = [line for line in body.split(b"\r\n") if line[:2] in (b"v=", b"o=", b"s=", b"c=", b"t=", b"m=")
                 or line.startswith(b"a=rtpmap:")]  # fmt: skip
        text = b"SIP/2.0 200 OK\r\nContent-Type: application/sdp\r\n\r\n" + b"\r\n".join(lines) + b"\r\n"
        try:
            parsed = SIP.SIPMessage(text).body
            media = next(m for m in parsed["m"] if m["type"] == "audio")
            host = parsed["c"][0]["address"]
        except (KeyError, ValueError, IndexError, StopIteration, UnboundLocalError, SIP.SIPParseError):
            return None
        return _peer(host, media)


def _canonical(name: str) -> str:
    special = {"call-id": "Call-ID", "cseq": "CSeq", "www-authenticate": "WWW-Authenticate"}
    return special.get(name.lower(), "-".join(part.capitalize() for part in name.split("-")))


def _peer(host: str, media: dict[str, object]) -> Peer | None:
    """Where and how to send, from a parsed m= line; None when no codec is common or the line is refused."""
    types: dict[int, RTP.PayloadType] = {}
    attributes = media["attributes"]
    assert isinstance(attributes, dict)
    for text in attributes:
        number = int(text)
        name = attributes[text].get("rtpmap", {}).get("name", "").lower()
        if number == PCMU or name == "pcmu":
            types[number] = RTP.PayloadType.PCMU
        elif number == PCMA or name == "pcma":
            types[number] = RTP.PayloadType.PCMA
        elif name == "telephone-event":
            types[number] = RTP.PayloadType.EVENT
    codec = next((number for number in types if number in (PCMU, PCMA)), None)
    port = media["port"]
    if codec is None or not isinstance(port, int) or port == 0:
        return None
    event = next((number for number, kind in types.items() if kind == RTP.PayloadType.EVENT), None)
    return Peer(host, port, codec, event, types)


def parse_address(text: str) -> tuple[str, str, int]:
    """User (may be empty), host and port of `sip:user@host:port`. Raises PhoneError."""
    match = re.fullmatch(r"(?:sip:)?(?:([^@\s<>]*)@)?([A-Za-z0-9.-]+)(?::(\d{1,5}))?", text)
    if match is None or not 0 < int(match[3] or 5060) < 65536:
        raise PhoneError(f"an address is sip:user@host:port, not {text!r}")
    return match[1] or "", match[2], int(match[3] or 5060)


class Line(SIP.SIPClient):
    """pyVoIP's writer of messages, without its registrar, threads and repeated Call-IDs."""

    def __init__(self, server: str, user: str, own: Address) -> None:
        super().__init__(server, own[1], user, "", phone=None, myIP=own[0], myPort=own[1])  # type: ignore[arg-type]  # it takes None for a phone

    def gen_call_id(self) -> str:
        """pyVoIP counts from one at every start, so that a server takes the second call for the first."""
        return f"{secrets.token_hex(12)}@{self.myIP}"

    def offer(self, number: str, rtp_port: int, codec: str) -> bytes:
        """An INVITE."""
        first, second = (PCMU, PCMA) if codec == "pcmu" else (PCMA, PCMU)
        kinds = {PCMU: RTP.PayloadType.PCMU, PCMA: RTP.PayloadType.PCMA}
        medias: dict[int, Any] = {}
        medias[rtp_port] = {first: kinds[first], second: kinds[second], EVENT_TYPE: RTP.PayloadType.EVENT}
        call_id = self.gen_call_id()
        session = str(secrets.randbelow(2**31))
        text = self.gen_invite(number, session, medias, RTP.TransmitType.SENDRECV, self.gen_branch(), call_id)
        # Asks for the answer where the request came from (RFC 3581), and fits a number without user.
        text = re.sub(r"(branch=[^\r;]+)\r", r"\1;rport\r", text, count=1)
        return text.replace("sip:@", "sip:").encode()

    def answer_body(self, call_id: str, rtp_port: int, peer: Peer) -> str:
        """Our SDP: of what was offered, one codec and telephone-event."""
        numbers = [peer.payload_type] + ([peer.event_type] if peer.event_type is not None else [])
        medias = {rtp_port: {number: peer.types[number] for number in numbers}}
        self.tagLibrary[call_id] = ""
        stub = SIP.SIPMessage(
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 0.0.0.0\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\n"
            b"CSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nCall-ID: " + call_id.encode() + b"\r\n\r\n"
        )
        session = str(secrets.randbelow(2**31))
        text: str = self.gen_answer(stub, session, medias, RTP.TransmitType.SENDRECV)
        return text.partition("\r\n\r\n")[2]


def target_of(contact: str) -> str:
    match = re.search(r"<(sips?:[^>]+)>", contact) or re.match(r"(sips?:[^;\s]+)", contact)
    return match[1] if match else ""


def address_of(target: str) -> Address | None:
    """The address a URI names, when it is numeric."""
    match = re.match(r"sips?:(?:[^@]*@)?(\d+\.\d+\.\d+\.\d+)(?::(\d+))?", target)
    return (match[1], int(match[2] or 5060)) if match else None
