"""Between the cores of media and the contracts: options, commands and events. Pure functions."""

from typing import Any

from dialbus.contracts import commands, events
from dialbus.contracts.options import AGCOption, VADOption
from media.audio.agc import GainOptions
from media.turn import playback as core
from media.turn.endpointing import EndpointingOptions

SHORTEST_SILENCE_S = 0.1
"""What one call may add to the stream with `silenceTimeout` is bounded."""


NO_VAD = "nop"
"""The type that asks for no speech events."""


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


def say_command(command: commands.Tts) -> core.SayCommand:
    """`tts` for the playback machine; only the options that were sent."""
    option = command.option.model_dump(by_alias=True, exclude_none=True) if command.option is not None else {}
    return core.SayCommand(
        text=command.text,
        speaker=command.speaker,
        play_id=command.play_id,
        streaming=command.streaming,
        end_of_stream=command.end_of_stream,
        auto_hangup=command.auto_hangup,
        wait_input_timeout_ms=command.wait_input_timeout,
        option=option,
        base64=command.base64,
        cache_key=command.cache_key,
    )


def play_command(command: commands.Play, *, loop: bool) -> core.PlayCommand:
    """`play` for the playback machine."""
    return core.PlayCommand(
        url=command.url,
        play_id=command.play_id,
        auto_hangup=command.auto_hangup,
        wait_input_timeout_ms=command.wait_input_timeout,
        offset_ms=command.offset_ms,
        loop=loop,
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
