"""What is kept of a call that is over (protocol 9.4), its second leg nested in it."""

from collections.abc import Sequence
from typing import Any

from dialbus.contracts.media import RecordedFile
from dialbus.contracts.options import masked
from dialbus.contracts.records import CallRecord, RecordedMedia
from sip_ua.call.leg import CallLeg
from sip_ua.call.state import Call, Transfer


def record_of(call: Call, recordings: Sequence[RecordedFile], dump_file: str | None) -> CallRecord:
    """The record, as the call's machine knows it."""
    option = call.option.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"offer"})
    main = call.main
    return CallRecord(
        **_of_leg(main),
        call_type=call.call_type.value,
        recorder=[RecordedMedia(track_id=r.track_id, path=r.path, size=r.size_bytes) for r in recordings],
        dump_event_file=dump_file,
        extras=call.extra(),
        option=masked(option),
        offer=(call.offer.sdp if call.offer else call.option.offer or main.local_sdp) or None,
        answer=(main.local_sdp if call.inbound or call.option.offer else main.remote_sdp) or None,
        refer_callrecord=_of_transfer(call.transfer) if call.transfer is not None else None,
    )


def _of_transfer(transfer: Transfer) -> CallRecord:
    option = masked(transfer.options.to_fields())
    return CallRecord(**_of_leg(transfer.leg), call_type="b2bua", option=option)


def _of_leg(leg: CallLeg) -> dict[str, Any]:
    clock = leg.clock
    return {
        "call_id": leg.call_id,
        "caller": leg.caller or "",
        "callee": leg.callee or "",
        "start_time": clock.wall(leg.started_at),
        "ring_time": clock.wall_or_none(leg.ringing_at),
        "answer_time": clock.wall_or_none(leg.answered_at),
        "end_time": clock.wall(leg.started_at if leg.ended_at is None else leg.ended_at),
        "status_code": leg.status,
        "hangup_reason": leg.end_reason,
        "hangup_messages": leg.messages,
    }
