"""A text as a request to the synthesiser: whose options count, and what no synthesiser of ours takes."""

import pytest

from dialbus.contracts.commands import Tts
from dialbus.contracts.options import SynthesisOption
from dialbus.contracts.speech import Speak
from media.turn.playback import Ended, Failed, Playback, SpeechLine, Started
from media.turn.playback.speech import Unspeakable, option_of

LINE = SpeechLine("c", 8000, "server", providers={"tencent": "piper"}, speakers={"601003": ""})


def test_options_become_a_request_at_the_rate_of_the_leg() -> None:
    option = SynthesisOption(
        speaker="joe", speed=1.2, volume=3, language="en", cache_key="k", provider="piper", samplerate=24000
    )

    assert LINE.speak("u1", "hello", option, cacheable=True) == Speak(
        call_id="c", utterance_id="u1", text="hello", speaker="joe", language="en", speed=1.2, volume=3.0,
        rate_hz=8000, samplerate=24000, cache_key="k",
    )  # fmt: skip


def test_streamed_text_is_not_kept_and_a_model_is_a_voice() -> None:
    asked = LINE.speak("u2", "hello", SynthesisOption(model="amy", cache_key="k"), cacheable=False)

    assert asked == Speak(call_id="c", utterance_id="u2", text="hello", speaker="amy", rate_hz=8000, use_cache=False)


def test_a_foreign_voice_is_ours() -> None:
    assert (
        LINE.speak("u", "hello", SynthesisOption(provider="Tencent", speaker="601003"), cacheable=True).speaker is None
    )


def test_a_provider_that_nobody_stands_for() -> None:
    with pytest.raises(Unspeakable, match="tts provider not available: nobody") as unspeakable:
        LINE.speak("u", "hello", SynthesisOption(provider="nobody"), cacheable=True)

    assert unspeakable.value.code == 404


def test_texts_that_nobody_can_speak_are_one_error_and_the_playback_ends() -> None:
    playback = Playback(LINE, option=SynthesisOption(provider="nobody"))

    effects = playback.receive(Tts(text="One.", play_id="p"), 0.0)

    failed = Failed("tts", 404, "tts provider not available: nobody")
    assert effects == [Started("p"), failed, Ended("p", 0, auto_hangup=False)]


def test_only_what_a_command_names_goes_over_the_call() -> None:
    call = SynthesisOption(provider="piper", speaker="joe", speed=1.2)

    assert option_of(Tts(text=""), call) == call
    assert option_of(Tts(text="", option=SynthesisOption(speaker="bob", volume=7)), call) == SynthesisOption(
        provider="piper", speaker="bob", speed=1.2, volume=7
    )
    assert option_of(Tts(text="", speaker="ann", option=SynthesisOption(speaker="bob")), call).speaker == "ann"
