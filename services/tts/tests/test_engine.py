"""The real default voice: what streams is what one run gives, in time, at the asked rate, until cancelled."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tts import engine as engine_module
from tts.engine import AudioChunk, LoadedVoice, PiperSynthesiser, user_cache
from tts.errors import LanguageNotSupported, SynthesisFailed, VoiceBroken, VoiceNotFound
from tts.piper_graph import SplitVoice, WholeVoice, open_session
from tts.voices import Voices, wheel_voice

pytestmark = pytest.mark.model

LONG = "The office is open from Monday to Friday between nine in the morning and five in the afternoon."


def joined(chunks: Iterator[AudioChunk]) -> NDArray[np.int16]:
    return np.concatenate([chunk.pcm for chunk in chunks])


def difference_db(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return 10 * float(np.log10(np.mean((got - expected) ** 2) / np.mean(expected**2) + 1e-20))


def test_default_voice_streams_inside_sentences(voice: LoadedVoice) -> None:
    assert voice.whole_because is None
    assert isinstance(voice._graph, SplitVoice)
    assert voice.rate_hz == 22050


def test_pieces_joined_equal_one_run_of_the_unsplit_model(voice: LoadedVoice) -> None:
    (ids,) = voice.sentences(LONG)
    unsplit = open_session(wheel_voice()[0])

    expected = unsplit.run(None, voice.inputs(ids, noise=0.0))[0].reshape(-1)
    pieces = list(voice.synthesise(ids, noise=0.0))

    assert len(pieces) > 3
    assert difference_db(np.concatenate(pieces), expected) < -60


def test_pieces_joined_equal_decoding_at_once_with_noise(voice: LoadedVoice) -> None:
    graph = voice._graph
    assert isinstance(graph, SplitVoice)
    border = graph.encode(voice.inputs(voice.sentences(LONG)[0]))

    assert difference_db(np.concatenate(list(graph.decode_in_steps(border))), graph.decode(border)) < -60


def test_first_piece_is_24_frames(voice: LoadedVoice) -> None:
    first = next(voice.synthesise(voice.sentences(LONG)[0]))

    assert first.size == 24 * 256


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 48000])
def test_duration_does_not_depend_on_the_rate(
    engine: PiperSynthesiser, voice: LoadedVoice, rate_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    synthesise = voice.synthesise

    def counted(ids: list[int], **options: Any) -> Iterator[NDArray[np.float32]]:
        nonlocal made
        for samples in synthesise(ids, **options):
            made += samples.size
            yield samples

    monkeypatch.setattr(voice, "synthesise", counted)
    chunks = list(engine.stream("Yes. Please hold.", rate_hz=rate_hz))

    assert {chunk.rate_hz for chunk in chunks} == {rate_hz}
    assert all(chunk.pcm.dtype == np.int16 and chunk.pcm.size for chunk in chunks)
    assert abs(sum(chunk.pcm.size for chunk in chunks) - made * rate_hz / voice.rate_hz) <= 1


def test_chunks_name_their_phrase(engine: PiperSynthesiser) -> None:
    chunks = list(engine.stream("Good morning. How are you?", rate_hz=8000))

    assert list(dict.fromkeys(chunk.phrase for chunk in chunks)) == ["Good morning.", "How are you?"]


def test_cancelling_stops_before_the_next_piece(engine: PiperSynthesiser) -> None:
    asked = count()

    # Asked before the phrase, before its sentence, after each of two pieces.
    heard = list(engine.stream(LONG, cancelled=lambda: next(asked) == 3))

    assert len(heard) == 2


def test_cancelled_from_the_start_synthesises_nothing(
    engine: PiperSynthesiser, voice: LoadedVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "sentences", lambda phrase: pytest.fail("phonemised"))

    assert list(engine.stream(LONG, cancelled=lambda: True)) == []


def test_speed_shortens_and_is_clamped(engine: PiperSynthesiser) -> None:
    normal = joined(engine.stream(LONG)).size
    fast = joined(engine.stream(LONG, speed=2.0)).size
    clamped = joined(engine.stream("Yes.", speed=1000.0)).size

    # More than a half: the model rounds each phoneme up to whole frames.
    assert 0.45 < fast / normal < 0.8
    assert clamped > 800


def test_speech_is_at_telephone_level(engine: PiperSynthesiser) -> None:
    pcm = joined(engine.stream(LONG)).astype(np.float64) / 32768

    assert -26 < 20 * np.log10(np.sqrt(np.mean(pcm**2))) < -14
    assert np.abs(pcm).max() < 1.0


@pytest.mark.parametrize("text", ["", "  ", "...", "😀", "\u200b", "\x00"])
def test_text_without_a_word_gives_no_audio(engine: PiperSynthesiser, text: str) -> None:
    assert list(engine.stream(text)) == []


@pytest.mark.parametrize("text", ["[[", "[[ zzz ]]", "ÿ", "你好。", "%", "a" * 300, "\ud800 yes"])
def test_odd_text_does_not_raise(engine: PiperSynthesiser, text: str) -> None:
    heard = count()
    for _ in engine.stream(text, rate_hz=8000, speed=4.0, cancelled=lambda: next(heard) > 3):
        pass


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"speaker": "nobody"}, VoiceNotFound),
        ({"language": "de"}, LanguageNotSupported),
    ],
)
def test_wrong_requests_are_refused_before_any_audio(
    engine: PiperSynthesiser, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        engine.stream("Hello.", **options)


def test_engine_failure_names_the_phrase(
    engine: PiperSynthesiser, voice: LoadedVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "sentences", lambda phrase: [[10**9]])

    with pytest.raises(SynthesisFailed, match=r"Hello\.") as caught:
        list(engine.stream("Hello."))
    assert caught.value.phrase == "Hello."


def test_threads_share_one_voice(engine: PiperSynthesiser, voice: LoadedVoice) -> None:
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda n: joined(engine.stream(f"Number {n}.")).size, range(4)))

    assert min(sizes) > 0.4 * 16000
    assert list(engine._loaded.values()) == [voice]


def test_unsplittable_voice_speaks_whole_sentences(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache directory should be")

    loaded = LoadedVoice(Voices().resolve(), blocked)

    assert loaded.whole_because
    assert isinstance(loaded._graph, WholeVoice)
    (piece,) = loaded.synthesise(loaded.sentences("Hello there.")[0])
    assert piece.size > 8000


def test_damaged_split_is_made_anew(tmp_path: Path, split_cache: Path, voice: LoadedVoice) -> None:
    (home,) = (path for path in split_cache.iterdir() if path.is_dir())
    broken = tmp_path / home.name
    broken.mkdir()
    (broken / "encoder.onnx").write_bytes(b"x")
    (broken / "decoder.onnx").write_bytes(b"")

    loaded = LoadedVoice(voice.voice, tmp_path)

    assert loaded.whole_because is None


def test_broken_model_is_a_voice_error(tmp_path: Path) -> None:
    model = tmp_path / "bad.onnx"
    model.write_bytes(b"not a model")
    (tmp_path / "bad.onnx.json").write_bytes(wheel_voice()[1].read_bytes())

    with pytest.raises(VoiceBroken, match=r"bad\.onnx") as caught:
        PiperSynthesiser(Voices(tmp_path), cache=tmp_path / "cache").stream("Hi.", speaker="bad")
    assert str(tmp_path) not in str(caught.value).split(":")[0]


def test_oldest_voice_leaves_when_the_table_is_full(
    tmp_path: Path, voice: LoadedVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Opened:
        def __init__(self, voice: Any, cache: Path) -> None:
            opened.append(voice.name)

    for name in "abc":
        (tmp_path / f"{name}.onnx").touch()
        (tmp_path / f"{name}.onnx.json").write_bytes(wheel_voice()[1].read_bytes())
    monkeypatch.setattr(engine_module, "LoadedVoice", Opened)
    engine = PiperSynthesiser(Voices(tmp_path), cache=tmp_path, max_voices=2)

    for name in "abacab":
        engine.load(name)

    assert opened == ["a", "b", "c", "b"]


def test_cache_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "dialbus"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache() == tmp_path / "home" / ".cache" / "dialbus"
