"""The codecs of a phone leg behind one protocol. Source: RFC 3551 §4.5 and table 4."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dialbus.audio import Pcm, frame_samples
from media.audio import g711
from media.audio.g722 import G722Decoder, G722Encoder
from media.audio.opus import OpusDecoder, OpusEncoder

Octets = NDArray[np.uint8]


class UnknownCodecError(ValueError):
    """A codec name that is not built in."""


@dataclass(frozen=True, slots=True)
class CodecFormat:
    """What SDP and the RTP clock need to know of a codec."""

    name: str
    encoding: str
    """Encoding name in an rtpmap."""
    payload_type: int
    """The static one, or the usual; an answer keeps the offerer's."""
    clock_rate_hz: int
    """Of RTP timestamps. 8000 for G.722 too, by an error in RFC 1890 that RFC 3551 §4.5.2 keeps."""
    sample_rate_hz: int
    channels: int = 1
    """As the rtpmap tells; 2 for Opus, always (RFC 7587 §4.1), though we send one."""

    @property
    def rtpmap(self) -> str:
        """As in `a=rtpmap:0 PCMU/8000`, without the payload type."""
        return f"{self.encoding}/{self.clock_rate_hz}" + (f"/{self.channels}" if self.channels > 1 else "")

    @property
    def frame_units(self) -> int:
        """20 ms of the RTP clock."""
        return frame_samples(self.clock_rate_hz)


class Codec(Protocol):
    """Encoder and decoder of one leg; state is kept, so a leg has its own and keeps it."""

    @property
    def format(self) -> CodecFormat:
        """Names and rates."""

    def encode(self, pcm: Pcm) -> bytes:
        """The payload of int16[n] at the codec's sample rate; n even for G.722."""

    def decode(self, payload: bytes) -> Pcm:
        """int16[n] at the codec's sample rate; read-only in part, so copy before changing it."""


PCMU = CodecFormat("pcmu", "PCMU", 0, 8000, 8000)
PCMA = CodecFormat("pcma", "PCMA", 8, 8000, 8000)
G722 = CodecFormat("g722", "G722", 9, 8000, 16000)
OPUS = CodecFormat("opus", "opus", 111, 48000, 16000, channels=2)
FORMATS: dict[str, CodecFormat] = {codec.name: codec for codec in (G722, PCMU, PCMA, OPUS)}
"""By lower-case name, in the order they are offered. All but Opus send one octet per unit of their clock."""


class G711Codec:
    """PCMU or PCMA; without state, so that many legs can also go through `encode_rows` and `decode_rows` at once."""

    def __init__(self, codec_format: CodecFormat) -> None:
        self.format = codec_format
        mu = codec_format.name == PCMU.name
        self.encode_rows: Callable[[Pcm], Octets] = g711.encode_mu if mu else g711.encode_a
        """uint8[N, n] payloads of int16[N, n]."""
        self.decode_rows: Callable[[Octets], Pcm] = g711.decode_mu if mu else g711.decode_a
        """int16[N, n] of uint8[N, n] payloads."""

    def encode(self, pcm: Pcm) -> bytes:
        return self.encode_rows(pcm).tobytes()

    def decode(self, payload: bytes) -> Pcm:
        return self.decode_rows(np.frombuffer(payload, np.uint8))


class G722Codec:
    """G.722 with an encoder and a decoder of its own."""

    def __init__(self) -> None:
        self.format = G722
        self._encoder = G722Encoder()
        self._decoder = G722Decoder()

    def encode(self, pcm: Pcm) -> bytes:
        return self._encoder.encode(pcm)

    def decode(self, payload: bytes) -> Pcm:
        return self._decoder.decode(payload)


class OpusCodec:
    """Opus with an encoder and a decoder of its own; its packets last as long as their sender likes."""

    def __init__(self) -> None:
        self.format = OPUS
        self._encoder = OpusEncoder()
        self._decoder = OpusDecoder()

    def encode(self, pcm: Pcm) -> bytes:
        return self._encoder.encode(pcm)

    def decode(self, payload: bytes) -> Pcm:
        return self._decoder.decode(payload)

    def conceal(self) -> Pcm:
        """20 ms in place of what was lost."""
        return self._decoder.conceal()


def make_codec(name: str) -> Codec:
    """A fresh codec by its name, in any case. Raises UnknownCodecError."""
    match name.lower():
        case "pcmu":
            return G711Codec(PCMU)
        case "pcma":
            return G711Codec(PCMA)
        case "g722":
            return G722Codec()
        case "opus":
            return OpusCodec()
    raise UnknownCodecError(f"unknown codec {name!r}; known are {', '.join(FORMATS)}")
