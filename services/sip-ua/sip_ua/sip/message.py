"""SIP messages as immutable values: headers, requests, responses, and their bytes (RFC 3261 §7, §20)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from sip_ua.sip.grammar import (
    CALL_ID_RE,
    CSEQ_RE,
    VIA_RE,
    GrammarError,
    Params,
    bad,
    check_host,
    check_port,
    format_host,
    format_params,
    get_param,
    is_token,
    parse_params,
    split_list,
)
from sip_ua.sip.headers import Headers
from sip_ua.sip.uri import NameAddr, UnsupportedScheme, Uri, parse_name_addr, parse_uri

SDP: Final = "application/sdp"
MAX_CSEQ: Final = 2**31 - 1  # RFC 3261 §8.1.1.5

REASON_PHRASES: Final[Mapping[int, str]] = MappingProxyType(
    {
        100: "Trying",
        180: "Ringing",
        181: "Call Is Being Forwarded",
        182: "Queued",
        183: "Session Progress",
        199: "Early Dialog Terminated",
        200: "OK",
        202: "Accepted",
        204: "No Notification",
        300: "Multiple Choices",
        301: "Moved Permanently",
        302: "Moved Temporarily",
        305: "Use Proxy",
        380: "Alternative Service",
        400: "Bad Request",
        401: "Unauthorized",
        402: "Payment Required",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        406: "Not Acceptable",
        407: "Proxy Authentication Required",
        408: "Request Timeout",
        410: "Gone",
        412: "Conditional Request Failed",
        413: "Request Entity Too Large",
        414: "Request-URI Too Long",
        415: "Unsupported Media Type",
        416: "Unsupported URI Scheme",
        420: "Bad Extension",
        421: "Extension Required",
        422: "Session Interval Too Small",
        423: "Interval Too Brief",
        433: "Anonymity Disallowed",
        480: "Temporarily Unavailable",
        481: "Call/Transaction Does Not Exist",
        482: "Loop Detected",
        483: "Too Many Hops",
        484: "Address Incomplete",
        485: "Ambiguous",
        486: "Busy Here",
        487: "Request Terminated",
        488: "Not Acceptable Here",
        489: "Bad Event",
        491: "Request Pending",
        493: "Undecipherable",
        494: "Security Agreement Required",
        500: "Server Internal Error",
        501: "Not Implemented",
        502: "Bad Gateway",
        503: "Service Unavailable",
        504: "Server Time-out",
        505: "Version Not Supported",
        513: "Message Too Large",
        580: "Precondition Failure",
        600: "Busy Everywhere",
        603: "Decline",
        604: "Does Not Exist Anywhere",
        606: "Not Acceptable",
        607: "Unwanted",
        608: "Rejected",
    }
)

_DIALOG_FORMING: Final = frozenset({"INVITE", "SUBSCRIBE", "REFER"})


@dataclass(frozen=True, slots=True)
class CSeq:
    """A CSeq value (RFC 3261 §20.16)."""

    number: int
    method: str

    def __post_init__(self) -> None:
        if not 0 <= self.number <= MAX_CSEQ or not is_token(self.method):
            bad("CSeq", str(self))

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def parse_cseq(text: str) -> CSeq:
    """A CSeq value; raises GrammarError, also for numbers above 2^31-1 (RFC 3261 §8.1.1.5)."""
    match = CSEQ_RE.fullmatch(text)
    digits = match[1].lstrip("0") if match else ""
    if match is None or len(digits) > 10:
        bad("CSeq", text)
    return CSeq(int(digits or "0"), match[2])


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value (RFC 3261 §20.42).

    `branch` is "" when absent, `params` are the others. An IPv6 `host` has no brackets.
    """

    transport: str
    host: str
    port: int | None
    branch: str
    params: Params = ()

    def __post_init__(self) -> None:
        if not is_token(self.transport) or (self.branch and not is_token(self.branch)):
            bad("Via", f"{self.transport} {self.branch}")
        if check_host(self.host) is not self.host:
            bad("Via host", self.host)
        if self.params and parse_params(format_params(self.params)) != self.params:
            bad("parameter", format_params(self.params))

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        branch = f";branch={self.branch}" if self.branch else ""
        params = format_params(self.params)
        return f"SIP/2.0/{self.transport} {format_host(self.host)}{port}{branch}{params}"

    def param(self, name: str) -> str | None:
        """The value of a parameter; "" for a flag, None when absent. branch is a field of its own."""
        return get_param(self.params, name)

    @property
    def received(self) -> str | None:
        """The address the request really came from, without brackets, None when it was not recorded."""
        value = self.param("received")
        return value.strip("[]") if value else None

    @property
    def rport(self) -> int | None:
        """The port the request really came from (RFC 3581), None when absent or still to be filled in."""
        value = self.param("rport")
        return int(value) if value else None

    def stamped(self, host: str, port: int) -> "Via":
        """This Via as its receiver records it: rport when asked for, received then or when the host differs.

        RFC 3261 §18.2.1 and RFC 3581 §4.
        """
        asked = self.param("rport") is not None
        params = tuple(p for p in self.params if p[0].lower() not in ("received", "rport"))
        if asked or self.host.lower() != host.lower():
            params = (*params, ("received", host))
        if asked:
            params = (*params, ("rport", str(port)))
        return replace(self, params=params)


