"""`dialbus phone`: one call by a softphone, its progress printed, its voice from a WAV, what it hears to a WAV.

The SIP it writes and reads is pyVoIP's where that holds: INVITE, SDP, and parsing of both. What it does wrong is
done here from outside: it can't call without a registrar, listens in threads on fixed ports, repeats Call-IDs from
one start to the next, resends nothing, and its ACK and BYE name a wrong target, a wrong tag and a wrong branch
(RFC 3261 sections 12.2.1.1, 13.2.2.4 and 17.1.1.3). One call at a time, no proxy authentication.

pyVoIP is GPL-3; only this command imports it.
"""

import argparse
import re
import secrets
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialbus_cli import wav
from dialbus_cli.voice import KEYS, PACKET_S, PCMA, PCMU, Peer, Voice

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import pyVoIP.VoIP  # noqa: F401 - before SIP: the two import each other
    from pyVoIP import RTP, SIP

T1_S, T2_S = 0.5, 4.0
GIVE_UP_S = 32.0
"""Timers B, F and H: 64 × T1."""
FAREWELL_S = 3.0
"""How long a BYE or CANCEL may take: the user wants to go."""
BEHIND_PACKETS = 10

EVENT_TYPE = 101
ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO"
REASONS = {
    180: "Ringing", 200: "OK", 405: "Method Not Allowed", 480: "Temporarily Unavailable", 481: "Call Does Not Exist",
    486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 603: "Decline",
}  # fmt: skip
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

    def offer(self, number: str, rtp_port: int, codec: str) -> tuple[bytes, str]:
        """An INVITE and its Call-ID."""
        first, second = (PCMU, PCMA) if codec == "pcmu" else (PCMA, PCMU)
        kinds = {PCMU: RTP.PayloadType.PCMU, PCMA: RTP.PayloadType.PCMA}
        medias: dict[int, Any] = {}
        medias[rtp_port] = {first: kinds[first], second: kinds[second], EVENT_TYPE: RTP.PayloadType.EVENT}
        call_id = self.gen_call_id()
        session = str(secrets.randbelow(2**31))
        text = self.gen_invite(number, session, medias, RTP.TransmitType.SENDRECV, self.gen_branch(), call_id)
        # Asks for the answer where the request came from (RFC 3581), and fits a number without user.
        text = re.sub(r"(branch=[^\r;]+)\r", r"\1;rport\r", text, count=1)
        return text.replace("sip:@", "sip:").encode(), call_id

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


@dataclass(slots=True)
class Resend:
    """A message sent again with doubling gaps until it is answered (RFC 3261 section 17)."""

    data: bytes
    to: Address
    at: float
    gap_s: float
    give_up_at: float


@dataclass(slots=True)
class Dialog:
    """What a request inside the call needs (RFC 3261 section 12)."""

    call_id: str
    local: str
    remote: str
    target: str
    route: list[str]
    to: Address
    number: int


