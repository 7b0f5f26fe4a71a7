"""All legs of a worker on one 20 ms clock: receive, decode, detect speech, mix, encode, send.

What is the same for many legs is done for all of them at once: G.711 on arrays of legs × samples, the speech detector
on one batch.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dialbus import telemetry
from dialbus.audio import FRAMES_PER_SECOND, Pcm
from media import metrics
from media.audio.codec import G711Codec
from media.audio.vad import SpeechDetector
from media.endpoint.rtp import FRAME_UNITS
from media.leg.leg import Leg, LegKey
from media.leg.leg_audio import LegAudio
from media.rtp.jitter import IDLE, NoAudio

log = telemetry.get_logger()

_REPORT_TICKS = 5 * FRAMES_PER_SECOND
_COUNT_TICKS = FRAMES_PER_SECOND


class Engine:
    """Drives the legs; `tick` is called by the pacer for every 20 ms."""

    def __init__(self, detector: SpeechDetector, clock: Callable[[], float]) -> None:
        """`clock` is the monotonic clock that the moments of the ticks are on."""
        self._detector = detector
        self._clock = clock
        self._legs: dict[LegKey, Leg] = {}
        self._broken: set[LegKey] = set()
        self._ticks = 0

    @property
    def legs(self) -> int:
        """Legs driven now."""
        return len(self._legs)

    def add(self, leg: Leg) -> None:
        """Drive a leg from the next tick on."""
        self._legs[leg.key] = leg

    def remove(self, leg: Leg) -> None:
        """Drive it no longer."""
        if self._legs.pop(leg.key, None) is not None:
            leg.count()
        self._broken.discard(leg.key)

    def tick(self, now: float) -> None:
        """One 20 ms step of every leg, for the moment `now`."""
        self._ticks += 1
        wall = time.time() - (self._clock() - now)
        legs = list(self._legs.values())
        for leg in legs:
            self._guard(leg, leg.receive, now)
        heard = [leg.audio for leg in legs if leg.audio is not None and leg.endpoint.ready]
        self._process_inbound(heard, now, wall)
        self._detect_speech(heard)
        self._send_outbound(heard, now)
        for position, leg in enumerate(legs):
            if (self._ticks + position) % _REPORT_TICKS == 0:
                self._guard(leg, leg.report, now)
        if self._ticks % _COUNT_TICKS == 0:
            for leg in legs:
                leg.count()

    def skip(self, ticks: int) -> None:
        """Ticks that never happened: the RTP clocks go on."""
        metrics.SKIPPED_TICKS.inc(ticks)
        for leg in self._legs.values():
            leg.endpoint.pass_over(ticks)

    def _process_inbound(self, legs: list[LegAudio], now: float, wall: float) -> None:
        batches: dict[str, tuple[G711Codec, list[LegAudio], list[bytes]]] = {}
        for leg in legs:
            payload = self._guard(leg, leg.endpoint.next_payload, now)
            codec = leg.codec
            if payload is None:
                self._guard(leg, leg.process_inbound, IDLE, wall)
            elif isinstance(payload, NoAudio | np.ndarray):
                self._guard(leg, leg.process_inbound, payload, wall)
            elif isinstance(codec, G711Codec) and len(payload) == FRAME_UNITS:
                _, members, payloads = batches.setdefault(codec.format.name, (codec, [], []))
                members.append(leg)
                payloads.append(payload)
            else:
                self._guard(leg, _decode_one, leg, payload, wall)
        for g711, members, payloads in batches.values():
            rows = g711.decode_rows(np.frombuffer(b"".join(payloads), np.uint8).reshape(len(members), FRAME_UNITS))
            for leg, row in zip(members, rows, strict=True):
                self._guard(leg, leg.process_inbound, row, wall)

    def _detect_speech(self, legs: list[LegAudio]) -> None:
        windows = self._detector.process()
        if not windows:
            return
        rows = {leg.hearing.track.row: leg for leg in legs}
        for window in windows:
            leg = rows.get(window.row)
            if leg is not None:
                self._guard(leg, leg.hearing.on_speech_probability, window.probability, window.end_sample)

    def _send_outbound(self, legs: list[LegAudio], now: float) -> None:
        batches: dict[str, tuple[G711Codec, list[LegAudio], list[Pcm]]] = {}
        for leg in legs:
            frame: Pcm | None = self._guard(leg, leg.next_outbound_frame, now)
            codec = leg.codec
            if not leg.endpoint.sends:
                leg.endpoint.pass_over()
            elif frame is None:
                leg.endpoint.send_silence()
            elif not isinstance(codec, G711Codec):
                self._guard(leg, _encode_one, leg, frame)
            else:
                _, members, frames = batches.setdefault(codec.format.name, (codec, [], []))
                members.append(leg)
                frames.append(frame)
        for g711, members, frames in batches.values():
            rows = g711.encode_rows(np.stack(frames))
            for leg, row in zip(members, rows, strict=True):
                leg.endpoint.send(row.tobytes())

    def _guard(self, leg: Leg | LegAudio, step: Callable[..., Any], *arguments: Any) -> Any:
        """Do one step of one leg; what goes wrong there is told once and harms no other leg."""
        try:
            return step(*arguments)
        except Exception:  # the boundary of a leg
            if leg.key not in self._broken:
                self._broken.add(leg.key)
                call_id, leg_id = leg.key
                log.exception("leg.failed", call_id=call_id, leg_id=leg_id, step=step.__name__)
            return None


def _encode_one(leg: LegAudio, frame: Pcm) -> None:
    leg.endpoint.send(leg.codec.encode(frame))


def _decode_one(leg: LegAudio, payload: bytes, wall: float) -> None:
    leg.process_inbound(leg.codec.decode(payload), wall)
