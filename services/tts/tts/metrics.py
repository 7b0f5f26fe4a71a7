"""What a tts worker counts."""

from prometheus_client import Counter, Gauge, Histogram

SYNTHESES = Counter("dialbus_tts_syntheses", "Texts by how they ended", ["outcome"])
AUDIO = Counter("dialbus_tts_audio_seconds", "Seconds of audio sent")
FIRST_AUDIO = Histogram(
    "dialbus_tts_first_audio_seconds",
    "From taking a text to its first audio",
    buckets=(0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10),
)
QUEUE = Gauge("dialbus_tts_queue_length", "Texts taken whose synthesis has not begun")