class Softphone:
    """One call, from one thread: sockets, timers and the 20 ms clock in one loop."""

    def __init__(self, arguments: argparse.Namespace, sound: wav.Pcm | None, tell: Callable[[str], None]) -> None:
        self._arguments = arguments
        self._sound = sound
        self._tell_line = tell
        self._began = time.monotonic()
        self._sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.voice = Voice(ssrc=secrets.randbits(32), sequence=secrets.randbits(15), timestamp=secrets.randbits(32))
        self._own: Address = ("", 0)
        self._line: Line | None = None
        self._dialog: Dialog | None = None
        self._invite: Message | None = None
        """The INVITE of this call, ours or theirs."""
        self._invited_at: Address = ("", 0)
        self._resend: Resend | None = None
        self._last_response = b""
        self._state = "idle"
        self._exit: int | None = None
        self._interrupted = False
        self._answer_at: float | None = None
        self._answered_at: float | None = None
        self._speak_at: float | None = None
        self._said = "nothing"
        self._heard_told = False
        self._keys_told = 0
        self._next_packet_at = 0.0
        self._local_tag = secrets.token_hex(6)

    # -- one call --------------------------------------------------------------------------------

    def run(self) -> int:
        """Place or await the call and see it through; the exit code."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        try:
            if self._arguments.listen:
                self._listen()
            else:
                self._call()
            while self._exit is None:
                self._turn()
        finally:
            self._sip.close()
            self._rtp.close()
        if self._arguments.record is not None:
            sound = self.voice.heard()
            wav.write(self._arguments.record, sound)
            self._tell(f"recorded {len(sound) / wav.RATE_HZ:.1f} s to {self._arguments.record}")
        return self._exit

    def _on_signal(self, *_: object) -> None:
        self._interrupted = True

    def _tell(self, text: str) -> None:
        self._tell_line(f"{time.monotonic() - self._began:7.2f} s  {text}")

    def _turn(self) -> None:
        """Wait for a datagram or the next deadline, and do what is due."""
        now = time.monotonic()
        due = [self._next_packet_at] if self.voice.peer else []
        due += [self._resend.at] if self._resend else []
        due += [self._answer_at] if self._answer_at is not None else []
        wait_s = min([max(at - now, 0.0) for at in due], default=0.1)
        try:
            readable, _, _ = select.select([self._sip, self._rtp], [], [], min(wait_s, 0.1))
        except InterruptedError:
            readable = []
        now = time.monotonic()
        if self._sip in readable:
            data, source = self._sip.recvfrom(65535)
            self._receive(data, source, now)
        if self._rtp in readable:
            self.voice.receive(self._rtp.recv(2048), now)
        self._timers(now)

    def _timers(self, now: float) -> None:
        if self._interrupted:
            self._interrupted = False
            self._hang_up(now, "Ctrl-C")
        if self._answer_at is not None and now >= self._answer_at:
            self._answer_at = None
            self._answer(now)
        if self._resend is not None and now >= self._resend.at:
            self._send_again(self._resend, now)
        if self._state == "talking":
            self._talk(now)
        while self.voice.peer is not None and now >= self._next_packet_at:
            if now - self._next_packet_at > BEHIND_PACKETS * PACKET_S:  # the machine slept: don't send a burst
                self._next_packet_at = now
            self._next_packet_at += PACKET_S
            packet = self.voice.packet()
            if packet is not None:
                self._send(self._rtp, packet, (self.voice.peer.host, self.voice.peer.port))

    def _send_again(self, resend: Resend, now: float) -> None:
        if now >= resend.give_up_at:
            self._resend = None
            if self._state in ("leaving", "refused"):
                self._end(1 if self._answered_at is None and not self._arguments.listen else 0)
            else:
                self._tell("no answer")
                self._end(1)
            return
        self._send(self._sip, resend.data, resend.to)
        resend.gap_s = min(resend.gap_s * 2, T2_S)
        resend.at = now + resend.gap_s

    def _send(self, sock: socket.socket, data: bytes, to: Address) -> None:
        try:
            sock.sendto(data, to)
        except OSError as error:
            if self._state in ("calling", "idle"):
                raise PhoneError(f"can't reach {to[0]}:{to[1]}: {error.strerror}") from None

    def _end(self, code: int) -> None:
        self._state = "over"
        self._resend = None
        self.voice.peer = None
        self._exit = code

    # -- speech ----------------------------------------------------------------------------------

    def _talk(self, now: float) -> None:
        """Progress of an answered call: begin to speak, press keys, hang up in time."""
        arguments = self._arguments
        assert self._answered_at is not None
        if self.voice.first_heard_at is not None and not self._heard_told:
            self._heard_told = True
            self._tell("hearing the other side")
        for key in self.voice.keys[self._keys_told :]:
            self._tell(f"the other side pressed {key}")
        self._keys_told = len(self.voice.keys)
        if self._said == "nothing" and (
            self.voice.greeted(now)
            if arguments.after_greeting
            else now >= self._answered_at + arguments.wait_before_say
        ):
            self._speak()
        elif self._said == "speaking" and not self.voice.busy:
            self._said = "all"
            self._tell("said all")
        if arguments.seconds is not None and now >= self._answered_at + arguments.seconds:
            self._hang_up(now, f"this phone after {arguments.seconds:g} s")

    def _speak(self) -> None:
        self._said = "all"
        if self._sound is not None:
            self.voice.say(self._sound)
            self._tell(f"talking: {self._arguments.say} ({len(self._sound) / wav.RATE_HZ:.1f} s)")
            self._said = "speaking"
        if self._arguments.dtmf:
            if self.voice.peer is not None and self.voice.peer.event_type is None:
                self._tell("the other side takes no telephone-event; no key is pressed")
                return
            self.voice.press(self._arguments.dtmf)
            self._tell(f"pressing {self._arguments.dtmf}")
            self._said = "speaking"

    def _connected(self, peer: Peer, now: float) -> None:
        self.voice.start(now)
        if self.voice.peer is None:
            self._next_packet_at = now
        self.voice.peer = peer

    # -- SIP, both ways --------------------------------------------------------------------------

    def _receive(self, data: bytes, source: Address, now: float) -> None:
        try:
            message = Message.parse(data)
        except ValueError:
            return
        if not message.method:
            self._receive_response(message, now)
        elif message.method == "INVITE":
            self._receive_invite(message, source, now)
        else:
            self._receive_request(message, source, now)

    def _receive_request(self, request: Message, source: Address, now: float) -> None:
        ours = self._dialog is not None and request.header("Call-ID") == self._dialog.call_id
        match request.method:
            case "ACK":
                if ours and self._state == "talking":
                    self._resend = None
                elif ours and self._state == "refused":
                    self._end(0)
            case "BYE" if ours:
                self._respond(request, 200, source)
                if self._state in ("talking", "leaving"):
                    assert self._answered_at is not None
                    if self._state == "talking":
                        self._tell(f"hung up by the other side, {now - self._answered_at:.1f} s after the answer")
                    self._end(0)
            case "CANCEL" if ours and self._state == "ringing" and self._arguments.listen:
                self._respond(request, 200, source)
                assert self._invite is not None
                self._answer_at = None
                self._tell("the caller gave up")
                self._refuse(487, now)
            case "OPTIONS" | "INFO":
                self._respond(request, 200, source)
            case "BYE" | "CANCEL":
                self._respond(request, 481, source)
            case _:
                self._respond(request, 405, source)

    def _respond(self, request: Message, status: int, to: Address, body: str = "") -> bytes:
        """Answer a request; its own headers come back as they came (RFC 3261 section 8.2.6)."""
        via, *more = request.all("Via")
        via = re.sub(r";rport(?=;|$)", f";rport={to[1]};received={to[0]}", via)
        remote = request.header("To")
        if "tag=" not in remote:
            remote += f";tag={self._local_tag}"
        lines = [f"SIP/2.0 {status} {REASONS[status]}", f"Via: {via}", *(f"Via: {other}" for other in more)]
        lines += [f"Record-Route: {route}" for route in request.all("Record-Route")]
        lines += [f"From: {request.header('From')}", f"To: {remote}", f"Call-ID: {request.header('Call-ID')}"]
        lines += [f"CSeq: {request.header('CSeq')}", f"Allow: {ALLOW}"]
        lines += [f"Contact: <sip:{self._arguments.user}@{self._own[0]}:{self._own[1]}>"]
        lines += ["Content-Type: application/sdp"] if body else []
        data = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()
        self._send(self._sip, data, to)
        return data

    def _request(self, method: str, dialog: Dialog, number: int) -> bytes:
        """A request inside the dialog (RFC 3261 section 12.2.1.1)."""
        assert self._line is not None
        lines = [f"{method} {dialog.target} SIP/2.0"]
        lines += [f"Via: SIP/2.0/UDP {self._own[0]}:{self._own[1]};branch={self._line.gen_branch()};rport"]
        lines += ["Max-Forwards: 70", *(f"Route: {route}" for route in dialog.route)]
        lines += [f"From: {dialog.local}", f"To: {dialog.remote}", f"Call-ID: {dialog.call_id}"]
        lines += [f"CSeq: {number} {method}", "Content-Length: 0", "", ""]
        return "\r\n".join(lines).encode()

    def _hang_up(self, now: float, who: str) -> None:
        """End the call in whatever state it is."""
        if self._state == "talking":
            assert self._dialog is not None
            self._tell(f"hung up by {who}")
            self._dialog.number += 1
            self._leave(self._request("BYE", self._dialog, self._dialog.number), self._dialog.to, now)
        elif self._state in ("calling", "ringing") and not self._arguments.listen:
            self._tell(f"given up by {who}")
            if self._state == "calling":  # RFC 3261 section 9.1: no CANCEL before a provisional response
                self._end(1)
                return
            self._leave(self._like_invite("CANCEL"), self._invited_at, now)
        elif self._state == "ringing":
            self._answer_at = None
            self._refuse(480, now)
        elif self._state != "refused":
            self._end(0)

    def _leave(self, data: bytes, to: Address, now: float) -> None:
        self._state = "leaving"
        self._send(self._sip, data, to)
        self._resend = Resend(data, to, now + T1_S, T1_S, now + FAREWELL_S)

    # -- calling ---------------------------------------------------------------------------------

    def _call(self) -> None:
        user, host, port = parse_address(self._arguments.address)
        try:
            self._invited_at = (socket.gethostbyname(host), port)
        except OSError as error:
            raise PhoneError(f"{host}: {error.strerror or error}") from None
        self._bind(self._arguments.host or _route_to(self._invited_at))
        server = host if port == 5060 else f"{host}:{port}"
        self._line = Line(server, self._arguments.user, self._own)
        data, call_id = self._line.offer(user, self._rtp.getsockname()[1], self._arguments.codec)
        self._invite = invite = Message.parse(data)
        target = data.split(b" ", 2)[1].decode()
        self._dialog = Dialog(
            call_id, invite.header("From"), invite.header("To"), target, [], self._invited_at, invite.number
        )
        self._state = "calling"
        self._tell(f"calling {target}")
        now = time.monotonic()
        self._send(self._sip, data, self._invited_at)
        self._resend = Resend(data, self._invited_at, now + T1_S, T1_S, now + GIVE_UP_S)

    def _bind(self, host: str) -> None:
        try:
            if not self._sip.getsockname()[1]:
                self._sip.bind((host, self._arguments.port))
            self._rtp.bind((host, 0))
        except OSError as error:
            raise PhoneError(f"--host {host} --port {self._arguments.port}: {error.strerror}") from None
        self._own = (host, self._sip.getsockname()[1])

    def _like_invite(self, method: str, response: Message | None = None) -> bytes:
        """A CANCEL, or the ACK of a refusal: the INVITE's own branch and target (RFC 3261 sections 9.1, 17.1.1.3)."""
        assert self._invite is not None
        invite = self._invite
        target = invite.raw.split(b" ", 2)[1].decode()
        remote = response.header("To") if response is not None else invite.header("To")
        lines = [f"{method} {target} SIP/2.0", f"Via: {invite.header('Via')}", "Max-Forwards: 70"]
        lines += [f"From: {invite.header('From')}", f"To: {remote}", f"Call-ID: {invite.header('Call-ID')}"]
        lines += [f"CSeq: {invite.number} {method}", "Content-Length: 0", "", ""]
        return "\r\n".join(lines).encode()

    def _receive_response(self, response: Message, now: float) -> None:
        if self._dialog is None or response.header("Call-ID") != self._dialog.call_id:
            return
        if response.answers == "BYE" and response.status >= 200:
            self._end(0)
        elif response.answers == "CANCEL":
            self._resend = None if response.status >= 200 else self._resend
            if response.status >= 300:
                self._end(1)
            else:  # the INVITE's own 487 is still to come
                self._resend = Resend(b"", self._invited_at, now + FAREWELL_S, FAREWELL_S, now)
        elif response.answers == "INVITE" and not self._arguments.listen:
            if response.status < 200:
                self._progress(response, now)
            elif response.status < 300:
                self._accepted(response, now)
            else:
                self._send(self._sip, self._like_invite("ACK", response), self._invited_at)
                if self._state in ("calling", "ringing"):
                    self._tell(f"refused: {response.status} {response.reason}")
                    self._end(1)
                elif self._state == "leaving" and self._answered_at is None:
                    self._end(1)

    def _progress(self, response: Message, now: float) -> None:
        if self._state == "calling":
            self._resend = None
            self._state = "ringing"
        if response.status > 100 and self._state == "ringing":
            self._tell("ringing" if response.status == 180 else f"progress: {response.status} {response.reason}")
            if (peer := response.description()) is not None:
                self._connected(peer, now)

    def _accepted(self, response: Message, now: float) -> None:
        """2xx: acknowledged each time it comes (RFC 3261 section 13.2.2.4)."""
        assert self._dialog is not None
        dialog = self._dialog
        dialog.remote = response.header("To")
        dialog.target = _target(response.header("Contact")) or dialog.target
        dialog.route = [part.strip() for value in response.all("Record-Route") for part in value.split(",")][::-1]
        if not dialog.route:
            dialog.to = _address_of(dialog.target) or self._invited_at
        self._send(self._sip, self._request("ACK", dialog, response.number), dialog.to)
        if self._state == "leaving":  # it crossed our CANCEL (RFC 3261 section 9.1)
            if self._answered_at is None:
                self._answered_at = now
                dialog.number += 1
                self._leave(self._request("BYE", dialog, dialog.number), dialog.to, now)
            return
        if self._state not in ("calling", "ringing"):
            return
        self._resend = None
        self._answered_at = now
        self._state = "talking"
        peer = response.description() or self.voice.peer
        if peer is None:
            self._hang_up(now, "this phone: the answer has no audio that it can speak")
            return
        self._tell(f"answered: {'PCMU' if peer.payload_type == PCMU else 'PCMA'} to {peer.host}:{peer.port}")
        self._connected(peer, now)

    # -- being called ----------------------------------------------------------------------------

    def _listen(self) -> None:
        host = self._arguments.host or "0.0.0.0"
        try:
            self._sip.bind((host, self._arguments.port))
        except OSError as error:
            raise PhoneError(f"--host {host} --port {self._arguments.port}: {error.strerror}") from None
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        self._tell(f"listening on sip:{self._arguments.user}@{shown}:{self._sip.getsockname()[1]}")

    def _receive_invite(self, request: Message, source: Address, now: float) -> None:
        if self._dialog is not None and request.header("Call-ID") == self._dialog.call_id:
            if self._invite is not None and request.number == self._invite.number and self._arguments.listen:
                self._send(self._sip, self._last_response, source)  # it comes again
            elif self._state == "talking":
                self._reinvited(request, source, now)
        elif self._state != "idle" or not self._arguments.listen:
            self._respond(request, 486, source)
        else:
            self._called(request, source, now)

    def _called(self, request: Message, source: Address, now: float) -> None:
        self._bind(self._arguments.host or _route_to(source))
        self._line = Line(self._own[0], self._arguments.user, self._own)
        self._invite, self._invited_at = request, source
        target = _target(request.header("Contact")) or f"sip:{source[0]}:{source[1]}"
        route = [part.strip() for value in request.all("Record-Route") for part in value.split(",")]
        to = source if route else _address_of(target) or source
        local = f"{request.header('To')};tag={self._local_tag}"
        self._dialog = Dialog(request.header("Call-ID"), local, request.header("From"), target, route, to, 0)
        self._state = "ringing"
        self._tell(f"called by {request.header('From').partition(';tag=')[0]}")
        self._last_response = self._respond(request, 180, source)
        self._answer_at = now + self._arguments.ring

    def _answer(self, now: float) -> None:
        assert self._invite is not None
        assert self._line is not None
        peer = self._invite.description()
        if self._arguments.refuse is not None or peer is None:
            self._refuse(self._arguments.refuse or 488, now)
            return
        body = self._line.answer_body(self._invite.header("Call-ID"), self._rtp.getsockname()[1], peer)
        data = self._last_response = self._respond(self._invite, 200, self._invited_at, body)
        self._resend = Resend(data, self._invited_at, now + T1_S, T1_S, now + GIVE_UP_S)
        self._answered_at = now
        self._state = "talking"
        self._tell(f"answered: {'PCMU' if peer.payload_type == PCMU else 'PCMA'} to {peer.host}:{peer.port}")
        self._connected(peer, now)

    def _refuse(self, status: int, now: float) -> None:
        assert self._invite is not None
        if status != 487:
            self._tell(f"refusing: {status} {REASONS[status]}")
        data = self._last_response = self._respond(self._invite, status, self._invited_at)
        self._state = "refused"
        self._resend = Resend(data, self._invited_at, now + T1_S, T1_S, now + FAREWELL_S)

    def _reinvited(self, request: Message, source: Address, now: float) -> None:
        peer = request.description()
        if peer is None or self._line is None:
            self._respond(request, 488, source)
            return
        body = self._line.answer_body(request.header("Call-ID"), self._rtp.getsockname()[1], peer)
        self._respond(request, 200, source, body)
        self._tell(f"media moves to {peer.host}:{peer.port}")
        self._connected(peer, now)


