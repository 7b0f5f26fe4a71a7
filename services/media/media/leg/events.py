"""The events of one leg, as clients get them (protocol 3), on their way into the call's stream."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from dialbus.contracts import events
from dialbus.contracts.media import AllocateLeg
from media.leg import translate
from media.leg.outbox import Outbox
from media.speech.recognition import Heard
from media.turn import playback as core

_ERRORS_HELD_S = 1.0
_MAX_ERROR_CODE = 500  # protocol 3.5 has one code for whatever a provider can't do: no worker, no answer, a failure


class LegEvents:
    """Builds events and puts them into the outbox, in the order in which its methods are called; nothing waits.

    Faults of options wait until the call is answered, since clients expect `answer` first (G2).
    """

    def __init__(self, allocation: AllocateLeg, outbox: Outbox) -> None:
        self.main_track = allocation.main_track
        self.server_track = allocation.server_track
        self._refer = allocation.refer
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._held: list[tuple[str, str, int | None, str]] | None = None
        self._awaits_answer = False

    # -- the remote party -------------------------------------------------------------------------

    def media_ready(self) -> None:
        """`mediaReady`: the first packet came."""
        self._outbox.put(events.MediaReady(track_id=self.main_track, timestamp=_now_ms()))

    def dtmf(self, digit: str) -> None:
        """`dtmf`: it pressed a key."""
        self._outbox.put(events.Dtmf(track_id=self.main_track, timestamp=_now_ms(), digit=digit, refer=self._refer))

    def speaking(self, started: float) -> None:
        """`speaking`: it began to, at this Unix time."""
        event = events.Speaking(
            track_id=self.main_track, timestamp=_now_ms(), start_time=_ms(started), refer=self._only_refer
        )
        self._outbox.put(event)

    def silence(self, started: float, duration_s: float) -> None:
        """`silence`: it stopped speaking, or goes on saying nothing, since this Unix time."""
        self._put_silence(self.main_track, _ms(started), _ms(duration_s), refer=self._only_refer)

    def transcript(self, heard: Heard, now: float, ended: float) -> None:
        """`asrFinal` or `asrDelta`; the utterance ended, or goes on, at the Unix time `ended`."""
        utterance, transcript = heard.utterance, heard.transcript
        kind = events.AsrFinal if transcript.final else events.AsrDelta
        self._outbox.put(
            kind(
                track_id=self.main_track,
                timestamp=_ms(now),
                index=utterance.index,
                text=transcript.text,
                start_time=_ms(utterance.started),
                end_time=max(_ms(ended), _ms(utterance.started)),
                confidence=transcript.confidence,
                refer=self._only_refer,
            )
        )

    # -- what it hears ----------------------------------------------------------------------------

    def track_started(self, play_id: str | None = None) -> None:
        """`trackStart` of the server-side track."""
        self._outbox.put(events.TrackStart(track_id=self.server_track, timestamp=_now_ms(), play_id=play_id))

    def track_ended(self, duration_ms: int, ssrc: int, play_id: str | None = None) -> None:
        """`trackEnd` of the server-side track."""
        self._outbox.put(
            events.TrackEnd(
                track_id=self.server_track, timestamp=_now_ms(), duration=duration_ms, ssrc=ssrc, play_id=play_id
            )
        )

    def interruption(self, effect: core.Interrupted) -> None:
        """`interruption` of what played."""
        self._outbox.put(translate.interruption(effect, self.server_track, _now_ms()))

    def input_missed(self, started: float, duration_ms: int) -> None:
        """`silence` of the server-side track: nothing came for `waitInputTimeout` since this Unix time."""
        self._put_silence(self.server_track, _ms(started), duration_ms, refer=None)

    # -- how it goes ------------------------------------------------------------------------------

    def metrics(self, key: str, duration_ms: int, data: Mapping[str, Any]) -> None:
        """`metrics`."""
        self._outbox.put(events.Metrics(timestamp=_now_ms(), key=key, duration=max(0, duration_ms), data=dict(data)))

    def error(self, track: str, sender: str, code: int | None, reason: str) -> None:
        """`error`, now."""
        code = code if code is None else min(code, _MAX_ERROR_CODE)
        self._outbox.put(events.ErrorEvent(track_id=track, timestamp=_now_ms(), sender=sender, error=reason, code=code))

    def option_error(self, sender: str, code: int | None, reason: str, *, track: str | None = None) -> None:
        """`error` of the main track, as a rule; while the answer is on its way, it waits for that."""
        error = (track or self.main_track, sender, code, reason)
        if self._held is not None:
            self._held.append(error)
        else:
            self.error(*error)

    def hold_errors(self, *, answered: bool | None) -> None:
        """Options came: their errors wait for the answer when that is still to come, else for a moment.

        `answered` is what was said about the answer; None: nothing.
        """
        if answered is not None:
            self._awaits_answer = not answered
        if answered:
            self.release_errors()
        elif self._held is None:
            self._held = []
            self._loop.call_later(_ERRORS_HELD_S, self.release_errors)

    def release_errors(self, *, end: bool = False) -> None:
        """Put the errors that wait, unless the answer is still to come; at the `end`, whatever is."""
        if self._awaits_answer and not end:
            return
        held, self._held = self._held, None
        for error in held or ():
            self.error(*error)

    @property
    def _only_refer(self) -> bool | None:
        """Most events say `refer` only where it is true."""
        return True if self._refer else None

    def _put_silence(self, track: str, start_ms: int, duration_ms: int, *, refer: bool | None) -> None:
        self._outbox.put(
            events.Silence(track_id=track, timestamp=_now_ms(), start_time=start_ms, duration=duration_ms, refer=refer)
        )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _now_ms() -> int:
    return round(time.time() * 1000)
