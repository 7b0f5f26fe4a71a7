"""The bucket `calls`: who owns which call, who holds its socket. Changed by compare-and-set only."""

from collections.abc import Callable

from dialbus.bus import Bucket, Bus, Conflict
from dialbus.contracts.session import Session

BUCKET = "calls"
_ATTEMPTS = 20


class Sessions:
    """Typed access to the bucket `calls`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> "Sessions":
        """Open the bucket, making it if absent."""
        return cls(await bus.bucket(BUCKET))

    async def get(self, call_id: str) -> Session | None:
        """The session, or None."""
        found = await self._bucket.get(call_id)
        return Session.from_bytes(found[0]) if found else None

    async def create(self, session: Session) -> None:
        """Claim an id that nobody has. Raises Conflict."""
        await self._bucket.create(session.call_id, session.to_bytes())

    async def change(self, call_id: str, change: Callable[[Session], Session | None]) -> Session | None:
        """Apply `change` to the current value, again if somebody was faster; None when there is no session.

        `change` returns None to leave the value as it is (then the unchanged session is returned).
        """
        for _ in range(_ATTEMPTS):
            found = await self._bucket.get(call_id)
            if found is None:
                return None
            session = Session.from_bytes(found[0])
            changed = change(session)
            if changed is None:
                return session
            try:
                await self._bucket.update(call_id, changed.to_bytes(), found[1])
            except Conflict:
                continue
            return changed
        raise Conflict(call_id)

    async def delete(self, call_id: str) -> None:
        """The session is over; its id may be used again."""
        await self._bucket.delete(call_id)

    async def all(self) -> list[Session]:
        """Every live session."""
        return [Session.from_bytes(value) for value in await self._bucket.values()]
