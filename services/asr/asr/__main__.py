"""The asr service: utterances in, transcripts out."""

import os

# Must stand before anything imports numpy, whose BLAS reads it once. The features of an utterance are a product of
# small matrices: OpenBLAS would spread it over all cores and have its threads spin for the next one, at the cost of
# the decodes and of the media worker. Measured per utterance: 155 ms of CPU with, 80 ms without, in the same time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import asyncio
from contextlib import suppress

from asr.engine import WhisperTranscriber
from asr.engines import Engines
from asr.engines import Loaded as LoadedModel
from asr.errors import AsrError
from asr.models import DEFAULT_NAME, resolve_model
from asr.service import AsrService
from dialbus.config import AsrConfig, ConfigError, Loaded
from dialbus.lifecycle import run, service
from dialbus.sessions import Sessions

# The clock of the media worker next door must not wait for a model.
NICENESS = 19
SETTING = "asr.model"


async def serve(loaded: Loaded) -> None:
    """Transcribe until cancelled."""
    config = loaded.config.asr
    default = await asyncio.to_thread(open_default, config)
    async with service("asr", loaded) as me:
        sessions = await Sessions.open(me.bus)

        async def call_exists(call_id: str) -> bool:
            return await sessions.get(call_id) is not None

        engines = Engines(default, lambda name: open_named(name, config))
        worker = AsrService(me.bus, engines, call_exists, max_sessions=config.max_sessions, beam=config.beam)
        me.capacity = lambda: worker.capacity
        me.health.facts(
            lambda: {
                "model": default.name,
                "capacity": worker.capacity[0],
                "sessions": worker.capacity[1],
                "queued": worker.queued,
            }
        )
        try:
            await worker.start()
            await me.announce()
            await asyncio.Event().wait()
        finally:
            await worker.stop()


def open_default(config: AsrConfig) -> LoadedModel:
    """The configured model, ready to listen. Raises ConfigError: without it a worker is of no use to anybody."""
    try:
        engine = WhisperTranscriber(resolve_model(config.model, SETTING), config.threads)
    except AsrError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(SETTING) else f"{SETTING}: {text}") from None
    return LoadedModel(config.model or DEFAULT_NAME, engine)


def open_named(name: str, config: AsrConfig) -> WhisperTranscriber:
    """A model that a client names: a folder, or what the hub's cache already holds.

    Nothing is downloaded on a client's word. Raises ModelNotFound and ModelUnusable.
    """
    return WhisperTranscriber(resolve_model(name, download=False), config.threads)


def main() -> None:
    """Run until SIGTERM."""
    with suppress(OSError):
        if os.nice(0) == 0:  # a supervisor that chose a niceness knows better
            os.nice(NICENESS)
    run("asr", serve)


if __name__ == "__main__":
    main()
