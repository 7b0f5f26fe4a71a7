"""Between the cores of media and the contracts: options, commands and events. Pure functions."""

from typing import Any, Literal

from dialbus.contracts import events
from dialbus.contracts.media import MAIN_LEG, AllocateLeg
from dialbus.contracts.options import AGCOption, VADOption
from media.audio.agc import GainOptions
from media.turn import playback as core
from media.turn.endpointing import EndpointingOptions

SHORTEST_SILENCE_S = 0.1
"""What one call may add to the stream with `silenceTimeout` is bounded."""


NO_VAD = "nop"
"""The type that asks for no speech events."""


def bus_track(allocation: AllocateLeg, side: Literal["main", "server"]) -> str:
    """The name of a leg's audio on the bus: its side, of further legs with their id before it."""
    return side if allocation.leg_id == MAIN_LEG else f"{allocation.leg_id}-{side}"


def endpointing_options(option: VADOption) -> EndpointingOptions | None:
    """What a client asks of endpointing; None when it wants none."""
    if option.type.lower() == NO_VAD:
        return None
    return EndpointingOptions(
        speech_padding_s=option.speech_padding / 1000,
        silence_padding_s=option.silence_padding / 1000,
        ratio=option.ratio,
        voice_threshold=option.voice_threshold,
        max_speech_s=float(option.max_buffer_duration_secs),
        silence_timeout_s=max(option.silence_timeout / 1000, SHORTEST_SILENCE_S) if option.silence_timeout else None,
    )


def gain_options(option: AGCOption) -> GainOptions:
    """What a client asks of gain control."""
    return GainOptions(
        headroom_db=option.headroom_db,
        max_gain_db=option.max_gain_db,
        initial_gain_db=option.initial_gain_db,
        max_gain_change_db_per_second=option.max_gain_change_db_per_second,
        max_output_noise_level_dbfs=option.max_output_noise_level_dbfs,
        adjacent_speech_frames=option.adjacent_speech_frames_threshold,
        limiter=option.enable_limiter,
    )


def interruption(effect: core.Interrupted, track: str, now_ms: int) -> events.Interruption:
    """The event of a playback that was cut."""
    return events.Interruption(
        track_id=track,
        timestamp=now_ms,
        play_id=effect.play_id,
        subtitle=effect.subtitle,
        position=effect.position,
        total_duration=effect.total_duration_ms,
        current=effect.current_ms,
    )


def completed_data(effect: core.SpeechCompleted) -> dict[str, Any]:
    """The data of `completed.tts.{provider}` (protocol 3.3), unknown keys left out."""
    data = {
        "playId": effect.play_id,
        "cmdSeq": effect.cmd_seq,
        "length": effect.length_bytes,
        "cached": effect.cached,
        "ttfb": effect.ttfb_ms,
        "duration": effect.duration_ms,
        "speaker": effect.speaker,
    }
    return {key: value for key, value in data.items() if value is not None}
