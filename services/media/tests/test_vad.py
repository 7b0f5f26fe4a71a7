"""The Silero detector: buffering, batching and what it says about a human voice."""

import hashlib
import wave
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession

from media.audio.vad import SileroDetector, SpeechWindow

VOICE = Path(__file__).parent / "data" / "lj_8k.wav"


@pytest.fixture(scope="module")
def detector() -> SileroDetector:
    return SileroDetector.load()


def voice() -> np.ndarray:
    with wave.open(str(VOICE)) as file:
        assert file.getframerate() == 8000
        return np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)


def frames(pcm: np.ndarray, samples: int) -> list[np.ndarray]:
    return [pcm[at : at + samples] for at in range(0, len(pcm) - samples + 1, samples)]


def probabilities(detector: SileroDetector, rate_hz: int, pcm: np.ndarray) -> list[float]:
    """One stream alone, in frames of 20 ms."""
    row = detector.open(rate_hz)
    windows: list[SpeechWindow] = []
    for frame in frames(pcm, rate_hz // 50):
        detector.feed(row, frame)
        windows += detector.process()
    detector.close(row)
    return [window.probability for window in windows]


def test_the_shipped_model_is_the_one_its_note_names() -> None:
    model = files("media").joinpath("models/silero_vad.onnx").read_bytes()
    note = files("media").joinpath("models/README.md").read_text()

    assert hashlib.sha256(model).hexdigest() in note
    assert "MIT License" in files("media").joinpath("models/LICENSE.silero_vad").read_text()


@pytest.mark.parametrize(("rate_hz", "window"), [(8000, 256), (16000, 512)])
def test_frames_of_20_ms_become_windows_of_32_ms(detector: SileroDetector, rate_hz: int, window: int) -> None:
    row = detector.open(rate_hz)
    ends = []
    for _ in range(8):  # 160 ms: five windows
        detector.feed(row, np.zeros(rate_hz // 50, dtype=np.int16))
        ends.append([judged.end_sample for judged in detector.process()])
    detector.close(row)

    assert ends == [[], [window], [], [2 * window], [3 * window], [], [4 * window], [5 * window]]


@pytest.mark.parametrize(("rate_hz", "window", "context"), [(8000, 256, 32), (16000, 512, 64)])
def test_windows_follow_one_another_each_with_the_end_of_the_last_as_context(
    detector: SileroDetector, rate_hz: int, window: int, context: int
) -> None:
    pcm = np.repeat(voice(), rate_hz // 8000)[: rate_hz * 2]
    session: Any = InferenceSession(files("media").joinpath("models/silero_vad.onnx").read_bytes())
    state = np.zeros((2, 1, 128), dtype=np.float32)
    padded = np.concatenate((np.zeros(context), pcm / 32768)).astype(np.float32)
    expected = []
    for begin in range(0, len(pcm) - window + 1, window):
        inputs = {"input": padded[None, begin : begin + context + window], "state": state, "sr": np.array(rate_hz)}
        probability, state = session.run(None, inputs)
        expected.append(float(probability[0, 0]))

    assert probabilities(detector, rate_hz, pcm) == pytest.approx(expected, abs=1e-5)


def test_a_batch_says_exactly_what_single_runs_say(detector: SileroDetector) -> None:
    narrow = voice()[:16000]
    wide = np.repeat(voice(), 2)[:32000]
    noise = np.random.default_rng(7).normal(0, 3000, 16000).astype(np.int16)
    streams = [(8000, narrow), (16000, wide), (8000, noise), (8000, narrow[4000:12000]), (16000, wide[::-1].copy())]
    alone = [probabilities(detector, rate_hz, pcm) for rate_hz, pcm in streams]

    rows = [detector.open(rate_hz) for rate_hz, _ in streams]
    together: dict[int, list[float]] = {row: [] for row in rows}
    for tick in range(100):
        for row, (rate_hz, pcm) in zip(rows, streams, strict=True):
            size = rate_hz // 50
            if (tick + 1) * size <= len(pcm):
                detector.feed(row, pcm[tick * size : (tick + 1) * size])
        for window in detector.process():
            together[window.row].append(window.probability)
    for row in rows:
        detector.close(row)

    assert [together[row] for row in rows] == alone


def test_a_voice_is_speech_and_silence_and_noise_are_not(detector: SileroDetector) -> None:
    spoken = probabilities(detector, 8000, voice())
    silent = probabilities(detector, 8000, np.zeros(16000, dtype=np.int16))
    hiss = probabilities(detector, 8000, np.random.default_rng(1).normal(0, 500, 16000).astype(np.int16))

    assert np.mean(np.array(spoken) > 0.5) > 0.6
    assert max(silent) < 0.2
    assert np.mean(np.array(hiss) > 0.5) < 0.1


def test_a_new_stream_in_a_used_slot_starts_from_nothing(detector: SileroDetector) -> None:
    first = probabilities(detector, 8000, voice()[:8000])

    assert probabilities(detector, 8000, voice()[:8000]) == first


def test_more_streams_than_the_first_arrays_hold_keep_their_state(detector: SileroDetector) -> None:
    pcm = voice()[4000:8000]
    alone = probabilities(detector, 8000, pcm)
    rows = [detector.open(8000)]
    heard: list[float] = []
    for frame in frames(pcm, 160):
        detector.feed(rows[0], frame)
        heard += [window.probability for window in detector.process() if window.row == rows[0]]
        rows += [detector.open(8000), detector.open(8000)]
    for row in rows:
        detector.close(row)

    assert heard == alone
    assert detector.streams == 0


def test_audio_nobody_judges_is_dropped_from_the_front_and_counted(detector: SileroDetector) -> None:
    row = detector.open(8000)
    before = detector.dropped_samples
    for _ in range(10):
        detector.feed(row, np.zeros(160, dtype=np.int16))  # 1600 samples; 1024 are kept
    windows = detector.process()
    detector.close(row)

    assert detector.dropped_samples - before == 576
    assert [window.end_sample for window in windows] == [832, 1088, 1344, 1600]


def test_a_closed_row_is_gone_and_other_rates_are_refused(detector: SileroDetector) -> None:
    row = detector.open(16000)
    detector.feed(row, np.zeros(512, dtype=np.int16))
    detector.close(row)
    detector.close(row)

    assert detector.process() == []
    with pytest.raises(KeyError):
        detector.feed(row, np.zeros(320, dtype=np.int16))
    with pytest.raises(ValueError, match="48000"):
        detector.open(48000)
