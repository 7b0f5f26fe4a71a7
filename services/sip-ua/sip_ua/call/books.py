"""What is written down of a call: its entry in the bucket `calls` while it lives, its record afterwards."""

from datetime import UTC, datetime

from prometheus_client import Counter

from dialbus import telemetry
from dialbus.bus import BusError
from dialbus.contracts import session
from dialbus.contracts.events import HangupEvent
from dialbus.contracts.options import masked
from dialbus.contracts.records import WriteRecord
from dialbus.contracts.session import CallState, CallType, Session
from dialbus.dumps import dump_path
from sip_ua.call.host import Host
from sip_ua.call.machine import CallMachine
from sip_ua.call.media_link import MediaLink
from sip_ua.leg import translate
from sip_ua.sip.message import Request

log = telemetry.get_logger()

CALLS = Counter("dialbus_calls_total", "Calls that ended, by direction and reason", ["direction", "reason"])


class CallBooks:
    """The books of one call. They read its machine, and never change it."""

    def __init__(self, host: Host, machine: CallMachine, media: MediaLink) -> None:
        self._host = host
        self._machine = machine
        self._media = media
        self._written: tuple[object, ...] | None = None
        """What the entry says."""

    @property
    def _call_id(self) -> str:
        return self._machine.call.call_id

    async def announce(self, invite: Request, first_sequence: int) -> None:
        """The pending session stands before the webhook is sent (G7); `first_sequence` is that of `incoming`."""
        call, config = self._machine.call, self._host.config
        assert call.offer is not None
        created_at = datetime.now(UTC)
        pending = Session(
            call_id=self._call_id,
            call_type=CallType.SIP,
            state=CallState.PENDING,
            direction="inbound",
            owner=self._host.instance,
            first_sequence=first_sequence,
            created_at=created_at.isoformat(),
            caller=call.offer.caller,
            callee=call.offer.callee,
        )
        await self._host.sessions.create(pending)
        self._written = self._facts()
        await self._host.bus.flush()
        timeout_s = min(config.ua.handler.timeout, config.ua.accept_timeout)
        log.info("call.offered", caller=call.offer.caller, callee=call.offer.callee)
        await self._host.bus.enqueue(
            session.DeliverWebhook(
                call_id=self._call_id,
                body=translate.webhook_body(invite, self._call_id, created_at),
                give_up_at_ms=int((created_at.timestamp() + timeout_s) * 1000),
            )
        )

    def _facts(self) -> tuple[object, ...]:
        """What makes the entry worth writing anew."""
        m = self._machine
        return m.state, m.ringing_time, m.answer_time, self._media.worker

    async def write_down(self) -> None:
        """Keep the entry true: state, owner, worker, parties, times, option without secrets."""
        if self._facts() == self._written:
            return
        m, option = self._machine, self._machine.call.option
        shown = masked(option.to_fields())

        def change(current: Session) -> Session:
            return current.model_copy(
                update={
                    "state": m.state,
                    "direction": "inbound" if m.call.inbound else "outbound",
                    "owner": self._host.instance,
                    "media_worker": self._media.worker,
                    "caller": option.caller,
                    "callee": option.callee,
                    "option": shown,
                    "ringing_at": m.ringing_time,
                    "answered_at": m.answer_time,
                }
            )

        self._written = self._facts()
        try:
            await self._host.sessions.change(self._call_id, change)
        except (BusError, TimeoutError) as error:  # the call matters more than its entry
            log.warning("call.not_written_down", error=str(error) or type(error).__name__)

    async def first_sequence(self) -> int:
        """Where the call's events begin in the stream, or a lower bound of it."""
        found = await self._host.sessions.get(self._call_id)
        return found.first_sequence if found else 0

    async def last_words(self, event: HangupEvent) -> None:
        """The id is free again before the client can learn that the call is over."""
        freed = await self._free_id()
        await self._host.bus.emit(self._call_id, event)
        if not freed:
            await self._free_id()
        direction = "inbound" if self._machine.call.inbound else "outbound"
        known = event.reason if event.reason.isidentifier() and len(event.reason) < 24 else "other"
        CALLS.labels(direction, known).inc()
        log.info("call.ended", reason=event.reason, initiator=event.initiator)

    async def _free_id(self) -> bool:
        try:
            await self._host.sessions.delete(self._call_id)
        except (BusError, TimeoutError) as error:
            log.warning("call.id_not_freed", error=str(error) or type(error).__name__)
            return False
        return True

    async def write_record(self) -> None:
        """One record per session, once its recordings are closed (protocol 9.4)."""
        config = self._host.config
        if config.callrecord is None:
            return
        dump = str(dump_path(config.recorder_path, self._call_id)) if self._machine.call.dump else None
        record = self._machine.record(self._media.recordings, dump)
        await self._host.bus.enqueue(WriteRecord(call_id=self._call_id, record=record))
