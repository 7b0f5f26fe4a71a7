"""A piper voice cut in two, so that its audio can be computed in pieces.

A VITS export is one graph: text → encoder, duration and flow → z (frames) → `/dec/`, a HiFi-GAN that turns each
frame into `hop` samples. All noise is drawn before z, and the decoder sees only a few frames around the one it is
at, so z decoded in overlapping pieces is the same audio as z decoded at once: -122 dB apart at 12 frames overlap,
-64 dB at 8. Only the halves' border has to be found: its tensor has another name in every export.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx.utils
import onnxruntime
from numpy.typing import NDArray

# Part of the cache's key: raise it when the way of splitting changes.
LAYOUT = "split-1"
DECODER_SCOPE = "/dec/"
# The decoder's first convolution reads z; in multi-speaker voices a second one, `cond`, reads the speaker.
FIRST_CONVOLUTION = "/dec/conv_pre/"

# Frames decoded per step: the first short for an early start, the later ones long for less overlap per sample.
STEPS = (24, 48, 96)
OVERLAP = 12
OVERLAP_MAX = 48

Samples = NDArray[np.float32]
Tensors = dict[str, NDArray[np.float32]]


class CannotSplit(Exception):
    """The graph is not of the known shape, the text says why; the voice then speaks whole sentences."""


@dataclass(frozen=True)
class SplitFiles:
    """The halves of one voice, on disk."""

    encoder: Path
    decoder: Path


@dataclass(frozen=True)
class Border:
    """The tensors that cross from encoder to decoder: z, and the speaker's `conditioning` if there is one."""

    z: str
    conditioning: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [self.z, *self.conditioning]


def content_key(model: Path) -> str:
    """Hex SHA-256 of the model file: the same voice under two names is split once."""
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_border(graph: onnx.GraphProto) -> Border:
    """What the `/dec/` nodes read that is neither weight nor their own. Raises CannotSplit."""
    decoder = [node for node in graph.node if node.name.startswith(DECODER_SCOPE)]
    own = {name for node in decoder for name in node.output}
    own |= {weight.name for weight in graph.initializer}
    read = dict.fromkeys(name for node in decoder for name in node.input if name and name not in own)
    first = {name for node in decoder if node.name.startswith(FIRST_CONVOLUTION) for name in node.input if name in read}
    if not decoder:
        raise CannotSplit(f"no node is named {DECODER_SCOPE}…")
    candidates = first or set(read)
    if len(candidates) != 1:
        raise CannotSplit(f"the decoder has {len(candidates)} inputs that could be its frames")
    z = candidates.pop()
    graph_inputs = {tensor.name for tensor in graph.input}
    if graph_inputs & set(read):
        raise CannotSplit("the decoder reads an input of the whole graph")
    return Border(z, tuple(name for name in read if name != z))


def split(model: Path, cache: Path) -> SplitFiles:
    """The two halves of `model`, from `cache` or made there now (about 1.5 s, once per voice and machine).

    A half-written result is never seen: both files are made in a neighbouring directory, which is then renamed;
    of two processes at it the first one wins. Raises CannotSplit, OSError.
    """
    home = cache / f"{content_key(model)[:32]}-{LAYOUT}"
    files = SplitFiles(home / "encoder.onnx", home / "decoder.onnx")
    if files.encoder.is_file() and files.decoder.is_file():
        return files
    cache.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=".splitting-", dir=cache))
    try:
        _extract(model, SplitFiles(workshop / files.encoder.name, workshop / files.decoder.name))
        # rename() does not replace a directory that has files in it: then another process was first.
        try:
            os.rename(workshop, home)
        except OSError:
            if not files.decoder.is_file():
                raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return files


def discard(files: SplitFiles) -> None:
    """Forget halves that turned out unreadable."""
    shutil.rmtree(files.encoder.parent, ignore_errors=True)


