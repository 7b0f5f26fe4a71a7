"""Finding the border, splitting once and for all, covering every frame."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tts.piper_graph import (
    OVERLAP,
    Border,
    CannotSplit,
    SplitVoice,
    find_border,
    open_session,
    split,
    steps,
)

FRAMES = 100


def toy(*, speakers: bool = False, scope: str = "/dec/", kernel: int = 7) -> onnx.ModelProto:
    """A graph with piper's inputs and names: the input as frames, and a convolution over them as decoder."""
    weight = np.random.default_rng(1).normal(size=(1, 1, kernel)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input"], ["/cast"], "/Cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["/cast", "axis"], ["/z"], "/Unsqueeze"),
        helper.make_node("Conv", ["/z", "w"], ["/dec/c"], f"{scope}conv_pre/Conv", pads=[kernel // 2, kernel // 2]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", "phonemes"])]
    if speakers:
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.FLOAT, [1]))
        nodes.append(helper.make_node("Mul", ["sid", "sid"], ["/g"], "/Mul"))
        nodes.append(helper.make_node("Add", ["/dec/c", "/g"], ["output"], f"{scope}cond/Add"))
    else:
        nodes.append(helper.make_node("Tanh", ["/dec/c"], ["output"], f"{scope}Tanh"))
    graph = helper.make_graph(
        nodes,
        "toy",
        inputs,
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 1, "samples"])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel().tolist()),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def saved(model: onnx.ModelProto, directory: Path) -> Path:
    path = directory / "toy.onnx"
    onnx.save(model, str(path))
    return path


def feed(*, speakers: bool = False) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(2).integers(-3, 3, size=(1, FRAMES))
    return {"input": ids} | ({"sid": np.array([0.5], dtype=np.float32)} if speakers else {})


def test_border_is_what_the_decoder_reads() -> None:
    assert find_border(toy().graph) == Border("/z", ())
    assert find_border(toy(speakers=True).graph) == Border("/z", ("/g",))


def test_graph_without_decoder_cannot_be_split() -> None:
    with pytest.raises(CannotSplit, match="/dec/"):
        find_border(toy(scope="/vocoder/").graph)


@pytest.mark.parametrize("speakers", [False, True])
def test_halves_make_the_same_as_the_whole(tmp_path: Path, speakers: bool) -> None:
    model = saved(toy(speakers=speakers), tmp_path)
    inputs = feed(speakers=speakers)
    expected = open_session(model).run(None, inputs)[0].reshape(-1)

    voice = SplitVoice(split(model, tmp_path / "cache"))
    pieces = list(voice.decode_in_steps(voice.encode(inputs)))

    assert [piece.size for piece in pieces] == [24, 48, 28]
    np.testing.assert_allclose(np.concatenate(pieces), expected, atol=1e-5)


def test_overlap_widens_for_a_decoder_that_sees_further(tmp_path: Path) -> None:
    model = saved(toy(kernel=33), tmp_path)
    voice = SplitVoice(split(model, tmp_path / "cache"))

    reached = voice.widen_overlap(voice.encode(feed()))

    assert voice.overlap == 24
    assert reached < -60


def test_decoder_that_sees_everything_is_not_streamed(tmp_path: Path) -> None:
    voice = SplitVoice(split(saved(toy(kernel=199), tmp_path), tmp_path / "cache"))
    border = voice.encode({"input": np.random.default_rng(3).integers(-3, 3, size=(1, 400))})

    with pytest.raises(CannotSplit, match="dB"):
        voice.widen_overlap(border)


def test_second_split_reads_the_cache(tmp_path: Path) -> None:
    model = saved(toy(), tmp_path)
    first = split(model, tmp_path / "cache")
    made_at = first.encoder.stat().st_mtime_ns

    assert split(model, tmp_path / "cache") == first
    assert first.encoder.stat().st_mtime_ns == made_at
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.encoder.parent.name]


def test_other_content_under_the_same_name_is_another_entry(tmp_path: Path) -> None:
    first = split(saved(toy(), tmp_path), tmp_path / "cache")

    assert split(saved(toy(kernel=5), tmp_path), tmp_path / "cache") != first


def test_many_at_once_leave_one_entry(tmp_path: Path) -> None:
    model = saved(toy(), tmp_path)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: split(model, tmp_path / "cache"), range(4)))

    assert len(set(made)) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [made[0].encoder.parent.name]


def test_unreadable_model_leaves_nothing_behind(tmp_path: Path) -> None:
    model = tmp_path / "x.onnx"
    model.write_bytes(b"not a model")

    with pytest.raises(CannotSplit):
        split(model, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@given(st.integers(1, 2000))
def test_steps_cover_every_frame_once_and_leave_no_stub(frames: int) -> None:
    made = list(steps(frames))

    assert [begin for begin, _ in made] == [0, *(end for _, end in made[:-1])]
    assert made[-1][1] == frames
    assert len(made) == 1 or made[-1][1] - made[-1][0] > OVERLAP
