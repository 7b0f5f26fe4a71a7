"""The remote party's audio on its way in: silenced, denoised, judged and cut into utterances.

Order of protocol 8a: denoise, then VAD, then gain control, then recognition. The recording and other parties get what
recognition gets.
"""

from dataclasses import dataclass

import numpy as np

from dialbus.audio import Pcm
from media.audio.agc import GainControl, GainOptions
from media.audio.denoise import Denoiser, NoiseSuppressor
from media.audio.vad import SpeechDetector
from media.turn.endpointing import Endpointing, EndpointingOptions, SilenceTimeout, SpeechStarted, SpeechStopped
from media.turn.utterance import UtteranceAudio, UtteranceCutter, UtteranceEffect, UtteranceEnded, UtteranceStarted

_SPEECH = 0.5
"""Probability from which the gain control takes a window for speech."""

InboundEffect = SpeechStarted | SpeechStopped | SilenceTimeout | UtteranceStarted | UtteranceAudio | UtteranceEnded


@dataclass(slots=True)
class _Anchor:
    """Ties the track's clock to the wall: the sample `heard` was spoken at `wall`."""

    heard: int = 0
    wall: float = 0.0


class InboundTrack:
    """One remote party. Times in effects are seconds on the track's clock; `wall` gives them as Unix time."""

    def __init__(self, rate_hz: int, detector: SpeechDetector) -> None:
        self.rate_hz = rate_hz
        self._detector = detector
        self._denoiser: Denoiser | None = None
        self._endpointing: Endpointing | None = None
        self._speech_options: EndpointingOptions | None = None
        self._cutter: UtteranceCutter | None = None
        self._cutter_base = 0
        self._next_utterance = 0
        self._gain: GainControl | None = None
        self._speech = False
        self._anchor = _Anchor()
        self.row: int | None = None
        """Of the detector, while somebody wants to know of speech."""
        self.silenced = False
        """Muted or on hold: everything behind hears silence."""

    def denoise(self, wanted: bool) -> None:
        """Suppress noise from now on, or stop it."""
        if wanted and self._denoiser is None:
            self._denoiser = NoiseSuppressor(self.rate_hz)
        elif not wanted:
            self._denoiser = None

    def control_gain(self, options: GainOptions) -> None:
        """Bring speech to an even level from now on; the same options again change nothing."""
        if self._gain is None or self._gain.options != options:
            self._gain = GainControl(self.rate_hz, options)
            self._open_row()

    def report_speech(self, options: EndpointingOptions | None) -> None:
        """Tell speech and silence from now on, or (None) no longer; the same options again change nothing."""
        if options != self._speech_options:
            self._speech_options = options
            self._endpointing = Endpointing(options) if options is not None else None
            self._open_row()

    def cut_utterances(self) -> None:
        """Cut utterances from now on."""
        if self._cutter is None:
            self._open_row()
            self._cutter_base = self._anchor.heard
            self._cutter = UtteranceCutter(
                self.rate_hz, started_at=self._anchor.heard / self.rate_hz, first_index=self._next_utterance
            )

    def stop_cutting(self) -> list[UtteranceEffect]:
        """Cut no more utterances until `cut_utterances`; one under way ends."""
        cutter, self._cutter = self._cutter, None
        if cutter is None:
            return []
        effects = cutter.finish()
        self._next_utterance = cutter.next_index
        return effects

    def process_inbound(self, pcm: Pcm, spoken_until: float) -> tuple[Pcm, list[UtteranceEffect]]:
        """Take the next 20 ms, int16[n], whose last sample was spoken at the Unix time `spoken_until`.

        Gives the audio that may be recorded and heard by others.
        """
        if self.silenced:
            pcm = np.zeros_like(pcm)
        if self._denoiser is not None:
            pcm = self._denoiser.process(pcm)
        if self.row is None:
            return pcm, []
        self._anchor.heard += len(pcm)
        self._anchor.wall = spoken_until
        self._detector.feed(self.row, pcm)
        if self._gain is not None:
            pcm = self._gain.process(pcm, speech=self._speech)
        return pcm, self._cutter.hear(pcm) if self._cutter is not None else []

    def on_speech_probability(self, probability: float, end_sample: int) -> list[InboundEffect]:
        """Take the detector's verdict on the window that ended at `end_sample`."""
        effects: list[InboundEffect] = []
        self._speech = probability >= _SPEECH
        if self._endpointing is not None:
            effects += self._endpointing.receive(probability, end_sample / self.rate_hz)
        if self._cutter is not None and end_sample > self._cutter_base:
            effects += self._cutter.judge(probability, end_sample - self._cutter_base)
        return effects

    def finish(self) -> list[UtteranceEffect]:
        """End of the track: an utterance under way ends."""
        if self.row is not None:
            self._detector.close(self.row)
            self.row = None
        return self._cutter.finish() if self._cutter is not None else []

    def wall(self, at: float) -> float:
        """Unix time of a moment on the track's clock."""
        return self._anchor.wall - (self._anchor.heard / self.rate_hz - at)

    def _open_row(self) -> None:
        if self.row is None:
            self.row = self._detector.open(self.rate_hz)
