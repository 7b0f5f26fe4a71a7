"""The record of a call that is over (CDR, protocol 9.4)."""

from typing import Any, ClassVar

from pydantic import Field

from dialbus.contracts.base import CallId, ClientJson, Contract
from dialbus.contracts.options import StringMap


class RecordedMedia(ClientJson):
    """One recording of the call."""

    track_id: str
    path: str
    size: int
    extra: StringMap | None = None


class HangupMessage(ClientJson):
    """A final answer or a request that ended a leg."""

    code: int
    reason: str | None = None
    target: str | None = None


class CallRecord(ClientJson):
    """What is kept of a call. Times are RFC 3339; absent values are left out; secrets are masked."""

    call_type: str
    """`sip`, `webrtc`, `webSocket`; `b2bua` for the leg of a transfer."""
    call_id: str
    """The session id."""
    caller: str
    callee: str
    start_time: str
    ring_time: str | None = None
    answer_time: str | None = None
    end_time: str
    status_code: int
    """The last SIP status: 200 after a normal call, 487 cancelled, 603 declined …"""
    hangup_reason: str | None = None
    hangup_messages: list[HangupMessage] = Field(default_factory=list)
    recorder: list[RecordedMedia] = Field(default_factory=list)
    dump_event_file: str | None = None
    extras: StringMap | None = None
    option: dict[str, Any] | None = None
    """The CallOption, its secrets masked: for reading only."""
    offer: str | None = None
    answer: str | None = None
    refer_callrecord: "CallRecord | None" = None


class WriteRecord(Contract):
    """Keep this record where `[callrecord]` says (stream RECORDS, a work queue); from the owner of the call.

    Sent once per session, after its recordings are closed; only when `[callrecord]` is configured.
    """

    SUBJECT: ClassVar[str] = "records.write"

    call_id: CallId
    record: CallRecord
