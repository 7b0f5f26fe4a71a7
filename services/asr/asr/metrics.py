"""What an asr worker counts."""

from prometheus_client import Counter, Gauge, Histogram

FINAL_WITHIN_S = 0.5
"""A final that comes later counts as late."""

SESSIONS = Gauge("dialbus_asr_sessions", "Open sessions")
DECODES = Counter("dialbus_asr_decodes", "Decodes by kind and outcome", ["kind", "outcome"])
DECODE_SECONDS = Histogram(
    "dialbus_asr_decode_seconds", "Wall time of a decode", ["kind"],
    buckets=(0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
)  # fmt: skip
REAL_TIME_FACTOR = Histogram(
    "dialbus_asr_real_time_factor", "Decoding time per audio time, of finals",
    buckets=(0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0),
)  # fmt: skip
DELTAS_DROPPED = Counter("dialbus_asr_deltas_dropped", "Interim decodes that something newer made pointless")
FINALS_LATE = Counter("dialbus_asr_finals_late", f"Finals that took longer than {FINAL_WITHIN_S} s")
FINALS_DROPPED = Counter("dialbus_asr_finals_dropped", "Finals that were given up", ["because"])
