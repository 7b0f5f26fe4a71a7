"""The transaction layer: every transaction of one user agent, found by key. Source: RFC 3261 §17.1.3, §17.2.3, §18."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, TypeAlias

from sip_ua.sip.identity import Key, MergeKey, client_key, merge_key, server_key
from sip_ua.sip.message import Message, Request, Response, response_to, stamp_received
from sip_ua.sip.timers import Timers
from sip_ua.sip.transaction import (
    Deliver,
    Effect,
    Event,
    InviteClientTransaction,
    InviteServerTransaction,
    NonInviteClientTransaction,
    NonInviteServerTransaction,
    Send,
    ServerTransaction,
    State,
    Terminated,
    TimedOut,
    Transaction,
    TransportFailed,
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message goes to or came from: an IP address without brackets, a port, a transport."""

    host: str
    port: int
    transport: str = "UDP"

    @property
    def reliable(self) -> bool:
        return self.transport != "UDP"


def reply_address(request: Request, source: Address) -> Address:
    """Where responses to a request from `source` go. Source: RFC 3261 §18.2.2, RFC 3581 §4."""
    via = request.via
    if source.reliable or via.param("rport") is not None:
        return source
    return Address(source.host, via.port or 5060, source.transport)


@dataclass(frozen=True, slots=True)
class Transmit:
    """Write this message to the transport."""

    message: Message
    destination: Address


@dataclass(frozen=True, slots=True)
class Received:
    """A message for the transaction user, never the same one twice, except for 2xx to INVITE and their ACKs."""

    message: Message
    source: Address
    key: Key | None
    """Its transaction; None for a response nobody waits for and for an ACK to a 2xx."""
    cancels: Request | None = None
    """Of a CANCEL: the INVITE it is for."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A transaction got no answer: to be treated as a response of this status (RFC 3261 §8.1.3.1)."""

    request: Request
    key: Key
    status: Literal[408, 503]
    """408 when a timer ran out, 503 when the transport failed."""
    timer: Event | None
    """Which timer. PROCEEDING_LIMIT leaves the transaction alive, for the CANCEL that should follow."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A transaction is over and forgotten."""

    key: Key
    request: Request


LayerEffect: TypeAlias = Transmit | Received | Failed | Finished


@dataclass(slots=True)
class _Entry:
    transaction: Transaction
    address: Address
    """Where this transaction's messages go."""
    due: float | None = None
    """The deadline that stands in the heap."""


