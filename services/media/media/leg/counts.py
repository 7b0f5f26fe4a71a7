"""What one leg adds to the metrics of its worker."""

from dataclasses import dataclass

from media import metrics
from media.endpoint.endpoint import Endpoint


@dataclass(slots=True)
class LegCounts:
    """What the metrics know of a leg so far."""

    packets_in: int = 0
    packets_out: int = 0
    concealed: int = 0
    underruns: int = 0

    def add(self, endpoint: Endpoint, underruns: int) -> None:
        """Add what happened since the last time."""
        packets_in, packets_out = endpoint.accepted, endpoint.packets_sent
        concealed = max(endpoint.statistics().concealed, self.concealed)  # another codec begins at 0
        metrics.PACKETS_IN.inc(packets_in - self.packets_in)
        metrics.PACKETS_OUT.inc(max(0, packets_out - self.packets_out))
        metrics.LOST.inc(concealed - self.concealed)
        metrics.UNDERRUNS.inc(underruns - self.underruns)
        self.packets_in, self.packets_out = packets_in, packets_out
        self.concealed, self.underruns = concealed, underruns
