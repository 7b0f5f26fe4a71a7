"""Audio files as clients serve them, made with FFmpeg's encoders."""

import io
from typing import cast

import av
import numpy as np
import numpy.typing as npt

FORMATS = {
    "mp3": ("mp3", "libmp3lame"),
    "opus": ("ogg", "libopus"),
    "vorbis": ("ogg", "vorbis"),
    "flac": ("ogg", "flac"),
}


def audio_file(name: str, channels: list[npt.NDArray[np.int16]], rate_hz: int) -> bytes:
    """A file of one of FORMATS; each channel int16[n]. The encoder of Vorbis takes two."""
    container_format, codec = FORMATS[name]
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = cast("av.AudioStream", container.add_stream(codec, rate=rate_hz, options={"strict": "experimental"}))
        stream.layout = layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
        planes = np.stack(channels).astype(np.float32) / np.float32(32768)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        for packet in (*stream.encode(frame), *stream.encode(None)):
            if packet.size:  # FLAC's encoder ends with an empty one
                container.mux(packet)
    return file.getvalue()
