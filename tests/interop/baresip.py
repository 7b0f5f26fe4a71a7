"""A baresip process: an independent SIP phone (libre, librem) that speaks a WAV, records what it hears, and is told
what to do over its control socket.

Its folder has configuration, voice and recordings. SIP and the control socket are on 127.0.0.1 only; RTP is sent from
there and announced so, but baresip 1.0 always binds it to every address. The `sndfile` filter records, because no audio
player of the package works without a sound card.
"""

import asyncio
import json
import logging
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from tests.ensemble import Pcm, read_wav, write_wav
from tests.harness import eventually
from tests.interop.ports import free_port

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

CODECS = {"PCMU": 8000, "PCMA": 8000, "G722": 16000}
"""What baresip calls them, and the rate in Hz of the audio that goes in and comes out."""
QUIET_BEFORE_S = 0.5
QUIET_AFTER_S = 90
"""The end of its voice file would end baresip's call; no test waits so long."""
START_WITHIN_S = 10.0

_CONFIG = """\
poll_method epoll
net_interface 127.0.0.1
sip_listen 127.0.0.1:{sip}
rtp_ports 20000-30000
ctrl_tcp_listen 127.0.0.1:{control}
audio_source aufile,{voice}
audio_player aubridge,nobody
audio_alert aubridge,nobody
snd_path {folder}
module_path {modules}
module g711.so
module g722.so
module aufile.so
module aubridge.so
module sndfile.so
module_app account.so
module_app contact.so
module_app menu.so
module_app ctrl_tcp.so
"""


class Baresip:
    """The phone. `events` has what it told so far."""

    def __init__(self, folder: Path, sip_port: int, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.address = f"sip:phone@127.0.0.1:{sip_port}"
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._responses: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, codec: str, voice: Path) -> AsyncIterator["Baresip"]:
        """A phone that knows one codec, answers every call and says `voice` in each."""
        sip_port, control_port = free_port(span=2), free_port()  # SIP over TLS takes the port above
        rate_hz, spoken = CODECS[codec], folder / "voice.wav"
        _write_voice(spoken, voice, rate_hz)
        (folder / "config").write_text(
            _CONFIG.format(sip=sip_port, control=control_port, voice=spoken, folder=folder, modules=_modules())
        )
        (folder / "accounts").write_text(
            f"<sip:phone@127.0.0.1:{sip_port};transport=udp>;regint=0;answermode=auto"
            f";audio_codecs={codec}/{rate_hz}/1;ptime=20\n"
        )
        (folder / "contacts").write_text("")
        with (folder / "log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                "baresip", "-f", str(folder), "-v", stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        phone = cls(folder, sip_port, process)
        try:
            await phone._connect(control_port)
            yield phone
        finally:
            await phone._stop()
            log.info("baresip told %s\n%s", phone.events, phone.log[-8000:])  # pytest shows it for a failed test

    @property
    def log(self) -> str:
        """Everything that it wrote so far."""
        return (self.folder / "log").read_text(errors="replace")

    async def command(self, name: str, parameters: str = "") -> str:
        """Do a command of baresip's menu and give its output; AssertionError when it fails."""
        assert self._writer is not None
        token = secrets.token_hex(4)
        arrived = self._responses[token] = asyncio.get_running_loop().create_future()
        text = json.dumps({"command": name, "params": parameters, "token": token}).encode()
        self._writer.write(b"%d:%s," % (len(text), text))
        async with asyncio.timeout(5):
            response = await arrived
        assert response["ok"], response
        return str(response["data"])

    async def told(self, kind: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """The first event of this type."""
        found = await eventually(
            lambda: next((event for event in self.events if event["type"] == kind), None),
            timeout_s,
            what=f"{kind} among {self.events}",
        )
        assert found is not None
        return found

    async def heard(self) -> tuple[Pcm, int]:
        """What it recorded of the other side, and the rate in Hz. Ends the phone, which completes the file."""
        await self._stop()
        (path,) = self.folder.glob("dump-*-dec.wav")
        return read_wav(path)

    async def _connect(self, port: int) -> None:
        """Open the control socket as soon as it is there, and wait for the end of baresip's start."""
        async with asyncio.timeout(START_WITHIN_S):
            while self._writer is None:
                assert self._process.returncode is None, "baresip ended at once"
                with suppress(ConnectionRefusedError):
                    reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
                    self._reader = asyncio.create_task(self._read(reader), name="baresip events")
                await asyncio.sleep(0.01)
        await eventually(lambda: "baresip is ready" in self.log, START_WITHIN_S, what="baresip's start")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Netstrings of JSON: responses by their token, events in order."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await reader.readuntil(b":"))[:-1])
                message = json.loads((await reader.readexactly(length + 1))[:-1])
                if message.get("response"):
                    self._responses.pop(message["token"]).set_result(message)
                else:
                    self.events.append(message)

    async def _stop(self) -> None:
        """End it; harmless when it has ended."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._writer is not None and self._reader is not None:
            self._writer.close()
            await self._reader


def _write_voice(path: Path, voice: Path, rate_hz: int) -> None:
    """The voice as baresip takes it: at the codec's own rate, and with silence around it."""
    pcm, source_hz = read_wav(voice)
    spoken = pcm if source_hz == rate_hz else soxr.resample(pcm, source_hz, rate_hz)
    before, after = (np.zeros(round(seconds * rate_hz), np.int16) for seconds in (QUIET_BEFORE_S, QUIET_AFTER_S))
    write_wav(path, np.concatenate((before, spoken, after)), rate_hz)


def _modules() -> Path:
    """Where this system keeps baresip's modules, which follows from where its binary is."""
    binary = shutil.which("baresip")
    assert binary is not None, "baresip is not installed"
    library = Path(binary).resolve().parents[1] / "lib"
    found = [*library.glob("baresip/modules"), *library.glob("*/baresip/modules")]
    assert found, f"no baresip modules below {library}"
    return found[0]
