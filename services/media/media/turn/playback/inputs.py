"""What a playback is told: clients' commands as they are, answers of the synthesiser and the loader, and time."""

from dataclasses import dataclass

from dialbus.audio import Pcm
from dialbus.contracts.commands import Interrupt, Pause, Play, Resume, Tts
from dialbus.contracts.options import SynthesisOption


@dataclass(frozen=True, slots=True)
class Configure:
    """The call's SynthesisOption, for the commands from now on."""

    option: SynthesisOption


@dataclass(frozen=True, slots=True)
class Loop:
    """`play`, repeated until something else plays or it is stopped: ringtone (O11), music on hold (O23)."""

    command: Play


@dataclass(frozen=True, slots=True)
class Stop:
    """End the running playback without `Interrupted` and without hang-up.

    For a ringtone at accept (O11) and music on hold at answer (O23).
    """


@dataclass(frozen=True, slots=True)
class InputHeard:
    """The caller spoke, pressed a key or was understood: `waitInputTimeout` is off (protocol 2.5.5)."""


@dataclass(frozen=True, slots=True, eq=False)
class SpeechAudio:
    """The next audio of an utterance, int16[n] at the leg's rate."""

    utterance_id: str
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class SpeechTiming:
    """The word or character at index `position` of the text begins `at_ms` into the audio; in order."""

    utterance_id: str
    at_ms: int
    position: int


@dataclass(frozen=True, slots=True)
class SpeechDone:
    """All audio of an utterance has been given."""

    utterance_id: str
    cached: bool = False
    ttfb_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechFailed:
    """An utterance gets no (further) audio: it is skipped, what came of it is played (protocol 2.5.6).

    With `fatal`, the synthesiser cannot work at all: the texts that wait are skipped too, and the playback ends
    at its drain unless something more comes for it.
    """

    utterance_id: str
    code: int | None
    reason: str
    fatal: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FileLoaded:
    """The whole file, int16[n] at the leg's rate; `offsetMs` is applied by the playback."""

    token: str
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class FileFailed:
    """The file cannot be played (O22)."""

    token: str
    reason: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: ends, flushes, `waitInputTimeout`. Given before each `next_frame`."""


@dataclass(frozen=True, slots=True)
class Close:
    """The call ends (O15)."""


TICK = Tick()

PlaybackInput = (
    Tts
    | Play
    | Loop
    | Interrupt
    | Pause
    | Resume
    | Stop
    | Configure
    | InputHeard
    | SpeechAudio
    | SpeechTiming
    | SpeechDone
    | SpeechFailed
    | FileLoaded
    | FileFailed
    | Tick
    | Close
)
