"""Playback: what one call leg hears from the server, at most one thing at a time (protocol 2.5 to 2.8).

A playback is spoken (`tts`) or a file (`play`). A spoken one consists of segments: one per command, or, when it is
streamed, one per speakable chunk of the joined fragments. `inputs` go into `machine.Playback`, `effects` come out.
`course` is what goes on between inputs, `tracks` are the playbacks themselves, `feed` asks for their speech.
"""

from media.turn.playback.course import State
from media.turn.playback.effects import (
    CancelSpeech,
    Ended,
    Failed,
    Interrupted,
    LoadFile,
    PlaybackEffect,
    Refused,
    SpeechCompleted,
    Started,
)
from media.turn.playback.inputs import (
    TICK,
    Close,
    Configure,
    FileFailed,
    FileLoaded,
    InputHeard,
    Loop,
    PlaybackInput,
    SpeechAudio,
    SpeechDone,
    SpeechFailed,
    SpeechTiming,
    Stop,
    Tick,
)
from media.turn.playback.machine import TABLE, Playback
from media.turn.playback.speech import SpeechLine
from media.turn.playback.tracks import Limits

__all__ = [
    "TABLE", "TICK", "CancelSpeech", "Close", "Configure", "Ended", "Failed", "FileFailed", "FileLoaded", "InputHeard",
    "Interrupted", "Limits", "LoadFile", "Loop", "Playback", "PlaybackEffect", "PlaybackInput", "Refused",
    "SpeechAudio", "SpeechCompleted", "SpeechDone", "SpeechFailed", "SpeechLine", "SpeechTiming", "Started", "State",
    "Stop", "Tick",
]  # fmt: skip
