"""The asr service on the bus: sessions are opened while there is room, heard, and closed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

from asr.decoding import Decoding
from asr.engines import Engines
from asr.errors import AsrError, ModelNotReady
from asr.metrics import SESSIONS
from asr.session import Session
from dialbus import telemetry
from dialbus.bus import Bus, Refused, Subscription
from dialbus.contracts.audio import AudioFrame
from dialbus.contracts.base import Taken
from dialbus.contracts.speech import CloseTranscription, OpenTranscription, TranscriptionOpened
from dialbus.membership import Membership
from dialbus.tasks import TaskSet

log = telemetry.get_logger()

QUEUE = "asr"
CLOSE_WITHIN_S = 0.7
STOP_WITHIN_S = 2.0
END_LOST_S = 5.0
"""Audio arrives in real time: an utterance that pauses this long has lost its last frame."""
QUIET_S = 600.0
LOOK_AFTER_S = 30.0
"""How long a session has no audio before its call is looked up, and how often then."""
_SWEEP_S = 1.0


class AsrService:
    """Serves transcription sessions on the bus, at most `max_sessions` at a time.

    `call_exists` says whether a call is known to the exchange; sessions of calls that were and are no longer
    close themselves. As many decodes run at once as the configured engine has slots.
    """

    def __init__(
        self,
        bus: Bus,
        engines: Engines,
        call_exists: Callable[[str], Awaitable[bool]],
        *,
        max_sessions: int,
        beam: int = 1,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._bus = bus
        self._engines = engines
        self._call_exists = call_exists
        self._max_sessions = max_sessions
        self._now = now or asyncio.get_running_loop().time
        self._decoding = Decoding(bus, engines.default.engine.slots, max_sessions, beam=beam, now=self._now)
        self._sessions: dict[tuple[str, str], Session] = {}
        self._numbers = itertools.count()
        self._membership = Membership(
            QUEUE, [lambda: bus.serve(OpenTranscription, self._open, queue=QUEUE)], lambda: self._decoding.has_room
        )
        self._stopping = False
        self._tasks = TaskSet()

    # -- life -------------------------------------------------------------------------------------

    @property
    def capacity(self) -> tuple[int | None, int]:
        """Most sessions at once, sessions now."""
        return self._max_sessions, len(self._sessions)

    @property
    def queued(self) -> int:
        """Decodes that wait for a thread."""
        return self._decoding.queued

    async def start(self) -> None:
        """Join the queue group; sessions may come."""
        await self._membership.start()
        await self._bus.flush()
        self._tasks.start(self._sweep(), name="sweep")

    async def stop(self) -> None:
        """Leave the queue group, finish the finals of ended utterances within two seconds, end everything."""
        self._stopping = True
        await self._membership.leave(STOP_WITHIN_S)
        finals = TaskSet()
        for session in self._sessions.values():
            finals.start(session.settled.wait(), name=f"finals {session.id}")
        await finals.wait(STOP_WITHIN_S)
        await finals.close()
        for session in list(self._sessions.values()):
            self._forget(session, because="stopped")
        await self._tasks.close()
        await self._decoding.stop()

    # -- sessions ---------------------------------------------------------------------------------

    async def _open(self, request: OpenTranscription) -> TranscriptionOpened:
        key = (request.call_id, request.track)
        if self._stopping or not (self._decoding.has_room or key in self._sessions):
            raise Refused(503, "this asr worker has no room")
        try:
            in_use = {session.model for session in self._sessions.values()}
            model = await self._engines.get(request.model, in_use)
            language = model.engine.check_language(request.language)
        except ModelNotReady as error:
            raise Refused(503, str(error)) from None
        except AsrError as error:
            raise Refused(404, str(error)) from None
        if (old := self._sessions.get(key)) is not None:
            self._forget(old, because="replaced")
        session = Session(
            f"{request.call_id}/{request.track}/{next(self._numbers)}", *key, model.name, model.engine, language,
            telemetry.trace_headers(), self._now(),
        )  # fmt: skip
        self._decoding.open(session)
        self._sessions[key] = session
        self._room_changed()
        await self._listen(session)
        log.info("asr.opened", call_id=session.call_id, model=session.model, language=language)
        return TranscriptionOpened(worker=self._bus.instance, model=model.name)

    async def _listen(self, session: Session) -> None:
        """Hear the call's audio; when this returns the server knows that we do, and that we left if we are full."""

        async def audio(frame: AudioFrame) -> None:
            self._decoding.audio(session, frame)

        async def close(_request: CloseTranscription) -> Taken:
            return await self._close(session)

        call_id, track = session.call_id, session.track_name
        try:
            for subscription in (
                self._bus.subscribe_audio(call_id, track, audio),
                self._bus.serve(CloseTranscription, close, call_id=call_id, track=track),
            ):
                session.subscriptions.append(await subscription)
            await self._bus.flush()
        except Exception as error:
            self._forget(session, because="failed")
            raise Refused(503, f"the bus does not listen: {type(error).__name__}") from error

    async def _close(self, session: Session) -> Taken:
        """Give what was said until now its finals, in the time there is."""
        give_up_at = self._now() + CLOSE_WITHIN_S
        with suppress(TimeoutError):
            async with asyncio.timeout_at(give_up_at):
                await session.subscriptions[0].leave()  # what has arrived is still heard
                self._decoding.end(session, give_up_at)
                await session.settled.wait()
        self._forget(session, because="closed")
        log.info("asr.closed", call_id=session.call_id)
        return Taken()

    def _forget(self, session: Session, *, because: str) -> None:
        """End a session now. Harmless when it has ended."""
        if not self._decoding.close(session, because=because):
            return
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
        self._room_changed()
        # In a task of its own: a subscription that ends cancels its handler, and that may be who calls.
        self._tasks.start(_leave(session.subscriptions), name=f"leave {session.id}")

    def _room_changed(self) -> None:
        SESSIONS.set(len(self._sessions))
        self._membership.room_changed()

    # -- care -------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for session in list(self._sessions.values()):
                try:
                    await self.look_after(session)
                except Exception as error:  # the bus may be away; the next round asks again
                    log.warning("asr.sweep_failed", call_id=session.call_id, error=str(error) or type(error).__name__)

    async def look_after(self, session: Session) -> None:
        """End an utterance whose last frame is lost, and a session that nobody will close any more."""
        quiet = self._now() - session.heard_at
        if quiet >= END_LOST_S and session.track.current is not None:
            self._decoding.end(session)
        if quiet >= QUIET_S:
            self._forget(session, because="quiet")
        elif self._now() >= session.look_at and (quiet >= LOOK_AFTER_S or not session.call_seen):
            session.look_at = self._now() + LOOK_AFTER_S
            exists = await self._call_exists(session.call_id)
            if session.call_seen and not exists:
                log.info("asr.call_gone", call_id=session.call_id)
                self._forget(session, because="call gone")
            session.call_seen = session.call_seen or exists


async def _leave(subscriptions: list[Subscription]) -> None:
    for subscription in subscriptions:
        await subscription.leave()
