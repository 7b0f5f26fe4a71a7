"""A web server with two seconds of a 700 Hz tone in several formats."""

import io
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tests.peers.audio_files import audio_file
from tests.peers.rtp import tone

FREQUENCY_HZ = 700
SECONDS = 2.0


class Sounds:
    """The server; `asked` has the paths of all requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        mono = tone(FREQUENCY_HZ, SECONDS, 24000, 0.3)
        stereo = np.stack((mono, np.zeros_like(mono)), axis=1).reshape(-1)
        files = {
            "/tone.wav": ("audio/wav", _wav(mono, 24000, 1)),
            "/stereo.wav": ("audio/wav", _wav(stereo, 24000, 2)),
            "/tone.mp3": ("audio/mpeg", audio_file("mp3", [mono], 24000)),
            "/tone.ogg": ("audio/ogg", audio_file("opus", [mono], 24000)),
            "/by-content-type": ("audio/mpeg", audio_file("mp3", [mono], 24000)),
            "/noise.wav": ("audio/wav", bytes(range(256)) * 40),
        }
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                kind, data = files.get(self.path, ("text/plain", b""))
                self.send_response(200 if data else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @classmethod
    @contextmanager
    def serve(cls) -> Iterator["Sounds"]:
        """Serve while the block runs."""
        sounds = cls()
        threading.Thread(target=sounds._server.serve_forever, daemon=True).start()
        try:
            yield sounds
        finally:
            sounds._server.shutdown()
            sounds._server.server_close()

    def url(self, name: str) -> str:
        """Where a file is."""
        return f"http://127.0.0.1:{self._server.server_port}/{name}"


def _wav(pcm: "np.ndarray[Any, np.dtype[np.int16]]", rate_hz: int, channels: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
