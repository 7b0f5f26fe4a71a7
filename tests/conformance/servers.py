"""Plain servers that the extra ensembles talk to: a registrar, a receiver of records, a language model."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.peers.phone import Message, is_authorized


class Registrar:
    """A SIP registrar on UDP: challenges, then grants `expires` seconds. `seen` has every REGISTER."""

    def __init__(self, expires: int = 4) -> None:
        self.seen: list[Message] = []
        self.expires = expires
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def authorized(self) -> list[Message]:
        """Those that proved the password."""
        return [m for m in self.seen if m.header("Authorization") and is_authorized(m, "7301", "s3cr3t", "n0nce")]

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                data, source = self._socket.recvfrom(65536)
            except TimeoutError:
                continue
            if not data.startswith(b"REGISTER "):
                continue
            request = Message.parse(data)
            self.seen.append(request)
            copied = [(n, v) for n, v in request.headers if n in ("Via", "From", "Call-ID", "CSeq")]
            to = ("To", f"{request.header('To')};tag=registrar")
            if request in self.authorized:
                gone = request.header("Expires") == "0" or "expires=0" in request.header("Contact")
                headers = [*copied, to, ("Contact", request.header("Contact"))]
                headers.append(("Expires", "0" if gone else str(self.expires)))
                start = "SIP/2.0 200 OK"
            else:
                challenge = ("WWW-Authenticate", 'Digest realm="registrar", nonce="n0nce", algorithm=MD5')
                headers, start = [*copied, to, challenge], "SIP/2.0 401 Unauthorized"
            self._socket.sendto(Message(start, tuple(headers)).write(), source)


class Receiver:
    """An HTTP server that keeps what is posted: (path, headers with lower-case names, body). `reply` is its answer."""

    def __init__(self, reply: bytes = b"{}", kind: str = "application/json") -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                if headers.get("transfer-encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(headers.get("content-length", "0")))
                outer.got.append((self.path, headers, body))
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @classmethod
    @contextmanager
    def serve(cls, reply: bytes = b"{}", kind: str = "application/json") -> Iterator["Receiver"]:
        """Serve while the block runs."""
        receiver = cls(reply, kind)
        threading.Thread(target=receiver._server.serve_forever, daemon=True).start()
        try:
            yield receiver
        finally:
            receiver._server.shutdown()
            receiver._server.server_close()


def parts_of(headers: dict[str, str], body: bytes) -> dict[str, bytes]:
    """The parts of a multipart body, by name."""
    boundary = re.search(r'boundary="?([^";]+)', headers["content-type"])
    assert boundary is not None, headers
    found = {}
    for part in body.split(b"--" + boundary[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        assert name is not None, head
        found[name[1].decode()] = content.removesuffix(b"\r\n")
    return found


def calls_of(records: Receiver) -> dict[str, dict[str, bytes]]:
    """The parts of every record that arrived, by call id."""
    found = {}
    for _, headers, body in records.got:
        parts = parts_of(headers, body)
        found[json.loads(parts["calllog.json"])["callId"]] = parts
    return found
