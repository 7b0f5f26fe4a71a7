"""The user agent's shell: socket ↔ parser ↔ transaction layer ↔ transaction users: INVITE sessions, registrations.

It decides nothing about a call. A message finds its transaction user by Call-ID and local tag (RFC 3261 §12); an
INVITE that belongs to none is handed to `on_invite`, everything else outside a dialog is answered here.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from prometheus_client import Counter, Gauge

from dialbus import telemetry
from dialbus.config import HostPort
from dialbus.quiet import quiet
from dialbus.trace import Tracer
from sip_ua.errors import Unresolvable
from sip_ua.sip.agent import Agent, SendRequest
from sip_ua.sip.credential_policy import RealmPins
from sip_ua.sip.identity import Key, server_key
from sip_ua.sip.invite_session import InviteSession
from sip_ua.sip.message import Message, Request, Response, write
from sip_ua.sip.parser import ParseError, is_keepalive, parse
from sip_ua.sip.transaction_layer import Address, Failed, Finished, LayerEffect, Received, TransactionLayer, Transmit
from sip_ua.sip.uas import UasSession, answer_outside_dialog
from sip_ua.sip.uri import Uri
from sip_ua.ua.balance import Balance
from sip_ua.ua.traffic import LegName, Traffic, facts, str_of
from sip_ua.ua.transaction_user import Core, TransactionUser
from sip_ua.ua.transport import UdpTransport, is_ip, local_address_towards, resolve

log = telemetry.get_logger()

UNPARSABLE = Counter("dialbus_sip_unparsable_total", "Datagrams that were no SIP message")
WITHHELD = Counter("dialbus_sip_withheld_total", "Answers that would have been far more than was sent to us")
TRANSACTIONS = Gauge("dialbus_sip_transactions", "Transactions alive")

_TOKEN_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def new_token(length: int = 16) -> str:
    """A fresh alphanumeric string that nobody can guess."""
    return "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(length))


class UserAgent:
    """One SIP socket and everything behind it."""

    def __init__(
        self, agent: Agent, on_invite: Callable[[Request, Address], None], tracer: Tracer, *, external_ip: str | None,
        options: bool,
    ) -> None:  # fmt: skip
        self.realms = RealmPins()
        """What the servers of our accounts showed."""
        self._agent = agent
        self._on_invite = on_invite
        self._external_ip = external_ip
        self._answers_options = options
        self._layer = TransactionLayer(lambda: new_token(8), agent.timers)
        self._users: dict[tuple[str, str], TransactionUser] = {}
        self._invited: dict[Key, TransactionUser] = {}
        """By the INVITE's transaction, which is all that a CANCEL names."""
        self._transport: UdpTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._lookups: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._traffic = Traffic(tracer, self._loop.time)
        self._balance = Balance()

    async def bind(self, address: HostPort) -> HostPort:
        """Open the socket; the real address. Raises PortInUse."""
        self._transport = await UdpTransport.bind(address, self._on_datagram)
        return HostPort(self._transport.host, self._transport.port)

    async def settle(self, limit_s: float) -> None:
        """Let the last requests be answered, or sent again when they got lost; `limit_s` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._lookups or self._layer.unanswered:  # noqa: ASYNC110 - once, at the end of the process
                    await asyncio.sleep(0.02)

    def close(self) -> None:
        """Close the socket and forget every timer."""
        if self._timer is not None:
            self._timer.cancel()
        for user in self._users.values():
            user.drop()
        for task in self._lookups:
            task.cancel()
        if self._transport is not None:
            self._transport.close()

    @property
    def transactions(self) -> int:
        """Transactions that still wait for something."""
        return len(self._layer)

    def transaction_counts(self) -> dict[str, int]:
        """Transactions alive, those over since the start, and those of them that wait for an ACK."""
        return {
            "running": len(self._layer),
            "finished": self._layer.finished,
            "waiting_ack": self._layer.waiting_ack,
        }

    def now(self) -> float:
        """The clock of every core."""
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """A timer on that clock."""
        return self._loop.call_at(when, callback)

    def agent_towards(self, host: str) -> Agent:
        """Us, as a peer at this IP address sees us: in Via, Contact and SDP."""
        assert self._transport is not None
        local = self._external_ip
        if local is None:
            bound = self._transport.host
            local = local_address_towards(host) if bound in ("0.0.0.0", "::") else bound
        return replace(self._agent, host=local, port=self._transport.port)

    def add(
        self, core: Core, call_id: str, local_tag: str, tell: Callable[[Any], None], leg: LegName | None = None
    ) -> TransactionUser:
        """Let a core take part; its messages are those with this Call-ID and local tag. `leg`: whom it serves."""
        user = TransactionUser(self, core, (call_id, local_tag), tell, leg)
        self._users[user.key] = user
        if isinstance(core, UasSession):
            self._invited[core.invite_key] = user
        if leg is not None:
            self._traffic.add(*user.key, leg, _invite_key(core))
        return user

    def watch(self, invite: Request, moved: Callable[[InviteSession], None]) -> None:
        """Tell whenever the call of an INVITE may have come further."""
        if (user := self._invited.get(server_key(invite))) is not None:
            user.moved = moved

    def forget(self, user: TransactionUser) -> None:
        """A transaction user is over."""
        self._users.pop(user.key, None)
        if isinstance(user.core, UasSession):
            self._invited.pop(user.core.invite_key, None)
        if user.leg is not None:
            self._traffic.remove(*user.key, _invite_key(user.core))

    # -- out --------------------------------------------------------------------------------------

    def send_request(self, user: TransactionUser, sending: SendRequest) -> None:
        """Send a request through a new transaction, after a DNS lookup if its host is a name."""
        next_hop = sending.next_hop
        if is_ip(next_hop.host):
            self._request(sending, Address(next_hop.host, next_hop.port or 5060))
        else:
            self._look_up(self._send_resolved(user, sending))

    def send_ack(self, request: Request, next_hop: Uri) -> None:
        """Send the ACK to a 2xx."""
        if is_ip(next_hop.host):
            self._perform([Transmit(request, Address(next_hop.host, next_hop.port or 5060))])
        else:
            self._look_up(self._send_ack_resolved(request, next_hop))

    def send_response(self, response: Response) -> None:
        """Send a response through its transaction."""
        self._perform(self._layer.respond(response, self.now()))

    def answer_once(self, response: Response) -> None:
        """Send a final response, and remember neither it nor its request."""
        self._perform(self._layer.answer_once(response))

    def _request(self, sending: SendRequest, destination: Address) -> None:
        self._perform(self._layer.request(sending.request, destination, self.now(), sending.ringing_limit_s))

    async def _send_resolved(self, user: TransactionUser, sending: SendRequest) -> None:
        try:
            destination = await resolve(sending.next_hop.host, sending.next_hop.port)
        except Unresolvable as error:
            user.unsendable(sending.request, error)
        else:
            self._request(sending, destination)

    async def _send_ack_resolved(self, request: Request, next_hop: Uri) -> None:
        try:
            destination = await resolve(next_hop.host, next_hop.port)
        except Unresolvable as error:
            quiet.log(log.warning, "sip.ack_unresolvable", error=str(error))
        else:
            self._perform([Transmit(request, destination)])

    def _look_up(self, work: Any) -> None:
        task = self._loop.create_task(work, name="sip lookup")
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    # -- in ---------------------------------------------------------------------------------------

    def _on_datagram(self, data: bytes, source: Address) -> None:
        if is_keepalive(data):
            return
        self._balance.received(source.host, len(data), self.now())
        try:
            message = parse(data)
        except ParseError as error:
            self._on_garbage(error, source)
            return
        at, leg = time.time(), self._traffic.received(message, data, source)
        if not self._answers_options and _is_ping(message):
            return  # before it can leave a transaction that waits for our answer
        with telemetry.bound(**facts(leg)):
            self._perform(self._layer.receive(message, source, self.now()))
        if leg is None:
            self._traffic.began(message, data, source, at)

    def _on_garbage(self, error: ParseError, source: Address) -> None:
        UNPARSABLE.inc()
        quiet.log(log.info, "sip.bad_message", source=str_of(source), status=error.status, reason=error.reason)
        response = error.response(new_token(8))
        if response is not None:
            self._transmit(response, source)

    def _perform(self, effects: list[LayerEffect]) -> None:
        pending = list(effects)
        while pending:
            try:
                pending += self._perform_one(pending.pop(0))
            except Exception:  # the boundary: one broken call never stops the timers of the others
                quiet.log(log.exception, "sip.effect_failed")
        TRANSACTIONS.set(len(self._layer))
        self._rearm()

    def _perform_one(self, effect: LayerEffect) -> list[LayerEffect]:
        """Perform it; what follows from it."""
        match effect:
            case Transmit(message, destination):
                if not self._transmit(message, destination):
                    return self._layer.transport_failed(message, self.now())
            case Received(message, source, _, cancels):
                self._dispatch(message, source, cancels)
            case Failed(request, key, status, _):
                user = self._users.get((request.call_id, request.from_tag or ""))
                if key.side == "client" and user is not None:
                    user.failed(request, status, self.now())
            case Finished():
                pass
        return []

    def _transmit(self, message: Message, destination: Address) -> bool:
        assert self._transport is not None
        data = write(message)
        if self._is_withheld(message, data, destination):
            return True  # as if it got lost
        try:
            self._transport.send(data, destination)
        except OSError as error:
            self._traffic.not_sent(message, destination, error)
            return False
        self._traffic.sent(message, data, destination)
        return True

    def _is_withheld(self, message: Message, data: bytes, destination: Address) -> bool:
        """Whether this answer, which is of no call, would be too much: its destination may never have asked."""
        if isinstance(message, Request) or self._traffic.is_of_leg(message):
            return False
        if self._balance.may_send(destination.host, len(data), self.now()):
            return False
        WITHHELD.inc()
        return True

    def _dispatch(self, message: Message, source: Address, cancels: Request | None) -> None:
        user = self._user_of(message, cancels)
        if user is not None:
            user.receive(message, self.now(), cancels)
        elif isinstance(message, Response):
            log.debug("sip.stray_response", status=message.status)
        elif message.method == "INVITE" and message.to_tag is None:
            self._on_invite(message, source)
        else:
            self._answer_outside(message, source)

    def _user_of(self, message: Message, cancels: Request | None) -> TransactionUser | None:
        if isinstance(message, Response):
            return self._users.get((message.call_id, message.from_tag or ""))
        if message.to_tag is not None:
            return self._users.get((message.call_id, message.to_tag))
        return self._invited.get(server_key(cancels)) if cancels is not None else None

    def _answer_outside(self, request: Request, source: Address) -> None:
        response = answer_outside_dialog(request, self.agent_towards(source.host))
        if response is not None:
            self.send_response(response)

    # -- time -------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        due = self._layer.deadline
        if due == self._timer_due and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due = due
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._perform(self._layer.tick(self.now()))


def _is_ping(message: Message) -> bool:
    """Whether this is an OPTIONS outside of dialogs."""
    return isinstance(message, Request) and message.method == "OPTIONS" and message.to_tag is None


def _invite_key(core: Core) -> Key | None:
    return core.invite_key if isinstance(core, UasSession) else None