def parse_via(text: str) -> Via:
    """One Via value; raises GrammarError."""
    text = text.strip(" \t")
    match = VIA_RE.match(text)
    if match is None:
        bad("Via", text)
    params = parse_params(text, match.end())
    branch = next((value for name, value in params if name.lower() == "branch"), "")
    if branch is None:
        bad("Via branch", text)
    others = tuple(param for param in params if param[0].lower() != "branch")
    port = None if match[3] is None else check_port(match[3])
    via = Via(match[1].upper(), check_host(match[2]), port, branch, others)
    rport, received = via.param("rport"), via.received
    if rport:
        check_port(rport)
    if received:
        check_host(format_host(received))
    return via


def _parse_contact(value: str) -> NameAddr | None:
    """A Contact; None for one that we cannot call."""
    try:
        return None if value == "*" else parse_name_addr(value)
    except UnsupportedScheme:
        return None


class _Accessors:
    """Headers as types, parsed once. Each raises GrammarError when its header is missing or malformed, never after
    `parse`."""

    __slots__ = ()

    headers: Headers
    body: bytes

    def _required(self, name: str) -> str:
        value = self.headers.get(name)
        if value is None:
            raise GrammarError(f"message: missing {name}")
        return value

    @property
    def via(self) -> Via:
        """The topmost Via."""
        return self.headers.first("Via", parse_via) or bad("message: missing Via")

    @property
    def vias(self) -> tuple[Via, ...]:
        """Every Via, topmost first."""
        return self.headers.parsed("Via", parse_via)

    @property
    def cseq(self) -> CSeq:
        """The sequence number and method."""
        return self.headers.first("CSeq", parse_cseq) or bad("message: missing CSeq")

    @property
    def call_id(self) -> str:
        """The Call-ID, compared byte by byte."""
        value = self._required("Call-ID")
        return value if CALL_ID_RE.fullmatch(value) else bad("Call-ID", value)

    @property
    def from_(self) -> NameAddr:
        """Who sends the request."""
        return self.headers.first("From", parse_name_addr) or bad("message: missing From")

    @property
    def to(self) -> NameAddr:
        """Whom the request is for."""
        return self.headers.first("To", parse_name_addr) or bad("message: missing To")

    @property
    def from_tag(self) -> str | None:
        """The tag of From."""
        return self.from_.tag

    @property
    def to_tag(self) -> str | None:
        """The tag of To."""
        return self.to.tag

    @property
    def contacts(self) -> tuple[NameAddr, ...]:
        """The Contacts we can call; "*" and schemes that are not ours are left out."""
        return tuple(contact for contact in self.headers.parsed("Contact", _parse_contact) if contact is not None)

    @property
    def max_forwards(self) -> int | None:
        """How many more hops are allowed, 0 to 255; None when absent."""
        value = self.headers.get("Max-Forwards")
        if value is None:
            return None
        digits = value.lstrip("0") or value[:1]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and int(digits) <= 255):
            bad("Max-Forwards", value)
        return int(digits)

    @property
    def content_type(self) -> str | None:
        """The media type in lower case, without parameters; None when absent."""
        value = self.headers.get("Content-Type")
        return None if value is None else "".join(value.partition(";")[0].lower().split())

    @property
    def sdp(self) -> bytes | None:
        """The body, when it is a session description."""
        return self.body if self.body and self.content_type == SDP else None

    @property
    def routes(self) -> tuple[NameAddr, ...]:
        """Route, in order."""
        return self.headers.parsed("Route", parse_name_addr)

    @property
    def record_routes(self) -> tuple[NameAddr, ...]:
        """Record-Route, in order."""
        return self.headers.parsed("Record-Route", parse_name_addr)


