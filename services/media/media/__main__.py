"""The media service: RTP, playout, speech detection, keys, recording."""

import asyncio

from dialbus.config import Loaded
from dialbus.lifecycle import run, service
from media.audio.vad import SileroDetector
from media.worker.service import MediaService


async def serve(loaded: Loaded) -> None:
    """Hold legs until cancelled; then tell their owners, and leave when they are closed."""
    detector = await asyncio.to_thread(SileroDetector.load)
    async with service("media", loaded) as me:
        media = MediaService(me, detector)
        try:
            await media.start()
            me.capacity = lambda: (media.capacity, media.legs)
            me.health.facts(lambda: {"capacity": media.capacity, "legs": media.legs})
            await me.announce()
            await media.watch()
        finally:
            await asyncio.shield(media.stop())


def main() -> None:
    """Run until SIGTERM."""
    run("media", serve)


if __name__ == "__main__":
    main()
