"""Fixtures of the end-to-end tests: the ensemble of `tests.ensemble`, started once per run."""

from tests.ensemble import (
    DATA,
    VOICES,
    Exchange,
    StartPhone,
    exchange,
    phone,
    read_wav,
    synthesise,
    transcribe,
    write_wav,
)

__all__ = [
    "DATA",
    "VOICES",
    "Exchange",
    "StartPhone",
    "exchange",
    "phone",
    "read_wav",
    "synthesise",
    "transcribe",
    "write_wav",
]
