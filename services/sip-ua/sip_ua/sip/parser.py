"""Bytes to SIP messages, strictly (RFC 3261 §7, §18.3 and §25.1; hard cases from RFC 4475).

Whatever comes in, the outcome is a message whose typed accessors all work, or ParseError.
"""

import re
from typing import Final

from sip_ua.sip.grammar import MAX_PARAMS, TOKEN, GrammarError, is_token
from sip_ua.sip.headers import LIST_HEADERS, Headers, canonical_name
from sip_ua.sip.message import Message, Request, Response, parse_cseq, parse_via
from sip_ua.sip.uri import UnsupportedScheme, parse_name_addr, parse_uri

MAX_MESSAGE_BYTES: Final = 65536
MAX_HEADER_LINES: Final = 256
MAX_LIST_VALUES: Final = 100
MAX_SEPARATORS: Final = 1024
"""Semicolons, and commas, in all headers of a message: seventy hops that all leave their marks have some 300."""
MAX_URI_CHARS: Final = 4096

# Headers that say nothing certain when they come twice.
_SINGLE: Final = frozenset(
    {"call-id", "content-length", "content-type", "cseq", "event", "expires", "from"}
    | {"max-forwards", "refer-to", "replaces", "session-expires", "to"}
)
_MANDATORY: Final = ("Via", "From", "To", "Call-ID", "CSeq")

# Request-Line = Method SP Request-URI SP SIP-Version CRLF; what may be wrong inside is looked at later
_REQUEST_LINE: Final = re.compile(rf"({TOKEN}) (.*) ((?i:SIP)/[0-9]+\.[0-9]+)")
# Status-Line = SIP-Version SP Status-Code SP Reason-Phrase CRLF; some omit the SP before an empty phrase
_STATUS_LINE: Final = re.compile(r"((?i:SIP)/[0-9]+\.[0-9]+) ([1-6][0-9]{2})(?: (.*))?")
# LWS = [*WSP CRLF] 1*WSP
_FOLD: Final = re.compile(r"\r\n[ \t]+")
_STREAM_LENGTH: Final = re.compile(rb"\r\n(?:content-length|l)[ \t]*:[ \t\r\n]*([^\r\n]*)", re.IGNORECASE)


