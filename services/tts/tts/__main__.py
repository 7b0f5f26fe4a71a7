"""The tts service: text in, telephone audio out."""

import asyncio
import os
from contextlib import suppress

from dialbus import telemetry
from dialbus.config import Config, ConfigError, Loaded, TtsConfig
from dialbus.diskcache import DiskCache
from dialbus.lifecycle import run, service
from tts.cache import SpeechCache
from tts.engine import LoadedVoice, PiperSynthesiser
from tts.errors import TtsError
from tts.service import TtsService
from tts.store import SpeechStore
from tts.voices import Voices

log = telemetry.get_logger()

# The clock of the media worker next door must not wait for a model.
NICENESS = 19


async def serve(loaded: Loaded) -> None:
    """Speak until cancelled."""
    config = loaded.config.tts
    voices = Voices(config.voices_path, default=config.speaker, allow_downloads=config.allow_downloads)
    engine = PiperSynthesiser(voices)
    voice = await asyncio.to_thread(open_default, engine, config)
    async with service("tts", loaded) as me:
        if voice.whole_because is not None:
            log.warning("voice.not_split", voice=voice.voice.name, reason=voice.whole_because)
        worker = TtsService(engine, voices, me.bus, config, open_store(loaded.config))
        me.capacity = lambda: worker.capacity
        me.health.facts(
            lambda: {
                "voice": voice.voice.name,
                "capacity": worker.capacity[0],
                "texts": worker.capacity[1],
                "caching": worker.caching,
            }
        )
        await worker.start()
        try:
            await me.announce()
            await asyncio.Event().wait()
        finally:
            await worker.close()


def open_store(config: Config) -> SpeechStore:
    """Where finished speech is kept."""
    size = config.tts.disk_cache_bytes
    disk = DiskCache(config.media_cache_path / "tts", size) if size else None
    return SpeechStore(SpeechCache(config.tts.cache_bytes), disk)


def open_default(engine: PiperSynthesiser, config: TtsConfig) -> LoadedVoice:
    """The default voice, ready to speak. Raises ConfigError: a worker without a voice is of no use to anybody."""
    if config.voices_path is not None and not config.voices_path.is_dir() and not config.allow_downloads:
        raise ConfigError(f"tts.voices_path: no directory {config.voices_path}")
    try:
        return engine.load()
    except (TtsError, OSError) as error:
        raise ConfigError(f"tts.speaker: {error}") from None


def main() -> None:
    """Run until SIGTERM."""
    with suppress(OSError):
        if os.nice(0) == 0:  # a supervisor that chose a niceness knows better
            os.nice(NICENESS)
    run("tts", serve)


if __name__ == "__main__":
    main()
