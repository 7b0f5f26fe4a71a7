"""What a media worker tells Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

LEGS = Gauge("dialbus_media_legs", "Legs held now")
PACKETS_IN = Counter("dialbus_media_packets_in", "RTP packets accepted")
PACKETS_OUT = Counter("dialbus_media_packets_out", "RTP packets sent")
DROPPED = Counter("dialbus_media_packets_dropped", "Datagrams ignored on media ports", ["reason"])
LOST = Counter("dialbus_media_frames_concealed", "Frames of 20 ms that were missing and concealed")
UNDERRUNS = Counter("dialbus_media_underruns", "Frames of silence because synthesised audio was late")
LATE_TICKS = Counter("dialbus_media_late_ticks", "Ticks of the 20 ms clock more than 10 ms late")
SKIPPED_TICKS = Counter("dialbus_media_skipped_ticks", "Ticks given up after a long delay")
JITTER = Histogram(
    "dialbus_media_jitter_seconds",
    "Interarrival jitter of a leg, each 5 s",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
)
