"""Speech and files towards the caller (P-55 to P-75, O17 to O22)."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from tests.conformance.parties import LEVEL, SERVER, SOON_S, SPOKEN_S, Call, amplitude, inbound, outbound, recent
from tests.conformance.sounds import Sounds
from tests.ensemble import Exchange
from tests.harness import eventually
from tests.peers.rtp import tone
from tests.wer import wer

JFK = "voices/jfk.wav"
AUTO = r"incoming T\(main\) answer T\(srv,p\) E\(srv,p\) E\(main\) hangup\{autohangup,system\}"


@asynccontextmanager
async def up(exchange: Exchange, *, codec: str = "pcmu", **option: Any) -> AsyncIterator[Call]:
    """An inbound call that a client has taken; it is hung up at the end."""
    async with inbound(exchange, codec=codec) as call:
        await call.accept(**option)
        yield call
        if call.client.closed is None:
            await call.released()
        await call.client.until_closed(SOON_S)


def told(call: Call) -> str:
    """The story since the answer."""
    return call.client.story.partition(" answer ")[2]


async def comes_to(call: Call, story: str, timeout_s: float = SOON_S) -> None:
    """The story since the answer comes to be this."""
    await eventually(lambda: told(call) == story, timeout_s, what=f"{story} from {told(call)}")


@pytest.mark.row("P-55", "P-56", "O17", "P-58", "P-100", "G9")
async def test_p055_a_sentence_is_spoken(exchange: Exchange, transcribe: Callable[..., str]) -> None:
    async with up(exchange, codec="g722", tts={}) as call:
        text = "This is a reminder. Your car is ready and you can collect it today."
        await call.client.send("tts", text=text, playId="p", endOfStream=True)
        end = await call.client.expect("trackEnd", SPOKEN_S, playId="p")
        assert told(call) == "T(srv,p) E(srv,p)"
        assert end["trackId"] == SERVER
        assert 2000 < end["duration"] < 10_000
        assert wer(text, transcribe(call.rtp.audio(), 16000)) <= 0.15
        metrics = call.client.of("metrics", key="completed.tts.piper")
        assert metrics
        assert metrics[0]["data"]["playId"] == "p"
        names = call.client.names
        assert names.index("metrics") < len(names) - 1 - names[::-1].index("trackEnd")


@pytest.mark.row("P-55", "P-56", "O17")
async def test_p055_speech_without_play_id_ends_when_it_is_drained(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(700, 0.4)
        await comes_to(call, "T(srv) E(srv)")
        [start] = call.client.of("trackStart", trackId=SERVER)
        [end] = call.client.of("trackEnd", trackId=SERVER)
        assert "playId" not in start
        assert "playId" not in end
        assert 300 <= end["duration"] < 2000


@pytest.mark.row("P-57", "G11", "P-58")
@pytest.mark.fault("X-07")
async def test_p057_the_same_play_id_queues(exchange: Exchange) -> None:
    async with up(exchange) as call:
        for frequency in (500, 700, 900):
            await call.say_tone(frequency, 0.5, playId="p")
        await call.client.send("tts", text="", playId="p", endOfStream=True)
        end = await call.client.expect("trackEnd", SOON_S, playId="p")
        assert told(call) == "T(srv,p) E(srv,p)"
        assert 1400 < end["duration"] < 1900, "all three, and no time of grace"
        for frequency in (500, 700, 900):
            assert loudest(call, frequency) > LEVEL


def loudest(call: Call, frequency_hz: float) -> float:
    """How loud a tone was at its loudest."""
    pcm, size = call.rtp.audio(), 1600
    return max(amplitude(pcm[at : at + size], call.rtp.rate_hz, frequency_hz) for at in range(0, len(pcm), size))


@pytest.mark.row("P-57", "O19", "P-73")
@pytest.mark.fault("X-22")
async def test_p057_another_play_id_replaces(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 20.0, playId="a")
        await call.hears(500)
        await call.say_tone(700, 20.0, playId="b")
        await call.hears(700)
        await call.does_not_hear(500)
        await call.say_tone(900, 20.0)
        await call.hears(900)
        await call.client.send("play", url=JFK)
        story = "T(srv,a) interruption{a} E(srv,a) T(srv,b) interruption{b} E(srv,b) T(srv) interruption E(srv)"
        await comes_to(call, f"{story} T(srv,{JFK})")
        await call.say_tone(700, 0.2, playId="c", endOfStream=True)
        await comes_to(call, f"{story} T(srv,{JFK}) interruption{{{JFK}}} E(srv,{JFK}) T(srv,c) E(srv,c)")


@pytest.mark.row("P-57")
async def test_p057_a_closed_play_id_starts_anew_behind_itself(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 0.5, playId="p", endOfStream=True)
        await call.client.expect("trackStart", SOON_S, playId="p")
        await call.say_tone(700, 0.5, playId="p", endOfStream=True)
        await comes_to(call, "T(srv,p) E(srv,p) T(srv,p) E(srv,p)")
        assert loudest(call, 500) > LEVEL
        assert loudest(call, 700) > LEVEL


@pytest.mark.row("P-59")
@pytest.mark.fault("X-07")
async def test_p059_a_lone_command_ends_after_two_seconds_of_grace(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 0.5, playId="p", waitInputTimeout=1000)
        end = await call.client.expect("trackEnd", SOON_S, playId="p")
        assert 2300 < end["duration"] < 5000
        # waitInputTimeout counts from the drain, not from the end of the grace.
        silence = await call.client.expect("silence", SOON_S, trackId=SERVER, duration=1000)
        assert silence["timestamp"] - end["timestamp"] < 900
        assert end["timestamp"] - silence["startTime"] > 1000


@pytest.mark.row("P-60", "G12")
async def test_p060_streaming_ends_by_its_flag_or_when_nothing_comes(
    exchange: Exchange, transcribe: Callable[..., str]
) -> None:
    async with up(exchange, codec="g722", tts={}) as call:
        fragments = ["Your ca", "r is rea", "dy and you can ", "collect it to", "day."]
        for fragment in fragments:
            await call.client.send("tts", text=fragment, playId="s", streaming=True)
        await call.client.expect("trackEnd", SPOKEN_S, playId="s")  # no endOfStream ever: the idle rule
        assert told(call) == "T(srv,s) E(srv,s)"
        assert wer("".join(fragments), transcribe(call.rtp.audio(), 16000)) <= 0.15
        idle = call.client.of("trackEnd", playId="s")[0]["duration"]
        for fragment in fragments:
            await call.client.send("tts", text=fragment, playId="t", streaming=True)
        await call.client.send("tts", text="", playId="t", streaming=True, endOfStream=True)
        flagged = (await call.client.expect("trackEnd", SPOKEN_S, playId="t"))["duration"]
        assert idle > 4800, "5 s after the last fragment"
        assert flagged < idle
        await call.say_tone(700, 0.2, streaming=True)
        await call.client.expect("error", SOON_S)  # base64 does not stream


@pytest.mark.row("P-61")
async def test_p061_base64_is_pcm_of_16_khz_or_of_the_rate_named(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(700, 1.0, playId="wide", endOfStream=True)
        await call.hears(700)
        end = await call.client.expect("trackEnd", SOON_S, playId="wide")
        assert 900 < end["duration"] < 1600
        narrow = base64.b64encode(tone(500, 1.0, 8000, 0.3).tobytes() + b"\x00").decode()  # an odd byte is dropped
        await call.client.send(
            "tts", text=narrow, base64=True, playId="narrow", option={"samplerate": 8000}, endOfStream=True
        )
        await call.hears(500)
        end = await call.client.expect("trackEnd", SOON_S, playId="narrow")
        assert 900 < end["duration"] < 1600
        await call.client.send("tts", text="%%%", base64=True)
        await call.client.expect("error", SOON_S, sender="tts", code=400)


@pytest.mark.row("P-62", "O18")
@pytest.mark.fault("X-08")
async def test_p062_auto_hangup_sticks_to_the_playback(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        await call.say_tone(500, 0.3, playId="p", autoHangup=True)
        await call.say_tone(700, 0.3, playId="p")
        await call.client.send("tts", text="", playId="p", endOfStream=True)
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(AUTO)
        assert loudest(call, 700) > LEVEL
    async with inbound(exchange) as call:  # on a joined command, and no other flag
        await call.accept()
        await call.say_tone(500, 0.3, playId="p")
        await call.say_tone(700, 0.3, playId="p", autoHangup=True)
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(AUTO)


@pytest.mark.row("P-62", "O18", "P-66")
async def test_p062_auto_hangup_of_play_and_of_empty_text(exchange: Exchange) -> None:
    async with inbound(exchange) as call:
        await call.accept()
        await call.client.send("play", url="numbers/11.wav", autoHangup=True)
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(
            r"incoming T\(main\) answer T\(srv,numbers/11.wav\) E\(srv,numbers/11.wav\) "
            r"E\(main\) hangup\{autohangup,system\}"
        )
    async with inbound(exchange) as call:
        await call.accept(tts={})
        await call.client.send("tts", text="", autoHangup=True)
        await call.dialog.expect_bye(SOON_S)
        await call.client.ended(r"incoming T\(main\) answer T\(srv\) E\(srv\) E\(main\) hangup\{autohangup,system\}")


@pytest.mark.row("P-62", "P-69")
async def test_p062_an_interruption_takes_auto_hangup_back(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 10.0, playId="a", autoHangup=True)
        await call.hears(500)
        await call.client.send("interrupt")
        await call.client.expect("trackEnd", SOON_S, playId="a")
        await call.say_tone(500, 10.0, playId="b", autoHangup=True)
        await call.hears(500)
        await call.say_tone(700, 0.3, playId="c", endOfStream=True)
        await call.client.expect("trackEnd", SOON_S, playId="c")
        await call.client.send("history", speaker="x", text="still up")
        await call.client.expect("addHistory", SOON_S)
        assert not call.client.of("hangup")


@pytest.mark.row("P-63", "O17", "G16")
async def test_p063_silence_after_the_playback(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 0.3, playId="p", endOfStream=True, waitInputTimeout=500)
        silence = await call.client.expect("silence", SOON_S)
        [end] = call.client.of("trackEnd", playId="p")
        assert (silence["trackId"], silence["duration"]) == (SERVER, 500)
        assert abs(silence["startTime"] - end["timestamp"]) < 300
        assert 400 < silence["timestamp"] - end["timestamp"] < 3000
        await call.say_tone(500, 0.3, playId="q", endOfStream=True, option={"waitInputTimeout": 400})
        await call.client.expect("silence", SOON_S, duration=400)


@pytest.mark.row("P-63", "P-91")
@pytest.mark.fault("X-21")
async def test_p063_no_silence_after_input_or_an_interruption(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 0.3, playId="p", endOfStream=True, waitInputTimeout=1500)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.rtp.press("5")
        await call.client.expect("dtmf", SOON_S, digit="5")
        await call.say_tone(500, 9.0, playId="q", endOfStream=True, waitInputTimeout=300)
        await call.hears(500)
        await call.client.send("interrupt")
        await call.client.expect("trackEnd", SOON_S, playId="q")
        # What would have come by now: the silence of p after 1.5 s, that of q after 0.3 s.
        await call.say_tone(500, 0.1, playId="r", endOfStream=True, waitInputTimeout=2000)
        await call.client.expect("silence", SOON_S)
        assert [event["duration"] for event in call.client.of("silence")] == [2000]


@pytest.mark.row("P-64")
@pytest.mark.fault("X-16")
async def test_p064_a_command_overrides_only_what_it_names(exchange: Exchange) -> None:
    text = "One, two, three, four, five, six, seven, eight, nine, ten."

    async def spoken(**fields: Any) -> tuple[int, float]:
        play_id = f"p{len(call.client.events)}"
        before = len(call.rtp.heard)
        await call.client.send("tts", text=text, playId=play_id, endOfStream=True, **fields)
        end = await call.client.expect("trackEnd", SPOKEN_S, playId=play_id)
        heard = type(call.rtp)(call.rtp.codec, heard=call.rtp.heard[before:]).audio().astype(np.float64)
        return end["duration"], float(np.sqrt(np.mean(heard[np.abs(heard) > 500] ** 2)))

    async with up(exchange, tts={"speed": 1.5, "volume": 5}) as call:
        usual = await spoken()
        quiet = await spoken(option={"volume": 1})
        slow = await spoken(option={"speed": 1.0})
        assert quiet[1] < 0.6 * usual[1], "the volume of the command"
        assert abs(quiet[0] - usual[0]) < 0.2 * usual[0], "the speed of the call stays"
        assert slow[0] > 1.2 * usual[0]
        assert abs(slow[1] - usual[1]) < 0.35 * usual[1]
        # The speaker of a command reaches the synthesiser: one that is not there is an error, also in `option`.
        await call.client.send("tts", text="x", playId="e", speaker="nobody", option={"speaker": ""}, endOfStream=True)
        error = await call.client.expect("error", SOON_S)
        assert "nobody" in error["error"]


@pytest.mark.row("P-64", "P-121")
async def test_p064_other_names_stand_for_ours(exchange: Exchange) -> None:
    async with up(exchange, tts={"provider": "tencent", "speaker": "601003"}) as call:
        await call.client.send("tts", text="Hello.", playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SPOKEN_S, playId="p")
        assert not call.client.of("error")
        assert len(recent(call.rtp, 30))


@pytest.mark.row("P-65")
async def test_p065_a_synthesis_that_fails_is_an_error_and_the_playback_goes_on(exchange: Exchange) -> None:
    async with up(exchange, tts={"speaker": "nobody"}) as call:
        await call.say_tone(500, 1.0, playId="p")
        await call.client.send("tts", text="x", playId="p")
        await call.say_tone(700, 0.3, playId="p", endOfStream=True)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        assert told(call) == "T(srv,p) error{tts} E(srv,p)"
        [error] = call.client.of("error")
        assert (error["trackId"], error["code"]) == (SERVER, 404)  # 500 when it fails for another reason: test_config
        assert loudest(call, 700) > LEVEL


@pytest.mark.row("P-66", "O17")
@pytest.mark.parametrize("name", ["tone.wav", "tone.mp3", "stereo.wav"])
async def test_p066_a_url_is_played(exchange: Exchange, sounds: Sounds, name: str) -> None:
    url = sounds.url(name)
    async with up(exchange) as call:
        await call.client.send("play", url=url)
        await call.hears(700)
        end = await call.client.expect("trackEnd", SOON_S, playId=url)
        assert 1500 < end["duration"] < 4000
        assert told(call) == f"T(srv,{url}) E(srv,{url})"


@pytest.mark.row("P-66")
async def test_p066_a_url_without_extension_and_its_cache(exchange: Exchange, sounds: Sounds) -> None:
    url = sounds.url("by-content-type")
    async with up(exchange) as call:
        for _ in range(2):
            await call.client.send("play", url=url)
            await call.hears(700)
            await call.client.expect("trackEnd", SOON_S, playId=url)
        assert sounds.asked.count("/by-content-type") == 1


@pytest.mark.row("P-67")
async def test_p067_play_id_offset_and_ogg(exchange: Exchange, sounds: Sounds) -> None:
    async with up(exchange) as call:
        await call.client.send("play", url=sounds.url("tone.ogg"), playId="mine", offsetMs=1200)
        end = await call.client.expect("trackEnd", SOON_S, playId="mine")
        assert 500 < end["duration"] < 1500, "the rest of two seconds"
        assert loudest(call, 700) > LEVEL
        assert told(call) == "T(srv,mine) E(srv,mine)"


@pytest.mark.row("P-68", "O22")
@pytest.mark.parametrize("name", ["missing.wav", "noise.wav", "local", "outside"])
async def test_p068_what_cannot_be_loaded(exchange: Exchange, sounds: Sounds, name: str) -> None:
    url = {"local": "voices/missing.wav", "outside": "../../etc/passwd"}.get(name) or sounds.url(name)
    async with up(exchange) as call:
        await call.client.send("play", url=url)
        await comes_to(call, f"T(srv,{url}) error{{filetrack: {url}}} E(srv,{url})")
        assert call.client.of("error")[0]["trackId"] == SERVER


@pytest.mark.row("P-69", "P-73", "O20")
async def test_p069_interrupt_stops_at_once(exchange: Exchange) -> None:
    async with up(exchange, tts={}) as call:
        text = "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve."
        await call.client.send("tts", text=text, playId="p", endOfStream=True)
        await eventually(lambda: np.abs(recent(call.rtp).astype(int)).max(initial=0) > 2000, SPOKEN_S)
        await call.client.send("interrupt")
        await comes_to(call, "T(srv,p) interruption{p} E(srv,p)")
        [cut] = call.client.of("interruption")
        assert cut["trackId"] == SERVER
        assert cut["subtitle"] in text
        assert cut["subtitle"]
        assert 0 < cut["current"] <= cut["totalDuration"]
        [end] = call.client.of("trackEnd", playId="p")
        assert end["duration"] < 5000


@pytest.mark.row("P-73", "P-69", "O20")
async def test_p073_the_interruption_of_a_file(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.client.send("play", url=JFK)
        await call.client.expect("trackStart", SOON_S, playId=JFK)
        await eventually(lambda: len(call.rtp.heard) > 50, SOON_S)
        await call.client.send("interrupt", graceful=True)  # a file is never graceful
        await comes_to(call, f"T(srv,{JFK}) interruption{{{JFK}}} E(srv,{JFK})")
        [cut] = call.client.of("interruption")
        assert abs(cut["totalDuration"] - 11_000) < 100, "the length of the file"
        assert 500 < cut["current"] < 8000
        assert "subtitle" not in cut


@pytest.mark.row("P-70", "O21")
async def test_p070_interrupt_gracefully(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 2.0, playId="p")
        await call.say_tone(700, 2.0, playId="p", endOfStream=True)
        await call.hears(500)
        await call.client.send("interrupt", graceful=True)
        await call.client.expect("interruption", SOON_S, playId="p")
        assert not call.client.of("trackEnd", playId="p")
        end = await call.client.expect("trackEnd", SOON_S, playId="p")
        assert told(call) == "T(srv,p) interruption{p} E(srv,p)"
        assert 1900 < end["duration"] < 3500, "the segment that sounded, not the next one"
        assert loudest(call, 700) < LEVEL / 3


@pytest.mark.row("P-71")
@pytest.mark.fault("X-18")
async def test_p071_fade_out(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.say_tone(500, 20.0, playId="p")
        await call.hears(500)
        await call.client.send("interrupt", fadeOutMs=800)
        await call.client.expect("trackEnd", SOON_S, playId="p")
        await call.does_not_hear(500)
        pcm = call.rtp.audio().astype(float)
        steps = [np.abs(pcm[at : at + 800]).max() for at in range(0, len(pcm) - 800, 800)]  # tenths of a second
        full = max(steps)
        fading = [step for step in steps if 0.1 * full < step < 0.9 * full]
        assert len(fading) >= 4, [round(step) for step in steps[-20:]]
        assert fading == sorted(fading, reverse=True)
        assert told(call) == "T(srv,p) interruption{p} E(srv,p)"


@pytest.mark.row("P-72", "G4")
async def test_p072_interrupt_with_nothing_playing_says_nothing(exchange: Exchange) -> None:
    async with up(exchange) as call:
        for graceful in (True, False):
            await call.client.send("interrupt", graceful=graceful)
        await call.client.send("history", speaker="x", text="after")
        await call.client.expect("addHistory", SOON_S)
        assert told(call) == "addHistory"


@pytest.mark.row("P-72", "G4")
async def test_p072_interrupt_while_it_rings_says_nothing(exchange: Exchange) -> None:
    async with outbound(exchange) as call:
        dialog = await call.invite()
        for graceful in (True, False):
            await call.client.send("interrupt", graceful=graceful)
        await call.client.send("history", speaker="x", text="after")
        await call.client.expect("addHistory", SOON_S)
        assert not call.client.of("error")
        dialog.reject(486)
        await call.client.until_closed(SOON_S)


@pytest.mark.row("P-74")
async def test_p074_pause_and_resume(exchange: Exchange) -> None:
    async with up(exchange) as call:
        for command in ("pause", "resume"):
            await call.client.send(command)
            error = await call.client.expect("error", SOON_S, sender="command")
            assert "track not found" in error["error"]
        await call.say_tone(500, 2.0, playId="p", endOfStream=True)
        await call.hears(500)
        await call.client.send("pause")
        await call.does_not_hear(500)
        await asyncio.sleep(2.0)  # longer than the rest: a playback that only fell silent would end
        assert not call.client.of("trackEnd", playId="p")
        await call.client.send("resume")
        await call.hears(500)
        end = await call.client.expect("trackEnd", SOON_S, playId="p")
        assert end["duration"] > 3900
        assert told(call) == "error{command} error{command} T(srv,p) E(srv,p)"


@pytest.mark.row("P-75")
async def test_p075_mute_stays_until_unmute(exchange: Exchange) -> None:
    async with up(exchange) as call:
        await call.client.send("mute", trackId="no-such-track")
        await call.client.send("mute", trackId=SERVER)
        await call.say_tone(500, 3.0, playId="a", endOfStream=True)
        await call.client.expect("trackStart", SOON_S, playId="a")
        await call.say_tone(700, 20.0, playId="b")  # another playback on the same track is muted too
        await call.client.expect("trackStart", SOON_S, playId="b")
        await call.rtp.packets(len(call.rtp.heard) + 40)
        assert call.level(700) < LEVEL / 3
        await call.client.send("unmute")
        await call.hears(700)
        await call.client.send("mute", trackId=call.client.main)
        await call.rtp.press("1")
        await call.client.send("unmute", trackId=call.client.main)
        await call.rtp.press("2")
        await call.client.expect("dtmf", SOON_S)
        assert [event["digit"] for event in call.client.of("dtmf")] == ["2"]
        assert not call.client.of("error")


@pytest.mark.row("P-55")
async def test_empty_text_alone_is_a_playback_of_nothing(exchange: Exchange) -> None:
    async with up(exchange, tts={}) as call:
        await call.client.send("tts", text="", playId="p")
        await comes_to(call, "T(srv,p) E(srv,p)")
        await call.client.send("tts", text="🎉", playId="q", endOfStream=True)  # emoji are not spoken
        await comes_to(call, "T(srv,p) E(srv,p) T(srv,q) E(srv,q)")
