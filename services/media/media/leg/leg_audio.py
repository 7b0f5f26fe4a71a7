"""The audio of one leg: from its first codec on, 20 ms in and 20 ms out in every tick."""

import time

import numpy as np

from dialbus.audio import FRAME_S, Pcm, frame_samples
from media import metrics
from media.audio.codec import Codec
from media.audio.concealment import Concealer
from media.audio.resample import live_resampler
from media.endpoint.endpoint import Endpoint
from media.leg.events import LegEvents
from media.leg.hearing import Hearing
from media.leg.ledger import KEY as TURN
from media.leg.ledger import TurnLedger
from media.leg.playing import Playing
from media.leg.recording import Recording
from media.mix.live import Subscriber
from media.mix.media_pass import MediaPass
from media.mix.mixing import Mix
from media.mix.patch import Patches
from media.rtp.jitter import MISSING, NoAudio

_USUAL_DELAY_S = 0.06


class LegAudio:
    """Between the endpoint's codec and all that hears and is heard at the leg's rate.

    The rate is that of the first codec; it stays when a re-INVITE changes the codec.
    """

    def __init__(
        self,
        key: tuple[str, str],
        codec: Codec,
        endpoint: Endpoint,
        hearing: Hearing,
        playing: Playing,
        mix: Mix,
        patches: Patches,
        muted: set[str],
        events: LegEvents,
        ledger: TurnLedger,
    ) -> None:
        self.key = key
        """`call_id` and `leg_id`."""
        self.endpoint = endpoint
        self.hearing = hearing
        self.playing = playing
        self.rate_hz = codec.format.sample_rate_hz
        self.remote_party: Pcm | None = None
        """The remote party in this tick, as others may hear it; None when there is nothing to hear."""
        self.recording: Recording | None = None
        self.media_pass: MediaPass | None = None
        self.subscriber: Subscriber | None = None
        self._mix = mix
        self._patches = patches
        self._muted = muted
        self._events = events
        self._ledger = ledger
        self._delay_s = _USUAL_DELAY_S
        self._heard: Pcm | None = None
        self.use(codec)

    def use(self, codec: Codec) -> None:
        """Audio has another codec from now on."""
        codec_hz = codec.format.sample_rate_hz
        self.codec = codec
        self._codec_samples = frame_samples(codec_hz)
        self._concealer = Concealer(codec_hz)
        self._from_codec = live_resampler(codec_hz, self.rate_hz)
        self._to_codec = live_resampler(self.rate_hz, codec_hz)

    # -- the tick ---------------------------------------------------------------------------------

    def process_inbound(self, audio: Pcm | NoAudio, wall: float) -> None:
        """The next 20 ms of the remote party, at the codec's rate, or why there are none; `wall` is Unix time."""
        if not isinstance(audio, NoAudio):
            pcm = self._concealer.good(audio)
        elif audio is MISSING:
            pcm = self._concealer.lost(self._codec_samples)
        else:
            self._concealer.silence()
            pcm = np.zeros(self._codec_samples, np.int16)
        track = self.hearing.track
        track.silenced = self.endpoint.on_hold or self._events.main_track in self._muted
        heard = self._heard = self.hearing.process_inbound(self._from_codec.process(pcm), wall - self._delay_s)
        nothing_came = isinstance(audio, NoAudio) and audio is not MISSING
        self.remote_party = None if track.silenced or nothing_came else heard
        if self.remote_party is not None:
            self._patches.put(self.rate_hz, self.remote_party)
        if self.media_pass is not None:
            self.media_pass.put(self.rate_hz, heard)
        if self.subscriber is not None and self.endpoint.accepted:
            self.subscriber.main(heard)

    def next_outbound_frame(self, now: float) -> Pcm | None:
        """The next 20 ms to send, at the codec's rate; None is silence."""
        frame = self._mix.next_frame(self.playing.next_frame(now), self.rate_hz, self._muted)
        if self.subscriber is not None and frame is not None:
            self.subscriber.server(frame)
        if self.recording is not None:
            self.recording.write(self._heard, frame)
        if frame is None:
            return None
        if (entry := self._ledger.sent(time.time())) is not None:
            self._events.metrics(TURN, entry["rtp"], entry)
        return self._to_codec.process(frame)

    def report(self) -> None:
        """Every 5 s: what the jitter buffer learnt."""
        statistics = self.endpoint.statistics()
        # A frame is spoken a packet's length before it arrives, and played when the jitter buffer lets it go.
        self._delay_s = statistics.target_delay + FRAME_S
        metrics.JITTER.observe(statistics.jitter_seconds)
