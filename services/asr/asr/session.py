"""One opened track of a call: what it is recognised with, and what of it still waits."""

import asyncio
from dataclasses import dataclass, field

from asr.engine import Transcriber
from asr.utterance import Segment, Track
from dialbus.bus import Subscription


@dataclass(slots=True, eq=False)
class Session:
    """One track of one call; `id` names this opening of it."""

    id: str
    call_id: str
    track_name: str
    model: str
    engine: Transcriber
    language: str | None
    trace: dict[str, str]
    heard_at: float
    track: Track = field(default_factory=Track)
    subscriptions: list[Subscription] = field(default_factory=list)
    segments: dict[int, Segment] = field(default_factory=dict)
    """By number: those that still grow or wait for their final."""
    pending: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no final is pending."""
    call_seen: bool = False
    look_at: float = 0.0
    """When the call may be looked up again."""

    def __post_init__(self) -> None:
        self.settled.set()

    @property
    def key(self) -> tuple[str, str]:
        """Call and track."""
        return self.call_id, self.track_name

    def wait_for_final(self, segment: Segment) -> None:
        """One more final is pending."""
        self.segments[segment.number] = segment
        self.pending += 1
        self.settled.clear()

    def final_told(self) -> None:
        """One final less is pending."""
        self.pending -= 1
        if self.pending == 0:
            self.settled.set()

    def give_up(self) -> None:
        """Wait for nothing any more."""
        self.segments.clear()
        self.settled.set()
