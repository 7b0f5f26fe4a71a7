"""What the 20 ms path of the media worker costs: legs driven by the engine, without sockets, bus or speech model.

    python tests/bench/media_tick.py                         this checkout
    python tests/bench/media_tick.py --against /path/to/one  this one and another, in turn, and their ratio

Each leg receives one packet of G.711 in every tick, is judged by a detector that always hears speech, and every other
one plays a file; so all of them pass through jitter buffer, decoder, inbound track, mix, encoder and packet building.
Told is the median, over the rounds, of the CPU time that one leg takes for one second of audio.
"""

import argparse
import asyncio
import gc
import os
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dialbus import telemetry
from dialbus.audio import FRAME_S
from dialbus.bus import Bus
from dialbus.config import Config
from dialbus.contracts.commands import Play
from dialbus.contracts.media import AllocateLeg, ConfigureLeg, RemoteMedia
from media.audio.vad import SpeechWindow
from media.endpoint.rtp import RtpEndpoint
from media.files.fetch import Fetcher
from media.files.loader import Loader
from media.leg.leg import Leg
from media.leg.resources import Resources
from media.rtp.source import MediaSource
from media.worker.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
LEGS = 50
TICKS = 250

PACKET_BYTES = 172
PHONE = ("192.0.2.7", 4000)


class QuietBus:
    """Takes everything and answers nothing."""

    async def emit(self, call_id: str, event: Any) -> int:
        """Store an event."""
        return 0

    async def subscribe_audio(self, *_: Any) -> Any:
        """Nothing ever comes."""
        return self

    async def drop(self) -> None:
        """Listen no longer."""


class Line:
    """An `RtpTransport` that holds one packet for every tick and counts what is sent."""

    ready = True

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.sent = 0
        self.packet: bytes | None = None

    def receive(self) -> tuple[bytes, tuple[str, int]] | None:
        """The packet of this tick."""
        packet, self.packet = self.packet, None
        return None if packet is None else (packet, PHONE)

    def receive_control(self) -> None:
        """No RTCP."""

    def send(self, data: bytes, destination: tuple[str, int]) -> None:
        """Count it, when it is audio."""
        self.sent += len(data) == PACKET_BYTES

    def send_control(self, data: bytes, destination: tuple[str, int]) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        """Nothing is open."""


class Speaking:
    """A detector that hears speech in every tick."""

    def __init__(self) -> None:
        self._samples: dict[int, int] = {}

    def open(self, rate_hz: int) -> int:
        """A row."""
        self._samples[len(self._samples)] = 0
        return len(self._samples) - 1

    def close(self, row: int) -> None:
        """Forget nothing."""

    def feed(self, row: int, frame: npt.NDArray[np.int16]) -> None:
        """Count it."""
        self._samples[row] += len(frame)

    def process(self) -> list[SpeechWindow]:
        """A window for each."""
        return [SpeechWindow(row, 0.9, end) for row, end in self._samples.items()]


class Tone:
    """A loader for which every file is a minute of a tone."""

    async def load(self, url: str, rate_hz: int) -> npt.NDArray[np.int16]:
        """The tone."""
        return np.asarray(8000 * np.sin(np.arange(60 * rate_hz) * 0.3), np.int16)


async def measure(rounds: int) -> list[float]:
    """Milliseconds of CPU per leg and second of audio, one for each round."""
    detector = Speaking()
    engine = Engine(detector, time.monotonic)
    resources = Resources(
        cast(Bus, QuietBus()), Config(), detector, cast(Fetcher, None), cast(Loader, Tone()), lambda _: True
    )
    lines, legs = [], []
    for number in range(LEGS):
        line = Line()
        endpoint = RtpEndpoint(line, MediaSource(latching=False), ssrc=number + 1, sequence=0, timestamp=0)
        allocation = AllocateLeg(call_id=f"call-{number}", main_track="main", server_track="server")
        leg = Leg(resources, allocation, endpoint)
        await leg.start()
        leg.configure(ConfigureLeg.model_validate({"call_id": leg.call_id, "vad": {"type": "silero"}}))
        leg.connect(RemoteMedia(address=PHONE[0], port=PHONE[1], codec="pcmu", payload_type=0))
        if number % 2:
            play(leg)
        engine.add(leg)
        lines.append(line)
        legs.append(leg)
    results, sequence, now = [], 0, time.monotonic()
    for round_number in range(rounds + 1):  # the first one warms up
        spent = 0.0
        for _ in range(TICKS):
            sequence, now = sequence + 1, now + FRAME_S
            header = struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, 77)
            for line in lines:
                line.packet = header + bytes([sequence & 0x7F]) * 160
            began = time.process_time()
            engine.tick(now)
            spent += time.process_time() - began
            await asyncio.sleep(0)
        if round_number:
            results.append(spent * 1000 / (LEGS * TICKS * FRAME_S))
    assert all(line.sent == sequence for line in lines)
    return results


def play(leg: Leg) -> None:
    """Let a file sound, again and again."""
    leg.command(Play(url="tone.wav"), loop=True)


def run(checkout: Path, rounds: int) -> list[float]:
    """The rounds of a checkout, in a process of its own."""
    paths = [checkout, checkout / "shared", *(checkout / "services").iterdir()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    script = checkout / "tests/bench/media_tick.py"
    done = subprocess.run(
        [sys.executable, str(script), "--here", str(rounds)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--here", type=int, metavar="ROUNDS", help="only the numbers of so many rounds")
    options.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout to compare this one with")
    options.add_argument("--runs", type=int, default=5, help="processes for each checkout, in turn (default 5)")
    chosen = options.parse_args()
    if chosen.here is not None:
        telemetry.configure(service="media", instance="bench", level="error")
        gc.freeze()
        print(*asyncio.run(measure(chosen.here)))
        return
    checkouts = [ROOT] if chosen.against is None else [ROOT, chosen.against.resolve()]
    found: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    for _ in range(chosen.runs):
        for checkout in checkouts:
            found[checkout] += run(checkout, 4)
    for checkout, values in found.items():
        print(f"{statistics.median(values):.3f} ms of CPU per leg and second ({checkout})")
    if chosen.against is not None:
        here, there = (statistics.median(values) for values in found.values())
        print(f"ratio {here / there:.3f}")


if __name__ == "__main__":
    main()
