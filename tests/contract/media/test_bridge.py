"""Two calls whose parties hear each other over the bus, on two workers (protocol 2.13, P-97)."""

import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from dialbus.bus import Bus, Refused
from dialbus.contracts.media import BridgeLeg, UnbridgeLeg
from tests.contract.media.conftest import Call, Dial, FakeTts
from tests.harness import ServiceProcess, run_service
from tests.peers.rtp import strength, tone


@pytest_asyncio.fixture
async def neighbour(media: ServiceProcess, media_env: dict[str, str]) -> AsyncIterator[ServiceProcess]:
    """A second worker."""
    async with run_service("media", media_env) as service:
        yield service


async def _on(worker: ServiceProcess, dial: Dial, codec: str) -> Call:
    """A call on this worker; the group gives legs to whoever it likes."""
    for _ in range(60):
        call: Call = await dial(codec)
        if call.allocated.worker == worker.instance:
            return call
        await call.stop()
    raise AssertionError(f"no leg came to {worker.instance}")


async def _bridge(call: Call, other: Call) -> None:
    await call.bus.request(BridgeLeg(call_id=call.call_id, other=other.call_id))


async def _unbridge(call: Call, other: str) -> None:
    await call.bus.request(UnbridgeLeg(call_id=call.call_id, other=other))


async def test_calls_on_two_workers_hear_each_other(
    bus: Bus, dial: Dial, media: ServiceProcess, neighbour: ServiceProcess, media_env: dict[str, str]
) -> None:
    await FakeTts(bus, lambda text, rate_hz: tone(float(text), 0.7, rate_hz, 0.3)).start()
    here, there = await _on(media, dial, "pcmu"), await _on(neighbour, dial, "g722")
    await here.configure(recorder={"samplerate": 16000})

    async with here.phone.humming(500), there.phone.humming(900):
        await _bridge(here, there)
        await here.hears()  # said to one side only: the other one sends nothing yet
        await _bridge(there, here)
        await here.hears(900)
        await there.hears(500)
        await here.do("tts", text="700")
        await here.hears(900, 700)
        assert there.phone.notes()(500)
        await here.until("trackEnd")

        await there.connect(on_hold=True, direction="recvonly")
        await here.hears()
        await there.connect()
        await here.hears(900)
        await here.do("mute", trackId=here.call_id)
        await there.hears()
        await here.do("mute", trackId=f"bridge:{here.call_id}:to:{there.call_id}")
        await here.hears()
        await here.do("unmute")
        await here.hears(900)
        await there.hears(500)

        await _bridge(here, there)  # again: replaced, not doubled
        await here.hears(900)
        await _unbridge(here, there.call_id)
        await here.hears()
        await there.hears()
        await _unbridge(here, there.call_id)
    await here.close()

    with wave.open(str(Path(media_env["DIALBUS_RECORDER_PATH"]) / f"{here.call_id}.wav")) as file:
        channels = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    left, right = ({note: strength(channel, 16000, note) for note in (500, 900)} for channel in channels.T)
    assert left[500] > 0.05 > 0.01 > left[900]
    assert right[900] > 0.05 > 0.01 > right[500]


async def test_several_bridges_are_mixed_and_end_with_the_leg(dial: Dial) -> None:
    hub, first, second = [await dial() for _ in range(3)]
    async with hub.phone.humming(1300), first.phone.humming(500), second.phone.humming(900):
        for other in (first, second):
            await _bridge(hub, other)
            await _bridge(other, hub)
        await hub.hears(500, 900)
        await first.hears(1300)
        await second.hears(1300)
        await hub.close()
        await first.hears()
        await _unbridge(first, hub.call_id)


async def test_a_bridge_delays_little(dial: Dial) -> None:
    here, there = await dial(), await dial()
    await _bridge(here, there)
    await _bridge(there, here)
    silence, beep = np.zeros(1600, np.int16), tone(500, 0.2, 8000)
    await there.phone.speak(np.concatenate((silence, beep, silence)))
    beep_ended = there.phone.heard[-1].at - 0.2
    await here.phone.packets(len(here.phone.heard) + 10)

    audible = [packet.at for packet in here.phone.heard if len(set(packet.payload)) > 4]
    assert len(audible) == pytest.approx(10, abs=2)
    assert audible[-1] - beep_ended < 0.3, "jitter buffer, bridge and a busy machine"


async def test_a_call_is_not_bridged_to_itself(bus: Bus, dial: Dial) -> None:
    call = await dial()
    with pytest.raises(Refused) as refused:
        await _bridge(call, call)
    assert refused.value.code == 400
    await _unbridge(call, "s.never-was")
