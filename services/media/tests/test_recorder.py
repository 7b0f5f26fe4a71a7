"""Recordings: left is the remote party, one timeline, a valid file at every moment, no way out of the directory."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialbus.filenames import file_safe
from media.audio.recorder import StereoRecorder, UnsafePathError, WavWriter, recording_path


def frame(value: int, samples: int = 320) -> np.ndarray:
    return np.full(samples, value, np.int16)


def read(path: Path) -> tuple[int, np.ndarray]:
    with wave.open(io.BytesIO(path.read_bytes())) as wav:
        assert (wav.getnchannels(), wav.getsampwidth()) == (2, 2)
        data = wav.readframes(wav.getnframes())
        assert len(data) == wav.getnframes() * 4
        return wav.getframerate(), np.frombuffer(data, "<i2").reshape(-1, 2)


@pytest.mark.parametrize(("interval_ms", "ticks"), [(200, 10), (0, 10), (60, 3), (5, 1)])
def test_block_comes_with_every_write_interval(interval_ms: int, ticks: int) -> None:
    recorder = StereoRecorder(16000, interval_ms)
    blocks = [recorder.write(frame(1), frame(2)) for _ in range(2 * ticks)]
    assert [index for index, block in enumerate(blocks) if block is not None] == [ticks - 1, 2 * ticks - 1]
    assert recorder.close() is None


def test_channels_stay_aligned_with_gaps_as_zeros() -> None:
    recorder = StereoRecorder(16000)
    recorder.write(frame(1), None)
    recorder.write(None, frame(2))
    recorder.write(None, None)
    recorder.write(frame(3), frame(4, 100))
    block = recorder.close()
    assert block is not None
    assert block[:, 0].tolist() == [1] * 320 + [0] * 640 + [3] * 320
    assert block[:, 1].tolist() == [0] * 320 + [2] * 320 + [0] * 320 + [4] * 100 + [0] * 220


def test_file_is_valid_after_every_append(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "call.wav"
    with WavWriter(path, 16000, 16000) as writer:
        assert read(path)[1].shape == (0, 2)
        for count in range(1, 4):
            writer.append(np.stack((frame(count), frame(-count)), axis=1))
            rate, pcm = read(path)
            assert (rate, len(pcm)) == (16000, 320 * count)
            assert pcm[-1].tolist() == [count, -count]
        assert writer.duration_seconds == pytest.approx(0.06)
    assert writer.size_bytes == path.stat().st_size


@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_requested_rate_keeps_time_and_channels(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "call.wav"
    seconds = np.arange(16000) / 16000
    left = (8000 * np.sin(2 * np.pi * 440 * seconds)).astype(np.int16)
    writer = WavWriter(path, rate_hz, 16000)
    for at in range(0, 16000, 3200):
        writer.append(np.stack((left[at : at + 3200], np.zeros(3200, np.int16)), axis=1))
    writer.close()
    writer.close()
    rate, pcm = read(path)
    assert rate == rate_hz
    assert len(pcm) == pytest.approx(rate_hz, abs=2)
    assert not pcm[:, 1].any()
    assert int(np.argmax(np.abs(np.fft.rfft(pcm[:, 0])))) in (439, 440, 441)
    ideal = 8000 * np.sin(2 * np.pi * 440 * np.arange(len(pcm)) / rate_hz)
    middle = slice(rate_hz // 4, rate_hz // 2)
    assert np.max(np.abs(pcm[middle, 0] - ideal[middle])) < 100


@pytest.mark.parametrize("rate_hz", [7999, 48001])
def test_rate_out_of_range_is_refused_before_a_file_is_made(tmp_path: Path, rate_hz: int) -> None:
    with pytest.raises(ValueError, match="8000 to 48000"):
        WavWriter(tmp_path / "call.wav", rate_hz, 16000)
    assert not (tmp_path / "call.wav").exists()


@pytest.mark.parametrize(
    ("session_id", "recorder_file", "expected"),
    [
        ("s.9a", None, "/rec/s.9a.wav"),
        ("s.9a", "", "/rec/s.9a.wav"),
        ("abc", "calls/{id}", "/rec/calls/abc.wav"),
        ("abc", "x-{id}-{id}.WAV", "/rec/x-abc-abc.WAV"),
        ("abc", ".hidden", "/rec/_hidden.wav"),
        ("abc", "./day//{id}", "/rec/day/abc.wav"),
    ],
)
def test_file_names(session_id: str, recorder_file: str | None, expected: str) -> None:
    assert recording_path(Path("/rec"), session_id, recorder_file) == Path(expected)


@pytest.mark.parametrize("recorder_file", ["../x", "a/../x", "..", "a\\..\\x", "/tmp/x", "dir/", "/", "."])
def test_names_that_leave_the_directory_or_name_no_file_are_refused(recorder_file: str) -> None:
    with pytest.raises(UnsafePathError):
        recording_path(Path("/rec"), "abc", recorder_file)


def test_absolute_name_is_as_is_where_config_allows_it() -> None:
    assert recording_path(Path("/rec"), "abc", "/data/{id}", allow_absolute=True) == Path("/data/abc.wav")
    with pytest.raises(UnsafePathError):
        recording_path(Path("/rec"), "abc", "/data/../{id}", allow_absolute=True)


awkward = st.text(st.sampled_from("./\\~ab\0\n{id}é") | st.characters(), max_size=40)


@given(awkward, st.none() | awkward)
def test_no_name_escapes_the_root(session_id: str, recorder_file: str | None) -> None:
    root = Path("/srv/rec")
    try:
        path = recording_path(root, session_id, recorder_file)
    except UnsafePathError:
        return
    assert root in path.parents
    assert ".." not in path.parts
    assert path.name.lower().endswith(".wav")
    assert not any(ord(character) < 0x20 for character in str(path))


def test_ids_that_no_file_name_can_hold_stay_inside_and_apart() -> None:
    for odd in ("a/b\\c\n@h", "../../etc/passwd", "..", ""):
        path = recording_path(Path("/rec"), odd)
        assert path.parent == Path("/rec")
        assert path.name == f"{file_safe(odd)}.wav"
    assert recording_path(Path("/rec"), "q/1") != recording_path(Path("/rec"), "q_1")


def test_no_recording_is_written_over_another(tmp_path: Path) -> None:
    wanted = tmp_path / "call.WAV"
    with WavWriter(wanted, 16000, 16000) as first, WavWriter(wanted, 16000, 16000) as beside:
        first.append(np.ones((160, 2), np.int16))
    with WavWriter(wanted, 16000, 16000) as later:
        pass

    assert [writer.path.name for writer in (first, beside, later)] == ["call.WAV", "call-2.WAV", "call-3.WAV"]
    assert [writer.path.stat().st_size for writer in (first, beside, later)] == [44 + 640, 44, 44]


def test_a_name_that_many_want_is_still_found(tmp_path: Path) -> None:
    for _ in range(102):
        WavWriter(tmp_path / "call.wav", 16000, 16000).close()

    assert len(list(tmp_path.iterdir())) == 102
    assert (tmp_path / "call-99.wav").exists()
