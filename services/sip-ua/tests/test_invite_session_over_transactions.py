"""Two user agents, each call core over its own transaction layer, joined by a wire that delays and loses.

This is the whole shell without sockets: bytes, parser, layer, call, layer, bytes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random

import pytest

from sip_ua.sip.agent import Agent, SendAck, SendRequest, SendResponse
from sip_ua.sip.invite_session import InviteSession
from sip_ua.sip.message import Request, write
from sip_ua.sip.parser import parse
from sip_ua.sip.session_effects import (
    Acknowledged,
    Answered,
    Cancelled,
    Offered,
    Progress,
    Refused,
    RemoteHangUp,
    SessionEffect,
)
from sip_ua.sip.transaction_layer import Address, Failed, Finished, LayerEffect, Received, TransactionLayer, Transmit
from sip_ua.sip.uac import UacSession
from sip_ua.sip.uas import UasSession
from sip_ua.sip.uri import parse_name_addr

OFFER, ANSWER = b"v=0 offer", b"v=0 answer"
Reaction = Callable[["Phone", SessionEffect], list[SessionEffect]]


class Phone:
    """One user agent with at most one call."""

    def __init__(self, wire: Wire, host: str, react: Reaction) -> None:
        tokens = (f"{host.replace('.', 'x')}t{number}" for number in itertools.count(1))
        self.agent = Agent(host, 5060, new_token=lambda: next(tokens), random=wire.random.random)
        self.address = Address(host, 5060)
        self.layer = TransactionLayer(self.agent.new_token)
        self.wire = wire
        self.react = react
        self.call: InviteSession | None = None
        self.told: list[SessionEffect] = []

    def feed(self, effects: list[LayerEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(message, destination):
                    self.wire.carry(write(message), self.address, destination)
                case Received(message, _, key, cancels):
                    if isinstance(message, Request) and message.method == "INVITE" and self.call is None:
                        self.call = UasSession(self.agent, message, self.agent.new_token())
                        self.perform(self.call.start(self.wire.now))
                    elif self.call is not None:
                        self.perform(self.call.receive(message, self.wire.now, cancels))
                    assert key is None or key.method == message.cseq.method
                case Failed(request, key, status, _):
                    if self.call is not None and key.side == "client":
                        self.perform(self.call.failed(request, status, self.wire.now))
                case Finished():
                    pass

    def perform(self, effects: list[SessionEffect]) -> None:
        for effect in effects:
            match effect:
                case SendRequest(request, hop, limit_s):
                    address = Address(hop.host, hop.port or 5060)
                    self.feed(self.layer.request(request, address, self.wire.now, limit_s))
                case SendAck(request, hop):
                    self.feed(self.layer.request(request, Address(hop.host, hop.port or 5060), self.wire.now))
                case SendResponse(response):
                    self.feed(self.layer.respond(response, self.wire.now))
                case _:
                    self.told.append(effect)
                    self.perform(self.react(self, effect))

    @property
    def deadline(self) -> float:
        dues = [self.layer.deadline, None if self.call is None else self.call.deadline]
        return min((due for due in dues if due is not None), default=float("inf"))

    def tick(self) -> None:
        self.feed(self.layer.tick(self.wire.now))
        if self.call is not None:
            self.perform(self.call.tick(self.wire.now))


class Wire:
    """Carries each datagram in 20 to 60 ms, or loses it."""

    def __init__(self, seed: int, loss: float) -> None:
        self.random = Random(seed)
        self.loss = loss
        self.now = 0.0
        self.carried = 0
        self._flying: list[tuple[float, int, bytes, Address, Address]] = []

    def carry(self, data: bytes, source: Address, destination: Address) -> None:
        self.carried += 1
        if self.random.random() >= self.loss:
            arrival = self.now + 0.02 + 0.04 * self.random.random()
            heapq.heappush(self._flying, (arrival, self.carried, data, source, destination))

    def run(self, *phones: Phone, until: float, at: dict[float, Callable[[], None]] | None = None) -> None:
        """Let everything happen in its order; `at` holds what people do, by the second."""
        plans = sorted((at or {}).items())
        while True:
            arrival = self._flying[0][0] if self._flying else float("inf")
            planned = plans[0][0] if plans else float("inf")
            due = min(arrival, planned, *(phone.deadline for phone in phones))
            if due > until:
                return
            self.now = due
            if due == planned:
                plans.pop(0)[1]()
            elif due == arrival:
                _, _, data, source, destination = heapq.heappop(self._flying)
                phone = next(phone for phone in phones if phone.address == destination)
                phone.feed(phone.layer.receive(parse(data), source, self.now))
            for phone in phones:
                if phone.deadline <= self.now:
                    phone.tick()


def passive(phone: Phone, effect: SessionEffect) -> list[SessionEffect]:
    return []


def ring_and_answer(phone: Phone, effect: SessionEffect) -> list[SessionEffect]:
    if isinstance(effect, Offered) and isinstance(phone.call, UasSession):
        now = phone.wire.now
        return [*phone.call.ring(now), *phone.call.answer(ANSWER, now)]
    return []


def only_ring(phone: Phone, effect: SessionEffect) -> list[SessionEffect]:
    if isinstance(effect, Offered) and isinstance(phone.call, UasSession):
        return phone.call.ring(phone.wire.now)
    return []


def dial(phone: Phone, host: str, ringing_limit_s: float | None = None) -> UacSession:
    call = UacSession(
        phone.agent,
        parse_name_addr(f"<sip:ann@{phone.address.host}>"),
        parse_name_addr(f"<sip:bob@{host}>"),
        call_id="one",
        sdp=OFFER,
        ringing_limit_s=ringing_limit_s,
    )
    phone.call = call
    phone.perform(call.start(phone.wire.now))
    return call


@pytest.mark.parametrize("seed", range(20))
def test_call_comes_up_and_goes_down_once_even_when_a_quarter_of_all_packets_is_lost(seed: int) -> None:
    wire = Wire(seed, loss=0.25)
    ann, bob = Phone(wire, "192.0.2.1", passive), Phone(wire, "192.0.2.2", ring_and_answer)
    call = dial(ann, "192.0.2.2")

    def hang_up() -> None:
        ann.perform(call.hang_up(wire.now))

    wire.run(ann, bob, until=400.0, at={60.0: hang_up})

    heard = [effect for effect in ann.told if not isinstance(effect, Progress)]
    assert [type(effect) for effect in heard] == [Answered]
    assert bob.told == [Offered(OFFER), Acknowledged(None), RemoteHangUp(None)]
    assert ann.call is not None
    assert bob.call is not None
    assert (ann.call.finished, bob.call.finished) == (True, True)
    assert (len(ann.layer), len(bob.layer)) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_cancelled_call_ends_on_both_sides_under_loss(seed: int) -> None:
    wire = Wire(seed, loss=0.25)
    ann, bob = Phone(wire, "192.0.2.1", passive), Phone(wire, "192.0.2.2", only_ring)
    call = dial(ann, "192.0.2.2")

    def cancel() -> None:
        ann.perform(call.hang_up(wire.now))

    wire.run(ann, bob, until=400.0, at={20.0: cancel})

    assert [effect for effect in ann.told if not isinstance(effect, Progress)] == [Cancelled()]
    assert bob.told == [Offered(OFFER), Cancelled()]
    assert (len(ann.layer), len(bob.layer)) == (0, 0)


def test_call_without_loss_takes_the_packets_of_the_textbook() -> None:
    wire = Wire(1, loss=0.0)
    ann, bob = Phone(wire, "192.0.2.1", passive), Phone(wire, "192.0.2.2", ring_and_answer)
    call = dial(ann, "192.0.2.2")
    wire.run(ann, bob, until=5.0)
    assert wire.carried == len(["INVITE", "100", "180", "200", "ACK"])
    bob_call = bob.call
    assert bob_call is not None
    bob.perform(bob_call.hang_up(wire.now))
    wire.run(ann, bob, until=99.0)
    assert wire.carried == 7
    assert ann.told[-1] == RemoteHangUp(None)
    assert call.finished


def test_call_to_nobody_is_a_408_after_32_s() -> None:
    wire = Wire(1, loss=1.0)
    ann = Phone(wire, "192.0.2.1", passive)
    call = dial(ann, "192.0.2.2")
    wire.run(ann, until=32.0)
    assert (wire.carried, ann.told) == (7, [Refused(408, "Request Timeout", local=True)])
    wire.run(ann, until=99.0)
    assert call.finished


@pytest.mark.parametrize("limit_s", [20.0, 1000.0])
def test_ringing_can_have_a_limit_of_its_own(limit_s: float) -> None:
    wire = Wire(1, loss=0.0)
    ann, bob = Phone(wire, "192.0.2.1", passive), Phone(wire, "192.0.2.2", only_ring)
    dial(ann, "192.0.2.2", ringing_limit_s=limit_s)
    wire.run(ann, bob, until=limit_s - 1)
    assert Refused(408, "Request Timeout", local=True) not in ann.told
    wire.run(ann, bob, until=limit_s + 1)
    assert ann.told[-1] == Refused(408, "Request Timeout", local=True)


def test_call_that_only_rings_is_a_408_after_180_s_and_leaves_nothing_behind() -> None:
    wire = Wire(1, loss=0.0)
    ann, bob = Phone(wire, "192.0.2.1", passive), Phone(wire, "192.0.2.2", only_ring)
    call = dial(ann, "192.0.2.2")
    wire.run(ann, bob, until=181.0)
    assert ann.told[-1] == Refused(408, "Request Timeout", local=True)
    assert bob.told == [Offered(OFFER), Cancelled()]
    wire.run(ann, bob, until=260.0)
    assert call.finished
    assert (len(ann.layer), len(bob.layer)) == (0, 0)
