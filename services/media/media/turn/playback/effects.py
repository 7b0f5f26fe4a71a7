"""What a playback wants done: requests to the synthesiser and the loader, and what clients are told."""

from dataclasses import dataclass

from dialbus.contracts.speech import Speak
from media.turn.input_timeout import InputTimeout


@dataclass(frozen=True, slots=True)
class CancelSpeech:
    """Stop a synthesis whose audio nobody will hear. Late answers are ignored."""

    utterance_id: str


@dataclass(frozen=True, slots=True)
class LoadFile:
    """Fetch a file and decode it to the leg's rate, mono, from its beginning.

    To be answered with `FileLoaded` or `FileFailed`.
    """

    token: str
    url: str


@dataclass(frozen=True, slots=True)
class Started:
    """`trackStart` of the server-side track."""

    play_id: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """`trackEnd` of the server-side track; exactly one for each `Started`."""

    play_id: str | None
    duration_ms: int
    """Since `Started`, pauses included."""
    auto_hangup: bool
    """The call is to be hung up now."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """`interruption`; at most one for each `Started`, before its `Ended`."""

    play_id: str | None
    subtitle: str | None
    """Text of the segment that was sounding."""
    position: int | None
    """Index into the subtitle of the last word begun, when the synthesiser told timings."""
    total_duration_ms: int
    """Audio received so far for that segment; for a file its full length."""
    current_ms: int
    """How much of it was played."""


@dataclass(frozen=True, slots=True)
class Failed:
    """`error` of the server-side track; the playback goes on."""

    sender: str
    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """`error` for a command that changed nothing."""

    sender: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpeechCompleted:
    """The `completed.tts.{provider}` metrics of one utterance. None: unknown, to be left out."""

    provider: str | None
    play_id: str | None
    cmd_seq: int | None
    """Index of the command in its playback; None for streamed text."""
    length_bytes: int
    """Audio received, 16 bit at the leg's rate."""
    cached: bool
    ttfb_ms: int | None
    duration_ms: int
    """From the request to the last audio."""
    speaker: str | None


PlaybackEffect = (
    Speak  # to be answered with `SpeechAudio`, any number of times, and one of `SpeechDone` and `SpeechFailed`
    | CancelSpeech
    | LoadFile
    | Started
    | Ended
    | Interrupted
    | Failed
    | Refused
    | SpeechCompleted
    | InputTimeout
)
