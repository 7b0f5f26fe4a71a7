"""A scripted SIP phone on one UDP socket.

It shares no code with the SIP core of the product, so that it can catch its faults: messages are text, taken apart by
line. It registers nothing and decides nothing; a test says each step. Every wait has a timeout that fails the test.

    async with Phone.open() as phone:
        call = await phone.call("sip:4000@127.0.0.1:13050")
        await call.expect_response(200)
        call.ack()
        call.bye()
        await call.expect_response(200)

Copies of what already arrived (same branch, method and status) are answered as before and kept out of the script;
`Dialog.seen` has them all.
"""

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from tests.peers import digest

Address = tuple[str, int]
HeaderList = Sequence[tuple[str, str]]

WAIT_S = 5.0
T1_S = 0.5
T2_S = 4.0
_PHRASES = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 302: "Moved Temporarily",
    400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 407: "Proxy Authentication Required",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 486: "Busy Here",
    487: "Request Terminated", 488: "Not Acceptable Here", 503: "Service Unavailable", 603: "Decline",
}  # fmt: skip


def sdp(
    address: str,
    port: int,
    *,
    codecs: Sequence[str] = ("0 PCMU/8000", "8 PCMA/8000", "101 telephone-event/8000"),
    direction: str = "sendrecv",
    version: int = 1,
    connection: str | None = None,
) -> str:
    """One audio line; `codecs` are `a=rtpmap` values. `connection` overrides the address of the `c=` line."""
    lines = [
        "v=0",
        f"o=- 4711 {version} IN {'IP6' if ':' in address else 'IP4'} {address}",
        "s=-",
        f"c=IN {'IP6' if ':' in address else 'IP4'} {connection or address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {' '.join(codec.split()[0] for codec in codecs)}",
        *(f"a=rtpmap:{codec}" for codec in codecs),
        "a=ptime:20",
        f"a={direction}",
    ]
    return "\r\n".join(lines) + "\r\n"


