"""Audio files as int16 mono PCM at any rate: WAV by our own reader, MP3 and Ogg (Vorbis, Opus) by FFmpeg's.

Everything blocks and belongs into a thread. What a file unfolds to is bounded.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from dialbus.audio import Pcm
from media.files import wav

Kind = Literal["wav", "mp3", "ogg"]

LONGEST_S = 3600
"""Of a file, decoded."""

_BY_SUFFIX: dict[str, Kind] = {
    ".wav": "wav", ".wave": "wav", ".mp3": "mp3", ".ogg": "ogg", ".oga": "ogg", ".opus": "ogg",
}  # fmt: skip
_BY_TYPE: dict[str, Kind] = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/x-mp3": "mp3", "audio/x-mpeg": "mp3", "audio/mpeg3": "mp3",
    "audio/ogg": "ogg", "application/ogg": "ogg", "audio/opus": "ogg", "audio/vorbis": "ogg", "audio/x-ogg": "ogg",
}  # fmt: skip
_CODECS: dict[Kind, frozenset[str]] = {
    "wav": frozenset(),
    "mp3": frozenset({"mp3", "mp3float"}),
    "ogg": frozenset({"vorbis", "opus", "libopus"}),
}
_BLOCK = 1 << 13  # samples converted at once: no step of it keeps the 20 ms clock waiting
_MAX_CHANNELS = 2
# Titles in any old encoding are none of our business. PyAV 19, the first without Python 3.11, takes them as they are.
_LENIENT: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "ignore"}
_RATES_HZ = range(4000, 192001)


class UnplayableError(ValueError):
    """Bytes that are no audio file of their kind, or too much of it; `str()` says why."""


def kind_of(paths: Iterable[str], content_type: str | None = None) -> Kind | None:
    """What a file is: by the first path whose extension is known, else by its Content-Type; None: unknown."""
    for path in paths:
        kind = _BY_SUFFIX.get(PurePosixPath(path).suffix.lower())
        if kind is not None:
            return kind
    return _BY_TYPE.get((content_type or "").partition(";")[0].strip().lower())


def decode(data: bytes, kind: Kind, rate_hz: int, longest_s: float = LONGEST_S) -> Pcm:
    """The whole file as int16[n] mono at `rate_hz`, channels averaged. Raises UnplayableError."""
    try:
        if kind == "wav":
            sound = wav.decode(data)
            if len(sound.pcm) > longest_s * sound.rate_hz:
                raise _too_long(longest_s)
            blocks = (sound.pcm[start : start + _BLOCK] for start in range(0, len(sound.pcm), _BLOCK))
            return _gathered(blocks, sound.rate_hz, rate_hz, longest_s)
        return _decode_packed(data, kind, rate_hz, longest_s)
    except wav.WavError as error:
        raise UnplayableError(str(error)) from None
    except FFmpegError as error:
        raise UnplayableError(f"not an {kind.upper()} file: {error.strerror}") from None


def _decode_packed(data: bytes, kind: Kind, rate_hz: int, longest_s: float) -> Pcm:
    # The format is named, never guessed: FFmpeg also knows formats that lead to other files and hosts.
    with av.open(io.BytesIO(data), "r", format=kind, **_LENIENT) as container:
        if not container.streams.audio:
            raise UnplayableError("no audio in the file")
        stream = container.streams.audio[0]
        if stream.codec_context.name not in _CODECS[kind]:
            raise UnplayableError(f"{stream.codec_context.name} inside of {kind.upper()}")
        # What has more is music, or made to try the decoder: odd layouts of channels are where it was wrong before.
        if not 1 <= stream.codec_context.channels <= _MAX_CHANNELS:
            raise UnplayableError(f"{stream.codec_context.channels} channels")
        source_hz = stream.codec_context.sample_rate
        if source_hz not in _RATES_HZ:
            raise UnplayableError(f"a sample rate of {source_hz} Hz")
        return _gathered(_blocks(container, stream, source_hz), source_hz, rate_hz, longest_s)


def _blocks(container: InputContainer, stream: AudioStream, source_hz: int) -> Iterator[Pcm]:
    """Mono blocks of some thousand samples. What is damaged is passed over, as every player does."""
    to_planes = AudioResampler(format="fltp", rate=source_hz)  # a file that changes its rate is made even
    waiting: list[npt.NDArray[np.float32]] = []
    samples, heard = 0, False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            for even in to_planes.resample(frame):
                mono = even.to_ndarray().mean(axis=0)
                waiting.append(mono)
                samples += len(mono)
        if samples >= _BLOCK:
            heard = True
            yield _narrow(np.concatenate(waiting) * 32768)
            waiting, samples = [], 0
    if samples:
        yield _narrow(np.concatenate(waiting) * 32768)
    elif not heard:
        raise UnplayableError("no audio in the file")


def _gathered(blocks: Iterable[Pcm], source_hz: int, rate_hz: int, longest_s: float) -> Pcm:
    """All blocks at another rate, in one piece; the memory between is that of a block."""
    most = int(longest_s * rate_hz)
    stream = None if source_hz == rate_hz else soxr.ResampleStream(source_hz, rate_hz, 1, "float32", "HQ")
    parts: list[Pcm] = []
    length = 0
    for block in blocks:
        # In floating point, as soxr dithers what it rounds itself, and silence is to stay silent.
        part = block if stream is None else _narrow(stream.resample_chunk(block.astype(np.float32)))
        parts.append(part)
        length += len(part)
        if length > most:
            raise _too_long(longest_s)
    if stream is not None:
        parts.append(_narrow(stream.resample_chunk(np.zeros(0, np.float32), last=True)))
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _too_long(longest_s: float) -> UnplayableError:
    return UnplayableError(f"longer than {longest_s / 60:g} minutes")


def _narrow(samples: npt.NDArray[np.floating]) -> Pcm:
    return np.asarray(np.clip(np.rint(samples), -32768, 32767), np.int16)
