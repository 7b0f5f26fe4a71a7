"""The asr service as a process: starts that must fail, room, and leaving."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from dialbus.bus import Bus, NoResponder, Refused
from dialbus.contracts.session import Heartbeat
from dialbus.contracts.speech import TranscriptionOpened
from tests.contract.asr.conftest import SAID, MediaWorker, audio_of
from tests.harness import eventually, messages_of, next_message, run_service, spawn
from tests.wer import wer


async def test_missing_model_ends_the_process_with_2_and_a_line_naming_the_setting(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    service = spawn("asr", {**service_env, "DIALBUS_ASR_MODEL": "/no/such/model"}, tmp_path)

    assert await service.exited(30) == 2
    assert service.log == ("dialbus: asr: asr.model: no speech model '/no/such/model': there is no such folder\n")


async def test_unusable_model_ends_the_process_with_2(service_env: dict[str, str], tmp_path: Path) -> None:
    model = tmp_path / "broken"
    model.mkdir()
    for name in ("model.bin", "tokenizer.json", "config.json"):
        (model / name).write_text("{}")
    service = spawn("asr", {**service_env, "DIALBUS_ASR_MODEL": str(model)}, tmp_path)

    assert await service.exited(30) == 2
    assert service.log.startswith("dialbus: asr: asr.model: the speech model in ")
    assert service.log.count("\n") == 1


async def test_a_full_worker_takes_no_more_until_a_session_ends(
    service_env: dict[str, str], media: MediaWorker, bus: Bus, call_id: str
) -> None:
    env = {**service_env, "DIALBUS_ASR_MAX_SESSIONS": "1"}
    async with run_service("asr", env) as service:
        beats = await messages_of(bus, Heartbeat, service="asr", instance=service.instance)
        await media.open()
        other = await MediaWorker.ready(bus, f"{call_id}-other")
        with pytest.raises(NoResponder):
            await other.open()

        async def beat() -> tuple[int | None, int]:
            heartbeat = await next_message(beats)
            return heartbeat.capacity, heartbeat.in_use

        async def beat_full() -> bool:
            return await beat() == (1, 1)

        assert await eventually(beat_full)

        await media.close()

        async def opened() -> TranscriptionOpened | None:
            try:
                return await other.open()
            except (NoResponder, Refused):
                return None

        assert (await eventually(opened)).worker == service.instance
        await other.say(audio_of("jfk"))
        assert wer(SAID["jfk"], (await other.final()).text) <= 0.15
        await other.close()


async def test_the_call_of_a_full_worker_goes_to_one_with_room(
    service_env: dict[str, str], media: MediaWorker, bus: Bus, call_id: str
) -> None:
    env = {**service_env, "DIALBUS_ASR_MAX_SESSIONS": "1"}
    async with run_service("asr", env) as one, run_service("asr", env) as two:
        other = await MediaWorker.ready(bus, f"{call_id}-other")
        workers = {(await media.open()).worker, (await other.open()).worker}
        assert workers == {one.instance, two.instance}


async def test_sigterm_finishes_what_was_said_and_exits_with_0(
    service_env: dict[str, str], media: MediaWorker, bus: Bus
) -> None:
    async with run_service("asr", service_env) as service:
        await media.open()
        await media.say(audio_of("jfk"))
        await media.frame(0, np.zeros(1600, np.int16), utterance=1)  # so that the first has certainly been heard
        await bus.flush()
        await eventually(lambda: not media.transcripts.empty(), 30, what="a transcript")
        service.process.send_signal(signal.SIGTERM)

        assert await service.exited() == 0
        assert wer(SAID["jfk"], (await media.final()).text) <= 0.15
        with pytest.raises(NoResponder):
            await media.open()


async def test_the_process_leaves_its_neighbours_the_processor(service_env: dict[str, str]) -> None:
    async with run_service("asr", service_env) as service:
        chosen = os.nice(0)  # of the tests themselves: who starts the process may know better
        assert os.getpriority(os.PRIO_PROCESS, service.process.pid) == (chosen or 19)
