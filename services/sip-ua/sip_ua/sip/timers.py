"""The timer values of SIP transactions, in seconds. Source: RFC 3261 §17 and table 4, RFC 6026 §8."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timers:
    """T1, T2 and T4, from which every lettered timer follows; all in seconds."""

    t1: float = 0.5
    """Estimated round-trip time."""
    t2: float = 4.0
    """Longest gap between two copies of a non-INVITE request or of a final response."""
    t4: float = 5.0
    """Longest life of a message in the network."""
    trying: float = 0.2
    """How long an INVITE may stay without any answer before the transaction sends 100 itself (§17.2.1)."""
    proceeding_limit: float = 180.0
    """How long an INVITE may stay at provisional responses; as timer C of §16.6 asks of proxies."""

    @property
    def t1_x64(self) -> float:
        """64·T1: timers B, F, H, J, L and M, and the wait for the ACK to a 2xx."""
        return 64 * self.t1

    def timer_d(self, reliable: bool) -> float:
        """How long to absorb copies of a final response to INVITE: at least 32 s, nothing when reliable."""
        return 0.0 if reliable else max(32.0, self.t1_x64)

    def timer_i(self, reliable: bool) -> float:
        """How long to absorb copies of the ACK to a final response."""
        return 0.0 if reliable else self.t4

    def timer_j(self, reliable: bool) -> float:
        """How long to answer copies of a finished non-INVITE request."""
        return 0.0 if reliable else self.t1_x64

    def timer_k(self, reliable: bool) -> float:
        """How long to absorb copies of the response to a non-INVITE request."""
        return 0.0 if reliable else self.t4
