"""What arrives over the bus for one call, as inputs of its machine."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts import media, session
from dialbus.contracts.base import Contract, Taken
from dialbus.contracts.commands import ClientCommand
from dialbus.contracts.media import MAIN_LEG
from sip_ua.call import inputs
from sip_ua.call.inputs import Input

log = telemetry.get_logger()

MAX_WAITING = 512
"""Inputs and commands that may wait when another command of the client's comes."""
REPEAT_WINDOW_S = 60.0
"""How long a commandId is remembered."""

Question = tuple[session.BridgeWanted, "asyncio.Future[str | None]"]


class CallRequests:
    """The subscriptions of one call. Every handler leaves an input in its inbox."""

    def __init__(self, bus: Bus, call_id: str, put: Callable[[Input], None], waiting: Callable[[], int]) -> None:
        """`put` takes an input; `waiting` counts what is not done yet."""
        self._bus = bus
        self._call_id = call_id
        self._put = put
        self._waiting = waiting
        self._log = log.bind(call_id=call_id)
        self._subscriptions: list[Subscription] = []
        self._seen: dict[str, float] = {}
        self._questions: deque[Question] = deque()
        """What other calls' owners asked and the machine has not answered, oldest first."""

    async def listen(self) -> None:
        """Take requests from now on."""
        handlers: list[tuple[type[Any], Callable[[Any], Awaitable[Contract]]]] = [
            (session.ClientCommandSent, self._on_command),
            (session.Attach, self._on_attach),
            (session.Detach, self._on_detach),
            (session.WebhookOutcome, self._on_webhook),
            (session.BridgeWanted, self._on_bridge),
            (media.PlaybackEnded, self._on_playback_ended),
            (media.LegInactive, self._on_inactive),
            (media.LegLost, self._on_leg_lost),
        ]
        for contract, handler in handlers:
            self._subscriptions.append(await self._bus.serve(contract, handler, call_id=self._call_id))

    async def close(self) -> None:
        """Take nothing more; who waits for an answer gets the one that a call gives that is over."""
        while self._questions:
            wanted, answer = self._questions.popleft()
            if not answer.done():
                answer.set_result("the session is not up" if wanted.on else None)
        for subscription in self._subscriptions:
            await subscription.drop()

    # -- the client -------------------------------------------------------------------------------

    def command(self, command: ClientCommand) -> None:
        """A client's command. Raises Refused when too many wait."""
        if self._waiting() >= MAX_WAITING:
            raise Refused(429, f"{command.command}: too many commands wait")
        self._put(inputs.ClientSaid(command))

    async def _on_command(self, sent: session.ClientCommandSent) -> Contract:
        now = asyncio.get_running_loop().time()
        if sent.command_id is not None:
            self._seen = {key: at for key, at in self._seen.items() if now - at < REPEAT_WINDOW_S}
            if sent.command_id in self._seen:
                return Taken()
            self._seen[sent.command_id] = now
        self.command(sent.command)
        return Taken()

    async def _on_attach(self, attach: session.Attach) -> Contract:
        self._put(inputs.Attached(attach.gateway, attach.server_side_track, attach.dump))
        return Taken()

    async def _on_detach(self, detach: session.Detach) -> Contract:
        self._log.info("call.detached", why="socket closed", gateway=detach.gateway)
        self._put(inputs.Detached(detach.gateway))
        return Taken()

    async def _on_webhook(self, outcome: session.WebhookOutcome) -> Contract:
        if not outcome.delivered:
            self._log.warning("call.webhook_failed", reason=outcome.reason, attempts=outcome.attempts)
        self._put(inputs.WebhookOutcome(outcome.delivered, outcome.reason))
        return Taken()

    # -- other calls ------------------------------------------------------------------------------

    async def _on_bridge(self, wanted: session.BridgeWanted) -> Contract:
        """Answered in the queue's turn; that never waits for another call, so two can ask each other at once."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._questions.append((wanted, answer))
        self._put(inputs.BridgeWanted(wanted.other) if wanted.on else inputs.BridgeLeft(wanted.other))
        if (objection := await answer) is not None:
            raise Refused(409, objection)
        return Taken()

    def answer_bridge(self, other: str, objection: str | None) -> None:
        """The machine has decided the oldest question of this call."""
        for question in self._questions:
            wanted, answer = question
            if wanted.other == other:
                self._questions.remove(question)
                if not answer.done():
                    answer.set_result(objection)
                return

    # -- media ------------------------------------------------------------------------------------

    async def _on_playback_ended(self, _: media.PlaybackEnded) -> Contract:
        self._put(inputs.AutoHangup())
        return Taken()

    async def _on_inactive(self, _: media.LegInactive) -> Contract:
        self._put(inputs.Inactive())
        return Taken()

    async def _on_leg_lost(self, lost: media.LegLost) -> Contract:
        if lost.hung_up and lost.leg_id == MAIN_LEG:
            self._put(inputs.MediaLeft())
        else:
            self._put(inputs.MediaLost(lost.reason, lost.leg_id, gone=False))
        return Taken()
