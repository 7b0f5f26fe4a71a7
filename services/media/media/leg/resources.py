"""What all legs of a media worker share."""

from collections.abc import Callable
from dataclasses import dataclass

from dialbus.bus import Bus
from dialbus.config import Config
from media.audio.vad import SpeechDetector
from media.files.fetch import Fetcher
from media.files.loader import Loader


@dataclass(frozen=True, slots=True)
class Resources:
    """Made once by the worker, given to each leg."""

    bus: Bus
    config: Config
    detector: SpeechDetector
    fetcher: Fetcher
    loader: Loader
    is_full: Callable[[str], bool]
    """Whether a worker of a service (`asr`, `tts`) says that it is full."""