@dataclass(frozen=True, slots=True)
class Request(_Accessors):
    """A request. Raises GrammarError when the method is no token."""

    method: str
    uri: Uri
    headers: Headers
    body: bytes = b""

    def __post_init__(self) -> None:
        if not is_token(self.method):
            bad("method", self.method)


@dataclass(frozen=True, slots=True)
class Response(_Accessors):
    """A response. Raises GrammarError when the status is not 100 to 699 or the reason holds a line end."""

    status: int
    reason: str
    headers: Headers
    body: bytes = b""

    def __post_init__(self) -> None:
        if not 100 <= self.status <= 699:
            bad("status", str(self.status))
        if "\r" in self.reason or "\n" in self.reason:
            bad("reason", self.reason)


Message: TypeAlias = Request | Response


def write(message: Message) -> bytes:
    """The bytes of a message. Content-Length is always the body's, whatever the headers say."""
    if isinstance(message, Request):
        start = f"{message.method} {message.uri} SIP/2.0"
    else:
        start = f"SIP/2.0 {message.status} {message.reason}"
    lines = [start]
    lines += [f"{name}: {value}" for name, value in message.headers.lines() if name != "Content-Length"]
    lines.append(f"Content-Length: {len(message.body)}\r\n\r\n")
    return "\r\n".join(lines).encode() + message.body


def response_to(
    request: Request,
    status: int,
    reason: str | None = None,
    to_tag: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> Response:
    """A response by RFC 3261 §8.2.6: Via, From, To, Call-ID and CSeq of the request, then `headers`.

    `to_tag` is added unless the request's To has a tag already. Record-Route is copied into responses that
    may form a dialog (§12.1.1), Timestamp into 100 (§8.2.6.1).
    """
    copied = [line for line in request.headers.lines() if line[0] in ("Via", "From", "Call-ID", "CSeq")]
    to = request.headers.get("To") or bad("message: missing To")
    if to_tag is not None and request.to_tag is None:
        to = f"{to};tag={to_tag}"
    copied.append(("To", to))
    if 100 < status < 300 and request.method in _DIALOG_FORMING:
        copied += [line for line in request.headers.lines() if line[0] == "Record-Route"]
    if status == 100:
        copied += [line for line in request.headers.lines() if line[0] == "Timestamp"]
    phrase = REASON_PHRASES.get(status, "Unknown") if reason is None else reason
    return Response(status, phrase, Headers((*copied, *headers)), body)


def stamp_received(request: Request, host: str, port: int) -> Request:
    """The request with received and rport in its topmost Via, from the address it came from.

    RFC 3261 §18.2.1, RFC 3581 §4.
    """
    lines = request.headers.lines()
    index = next((i for i, (name, _) in enumerate(lines) if name == "Via"), None)
    if index is None:
        bad("message: missing Via")
    others = split_list(lines[index][1])[1:]
    value = ", ".join((str(request.via.stamped(host, port)), *others))
    return replace(request, headers=request.headers.with_line(index, value))


def message_to_state(message: Message) -> dict[str, Any]:
    """A message as plain data; octets of the body are characters up to 255."""
    kept = {"headers": [list(line) for line in message.headers.lines()], "body": message.body.decode("latin-1")}
    if isinstance(message, Request):
        return {"method": message.method, "uri": str(message.uri), **kept}
    return {"status": message.status, "reason": message.reason, **kept}


def message_from_state(state: dict[str, Any]) -> Message:
    """The message that `message_to_state` told."""
    headers, body = Headers((name, value) for name, value in state["headers"]), state["body"].encode("latin-1")
    if "method" in state:
        return Request(state["method"], parse_uri(state["uri"]), headers, body)
    return Response(state["status"], state["reason"], headers, body)
