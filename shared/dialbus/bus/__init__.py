"""The bus: contracts over NATS. The only package that knows NATS.

A command is a request: its reply says *taken* or *refused, because*. An event of a call goes to the stream CALLS and
its producer waits for the stream's acknowledgement. Live audio is core NATS and never passes through JetStream.
"""

from dialbus.bus.audio import LiveAudio
from dialbus.bus.connection import SENDER, SENT_AT, Subscription
from dialbus.bus.errors import BusError, Conflict, Later, NoReply, NoResponder, Refused
from dialbus.bus.events import Events, StreamedEvent
from dialbus.bus.kv import Bucket, Buckets
from dialbus.bus.requests import REFUSED, Requests
from dialbus.bus.streams import CALLS_STREAM, RECORDS_STREAM, TRACE_STREAM
from dialbus.bus.work import WorkQueues

__all__ = [
    "CALLS_STREAM",
    "RECORDS_STREAM",
    "REFUSED",
    "SENDER",
    "SENT_AT",
    "TRACE_STREAM",
    "Bucket",
    "Bus",
    "BusError",
    "Conflict",
    "Later",
    "NoReply",
    "NoResponder",
    "Refused",
    "StreamedEvent",
    "Subscription",
]


class Bus(Requests, LiveAudio, Events, WorkQueues, Buckets):
    """One service instance's connection, with all that goes over it."""
