"""Which INVITEs of strangers are taken: so many a second, and so many calls, of each source. Pure.

A source is an IPv4 address or an IPv6 network of 64 bits, since whoever has one address of it has all. Every answer
costs the same, however many calls and sources there are, and what is remembered is bounded: sources with calls, of
which there are no more than calls, and the latest `MAX_IDLE` of the others.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from dialbus.config import UaConfig

MAX_IDLE: Final = 4096
"""Sources without calls that are remembered; one that is forgotten has its burst again."""
RETRY_S: Final = 10
"""What `Retry-After` says when a share is used up; when one of it comes free nobody knows."""


class Stage(Enum):
    """How far an admitted call is, as its limits count."""

    PENDING = "pending"
    """Not answered yet."""
    UNACKNOWLEDGED = "unacknowledged"
    """Answered by us, and nothing shows that the caller heard it."""
    ESTABLISHED = "established"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, and in how many seconds to ask again."""

    reason: str
    retry_after_s: int


@dataclass(slots=True, eq=False)
class _Source:
    tokens: float
    filled_at: float
    pending: int = 0
    unacknowledged: int = 0
    calls: int = 0


class Seat:
    """What a call takes of its source's shares, until `leave`."""

    def __init__(self, admission: "Admission", name: str, source: _Source) -> None:
        self._admission = admission
        self._name = name
        self._source = source
        self._stage: Stage | None = None
        self.move(Stage.PENDING)
        source.calls += 1

    def move(self, stage: Stage | None) -> None:
        """The call is so far now; None: it has no stage any more, but is not over."""
        source = self._source
        source.pending += (stage is Stage.PENDING) - (self._stage is Stage.PENDING)
        source.unacknowledged += (stage is Stage.UNACKNOWLEDGED) - (self._stage is Stage.UNACKNOWLEDGED)
        self._stage = stage

    def leave(self) -> None:
        """The call is over. Once."""
        self.move(None)
        self._source.calls -= 1
        if not self._source.calls:
            self._admission.is_idle(self._name)


class Admission:
    """The limits of `[ua]`, and what each source has of them.

    `accounts` are the addresses of our accounts' servers, as they are now: their calls may be as many as there is room
    for, the reserve included. `[ua] trusted_sources` are not counted at all.
    """

    def __init__(self, settings: UaConfig, accounts: Collection[str] = ()) -> None:
        self._trusted: Sequence[IPv4Network | IPv6Network] = settings.trusted_sources
        self._accounts = accounts
        self._per_s = settings.source_invites_per_s
        self._burst = settings.source_invite_burst
        self._unacknowledged = settings.source_unacknowledged
        self._pending = max(1, int(settings.max_calls * settings.source_pending_share))
        self._calls = max(1, int(settings.max_calls * settings.source_call_share))
        self._open = max(1, settings.max_calls - int(settings.max_calls * settings.reserve_share))
        """Calls beside which a stranger's is still taken: the rest is reserved."""
        self._idle: OrderedDict[str, _Source] = OrderedDict()
        self._busy: dict[str, _Source] = {}

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    def admit(self, host: str, live: int, now: float) -> Seat | Refusal | None:
        """A seat for a call from this address, or why not; None for a source that is not counted.

        `live`: all calls now, whosever they are; that there is room for one more is the caller's to know.
        """
        address = _address(host)
        if any(address in network for network in self._trusted):
            return None
        name = source_of(address)
        source = self._source(name, now)
        refusal = self._refusal(source, live, is_account=host in self._accounts)
        if refusal is not None:
            return refusal
        self._busy[name] = source
        self._idle.pop(name, None)
        return Seat(self, name, source)

    def is_idle(self, name: str) -> None:
        """The last call of a source is over."""
        self._remember(name, self._busy.pop(name))

    def _source(self, name: str, now: float) -> _Source:
        """What is known of it, its bucket filled up to now."""
        source = self._busy.get(name)
        if source is None:
            source = self._idle.get(name) or _Source(self._burst, now)
            self._remember(name, source)
        source.tokens = min(self._burst, source.tokens + (now - source.filled_at) * self._per_s)
        source.filled_at = now
        return source

    def _remember(self, name: str, source: _Source) -> None:
        self._idle[name] = source
        self._idle.move_to_end(name)
        if len(self._idle) > MAX_IDLE:
            self._idle.popitem(last=False)

    def _refusal(self, source: _Source, live: int, *, is_account: bool) -> Refusal | None:
        if source.tokens < 1:
            return Refusal("too many INVITEs", max(1, math.ceil((1 - source.tokens) / self._per_s)))
        source.tokens -= 1
        if source.unacknowledged >= self._unacknowledged:
            return Refusal("answers are not acknowledged", RETRY_S)
        if source.pending >= self._pending:
            return Refusal("too many pending calls", RETRY_S)
        if not is_account and source.calls >= self._calls:
            return Refusal("too many calls", RETRY_S)
        if not is_account and live >= self._open:
            return Refusal("the rest is reserved", RETRY_S)
        return None


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def source_of(address: IPv4Address | IPv6Address) -> str:
    """The name under which an address is counted."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, 64), strict=False))
