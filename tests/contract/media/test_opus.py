"""Opus on a leg over RTP, as a SIP phone speaks it."""

import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dialbus.bus import Bus
from tests.contract.media.conftest import Dial, FakeTts
from tests.peers.rtp import loud, tone


async def test_opus_is_heard_both_ways_and_keys_on_its_clock(bus: Bus, dial: Dial, media_env: dict[str, str]) -> None:
    await FakeTts(bus, lambda _, rate_hz: tone(700, 0.8, rate_hz)).start()
    call = await dial("opus")
    await call.configure(recorder={"samplerate": 16000})

    await call.do("tts", text="a tone")
    await call.phone.speak(tone(440, 0.8, 16000))
    await call.phone.press("5", duration_ms=200)
    assert (await call.until("dtmf"))["digit"] == "5"
    await call.until("trackEnd")
    await call.close()

    assert {packet.payload_type for packet in call.phone.heard} == {111}
    assert {b.timestamp - a.timestamp & 0xFFFFFFFF for a, b in pairwise(call.phone.heard)} == {960}
    assert loud(call.phone.audio(), 16000)[1] == pytest.approx(700, abs=2)
    with wave.open(str(Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{call.call_id}.wav")) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 0]
    seconds, frequency = loud(heard, 16000)
    assert seconds == pytest.approx(0.8, abs=0.1)
    assert frequency == pytest.approx(440, abs=2)