class ParseError(Exception):
    """Bytes that are no valid message: the status to answer, the reason, and the headers that could be read.

    `method` is None when the bytes were no request as far as one can tell.
    """

    def __init__(self, status: int, reason: str, partial: Headers | None = None, method: str | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.partial = partial
        self.method = method

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"

    def response(self, to_tag: str | None = None) -> Response | None:
        """The answer to send, None when there is nobody to answer.

        Never for ACK, for responses, nor when Via, From, To, Call-ID or CSeq could not be found.
        """
        if self.partial is None or self.method is None or self.method == "ACK":
            return None
        values = {name: self.partial.get(name) for name in _MANDATORY}
        if not all(values.values()):
            return None
        try:
            parse_via(self.partial.get_all("Via")[0])
        except GrammarError:
            return None
        copied = [line for line in self.partial.lines() if line[0] == "Via"]
        copied += [(name, values[name] or "") for name in _MANDATORY[1:]]
        headers = Headers(copied)
        if to_tag is not None and _lacks_tag(values["To"] or ""):
            headers = headers.with_("To", f"{values['To']};tag={to_tag}")
        return Response(self.status, self.reason, headers)


def _lacks_tag(to: str) -> bool:
    try:
        return parse_name_addr(to).tag is None
    except GrammarError:
        return False


def is_keepalive(data: bytes) -> bool:
    """Whether a datagram is a keep-alive: nothing, CRLFs (RFC 5626 §3.5.1), or the NULs of some phones."""
    return not data.strip(b"\r\n\0")


def parse(data: bytes) -> Message:
    """The one message of a datagram, or of a piece cut by StreamFramer.

    The body ends where Content-Length says and what follows is dropped; without Content-Length it is all the
    rest. The header itself is framing and not kept: `write` computes it. Requests are validated.
    Raises ParseError, and nothing else.
    """
    data = data.lstrip(b"\r\n")  # RFC 3261 §7.5
    try:
        if len(data) > MAX_MESSAGE_BYTES:
            raise ParseError(513, "Message Too Large")
        message = _parse(data)
        if isinstance(message, Request):
            validate_request(message)
    except GrammarError as error:
        raise ParseError(400, f"Bad {error.rule}", *_salvage(data)) from error
    except ParseError as error:
        error.partial, error.method = _salvage(data)
        raise
    return message


def validate_request(request: Request) -> None:
    """What RFC 3261 §8.2 asks of a request beyond its grammar; raises ParseError with the status to answer.

    From needs a tag (§8.1.1.3), CSeq the same method (§8.1.1.5), and the Request-URI no headers (§19.1.1).
    """
    if request.from_tag is None:
        raise ParseError(400, "Missing From tag", request.headers, request.method)
    if request.cseq.method != request.method:
        raise ParseError(400, "CSeq method does not match", request.headers, request.method)
    if request.uri.headers:
        raise ParseError(400, "Headers in Request-URI", request.headers, request.method)


def _parse(data: bytes) -> Message:
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        raise ParseError(400, "Missing end of headers")
    try:
        text = head.decode()
    except UnicodeDecodeError:
        raise ParseError(400, "Headers are not UTF-8") from None
    if _is_excessive(text):
        raise ParseError(400, "Too many headers, parameters or values")
    start, *lines = _FOLD.sub(" ", text).split("\r\n")
    if len(lines) > MAX_HEADER_LINES:
        raise ParseError(400, "Too many headers")
    headers = Headers(_split_line(line) for line in lines)
    message = _start(start, headers)
    _check_headers(message)
    return _with_body(message, body)


def _is_excessive(head: str) -> bool:
    """Whether headers are not even worth being split: far more of them, or of what stands in them, than anybody needs.

    They get no answer, either, since that would repeat some of them. Folded headers may have two lines each.
    """
    return head.count("\r\n") > 2 * MAX_HEADER_LINES or any(head.count(mark) > MAX_SEPARATORS for mark in ";,")


def _split_line(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name = name.rstrip(" \t")
    if not colon or not is_token(name):
        raise ParseError(400, "Bad header line")
    return name, value


def _start(line: str, headers: Headers) -> Message:
    """A message without its body. The version is looked at first: of a later one we know nothing else."""
    status = _STATUS_LINE.fullmatch(line)
    if status is not None:
        _check_version(status[1])
        return Response(int(status[2]), status[3] or "", headers)
    request = _REQUEST_LINE.fullmatch(line)
    if request is None:
        raise ParseError(400, "Bad start line")
    _check_version(request[3])
    if len(request[2]) > MAX_URI_CHARS:
        raise ParseError(414, "Request-URI Too Long")
    try:
        uri = parse_uri(request[2])
    except UnsupportedScheme:
        raise ParseError(416, "Unsupported URI Scheme") from None
    except GrammarError:
        raise ParseError(400, "Bad Request-URI") from None
    return Request(request[1], uri, headers)


def _check_version(version: str) -> None:
    if version.upper() != "SIP/2.0":
        raise ParseError(505, "Version Not Supported")


def _check_headers(message: Message) -> None:
    """Every header that has a typed accessor is read once here, so that no accessor raises later."""
    headers = message.headers
    keys = [name.lower() for name, _ in headers.lines()]
    for name in _MANDATORY:
        if not headers.get(name):
            raise ParseError(400, f"Missing {name} header")
    for key in _SINGLE.intersection(keys):
        if keys.count(key) > 1:
            raise ParseError(400, f"Repeated {canonical_name(key)} header")
    for key in LIST_HEADERS.intersection(keys):
        if len(headers.get_all(key)) > MAX_LIST_VALUES:
            raise ParseError(400, f"Too many {canonical_name(key)} values")
    for key in ("require", "proxy-require", "supported", "allow"):
        if not all(is_token(value) for value in headers.get_all(key)):
            raise ParseError(400, f"Bad {canonical_name(key)} header")
    addresses = (message.from_, message.to, *message.contacts, *message.routes, *message.record_routes)
    params = [value.params for value in message.vias] + [value.params for value in addresses]
    if any(len(found) > MAX_PARAMS for found in params):
        raise ParseError(400, "Too many parameters")
    _ = (message.call_id, message.cseq, message.max_forwards)


def _with_body(message: Message, body: bytes) -> Message:
    headers = message.headers
    value = headers.get("Content-Length")
    if value is not None:
        length = _content_length(value)
        if length > len(body):
            raise ParseError(400, "Content-Length exceeds the message")
        body = body[:length]
        headers = headers.without("Content-Length")
    if isinstance(message, Request):
        return Request(message.method, message.uri, headers, body)
    return Response(message.status, message.reason, headers, body)


def _content_length(value: str) -> int:
    digits = value.strip(" \t")
    # Ten digits already exceed every message; int() of thousands would be work for nothing.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise ParseError(400, "Bad Content-Length")
    return int(digits)


def _salvage(data: bytes) -> tuple[Headers | None, str | None]:
    """The headers an answer needs, as far as they can be found in a broken message, and its method.

    Only the first of each but Via is taken; lines that are no headers are passed over.
    """
    head = data[:MAX_MESSAGE_BYTES].partition(b"\r\n\r\n")[0].decode(errors="replace")
    if _is_excessive(head):
        return None, None
    start, *lines = _FOLD.sub(" ", head).split("\r\n")
    found: list[tuple[str, str]] = []
    for line in lines[:MAX_HEADER_LINES]:
        name, _, value = line.partition(":")
        name = canonical_name(name.rstrip(" \t"))
        wanted = name in _MANDATORY and (name == "Via" or all(known != name for known, _ in found))
        if wanted and not ("\r" in value or "\n" in value):
            found.append((name, value))
    if start[:4].upper() == "SIP/":
        return Headers(found), None
    method = start.partition(" ")[0]
    if not is_token(method):
        cseq = next((value for name, value in found if name == "CSeq"), "")
        method = _method_of(cseq)
    return Headers(found), method or None


def _method_of(cseq: str) -> str:
    try:
        return parse_cseq(cseq.strip(" \t")).method
    except GrammarError:
        return ""


class StreamFramer:
    """Cuts a byte stream into messages by Content-Length (RFC 3261 §18.3). After ParseError it is lost."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._total: int | None = None

    def receive(self, data: bytes) -> list[bytes]:
        """The messages, and pings as b"\\r\\n\\r\\n" (RFC 5626 §4.4.1), that are complete with these bytes.

        Raises ParseError when Content-Length is missing, repeated or no number, or a message exceeds 64 KiB.
        """
        self._buffer += data
        pieces: list[bytes] = []
        while (piece := self._next()) is not None:
            pieces.append(piece)
        return pieces

    def _next(self) -> bytes | None:
        if self._total is None:
            if self._skip_blank():
                return self._cut(4)
            end = self._buffer.find(b"\r\n\r\n", self._scanned)
            if end < 0:
                self._scanned = max(0, len(self._buffer) - 3)
                self._check_size(len(self._buffer))
                return None
            self._total = end + 4 + self._body_length(bytes(self._buffer[: end + 2]))
            self._check_size(self._total)
        if len(self._buffer) < self._total:
            return None
        return self._cut(self._total)

    def _skip_blank(self) -> bool:
        """Whether a ping stands at the front; blank lines of fewer bytes, followed by something, are dropped."""
        if self._buffer.startswith(b"\r\n\r\n"):
            return True
        if self._buffer[:1].isspace() and not b"\r\n\r\n".startswith(self._buffer):
            self._buffer = self._buffer.lstrip(b"\r\n")
            self._scanned = 0
        return False

    def _cut(self, size: int) -> bytes:
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._scanned, self._total = 0, None
        return piece

    def _body_length(self, head: bytes) -> int:
        values = _STREAM_LENGTH.findall(head)
        if len(values) != 1:
            reason = "Repeated Content-Length" if values else "Missing Content-Length"
            raise ParseError(400, reason, *_salvage(head))
        try:
            return _content_length(values[0].decode(errors="replace"))
        except ParseError as error:
            error.partial, error.method = _salvage(head)
            raise

    def _check_size(self, size: int) -> None:
        if size > MAX_MESSAGE_BYTES:
            raise ParseError(513, "Message Too Large", *_salvage(bytes(self._buffer)))