def _extract(model: Path, into: SplitFiles) -> None:
    try:
        graph = onnx.load(str(model)).graph
        border = find_border(graph)
        inputs = [tensor.name for tensor in graph.input]
        onnx.utils.extract_model(str(model), str(into.encoder), inputs, border.names)
        onnx.utils.extract_model(str(model), str(into.decoder), border.names, [graph.output[0].name])
    except (CannotSplit, OSError):
        raise
    except Exception as error:  # onnx and protobuf raise a dozen types of their own
        raise CannotSplit(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


class Tensor(Protocol):
    """A session's input or output, as far as it matters here."""

    name: str


class Session(Protocol):
    """What is used of `onnxruntime.InferenceSession`, which carries no types."""

    def run(
        self, output_names: list[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]: ...

    def get_inputs(self) -> list[Tensor]: ...


def open_session(model: Path) -> Session:
    """An inference session that shares its machine well; `run` may be called by many threads at once.

    One thread per call (several calls fill the cores better than one call does), no spinning while idle, no
    arena (which would keep the longest sentence's memory for ever).
    """
    options = onnxruntime.SessionOptions()  # type: ignore[attr-defined]  # not in the package's __all__
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    session: Session = onnxruntime.InferenceSession(  # type: ignore[assignment,attr-defined]  # not in the package's __all__; narrowed by our protocol
        str(model), options, providers=["CPUExecutionProvider"]
    )
    return session


def steps(frames: int) -> Iterator[tuple[int, int]]:
    """The (begin, end) of each decoding step over `frames`: 24, 48, then 96 at a time, no stub at the end."""
    begin = 0
    for index in range(frames):
        size = STEPS[min(index, len(STEPS) - 1)]
        end = begin + size
        if end + OVERLAP >= frames:
            end = frames
        yield begin, end
        if end == frames:
            return
        begin = end


class SplitVoice:
    """Encoder and decoder of one voice. Thread-safe."""

    def __init__(self, files: SplitFiles) -> None:
        self.encoder = open_session(files.encoder)
        self._decoder = open_session(files.decoder)
        # `split` names z first.
        self.names = [tensor.name for tensor in self._decoder.get_inputs()]
        self.z = self.names[0]
        self.overlap = OVERLAP

    def encode(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """The tensors at the border for one sentence; z is float32[1, channels, frames]."""
        return dict(zip(self.names, self.encoder.run(self.names, inputs), strict=True))

    def decode(self, border: Tensors) -> Samples:
        """The whole sentence at once."""
        return _flat(self._decoder.run(None, border)[0])

    def decode_in_steps(self, border: Tensors) -> Iterator[Samples]:
        """The same samples as `decode`, piece by piece."""
        z = border[self.z]
        frames = z.shape[2]
        for begin, end in steps(frames):
            left, right = max(0, begin - self.overlap), min(frames, end + self.overlap)
            samples = self.decode({**border, self.z: z[:, :, left:right]})
            hop = samples.size // (right - left)
            yield samples[(begin - left) * hop : (end - left) * hop]

    def widen_overlap(self, border: Tensors, allowed_db: float = -60.0) -> float:
        """Double the overlap until pieces equal the whole within `allowed_db` of its power; what was reached.

        Bigger decoders ("high" voices) look further around. Raises CannotSplit when no overlap suffices.
        """
        whole = self.decode(border)
        power = float(np.mean(whole**2)) + 1e-12
        while True:
            error = np.concatenate(list(self.decode_in_steps(border))) - whole
            reached = 10 * float(np.log10(float(np.mean(error**2)) / power + 1e-20))
            if reached <= allowed_db:
                return reached
            if self.overlap >= OVERLAP_MAX:
                raise CannotSplit(f"pieces differ from the whole by {reached:.0f} dB")
            self.overlap *= 2


class WholeVoice:
    """A voice whose graph cannot be split: same interface, one piece per sentence. Thread-safe."""

    def __init__(self, model: Path) -> None:
        self.encoder = open_session(model)

    def synthesise(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[Samples]:
        yield _flat(self.encoder.run(None, inputs)[0])


def _flat(audio: NDArray[np.float32]) -> Samples:
    return np.asarray(audio, dtype=np.float32).reshape(-1)