def _target(contact: str) -> str:
    match = re.search(r"<(sips?:[^>]+)>", contact) or re.match(r"(sips?:[^;\s]+)", contact)
    return match[1] if match else ""


def _address_of(target: str) -> Address | None:
    """The address a URI names, when it is numeric."""
    match = re.match(r"sips?:(?:[^@]*@)?(\d+\.\d+\.\d+\.\d+)(?::(\d+))?", target)
    return (match[1], int(match[2] or 5060)) if match else None


def _route_to(peer: Address) -> str:
    """The own address that packets to a peer leave from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(peer)
        except OSError as error:
            raise PhoneError(f"can't reach {peer[0]}: {error.strerror}") from None
        return str(sock.getsockname()[0])


def main(arguments: argparse.Namespace) -> int:
    """Place or await one call. 0: a normal call, 1: refused or not answered, 2: can't be tried."""

    def tell(line: str) -> None:
        print(line, flush=True)

    try:
        if bool(arguments.address) == arguments.listen:
            raise PhoneError("name an address to call, or --listen")
        if not set(arguments.dtmf.upper()) <= set(KEYS):
            raise PhoneError(f"--dtmf: keys are {KEYS}")
        sound = wav.read(Path(arguments.say)) if arguments.say is not None else None
        return Softphone(arguments, sound, tell).run()
    except (PhoneError, wav.WavError) as error:
        print(f"dialbus: phone: {error}", file=sys.stderr)
        return 2
