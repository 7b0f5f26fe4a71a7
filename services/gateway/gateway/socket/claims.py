"""Who gets which session: a socket claims its id by compare-and-set, on whichever gateway it came in."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from dialbus.bus import Bus, Conflict
from dialbus.contracts.session import CallState, CallType, Session
from dialbus.sessions import Sessions
from gateway.errors import BadId, IdInUse, WrongPath
from gateway.socket.ids import SocketQuery, generated, is_possible


class Claims:
    """Claims sessions for the sockets of one gateway, `instance`. `is_gone`: whether nobody of that name lives."""

    def __init__(self, bus: Bus, sessions: Sessions, is_gone: Callable[[str], bool], *, instance: str) -> None:
        self._bus = bus
        self._sessions = sessions
        self._is_gone = is_gone
        self._instance = instance

    async def claim(self, query: SocketQuery, call_type: CallType) -> Session:
        """The pending call that a reading of the id names, else a new idle session. Raises UpgradeDenied."""
        for reading in query.readings:
            if is_possible(reading) and (session := await self._take(reading, call_type)) is not None:
                return session
        return await self._create(query.new_id or generated(uuid.uuid4), call_type)

    async def _take(self, call_id: str, call_type: CallType) -> Session | None:
        """The pending call of this id, now ours; None when there is no such session."""
        taken = False

        def take(session: Session) -> Session | None:
            nonlocal taken
            free = session.state is CallState.PENDING and session.gateway is None
            if free and session.call_type is not call_type:
                raise WrongPath(call_id)
            taken = free
            return session.model_copy(update={"gateway": self._instance}) if taken else None

        session = await self._sessions.change(call_id, take)
        if session is not None and not taken:
            if not self._is_abandoned(session):
                raise IdInUse(call_id)
            await self._sessions.delete(call_id)
            return None
        return session

    def _is_abandoned(self, session: Session) -> bool:
        """An idle session whose gateway is gone: nobody else would ever end it."""
        if session.owner is not None or session.gateway is None:
            return False
        return self._is_gone(session.gateway)

    async def _create(self, call_id: str, call_type: CallType) -> Session:
        if not is_possible(call_id):
            raise BadId
        session = Session(
            call_id=call_id,
            call_type=call_type,
            gateway=self._instance,
            first_sequence=await self._bus.last_sequence() + 1,
            created_at=datetime.now(UTC).isoformat(),
        )
        try:
            await self._sessions.create(session)
        except Conflict:
            raise IdInUse(call_id) from None
        return session