@dataclass(frozen=True)
class Message:
    """A SIP message as its start line, its header lines in order but for Content-Length, and its body."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        """Split at the blank line, then by line. Raises ValueError for what no correct peer would send."""
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank:
            raise ValueError(f"no blank line ends the headers: {data[:200]!r}")
        start, *lines = head.decode().split("\r\n")
        pairs = [line.partition(":") for line in lines]
        if any(not colon for _, colon, _ in pairs):
            raise ValueError(f"a header without colon: {lines}")
        headers = [(name.strip(), value.strip()) for name, _, value in pairs]
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        if lengths != [str(len(body))]:
            raise ValueError(f"Content-Length {lengths} for {len(body)} bytes")
        return cls(start, tuple(pair for pair in headers if pair[0].lower() != "content-length"), body)

    def write(self) -> bytes:
        """The bytes for the wire; Content-Length is added."""
        lines = [self.start, *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body

    def all(self, name: str) -> list[str]:
        """Every value of a header, whatever its capitals."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str:
        """The first value of a header; "" when there is none."""
        return next(iter(self.all(name)), "")

    @property
    def status(self) -> int:
        """The status of a response; 0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def reason(self) -> str:
        """The reason phrase of a response."""
        return self.start.split(" ", 2)[2]

    @property
    def method(self) -> str:
        """The method of a request, or of the request that a response is for."""
        return self.header("CSeq").split()[1]

    @property
    def uri(self) -> str:
        """The request-URI."""
        return self.start.split()[1]

    @property
    def cseq(self) -> int:
        """The number in CSeq."""
        return int(self.header("CSeq").split()[0])

    @property
    def branch(self) -> str:
        """The branch of the top Via."""
        return _param(self.header("Via"), "branch")

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def identity(self) -> tuple[str, str, int, str]:
        """What a retransmission has in common with the first copy."""
        return (self.branch, self.start.split()[0] + self.method, self.status, _param(self.header("To"), "tag"))


@dataclass
class Dialog:
    """One call, or one request outside of calls, from the phone's side."""

    phone: "Phone"
    call_id: str
    local: str
    """Our From or To header with tag."""
    remote: str
    """Theirs; with tag as soon as it is known."""
    target: str
    """The URI that requests go to."""
    peer: Address
    seen: list[Message] = field(default_factory=list)
    """All that arrived, copies included."""
    invite: Message | None = None
    """The INVITE of the call, whoever sent it."""
    retransmits: bool = False
    """Send unanswered requests, and 200s without ACK, again as RFC 3261 §17 says."""
    cseq: int = 0
    _inbox: "asyncio.Queue[Message]" = field(default_factory=asyncio.Queue)
    _answers: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _resending: "dict[str, asyncio.Task[None]]" = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """Our tag."""
        return _param(self.local, "tag")

    @property
    def remote_tag(self) -> str:
        """Their tag, or ""."""
        return _param(self.remote, "tag")

    @property
    def dialog_id(self) -> str:
        """`{Call-ID}-{larger tag}-{smaller tag}`."""
        larger, smaller = sorted((self.tag.encode(), self.remote_tag.encode()), reverse=True)
        return f"{self.call_id}-{larger.decode()}-{smaller.decode()}"

    # -- what we send -----------------------------------------------------------------------------

    def request(
        self, method: str, body: str = "", headers: HeaderList = (), *, content_type: str = "", cseq: int | None = None
    ) -> Message:
        """Send a request of this dialog; its responses come to `expect_response`."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        message = self.build(method, body, headers, content_type=content_type, cseq=cseq)
        self._transmit(message)
        return message

    def build(
        self,
        method: str,
        body: str = "",
        headers: HeaderList = (),
        *,
        content_type: str = "",
        cseq: int,
        branch: str = "",
    ) -> Message:
        """The message that `request` sends, for tests that spoil it first."""
        items = [
            ("Via", f"SIP/2.0/UDP {self.phone.at};branch={branch or _branch()};rport"),
            ("Max-Forwards", "70"),
            ("From", self.local),
            ("To", self.remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]
        if method not in ("ACK", "CANCEL", "BYE"):
            items.append(("Contact", f"<sip:phone@{self.phone.at}>"))
        items += headers
        if body:
            items.append(("Content-Type", content_type or "application/sdp"))
        return Message(f"{method} {self.target} SIP/2.0", tuple(items), body.encode())

    def invite_again(self, body: str = "", headers: HeaderList = ()) -> Message:
        """A re-INVITE."""
        self.invite = self.request("INVITE", body, headers)
        return self.invite

    def ack(self, body: str = "") -> None:
        """Acknowledge the 2xx to our last INVITE."""
        assert self.invite is not None
        self.phone.send(self.build("ACK", body, cseq=self.invite.cseq), self.peer)

    def bye(self, headers: HeaderList = ()) -> Message:
        """Hang up; `expect_response(200)` follows."""
        return self.request("BYE", headers=headers)

    def cancel(self, headers: HeaderList = ()) -> None:
        """Take our INVITE back."""
        assert self.invite is not None
        message = self.build("CANCEL", headers=headers, cseq=self.invite.cseq, branch=self.invite.branch)
        to = ("To", self.invite.header("To"))
        pairs = tuple(to if name == "To" else (name, value) for name, value in message.headers)
        self.phone.send(Message(f"CANCEL {self.invite.uri} SIP/2.0", pairs), self.peer)

    def send_again(self, message: Message) -> None:
        """A copy of a message, as a retransmission."""
        self.phone.send(message, self.peer)

    def reply(
        self, request: Message, status: int, body: str = "", headers: HeaderList = (), *, reason: str = ""
    ) -> Message:
        """Answer a request; copies of it get the same answer."""
        to = request.header("To")
        if status > 100 and not _param(to, "tag"):
            to = self.local
        copied = [(name, value) for name, value in request.headers if name in ("Via", "From", "Call-ID", "CSeq")]
        items = [*copied, ("To", to), *headers]
        if status // 100 == 2 or 100 < status < 200:
            items.append(("Contact", f"<sip:phone@{self.phone.at}>"))
        if body:
            items.append(("Content-Type", "application/sdp"))
        start = f"SIP/2.0 {status} {reason or _PHRASES.get(status, 'Whatever')}"
        response = Message(start, tuple(items), body.encode())
        data = response.write()
        self._answers[(request.branch, request.method)] = data
        self.phone.send_raw(data, self.peer)
        if self.retransmits and request.method == "INVITE" and status >= 200:
            self._resend(f"ACK {request.cseq}", data)
        return response

    def ringing(self, body: str = "") -> Message:
        """180, or 183 when there is early media."""
        assert self.invite is not None
        return self.reply(self.invite, 183 if body else 180, body)

    def answer(self, body: str | None = None, headers: HeaderList = ()) -> Message:
        """200 to their INVITE; `body` defaults to our SDP, "" leaves it out."""
        assert self.invite is not None
        return self.reply(self.invite, 200, self.phone.sdp() if body is None else body, headers)

    def reject(self, status: int = 486, headers: HeaderList = (), *, reason: str = "") -> Message:
        """Refuse their INVITE."""
        assert self.invite is not None
        return self.reply(self.invite, status, headers=headers, reason=reason)

    # -- what we wait for -------------------------------------------------------------------------

    async def expect_response(self, status: int, timeout_s: float = WAIT_S, *, method: str = "") -> Message:
        """The response with this status. Other provisionals before it are passed over; any other message fails."""
        async with asyncio.timeout(timeout_s):
            while True:
                message = await self._inbox.get()
                wanted = message.status == status and method in ("", message.method)
                if not wanted and 100 <= message.status < 200:
                    continue
                assert wanted, f"{status} {method} was expected, not\n{message.write().decode(errors='replace')}"
                self._learn(message)
                return message

    async def expect_any_response(self, timeout_s: float = WAIT_S) -> Message:
        """The next message, which must be a response of any status."""
        async with asyncio.timeout(timeout_s):
            message = await self._inbox.get()
        assert message.status, f"a response was expected, not\n{message.write().decode(errors='replace')}"
        return message

    async def expect_request(self, method: str, timeout_s: float = WAIT_S) -> Message:
        """The next message, which must be this request; provisional responses before it are passed over."""
        async with asyncio.timeout(timeout_s):
            while 100 <= (message := await self._inbox.get()).status < 200:
                pass
        is_it = message.start.startswith(f"{method} ")
        assert is_it, f"{method} was expected, not\n{message.write().decode(errors='replace')}"
        return message

    async def expect_bye(self, timeout_s: float = WAIT_S) -> Message:
        """Their BYE, which is answered."""
        bye = await self.expect_request("BYE", timeout_s)
        self.reply(bye, 200)
        return bye

    def assert_silent(self) -> None:
        """Nothing waits that the script has not asked for."""
        assert self._inbox.empty(), f"not expected:\n{self._inbox.get_nowait().write().decode(errors='replace')}"

    def count(self, method: str, status: int = 0) -> int:
        """How many copies of a request (status 0) or response arrived so far."""
        return sum(message.method == method and message.status == status for message in self.seen)

    # -- the phone's side -------------------------------------------------------------------------

    def arrived(self, message: Message) -> None:
        """Called by the phone: keep copies out of the script and answer them as before."""
        copy = any(known.identity == message.identity for known in self.seen)
        self.seen.append(message)
        self._stop_resending(message)
        if message.status >= 300 and message.method == "INVITE":
            self._acknowledge_refusal(message)
        if not copy:
            self._inbox.put_nowait(message)
        elif not message.status and (data := self._answers.get((message.branch, message.method))):
            self.phone.send_raw(data, self.peer)

    def stop(self) -> None:
        """No more retransmissions."""
        for task in self._resending.values():
            task.cancel()

    def _acknowledge_refusal(self, response: Message) -> None:
        """The ACK to a 300–699 has the INVITE's branch and the response's To (RFC 3261 §17.1.1.3)."""
        if self.invite is None or self.invite.branch != response.branch:
            return
        ack = self.build("ACK", cseq=response.cseq, branch=response.branch)
        to = ("To", response.header("To"))
        pairs = tuple(to if name == "To" else (name, value) for name, value in ack.headers)
        self.phone.send(Message(f"ACK {self.invite.uri} SIP/2.0", pairs), self.peer)

    def _learn(self, response: Message) -> None:
        if response.status > 100 and response.method == "INVITE" and response.status < 300:
            self.remote = response.header("To")
            if contact := response.header("Contact"):
                self.target = _uri(contact)

    def _transmit(self, message: Message) -> None:
        self.phone.send(message, self.peer)
        if self.retransmits and message.method != "ACK":
            self._resend(message.branch, message.write())

    def _resend(self, until: str, data: bytes) -> None:
        self._resending[until] = asyncio.get_running_loop().create_task(self._keep_sending(data))

    async def _keep_sending(self, data: bytes) -> None:
        gap = T1_S
        for _ in range(7):
            await asyncio.sleep(gap)
            self.phone.send_raw(data, self.peer)
            gap = min(2 * gap, T2_S)

    def _stop_resending(self, message: Message) -> None:
        key = message.branch if message.status else f"{message.method} {message.cseq}"
        if (task := self._resending.pop(key, None)) is not None:
            task.cancel()


class Phone(asyncio.DatagramProtocol):
    """One SIP socket and its dialogs; INVITEs of nobody's dialog wait in `calls`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self.calls: asyncio.Queue[Dialog] = asyncio.Queue()
        self.strays: asyncio.Queue[Message] = asyncio.Queue()
        """Messages of no dialog: answers to `send_raw`, for one."""
        self.unreadable: list[bytes] = []
        """Datagrams that are no SIP; a test's end checks that there are none."""
        self.rtp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        """The socket behind the port in our SDP; nothing reads it here."""
        self.rtp.bind((host, 0))
        self._dialogs: dict[str, Dialog] = {}
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, host: str = "127.0.0.1") -> AsyncIterator["Phone"]:
        """A phone with free ports while the block runs; leaving checks that everything heard was SIP."""
        phone = cls(host)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: phone, local_addr=(host, 0))
        try:
            yield phone
        finally:
            for dialog in phone._dialogs.values():
                dialog.stop()
            transport.close()
            phone.rtp.close()
        assert not phone.unreadable, f"no SIP: {phone.unreadable}"

    @property
    def uri(self) -> str:
        """Where others call this phone."""
        return f"sip:phone@{self.at}"

    @property
    def at(self) -> str:
        """Our address and port, as they stand in a URI."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def sdp(self, **changes: Any) -> str:
        """Our description; see `sdp`."""
        port: int = self.rtp.getsockname()[1]
        return sdp(self.host, port, **changes)

    def dialog(self, target: str, *, caller: str = "", tag: str = "", call_id: str = "") -> Dialog:
        """A dialog that has not begun; `call` and `ask` begin one."""
        local = f"<{caller or self.uri}>;tag={tag or secrets.token_hex(4)}"
        place = re.search(r"@(?:\[([^\]]+)\]|([^:;]+))(?::(\d+))?", target)
        assert place is not None, target
        peer = (place[1] or place[2], int(place[3] or 5060))
        call_id = call_id or f"{secrets.token_hex(8)}@{self.host.replace(':', '.')}"
        dialog = self._dialogs[call_id] = Dialog(self, call_id, local, f"<{target}>", target, peer)
        return dialog

    def call(
        self,
        target: str,
        *,
        sdp: str | None = None,
        headers: HeaderList = (),
        caller: str = "",
        tag: str = "",
        call_id: str = "",
        retransmits: bool = False,
    ) -> Dialog:
        """Send an INVITE; `sdp` defaults to ours, "" leaves it out."""
        dialog = self.dialog(target, caller=caller, tag=tag, call_id=call_id)
        dialog.retransmits = retransmits
        dialog.invite = dialog.request("INVITE", self.sdp() if sdp is None else sdp, headers)
        return dialog

    def ask(self, method: str, target: str, headers: HeaderList = ()) -> Dialog:
        """Send a request outside of any dialog."""
        dialog = self.dialog(target)
        dialog.request(method, headers=headers)
        return dialog

    async def expect_call(self, timeout_s: float = WAIT_S) -> Dialog:
        """The next INVITE for us, as a dialog to answer, ring or reject."""
        async with asyncio.timeout(timeout_s):
            return await self.calls.get()

    def send(self, message: Message, to: Address) -> None:
        """Send a message."""
        self.send_raw(message.write(), to)

    def send_raw(self, data: bytes, to: Address) -> None:
        """Send bytes, SIP or not."""
        assert self._transport is not None
        self._transport.sendto(data, to)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Called by the event loop."""
        try:
            message = Message.parse(data)
            call_id = message.header("Call-ID")
            assert message.method
        except (ValueError, IndexError):
            self.unreadable.append(data)
            return
        dialog = self._dialogs.get(call_id)
        if dialog is not None and not (dialog.invite is None and message.start.startswith("INVITE")):
            self._take_challenged_again(dialog, message)
            dialog.arrived(message)
        elif message.start.startswith("INVITE "):
            self._new_call(message, (addr[0], addr[1]))
        else:
            self.strays.put_nowait(message)

    def _new_call(self, invite: Message, source: Address) -> None:
        local = f"{invite.header('To')};tag={secrets.token_hex(4)}"
        target = _uri(invite.header("Contact"))
        call_id = invite.header("Call-ID")
        dialog = Dialog(self, call_id, local, invite.header("From"), target, source, invite=invite, seen=[invite])
        self._dialogs[call_id] = dialog
        self.calls.put_nowait(dialog)

    def _take_challenged_again(self, dialog: Dialog, message: Message) -> None:
        """An INVITE with a higher CSeq and no To tag is the same call's next try."""
        if message.start.startswith("INVITE ") and not _param(message.header("To"), "tag"):
            dialog.invite = message


def is_authorized(request: Message, username: str, password: str, nonce: str, *, header: str = "Authorization") -> bool:
    """Whether the digest of a request answers this nonce and proves that its sender knows the password."""
    value = request.header(header)
    if not value or digest.answer(value)["nonce"] != nonce:
        return False
    return digest.proves(value, username, password, request.start.split()[0], request.body)


def _branch() -> str:
    return f"z9hG4bK{secrets.token_hex(8)}"


def _param(value: str, name: str) -> str:
    match = re.search(rf";\s*{name}=([^;,>\s]+)", value.rpartition(">")[2] or value)
    return match[1] if match else ""


def _uri(value: str) -> str:
    match = re.search(r"<([^>]+)>", value)
    return match[1] if match else value.partition(";")[0]