class TransactionLayer:
    """Every transaction of one user agent, by key; between the transport and the calls, without I/O.

    Feed it what arrives (`receive`), what the users send (`request`, `respond`), what could not be sent
    (`transport_failed`) and time (`tick` at `deadline`), and perform the effects in order. It answers alone
    what needs no user: copies, a CANCEL for nothing (481), a request that came twice by different ways (482).
    A transaction costs one dict entry and, per timer set, one heap entry.
    """

    def __init__(self, new_tag: Callable[[], str], timers: Timers | None = None) -> None:
        self._new_tag = new_tag
        self._timers = timers or Timers()
        self._entries: dict[Key, _Entry] = {}
        self._merges: dict[MergeKey, Key] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = count()
        self.finished = 0
        """Transactions that are over and forgotten."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    @property
    def unanswered(self) -> int:
        """How many requests of ours still wait for a final response; counted one by one."""
        open_states = (State.CALLING, State.TRYING, State.PROCEEDING)
        return sum(key.side == "client" and entry.transaction.state in open_states
                   for key, entry in self._entries.items())  # fmt: skip

    @property
    def waiting_ack(self) -> int:
        """How many INVITEs we have answered finally whose ACK did not come yet; counted one by one."""
        answered = (State.ACCEPTED, State.COMPLETED)
        return sum(key.side == "server" and key.method == "INVITE" and entry.transaction.state in answered
                   for key, entry in self._entries.items())  # fmt: skip

    @property
    def deadline(self) -> float | None:
        """When to call `tick`; None while nothing is armed."""
        while self._heap:
            due, _, key = self._heap[0]
            entry = self._entries.get(key)
            if entry is not None and entry.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def tick(self, now: float) -> list[LayerEffect]:
        """Fire what is due."""
        effects: list[LayerEffect] = []
        while (due := self.deadline) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            entry = self._entries[key]
            entry.due = None
            effects += self._after(key, entry, entry.transaction.tick(now))
        return effects

    def receive(self, message: Message, source: Address, now: float) -> list[LayerEffect]:
        """Take a message from the wire; requests get received and rport into their Via (RFC 3581)."""
        if isinstance(message, Request):
            return self._receive_request(stamp_received(message, source.host, source.port), source, now)
        key = client_key(message)
        entry = self._entries.get(key)
        if entry is None:
            return [Received(message, source, None)]
        return self._after(key, entry, entry.transaction.receive(message, now), source)

    def request(
        self, request: Request, destination: Address, now: float, ringing_limit_s: float | None = None
    ) -> list[LayerEffect]:
        """Send a request; an ACK without transaction, a CANCEL to wherever its INVITE went.

        `ringing_limit_s` is how long an INVITE may ring, when that is not what the timers say.
        """
        if request.method == "ACK":
            return [Transmit(request, destination)]
        key = client_key(request)
        effects: list[LayerEffect] = []
        if request.method == "CANCEL":
            invite_key = key._replace(method="INVITE")
            invite = self._entries.get(invite_key)
            if invite is not None and isinstance(invite.transaction, InviteClientTransaction):
                destination = invite.address
                effects += self._after(invite_key, invite, invite.transaction.cancelled(now))
        kind = InviteClientTransaction if request.method == "INVITE" else NonInviteClientTransaction
        limit_s = self._timers.proceeding_limit if ringing_limit_s is None else ringing_limit_s
        timers = replace(self._timers, proceeding_limit=limit_s)
        transaction = kind(request, timers, reliable=destination.reliable)
        entry = self._entries[key] = _Entry(transaction, destination)
        return effects + self._after(key, entry, transaction.start(now))

    def respond(self, response: Response, now: float) -> list[LayerEffect]:
        """Send a response; dropped when its transaction is over or already has a final one."""
        key = server_key(response)
        entry = self._entries.get(key)
        if entry is None or not isinstance(entry.transaction, ServerTransaction):
            return []
        return self._after(key, entry, entry.transaction.send(response, now))

    def answer_once(self, response: Response) -> list[LayerEffect]:
        """Send a final response and forget its transaction, as a stateless server does (RFC 3261 §8.2.7).

        No ACK is waited for; a copy of the request is a new one, and is asked about again.
        """
        key = server_key(response)
        entry = self._entries.get(key)
        if entry is None:
            return []
        request = entry.transaction.request
        self._forget(key, request)
        return [Transmit(response, entry.address), Finished(key, request)]

    def transport_failed(self, message: Message, now: float) -> list[LayerEffect]:
        """A `Transmit` could not be performed."""
        key = client_key(message) if isinstance(message, Request) else server_key(message)
        entry = self._entries.get(key)
        return [] if entry is None else self._after(key, entry, entry.transaction.transport_failed(now))

    def _receive_request(self, request: Request, source: Address, now: float) -> list[LayerEffect]:
        key = server_key(request)
        entry = self._entries.get(key)
        if entry is not None:
            return self._after(key, entry, entry.transaction.receive(request, now), source)
        if request.method == "ACK":
            return [Received(request, source, None)]
        kind = InviteServerTransaction if request.method == "INVITE" else NonInviteServerTransaction
        transaction = kind(request, self._timers, reliable=source.reliable)
        entry = self._entries[key] = _Entry(transaction, reply_address(request, source))
        started = transaction.start(now)
        if request.method == "CANCEL":
            invite = self._entries.get(key._replace(method="INVITE"))
            if invite is None:
                return self._refuse(key, entry, 481, now)
            return [Received(request, source, key, invite.transaction.request)]
        if request.to_tag is None and self._merges.setdefault(merge_key(request), key) != key:
            return self._refuse(key, entry, 482, now)
        return self._after(key, entry, started, source)

    def _refuse(self, key: Key, entry: _Entry, status: int, now: float) -> list[LayerEffect]:
        """Answer a new request without asking anybody."""
        assert isinstance(entry.transaction, ServerTransaction)
        response = response_to(entry.transaction.request, status, to_tag=self._new_tag())
        return self._after(key, entry, entry.transaction.send(response, now))

    def _after(
        self, key: Key, entry: _Entry, effects: list[Effect], source: Address | None = None
    ) -> list[LayerEffect]:
        """Say a transaction's effects in the layer's terms, and keep the books."""
        request = entry.transaction.request
        told: list[LayerEffect] = []
        for effect in effects:
            match effect:
                case Send(message):
                    told.append(Transmit(message, entry.address))
                case Deliver(message):
                    told.append(Received(message, source or entry.address, key))
                case TimedOut(timer):
                    told.append(Failed(request, key, 408, timer))
                case TransportFailed():
                    told.append(Failed(request, key, 503, None))
                case Terminated():
                    self._forget(key, request)
                    told.append(Finished(key, request))
        deadline = entry.transaction.deadline
        if deadline is not None and deadline != entry.due:
            heapq.heappush(self._heap, (deadline, next(self._order), key))
        entry.due = deadline
        return told

    def _forget(self, key: Key, request: Request) -> None:
        if self._entries.pop(key, None) is not None:
            self.finished += 1
        if key.side == "server" and self._merges.get(merge := merge_key(request)) == key:
            del self._merges[merge]
